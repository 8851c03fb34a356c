//! What the reply to a write does, and its loss.

use super::*;
use crate::command::{KeyUse, Tells};
use crate::upstream::{ConnectError, Loss};

fn write(change: impl FnOnce(&mut Write)) -> (Pending, Rc<ReplyQueue>) {
    let queue = Rc::new(ReplyQueue::new(1000));
    let mut write = Write::new(Some(slot(&queue)));
    change(&mut write);
    (Pending::Write(Box::new(write)), queue)
}

#[test]
fn a_barrier_is_raised_unless_the_reply_says_that_nothing_was_done() {
    use Barrier::{Anything, Keys};
    for (barrier, reply, raised) in [
        (Keys, "+OK\r\n", true),
        (Keys, "-ERR in a script behind its writes\r\n", true),
        (Keys, "-ERR unknown command 'x'\r\n", true),
        (Keys, "+QUEUED\r\n", false),
        (Anything, "+OK\r\n", true),
        (Anything, "-ERR in a script behind its writes\r\n", true),
        (Anything, "-ERR Unknown command 'x'\r\n", false),
        (Anything, "+QUEUED\r\n", false),
    ] {
        let (link, _above) = a_link();
        let (pending, queue) = write(|write| write.barrier = Some(barrier));
        assert!(answer(&link, pending, reply.as_bytes()).is_none());
        let cache = &link.process.cache;
        assert_eq!(cache.barrier() > 0, raised, "{barrier:?} {reply}");
        assert_eq!(cache.barrier_to_look_behind() > 0, raised && barrier == Anything, "{barrier:?} {reply}");
        assert_eq!(queue.said(), reply);
    }
}

#[test]
fn a_pop_drops_its_keys_unless_its_reply_says_that_it_popped_nothing() {
    for (reply, popped) in [
        ("*2\r\n$1\r\na\r\n$1\r\nx\r\n", true),
        ("$1\r\nx\r\n", true),
        ("*-1\r\n", false),
        ("_\r\n", false),
        ("$-1\r\n", false),
        ("-UNBLOCKED\r\n", false),
    ] {
        let (link, _above) = a_link();
        let coverage = link.process.cache.coverages().take().unwrap();
        keep(&link, &coverage, b"a");
        let (pending, queue) = write(|write| write.popped = vec![b"a"[..].into()]);
        assert!(answer(&link, pending, reply.as_bytes()).is_none());
        assert_eq!(is_kept(&link.process, b"a"), !popped, "{reply}");
        assert_eq!(queue.said(), reply);
    }
}

#[test]
fn a_write_that_cannot_fail_by_its_arguments_makes_the_link_careful_until_one_does_not() {
    let (link, above) = a_link();
    let saying = |tells, place| {
        let keys = vec![(b"a"[..].into(), KeyUse::Update)];
        announcement::Saying { tells, keys, place }
    };
    let there = |reply: &[u8], tells, place| {
        let (pending, _queue) = write(|write| write.sayings = vec![saying(tells, place)]);
        answer(&link, pending, reply);
    };
    there(b"-WRONGTYPE\r\n", Tells::There, None);
    assert!(link.careful.get() && above.called().is_empty());
    there(b"+OK\r\n", Tells::ThereIf, None);
    assert!(link.careful.get(), "that might have failed");
    above.called();
    there(b"+OK\r\n", Tells::There, None);
    assert!(!link.careful.get());
    assert_eq!(above.called(), [Called::Announced(vec![(b"a"[..].into(), Say::Update)])]);
    for (tells, place) in [(Tells::ThereIf, None), (Tells::There, Some(0))] {
        there(b"-WRONGTYPE\r\n", tells, place);
        assert!(!link.careful.get());
    }
    // One that was announced at once is corrected.
    let (pending, _queue) = write(|write| {
        write.say = Say::Update;
        write.announced = 1;
        write.echoed = vec![b"b"[..].into()];
    });
    let pending = answer(&link, pending, b"-OOM\r\n").unwrap();
    assert!(link.careful.get());
    assert_eq!(link.process.metrics.announcements_corrected.get(), 1);
    assert_eq!(above.called(), [Called::Announced(vec![(b"b"[..].into(), Say::Look)])]);
    assert!(answer(&link, pending, b":0\r\n").is_none() && above.called().is_empty());
    assert_eq!(link.process.metrics.announcements_failed.get(), 0);
}

#[test]
fn an_announcement_that_is_refused_is_counted_and_its_key_dropped() {
    let (link, above) = a_link();
    let coverage = link.process.cache.coverages().take().unwrap();
    [&b"a"[..], b"b"].iter().for_each(|key| keep(&link, &coverage, key));
    let (pending, _queue) = write(|write| {
        write.say = Say::Update;
        write.announced = 2;
        write.echoed = vec![b"a"[..].into(), b"b"[..].into()];
    });
    let pending = answer(&link, pending, b"+OK\r\n").unwrap();
    assert!(above.called().is_empty() && link.process.metrics.announcements_corrected.get() == 0);
    let pending = answer(&link, pending, b":0\r\n").unwrap();
    assert_eq!(link.process.metrics.announcements_failed.get(), 0);
    assert!(answer(&link, pending, b"-NOPERM\r\n").is_none());
    assert_eq!(link.process.metrics.announcements_failed.get(), 1);
    assert!(is_kept(&link.process, b"a") && !is_kept(&link.process, b"b"));
}

#[test]
fn a_write_that_is_lost_owes_what_was_not_said_if_it_was_sent() {
    for sent in [true, false] {
        let (link, above) = a_link();
        let coverage = link.process.cache.coverages().take().unwrap();
        keep(&link, &coverage, b"popped");
        let (pending, queue) = write(|write| {
            write.popped = vec![b"popped"[..].into()];
            write.barrier = Some(Barrier::Keys);
            write.announced = 1;
            write.echoed = vec![b"said"[..].into(), b"unsaid"[..].into()];
            let keys = vec![(b"open"[..].into(), KeyUse::Update)];
            write.sayings = vec![announcement::Saying { tells: Tells::There, keys, place: None }];
            write.said = vec![(b"decided"[..].into(), Say::Update)];
        });
        let loss = Loss { sent, cause: ConnectError::Io("gone".into()) };
        link.lost(InFlight { since: 1, pending }, &loss);
        assert!(queue.said().starts_with("-ERR nearside: upstream"));
        assert!(link.process.cache.barrier_to_look_behind() > 0 && !is_kept(&link.process, b"popped"));
        let owed = ["unsaid", "open", "decided"].map(|key| key.as_bytes().into()).to_vec();
        let owed = if sent { vec![Called::Owed(owed)] } else { vec![] };
        assert_eq!(above.called(), owed);
    }
    // Nothing is owed where nothing was to be said.
    let (link, above) = a_link();
    let (pending, _queue) = write(|_| ());
    link.lost(InFlight { since: 1, pending }, &Loss { sent: true, cause: ConnectError::Io("gone".into()) });
    assert!(above.called().is_empty());
}

#[tokio::test]
async fn what_could_not_be_sent_is_no_echo_that_is_awaited() {
    tokio::task::LocalSet::new().run_until(no_echo_is_awaited()).await;
}

async fn no_echo_is_awaited() {
    let said = |keys: &[&[u8]]| {
        let keys = keys.iter().map(|key| ((*key).into(), Say::Update)).collect();
        Pending::Said(Box::new(Said { keys, db: 0 }))
    };
    let (pending, queue) = write(|write| write.echoed = vec![b"a"[..].into()]);
    for (pending, told) in [(pending, true), (said(&[b"a"]), false)] {
        let (handler, _above) = a_link();
        let process = handler.process.clone();
        let coverage = process.cache.coverages().take().unwrap();
        keep(&handler, &coverage, b"a");
        let identity = crate::upstream::Identity {
            who: crate::upstream::Who::Own(Default::default()),
            db: 0,
            protocol: Protocol::Resp2,
        };
        let link = Link::new(handler, identity, Rc::new(fixture::nowhere()));
        assert!(std::future::poll_fn(|cx| link.poll_ready(cx)).await.is_err());
        // It is too early to try again.
        while send(&link, process.now(), |_| (), Pending::Ping) {
            std::future::poll_fn(|cx| link.poll_ready(cx)).await.unwrap_err();
        }
        assert!(is_kept(&process, b"a"));
        assert!(!send(&link, process.now(), |_| (), pending));
        assert!(!is_kept(&process, b"a"));
        assert_eq!(queue.said().starts_with("-ERR nearside: upstream"), told);
    }
}

#[test]
fn a_session_with_a_connection_of_its_own_is_woken_when_all_of_a_write_is_answered() {
    let (link, _above) = a_link();
    let client = link.process.clients.enter(Default::default(), Arc::default(), 1);
    let woken = Woken::new();
    link.own(Owner { queue: woken.queue.clone(), client });
    let (pending, _queue) = write(|write| {
        write.announced = 2;
        write.echoed = vec![b"a"[..].into(), b"b"[..].into()];
    });
    let pending = answer(&link, pending, b"+OK\r\n").unwrap();
    assert!(!woken.was());
    let pending = answer(&link, pending, b":0\r\n").unwrap();
    assert!(!woken.was(), "one is to come");
    assert!(answer(&link, pending, b":0\r\n").is_none() && woken.was());
}

#[test]
fn a_write_whose_reply_nobody_wants_may_have_done_anything() {
    let (link, _above) = a_link();
    let pending = Pending::Write(Box::new(Write::unwanted()));
    assert!(answer(&link, pending, b"+OK\r\n").is_none());
    assert!(link.process.cache.barrier_to_look_behind() > 0);
}

/// There may be no transaction in which it could be queued.
#[test]
fn what_was_to_be_queued_and_is_carried_out_leaves_what_it_does() {
    for (reply, done) in [(&b"+QUEUED\r\n"[..], false), (b"+OK\r\n", true)] {
        let (link, _above) = a_link();
        let (queue, state) = (Rc::new(ReplyQueue::new(1000)), Rc::new(State::default()));
        let leaves = Leaves::one(&state, Effect::Set(READONLY));
        let queued = Write::queued(slot(&queue), Some(Barrier::Keys), Some(leaves));
        assert!(answer(&link, Pending::Write(Box::new(queued)), reply).is_none());
        assert_eq!((link.process.cache.barrier() > 0, state.is_clean()), (done, !done));
    }
}
