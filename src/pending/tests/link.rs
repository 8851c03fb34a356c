//! What is known of a link, and what it tells of itself.

use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::cache::NO_LINK;
use crate::upstream::{ConnectError, Loss, Pace};

fn lost(cause: ConnectError) -> Loss {
    Loss { sent: true, cause }
}

#[test]
fn a_link_is_dark_when_the_server_has_said_so_twice_in_a_row_and_nothing_came_in_between() {
    let (link, _above) = a_link();
    link.heard.set(9);
    assert!(!link.is_doubted(Standing::Unheard, 10), "once");
    assert!(link.is_doubted(Standing::Unheard, 20), "twice");
    link.heard.set(20);
    assert!(!link.is_doubted(Standing::Unheard, 30), "it was heard when that was first said");
    link.heard.set(70);
    assert!(!link.is_doubted(Standing::Unheard, 60), "it was heard since");
    assert!(
        !link.is_doubted(Standing::Kept, 80) && !link.is_doubted(Standing::Unheard, 90),
        "it was kept between"
    );
    assert!(link.is_doubted(Standing::Unheard, 100));
    assert!(!link.is_doubted(Standing::Kept, 110));
}

#[test]
fn a_silent_link_serves_nothing_lets_go_who_waits_and_tells_when_it_answers() {
    let (link, above) = a_link();
    let process = link.process.clone();
    let coverages = process.cache.coverages();
    coverages.arm(link.coverage.borrow().as_ref().unwrap(), None, 1).unwrap();
    keep(&link, link.coverage.borrow().as_ref().unwrap(), b"k");
    let waiting = lease(&link, link.coverage.borrow().as_ref().unwrap(), b"other");
    assert!(is_kept(&process, b"k") && waiting.stands() && !link.is_silent());
    link.mark_unresponsive();
    assert!(!is_kept(&process, b"k") && !waiting.stands() && link.is_silent());
    assert!(link.tracked().is_none());
    link.answered();
    assert_eq!(above.called(), [Called::Link(LinkEvent::Changed), Called::Link(LinkEvent::Up)]);
    link.answered();
    assert_eq!(above.called(), [Called::Link(LinkEvent::Changed)], "that was told");
    // Behind a barrier its answer asks for more.
    coverages.arm(link.coverage.borrow().as_ref().unwrap(), None, 1).unwrap();
    process.cache.raise_barrier(5, false);
    link.answered();
    assert_eq!(above.called()[1..], [Called::Link(LinkEvent::BehindBarrier)]);
}

#[test]
fn an_answer_is_awaited_for_so_long_unless_something_comes_or_a_client_holds_it_up() {
    let (link, _above) = a_link();
    let pace = Pace { every: Duration::from_secs(1), patience: Duration::from_secs(10) };
    let seconds = |seconds: u64| seconds * 1_000_000;
    link.heard.set(0);
    assert_eq!(link.left(pace, seconds(5)), None);
    link.pings.sent(seconds(1));
    assert_eq!(link.left(pace, seconds(4)), Some(Duration::from_secs(7)));
    assert_eq!(link.left(pace, seconds(11)), Some(Duration::ZERO));
    link.heard.set(seconds(9));
    assert_eq!(link.left(pace, seconds(11)), Some(Duration::from_secs(8)), "a long reply is coming");
    link.held_up.set(true);
    assert_eq!(link.left(pace, seconds(99)), Some(pace.patience));
}

#[test]
fn what_was_put_off_is_asked_again_later_and_what_was_refused_too() {
    let process = fixture::process_with(fixture::nowhere(), |settings| {
        settings.tracking = crate::namespace::Tracking::Keys;
    });
    let (link, above) = link(&process);
    let feed = process.cache.coverages().arm(&process.first_node().feed, None, 1).unwrap();
    let later = |above: &Above| match above.called()[..] {
        [] => None,
        [Called::Link(LinkEvent::AskLater(delay))] => Some(delay),
        ref other => panic!("{other:?}"),
    };
    assert!(link.lacks_tracking());
    let arm = |reply| answer(&link, Pending::Arm(feed), reply);
    assert!(arm(b"-LOADING not now\r\n").is_none());
    assert!(later(&above).is_some_and(|delay| delay <= Duration::from_millis(20)));
    assert_eq!(process.metrics.put_off.get(), 1);
    arm(b"-LOADING not now\r\n");
    assert_eq!(later(&above), None, "it is going to be asked already");
    assert!(link.is_due() && link.refusal().is_none());
    arm(b"-NOPERM no\r\n");
    assert!(later(&above).is_some_and(|delay| delay >= Duration::from_millis(500)));
    assert_eq!(link.refusal().as_deref(), Some("-NOPERM no"));
    assert_eq!(process.metrics.tracking_refused.get(), 1);
    assert!(process.metrics.tracking_refused_told.over(), "the first is told");
    assert!(link.is_due());
    arm(b"-NOPERM no\r\n");
    assert!(!process.metrics.tracking_refused_told.over(), "the second is not");
    // An answer while it is not known where the link leads is none yet.
    link.arming.unsure.set(true);
    arm(b"+OK\r\n");
    assert!(link.tracked().is_none() && link.lacks_tracking() && link.refusal().is_some());
    link.arming.unsure.set(false);
    arm(b"+OK\r\n");
    assert!(link.tracked().is_some() && !link.lacks_tracking() && !link.is_due() && link.refusal().is_none());
    link.arming.unsure.set(true);
    assert!(link.lacks_tracking(), "where it leads is to be asked");
}

#[test]
fn a_connection_is_named_only_if_it_is_called_otherwise() {
    let (link, _above) = a_link();
    assert!(link.call(b"a") && !link.call(b"a") && link.call(b"b") && !link.call(b"b"));
    // Refused, it has no name that is known.
    answer(&link, Pending::Name, b"+OK\r\n");
    assert!(!link.call(b"b"));
    answer(&link, Pending::Name, b"-ERR no\r\n");
    assert!(link.call(b"b"));
}

#[test]
fn a_connection_that_changes_hands_is_as_new() {
    let (link, _above) = a_link();
    let client = link.process.clients.enter(Default::default(), Arc::default(), 1);
    let request = || InFlight { since: 1, pending: Pending::Ping };
    link.exempt_from_timeout();
    link.place.readonly.set(true);
    assert!(link.may_wait(&request()) && link.is_readonly() && link.owner.borrow().is_none());
    link.own(Owner { queue: Rc::new(ReplyQueue::new(1000)), client });
    assert!(!link.may_wait(&request()) && !link.is_readonly() && link.owner.borrow().is_some());
    link.disown();
    assert!(link.owner.borrow().is_none());
    assert_eq!(link.upstream_id(), Some(1));
    assert!(link.may_look());
    link.forbid_looks();
    assert!(!link.may_look());
}

#[test]
fn with_a_connection_goes_what_was_known_of_it_and_who_is_above_hears_if_it_stood() {
    let (link, above) = a_link();
    let metrics = &link.process.metrics;
    assert_eq!(metrics.upstream_links.get(), 1);
    link.call(b"a");
    link.pings.sent(1);
    link.front.become_ready(true);
    link.mark_unresponsive();
    link.is_doubted(Standing::Unheard, 10);
    link.read.borrow_mut().extend_from_slice(b"part");
    link.down(true, &lost(ConnectError::Io("gone".into())));
    assert_eq!(above.called(), [Called::Link(LinkEvent::Changed), Called::Link(LinkEvent::Lost)]);
    assert_eq!((metrics.upstream_links.get(), metrics.upstream_disconnects.get()), (0, 1));
    assert!(metrics.links_down_told.over());
    assert!(link.upstream_id().is_none() && link.pings.oldest().is_none() && !link.front.is_ready());
    assert!(!link.is_silent() && link.read.borrow().is_empty() && link.call(b"a"));
    assert!(!link.is_doubted(Standing::Unheard, 20), "what was said of the last one");
    // One that was never made, because its login was refused, is told to whoever has logged in.
    link.down(false, &lost(ConnectError::Refused(b"-WRONGPASS\r\n"[..].into())));
    assert_eq!(above.called(), [Called::Link(LinkEvent::Changed)]);
    assert_eq!((metrics.upstream_disconnects.get(), metrics.links_down_told.over()), (1, false));
    let process = link.process.clone();
    link.up(None);
    assert_eq!(process.metrics.upstream_links.get(), 1);
    drop(link);
    assert_eq!(process.metrics.upstream_links.get(), 0, "closed from our side");
}

#[test]
fn the_loss_of_a_dedicated_connection_is_its_sessions() {
    let (shared, above) = a_link();
    let origin = Origin {
        process: shared.process.clone(),
        node: shared.node.clone(),
        upcalls: Rc::downgrade(&above) as Weak<dyn Upcalls>,
    };
    let client = shared.process.clients.enter(Default::default(), Arc::default(), 1);
    let queue = Rc::new(ReplyQueue::new(1000));
    let owner = Owner { queue: queue.clone(), client: client.clone() };
    let link = LinkHandler::new(&origin, NO_LINK, Some(owner), Protocol::Resp2);
    assert!(!link.reconnects() && shared.reconnects());
    link.up(Some(7));
    assert_eq!(client.upstream(), 7);
    above.called();
    link.down(true, &lost(ConnectError::Io("gone".into())));
    assert!(queue.link_is_lost() && above.called() == [Called::Link(LinkEvent::Changed)]);
    assert!(!shared.process.metrics.links_down_told.over(), "no line for each client's");
}

/// A shared link waits for whoever reads what comes on it, and for no other.
#[tokio::test]
async fn a_link_waits_for_the_client_that_reads_its_front() {
    tokio::task::LocalSet::new().run_until(waits_for_its_reader()).await;
}

async fn waits_for_its_reader() {
    let (link, _above) = a_link();
    let mut cx = std::task::Context::from_waker(Waker::noop());
    let crowded = || {
        let queue = Rc::new(ReplyQueue::new(10));
        queue.reply(b"+more than ten bytes\r\n");
        queue
    };
    let process = link.process.clone();
    let slot_of_coverage = process.cache.coverages().take().unwrap();
    let fill = |to, key: &[u8]| {
        let lease = lease(&link, &slot_of_coverage, key);
        Pending::Fill(Box::new(Fill::new(&process, to, lease, crate::command::Fields::None)))
    };
    let all = |queue: &dyn Fn() -> Rc<ReplyQueue>, key: &[u8]| {
        let to = || slot(&queue());
        let window = Window { to: to(), elements: None, last: true, held: Default::default(), parts: vec![] };
        let fetch = Rc::new(Fetch(queue()));
        let assembly = MgetAssembly {
            window,
            missing: vec![],
            fetched: BytesMut::new(),
            is_read: false,
            next: 0,
            _fetch: fetch,
        };
        [
            Pending::Relay(to()),
            Pending::Bypass(to(), Box::new(Bypass { keys: Default::default(), instead: None })),
            fill(Some(to()), key),
            Pending::MgetAssembly(Box::new(assembly)),
            Pending::Write(Box::new(Write::new(Some(to())))),
        ]
    };
    let roomy = || Rc::new(ReplyQueue::new(1000));
    for (i, pending) in all(&crowded, b"a").into_iter().enumerate() {
        assert!(!link.has_room(Some(&InFlight { since: 1, pending }), &mut cx), "{i}");
        assert!(link.held_up.get());
    }
    for (i, pending) in all(&roomy, b"b").into_iter().enumerate() {
        assert!(link.has_room(Some(&InFlight { since: 1, pending }), &mut cx), "{i}");
        assert!(!link.held_up.get());
    }
    for pending in [Pending::Ping, fill(None, b"c"), Pending::Write(Box::new(Write::new(None)))] {
        assert!(link.has_room(Some(&InFlight { since: 1, pending }), &mut cx), "nobody reads it");
    }
    assert!(link.has_room(None, &mut cx));
    let client = process.clients.enter(Default::default(), Arc::default(), 1);
    link.own(Owner { queue: crowded(), client });
    assert!(!link.has_room(None, &mut cx), "its session reads all that comes");
}
