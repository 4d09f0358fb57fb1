use rustix::net::{Shutdown, shutdown};

use super::*;

/// A message of this many bytes.
fn of(length: usize) -> Vec<u8> {
    (0..length).map(|index| index as u8).collect()
}

fn received(end: &SupervisorEnd) -> Received<Vec<u8>> {
    end.receive(<[u8]>::to_vec).unwrap()
}

/// Ends what the other end gets. Closing it is not enough: a process that another test makes at this moment may hold a copy.
fn close(end: ProcessEnd) {
    shutdown(end.socket(), Shutdown::Both).unwrap();
}

#[test]
fn messages_of_every_size_arrive_in_turn_and_then_the_end() {
    for length in [1, 4095, 4096, 4097, 8192, MOST] {
        let (ours, theirs) = pair().unwrap();
        assert!(!ours.is_readable());
        theirs.send(&of(length)).unwrap();
        theirs.send(b"second").unwrap();
        close(theirs);
        assert!(ours.is_readable());
        assert_eq!(received(&ours), Received::Message(of(length)), "{length}");
        assert!(ours.is_readable());
        assert_eq!(received(&ours), Received::Message(b"second".into()));
        assert_eq!(received(&ours), Received::End);
    }
}

#[test]
fn copies_of_an_end_go_on_where_the_other_stopped() {
    let (ours, theirs) = pair().unwrap();
    theirs.send(b"first").unwrap();
    let copy = ProcessEnd::from_fds(theirs.fds().map(|fd| fd.try_clone_to_owned().unwrap()));
    drop(theirs);
    assert_eq!(received(&ours), Received::Message(b"first".into()));
    assert_eq!(received(&ours), Received::Nothing);
    copy.send(b"second").unwrap();
    assert_eq!(received(&ours), Received::Message(b"second".into()));
}

#[test]
fn nobody_sends_without_end() {
    let (ours, theirs) = pair().unwrap();
    let mut sent = 0;
    while theirs.send(&of(MOST)).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 2);
    assert_eq!(received(&ours), Received::Message(of(MOST)));
    assert_eq!(received(&ours), Received::Message(of(MOST)));
    assert_eq!(received(&ours), Received::Nothing);
}

#[test]
fn what_is_announced_and_not_there_is_an_error() {
    let announce = |end: &ProcessEnd, count: u64| write(&end.0.counter, &count.to_ne_bytes()).unwrap();
    let (ours, theirs) = pair().unwrap();
    announce(&theirs, 1);
    assert!(ours.receive(<[u8]>::to_vec).is_err());

    // A length beyond what a message may have, and beyond the memory, up to its last bytes.
    for length in [MOST as u32 + 1, u32::MAX] {
        let (ours, theirs) = pair().unwrap();
        theirs.write(NUMBER, &length.to_ne_bytes()).unwrap();
        announce(&theirs, u64::MAX - 1);
        assert!(ours.receive(<[u8]>::to_vec).is_err(), "{length}");
    }
    let (ours, theirs) = pair().unwrap();
    for offset in (NUMBER..SIZE.get() - NUMBER).step_by(NUMBER) {
        theirs.write(offset, &(NUMBER as u32).to_ne_bytes()).unwrap();
    }
    announce(&theirs, u64::MAX - 1);
    let messages = (0..SIZE.get()).take_while(|_| ours.receive(<[u8]>::to_vec).is_ok()).count();
    assert_eq!(messages, SIZE.get() / (2 * NUMBER) - 1);
}

#[test]
fn a_counter_that_somebody_else_has_read_and_made_to_wait_is_nothing_now() {
    let (ours, theirs) = pair().unwrap();
    theirs.send(b"stolen").unwrap();
    rustix::fs::fcntl_setfl(&theirs.0.counter, rustix::fs::OFlags::empty()).unwrap();
    rustix::io::read(&theirs.0.counter, &mut [0; 8]).unwrap();
    assert_eq!(received(&ours), Received::Nothing);
    close(theirs);
    assert_eq!(received(&ours), Received::End);
}

#[test]
fn what_the_socket_is_sent_never_arrives_and_is_not_waited_for() {
    let (ours, theirs) = pair().unwrap();
    nsrs_base::sys::message::send(theirs.socket(), b"bytes", &[theirs.socket().as_fd()]).unwrap();
    assert_eq!(received(&ours), Received::Nothing);
    while ours.send(b"Start").is_ok() {}
    close(theirs);
    assert_eq!(received(&ours), Received::End);
}
