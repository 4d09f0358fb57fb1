use std::fs::File;
use std::process::Command as Program;

use nsrs_base::sys::wait::Usage;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use nsrs_base::host::Host;
use nsrs_base::host::tree::HostTree;

use super::*;
use crate::plan::resolve;
use crate::spec::Spec;

fn plan() -> Plan {
    let spec = Spec { args: vec!["true".into()], ..Spec::default() };
    resolve(&spec, &Host::root(), &HostTree::default(), None).0
}

/// A real process, which has ended.
fn child() -> Child {
    let mut started = Program::new("sleep").arg("60").spawn().unwrap();
    let pid = Pid::from_child(&started);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    started.kill().unwrap();
    started.wait().unwrap();
    Child::new(pid, pidfd)
}

/// One whose other end has nothing to say. It is shut down, not closed only: a process that another test makes at this moment
/// may hold a copy.
fn channel() -> Channel {
    let (ours, theirs) = Channel::pair().unwrap();
    theirs.shut_down().unwrap();
    ours
}

fn command() -> Box<Command> {
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    Box::new(Command { plan: Rc::new(plan()), stdio: [null(), null(), null()], fds: Vec::new() })
}

fn error(why: &str) -> Error {
    Error::new(Code::SetupFailed, "try", why)
}

fn requested(then: Then) -> Phase {
    Phase::Requested { then }
}

fn staging(then: Then) -> Phase {
    Phase::Staging { child: child(), channel: channel().into(), then }
}

fn preparing(then: Then) -> Phase {
    Phase::Preparing { child: child(), channel: channel().into(), then, init: InitRole::Plain }
}

fn standing(is_intermediate: bool) -> Phase {
    Phase::Standing { child: child(), channel: channel().into(), is_intermediate }
}

fn running() -> Phase {
    let mut phase = preparing(Then::Run);
    phase.executed(true).unwrap();
    phase
}

fn ended() -> Phase {
    Phase::Ended(Outcome::Unasked)
}

/// One of each state.
fn all() -> Vec<Phase> {
    let mut ending = running();
    ending.end(Cause::Wanted);
    vec![requested(Then::Stand), staging(Then::Run), preparing(Then::Run), standing(false), running(), ending, ended()]
}

fn exit(status: Status, timed_out: bool) -> Exit {
    Exit { status, usage: Usage::default(), timed_out, duration_us: 1 }
}

fn outcome(mut phase: Phase, status: Status) -> Outcome {
    phase.reaped(status, exit).expect("it had a process");
    match phase {
        Phase::Ended(outcome) => outcome,
        other => panic!("{}", other.name()),
    }
}

/// In which states an event is refused, and that the state is still the same then.
fn refused(act: impl Fn(&mut Phase) -> Result<(), Error>) -> Vec<&'static str> {
    let mut names = Vec::new();
    for mut phase in all() {
        let name = phase.name();
        if let Err(error) = act(&mut phase) {
            assert_eq!(phase.name(), name);
            assert!(error.to_string().contains(name), "{error}");
            names.push(name);
        }
    }
    names
}

#[test]
fn an_event_in_a_state_that_cannot_have_it_is_an_error_that_names_both() {
    assert_eq!(
        refused(|phase| phase.intermediate_made(child(), channel()).map(drop)),
        ["staging", "preparing", "standing", "running", "ending", "ended"],
        "only a process that was asked of the entrance is made"
    );
    assert_eq!(
        refused(|phase| phase.ready(None).map(drop)),
        ["requested", "staging", "preparing", "standing", "running", "ended"],
        "what knows its command does not wait for one"
    );
    assert_eq!(refused(Phase::commanded), ["requested", "staging", "preparing", "running", "ending", "ended"]);
    assert_eq!(
        refused(|phase| phase.process_made(child()).map(drop)),
        ["requested", "preparing", "standing", "running", "ending", "ended"],
        "nobody is taken for a container's process twice"
    );
    assert_eq!(refused(Phase::in_charge), ["requested", "staging", "standing", "running", "ended"]);
    assert_eq!(
        refused(|phase| phase.renew_channel(channel()).map(drop)),
        ["requested", "staging", "standing", "running", "ending", "ended"],
        "only an init that is about to be executed has a channel of its own"
    );
    assert_eq!(
        refused(|phase| phase.executed(false)),
        ["requested", "staging", "standing", "running", "ending", "ended"]
    );
    assert_eq!(
        refused(|phase| phase.command_ended(Status::Exited(0))),
        ["requested", "staging", "preparing", "standing", "ended"]
    );
}

#[test]
fn a_command_is_run_in_one_go_where_nothing_is_staged() {
    let mut phase = preparing(Then::Run);
    assert!(phase.own_child().is_some() && !phase.is_running());
    phase.executed(false).unwrap();
    assert!(phase.is_running() && phase.channel().is_none());
    assert!(matches!(outcome(phase, Status::Exited(3)), Outcome::Exited(exit) if exit.status == Status::Exited(3)));
}

#[test]
fn an_intermediate_process_makes_the_process_and_is_still_to_be_reaped() {
    let mut phase = staging(Then::Run);
    assert!(phase.child().is_some() && phase.own_child().is_none());
    let (next, intermediate) = phase.process_made(child()).unwrap();
    assert!(matches!(next, Next::SetUp) && intermediate.is_some());
    assert_eq!(phase.name(), "preparing");
}

#[test]
fn what_is_prepared_ahead_stands_until_its_command_comes() {
    for (mut phase, then) in [(preparing(Then::Stand), "preparing"), (staging(Then::Stand), "staging")] {
        assert!(matches!(phase.ready(None).unwrap(), Next::Stands));
        let Ok(Next::Command(_)) = phase.take_command(command()) else { panic!("it takes the command at once") };
        phase.commanded().unwrap();
        assert_eq!(phase.name(), then);
    }
}

#[test]
fn a_command_that_comes_early_is_handed_over_when_it_stands() {
    for mut phase in [requested(Then::Stand), staging(Then::Stand), preparing(Then::Stand)] {
        assert!(matches!(phase.take_command(command()), Ok(Next::Wait)));
        assert!(phase.is_awaited());
        assert!(phase.take_command(command()).is_err(), "it has one already");
        if phase.name() == "requested" {
            phase.intermediate_made(child(), channel()).unwrap();
        }
        let Next::Command(command) = phase.ready(None).unwrap() else { panic!("it stands") };
        assert_eq!(phase.name(), "standing");
        phase.refuse(command);
        assert!(matches!(outcome(phase, Status::Signaled(9)), Outcome::Unfit(_, None)));
    }
}

#[test]
fn a_command_whose_process_came_to_nothing_comes_back_unless_somebody_ended_it() {
    let awaited = || preparing(Then::Take(command()));
    assert!(matches!(outcome(awaited(), Status::Signaled(9)), Outcome::Unfit(_, None)));
    let mut failed = awaited();
    failed.end(Cause::Failed(error("no overlay")));
    assert!(matches!(outcome(failed, Status::Exited(125)), Outcome::Unfit(_, Some(_))));
    for cause in [Cause::Wanted, Cause::TimeLimit] {
        let mut ended = awaited();
        ended.end(cause);
        assert!(matches!(outcome(ended, Status::Signaled(9)), Outcome::Exited(_)));
    }
}

#[test]
fn the_first_failure_is_the_one_that_is_told() {
    let mut phase = preparing(Then::Run);
    phase.end(Cause::Failed(error("first")));
    phase.end(Cause::Failed(error("second")));
    phase.end(Cause::Wanted);
    match outcome(phase, Status::Exited(125)) {
        Outcome::Failed(error) => assert_eq!(error.reason, "first"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failure_counts_where_it_was_only_wanted_gone_and_a_time_limit_shows() {
    let mut phase = running();
    phase.end(Cause::Wanted);
    phase.end(Cause::TimeLimit);
    assert!(matches!(outcome(phase, Status::Signaled(9)), Outcome::Exited(exit) if exit.timed_out));
}

#[test]
fn what_an_init_saw_counts_before_its_own_end() {
    let mut phase = running();
    phase.command_ended(Status::Signaled(15)).unwrap();
    let Outcome::Exited(exit) = outcome(phase, Status::Exited(143)) else { panic!("its command ran") };
    assert_eq!(exit.status, Status::Signaled(15));
}

#[test]
fn one_that_is_made_in_the_moment_it_is_ended_is_to_be_ended_too() {
    let mut phase = staging(Then::Run);
    phase.end(Cause::Wanted);
    let (next, intermediate) = phase.process_made(child()).unwrap();
    assert!(matches!(next, Next::End) && intermediate.is_some() && phase.child().is_some());
    let mut phase = requested(Then::Stand);
    phase.end(Cause::Wanted);
    assert!(phase.child().is_none() && phase.reaped(Status::Exited(0), exit).is_none());
    assert!(matches!(phase.intermediate_made(child(), channel()).unwrap(), Next::End));
}

#[test]
fn an_intermediate_process_that_ends_without_a_word_is_a_failure_and_one_that_was_killed_an_end() {
    assert!(matches!(outcome(staging(Then::Run), Status::Exited(0)), Outcome::Failed(_)));
    assert!(matches!(outcome(staging(Then::Run), Status::Signaled(9)), Outcome::Exited(_)));
    assert!(matches!(outcome(staging(Then::Stand), Status::Signaled(9)), Outcome::Unasked));
    assert!(matches!(outcome(standing(true), Status::Signaled(9)), Outcome::Unasked));
}

#[test]
fn what_the_entrance_could_not_make_says_why() {
    let mut phase = requested(Then::Take(command()));
    phase.make_failed(error("no processes are left"));
    assert!(matches!(phase, Phase::Ended(Outcome::Unfit(_, Some(_)))));
    let mut phase = requested(Then::Stand);
    phase.make_failed(error("no processes are left"));
    assert!(matches!(phase, Phase::Ended(Outcome::Failed(_))));
}

#[test]
fn the_channel_of_an_intermediate_process_is_followed_by_that_of_its_process() {
    let standing = || {
        let mut phase = staging(Then::Stand);
        let (successor, other_end) = Channel::mailbox().unwrap();
        assert!(matches!(phase.ready(Some(successor)).unwrap(), Next::Stands));
        (phase, other_end)
    };
    let mut commanded = standing();
    commanded.0.commanded().unwrap();
    let mut ending = standing();
    ending.0.end(Cause::Wanted);
    for (mut phase, other_end) in [standing(), commanded, ending] {
        let name = phase.name();
        assert!(phase.succeed_channel().is_some_and(|old| old.is_readable()), "{name}");
        assert!(phase.channel().is_some_and(|channel| !channel.is_readable()) && phase.name() == name);
        other_end.shut_down().unwrap();
        assert!(phase.channel().is_some_and(Channel::is_readable), "{name}");
        assert!(phase.succeed_channel().is_none(), "it is followed once");
    }
    assert!(preparing(Then::Run).succeed_channel().is_none());
}

#[test]
fn one_whose_channel_closes_early_is_only_waited_for_and_its_command_served_by_another() {
    for mut phase in [staging(Then::Take(command())), preparing(Then::Take(command()))] {
        assert!(!phase.runs_at_end_of_channel());
        phase.close_channel();
        assert!(phase.channel().is_none());
        assert!(matches!(outcome(phase, Status::Signaled(9)), Outcome::Unfit(_, None)));
    }
    for mut phase in [staging(Then::Run), standing(true), standing(false), running()] {
        phase.close_channel();
        assert!(phase.channel().is_none() && phase.child().is_some());
    }
    assert!(preparing(Then::Run).runs_at_end_of_channel());
}
