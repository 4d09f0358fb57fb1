//! What the supervisor tells, as JavaScript sees it.

use std::fs::File;
use std::os::fd::{IntoRawFd, OwnedFd};

use napi_derive::napi;
use nsrs_base::error::{Act, Code, Error};
use nsrs_base::options::{Front, in_words_of};
use nsrs_base::sys::wait::Status;
use nsrs_core::doctor::{self, Verdict};
use nsrs_core::supervise::protocol::{Event, Exit, Report};

/// One failure: what failed, on what, why, and what to do next.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct ErrorRecord {
    /// `ERR_NSRS_…`.
    pub code: String,
    /// The act that failed: `resolve`, `mounts`, `user`, `exec`, … Unlike the words of `step` it stays what it is.
    pub id: Option<String>,
    /// The whole failure in one line.
    pub message: String,
    /// What was being done.
    pub step: String,
    /// What it was done to.
    pub subject: Option<String>,
    /// The option that is to blame, by its name here: `user`, `capAdd`.
    pub option: Option<String>,
    /// The kernel's error number.
    pub errno: Option<i32>,
    /// Why, in words, where it was not (only) the kernel who refused.
    pub reason: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Names that may have been meant instead, the most likely first.
    pub suggestions: Option<Vec<String>>,
    /// The CLI's exit code for it.
    pub exit_code: i32,
    /// The same for a user of the command line, where it names options: `--cap-add` for `capAdd`.
    pub shell: Option<ShellWords>,
}

/// A failure in the words of the command line.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct ShellWords {
    /// The whole failure in one line.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

fn not_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<Error> for ErrorRecord {
    fn from(error: Error) -> ErrorRecord {
        let shell = error.clone().in_words_of(Front::Shell);
        let error = error.in_words_of(Front::JavaScript);
        let differs = shell != error;
        let message = error.to_string();
        let Error { code, id, step, subject, option, errno, reason, hint, suggestions } = error;
        ErrorRecord {
            code: code.name().into(),
            id: id.map(|act| act.name().into()),
            message,
            step,
            subject: not_empty(subject),
            option: option.map(|option| option.property().into()),
            errno,
            reason: not_empty(reason),
            hint: not_empty(hint),
            suggestions: (!suggestions.is_empty()).then_some(suggestions),
            exit_code: code.exit_code().into(),
            shell: differs.then(|| ShellWords { message: shell.to_string(), hint: not_empty(shell.hint) }),
        }
    }
}

/// What a running container was given.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct ContainerReport {
    /// Process id of its first process, as the host sees it.
    pub pid: i32,
    /// `none`, `host`, `bridge`, `pasta` or `joined`.
    #[napi(ts_type = "'none' | 'host' | 'bridge' | 'pasta' | 'joined'")]
    pub network: String,
    /// Its addresses on the bridge.
    pub addresses: Vec<String>,
    /// Its published ports, `HOST:PORT -> PORT/PROTOCOL`.
    pub ports: Vec<String>,
    /// What was switched on for it on the host.
    pub notes: Vec<String>,
}

impl From<Report> for ContainerReport {
    fn from(Report { pid, network, addresses, ports, notes, fallbacks }: Report) -> ContainerReport {
        let notes = [fallbacks, notes].concat();
        ContainerReport { pid, network, addresses, ports, notes }
    }
}

/// What a command and the processes it waited for used.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct ResourceUsage {
    /// Milliseconds of processor time in the program.
    pub user_ms: f64,
    /// Milliseconds of processor time in the kernel.
    pub system_ms: f64,
    /// Most memory that one process held, in bytes.
    pub max_rss: f64,
}

/// How a container ended.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct ExitReport {
    /// The command's exit code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// Its time limit ended it.
    pub timed_out: bool,
    /// Milliseconds from the request to the end.
    pub duration_ms: f64,
    /// What it used.
    pub usage: ResourceUsage,
}

impl From<Exit> for ExitReport {
    fn from(Exit { status, usage, timed_out, duration_us }: Exit) -> ExitReport {
        let (exit_code, signal) = match status {
            Status::Exited(code) => (Some(code), None),
            Status::Signaled(signal) => (None, Some(signal)),
        };
        let ms = |us: u64| us as f64 / 1000.0;
        ExitReport {
            exit_code,
            signal,
            timed_out,
            duration_ms: ms(duration_us),
            usage: ResourceUsage {
                user_ms: ms(usage.user_us),
                system_ms: ms(usage.system_us),
                max_rss: usage.max_rss as f64,
            },
        }
    }
}

/// One verdict about the host.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct HostFinding {
    /// What was tried.
    pub name: String,
    /// How it went; a `failure` means that containers can't run.
    #[napi(ts_type = "'ok' | 'warning' | 'failure'")]
    pub verdict: String,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
    /// The same for a user of the command line, where it names options: `--network` for `network`.
    pub shell: Option<ShellFinding>,
}

/// A verdict about the host in the words of the command line.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct ShellFinding {
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl From<doctor::Finding> for HostFinding {
    fn from(doctor::Finding { name, verdict, detail, fix }: doctor::Finding) -> HostFinding {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failure => "failure",
        };
        let told = |front| [&detail, &fix].map(|text| in_words_of(front, text).into_owned());
        let shell = told(Front::Shell);
        let own = told(Front::JavaScript);
        let differs = shell != own;
        let [shell_detail, shell_fix] = shell;
        let [detail, fix] = own;
        HostFinding {
            name,
            verdict: verdict.into(),
            detail,
            fix: not_empty(fix),
            shell: differs.then(|| ShellFinding { detail: shell_detail, fix: not_empty(shell_fix) }),
        }
    }
}

/// Something happened to a container, or a question was answered.
#[napi(object)]
#[derive(Debug, Default)]
pub struct NativeEvent {
    /// The number that the request was given.
    pub id: f64,
    /// The command runs, or, beside `exited`, has run.
    pub started: Option<ContainerReport>,
    /// Descriptor of the container's terminal, the receiver's to close.
    pub terminal: Option<i32>,
    /// The command has ended, and nothing of the container is left.
    pub exited: Option<ExitReport>,
    /// Beside `exited`: the list of changes, as JSON.
    pub changes: Option<String>,
    /// There is no container, and nothing of it is left.
    pub failed: Option<Vec<ErrorRecord>>,
    /// The answer to an `examine`.
    pub examined: Option<Vec<HostFinding>>,
}

/// An event on its way to the JavaScript thread; its descriptor is closed if it never gets there.
#[derive(Debug)]
pub struct Delivery {
    /// What happened.
    pub event: Event,
    /// The descriptor that came with it.
    pub fd: Option<OwnedFd>,
}

impl Delivery {
    /// Whose event it is; none is everybody's.
    pub fn id(&self) -> Option<u64> {
        match &self.event {
            Event::Hello { .. } => None,
            Event::Started { address, .. }
            | Event::Terminal { address }
            | Event::Exited { address, .. }
            | Event::Failed { address, .. } => Some(address.process),
            Event::Examined { id, .. } => Some(*id),
        }
    }

    /// After this one there are no more of its number.
    pub fn is_last(&self) -> bool {
        !matches!(&self.event, Event::Hello { .. } | Event::Started { .. } | Event::Terminal { .. })
    }
}

impl From<Delivery> for NativeEvent {
    fn from(delivery: Delivery) -> NativeEvent {
        let id = delivery.id().unwrap_or(0) as f64;
        let event = NativeEvent { id, ..NativeEvent::default() };
        match delivery.event {
            Event::Hello { .. } => event,
            Event::Started { report, .. } => NativeEvent { started: Some(report.into()), ..event },
            Event::Terminal { .. } => NativeEvent { terminal: delivery.fd.map(IntoRawFd::into_raw_fd), ..event },
            Event::Exited { exit, report, .. } => {
                match delivery.fd.map(|list| std::io::read_to_string(File::from(list))).transpose() {
                    Ok(changes) => {
                        NativeEvent { exited: Some(exit.into()), started: report.map(Into::into), changes, ..event }
                    }
                    // A result without its list would look like one without changes.
                    Err(error) => {
                        let error = Error::new(Code::SetupFailed, "read the list of changes", error.to_string())
                            .during(Act::Changes);
                        NativeEvent { failed: Some(vec![error.into()]), ..event }
                    }
                }
            }
            Event::Failed { errors, .. } => {
                NativeEvent { failed: Some(errors.into_iter().map(Into::into).collect()), ..event }
            }
            Event::Examined { findings, .. } => {
                NativeEvent { examined: Some(findings.into_iter().map(Into::into).collect()), ..event }
            }
        }
    }
}
