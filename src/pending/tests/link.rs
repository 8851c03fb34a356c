//! What is known of a link, and what it tells of itself.

use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::cache::{NO_LINK, Reason};
use crate::metrics::Counter;
use crate::namespace::Tracking;
use crate::process::FeedUp;
use crate::upstream::{ConnectError, Loss, Pace, ServerId};

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
        settings.tracking = Tracking::Keys;
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
    let feed = link.process.cache.coverages().arm(&link.node.feed, None, 1).unwrap();
    link.may_lead_to(feed);
    link.may_lead_to(feed);
    assert_eq!(metrics.feed_links.get(), 1);
    link.down(true, false, &lost(ConnectError::Io("gone".into())));
    assert_eq!(above.called(), [Called::Link(LinkEvent::Changed), Called::Link(LinkEvent::Lost)]);
    assert_eq!((metrics.upstream_links.get(), metrics.upstream_disconnects.get()), (0, 1));
    assert!(metrics.links_down_told.over());
    assert!(link.upstream_id().is_none() && link.pings.oldest().is_none() && !link.front.is_ready());
    assert!(!link.is_silent() && link.read.borrow().is_empty() && link.call(b"a"));
    assert!(!link.is_doubted(Standing::Unheard, 20), "what was said of the last one");
    // One that was never made, because its login was refused, is told to whoever has logged in.
    link.down(false, false, &lost(ConnectError::Refused(b"-WRONGPASS\r\n"[..].into())));
    assert_eq!(above.called(), [Called::Link(LinkEvent::Changed)]);
    assert_eq!((metrics.upstream_disconnects.get(), metrics.links_down_told.over()), (1, false));
    assert_eq!(metrics.feed_links.get(), 0, "the next may lead elsewhere");
    let process = link.process.clone();
    link.up(None);
    link.may_lead_to(feed);
    let links = || [&process.metrics.upstream_links, &process.metrics.feed_links].map(Counter::get);
    assert_eq!(links(), [1, 1]);
    drop(link);
    assert_eq!(links(), [0, 0], "closed from our side");
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
    link.down(true, false, &lost(ConnectError::Io("gone".into())));
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
        Pending::Fill(Box::new(Fill::new(to, lease, crate::command::Fields::None)))
    };
    let all = |queue: &dyn Fn() -> Rc<ReplyQueue>, key: &[u8]| {
        let to = || slot(&queue());
        let fetch = Some(Rc::new(Fetch(queue())));
        let (held, parts) = (Default::default(), vec![]);
        let window = Window { to: to(), elements: None, last: true, held, parts, fetch };
        let assembly = MgetAssembly::new(Some(window), vec![]);
        [
            Pending::Relay(to()),
            Pending::Bypass(to(), Box::default()),
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

#[test]
fn a_shared_link_has_one_place_and_leaves_with_it_what_was_read() {
    let (link, above) = a_link();
    let process = link.process.clone();
    let coverages = process.cache.coverages();
    let tracked = coverages.arm(link.coverage.borrow().as_ref().unwrap(), None, 1).unwrap();
    link.take_place();
    assert_eq!(link.tracked(), Some(tracked), "it has one");
    keep(&link, link.coverage.borrow().as_ref().unwrap(), b"k");
    assert!(is_kept(&process, b"k"));
    link.leave_place();
    assert!(!is_kept(&process, b"k") && link.coverage.borrow().is_none() && !coverages.stands(tracked));
    let upcalls = Rc::downgrade(&above) as Weak<dyn Upcalls>;
    let origin = Origin { process: process.clone(), node: process.first_node(), upcalls };
    let dedicated = LinkHandler::new(&origin, NO_LINK, None, Protocol::Resp2);
    dedicated.take_place();
    assert!(dedicated.coverage.borrow().is_none() && process.metrics.links_uncovered.get() == 0);
}

/// `-READONLY` of a link whose server was left already says nothing new.
#[test]
fn a_server_that_takes_no_writes_is_doubted_unless_it_was_left() {
    const ERROR: &[u8] = b"-READONLY You can't write against a read only replica.\r\n";
    for (left, error, readonly) in [(false, ERROR, true), (true, ERROR, true), (false, b"-OOM\r\n", false)] {
        let (link, _above) = a_link();
        if left {
            fixture::leave(&link.node);
        }
        let queue = Rc::new(ReplyQueue::new(1000));
        assert!(answer(&link, Pending::Relay(slot(&queue)), error).is_none());
        assert_eq!((link.is_readonly(), fixture::is_doubted(&link.node)), (readonly, readonly && !left));
        assert_eq!(queue.said().as_bytes(), error);
    }
}

#[test]
fn a_link_that_leads_to_another_server_than_the_feed_leaves_the_older_of_both() {
    let info = |id: char| format!("$99\r\n# Server\r\nrun_id:{}\r\n\r\n", id.to_string().repeat(40));
    let id = |of: char| ServerId::of(info(of).as_bytes()).unwrap();
    // The feed came up before the link, at the same time, after it; and another feed did.
    for (since, another, astray) in
        [(9, false, false), (10, false, false), (11, false, true), (11, true, false)]
    {
        let (link, above) = a_link();
        link.place.since.set(10);
        let coverages = link.process.cache.coverages();
        let arm = || coverages.arm(&link.node.feed, None, 1).unwrap();
        let feed = arm();
        let now = if another { arm() } else { feed };
        let up = FeedUp { coverage: now, client_id: None, server: None, since };
        link.node.feed_up.send_replace(Some(up));
        let asks = |reply: &str| answer(&link, Pending::Server(feed, id('a')), reply.as_bytes()).is_none();
        assert!(asks(&info('a')) && coverages.stands(now) && above.called().is_empty(), "it is the same");
        assert!(asks("-NOPERM\r\n") && coverages.stands(now) && above.called().is_empty(), "it does not say");
        assert!(asks(&info('b')));
        assert_eq!(coverages.stands(now), another, "of no more use");
        let told = if astray { vec![Called::Link(LinkEvent::LeadsAstray)] } else { vec![] };
        assert_eq!(above.called(), told, "{since} {another}");
        assert!(!link.arming.unsure.get());
        assert!(asks("-LOADING\r\n") && link.arming.unsure.get());
        assert!(matches!(above.called()[..], [Called::Link(LinkEvent::AskLater(_))]));
        assert!(link.arming.turns.get() == 1 && asks(&info('a')) && link.arming.turns.get() == 0);
    }
}

#[test]
fn what_comes_unasked_is_its_sessions_and_what_it_says_of_namespaces_is_heard() {
    let process =
        fixture::process_of(fixture::nowhere(), vec![fixture::namespace("n", Tracking::Off)], |_| ());
    let (link, _above) = link(&process);
    let coverage = process.cache.coverages().take().unwrap();
    let client = process.clients.enter(Default::default(), Arc::default(), 1);
    let queue = Rc::new(ReplyQueue::new(1000));
    let push = |frame: &[u8], at: At| {
        let mut buf = BytesMut::from(frame);
        link.push(Chunk::all_of(&mut buf), at);
        queue.said()
    };
    let message = |channel: &str, what: &str| {
        let (a, b) = (channel.len(), what.len());
        format!("*3\r\n$7\r\nmessage\r\n${a}\r\n{channel}\r\n${b}\r\n{what}\r\n")
    };
    let whole = At { kind: Kind::Aggregate, first: true, last: true };
    assert_eq!(push(message("c", "m").as_bytes(), whole), "", "nobody's");
    link.own(Owner { queue: queue.clone(), client: client.clone() });
    for (channel, stays) in [("n/other", true), ("n/update", false), ("n/delete", false)] {
        keep(&link, &coverage, b"n/k");
        let said = message(channel, "k");
        assert_eq!(push(said.as_bytes(), whole), said);
        assert_eq!(is_kept(&process, b"n/k"), stays, "{channel}");
        let why = process.cache.describe(b"n/k", process.now()).last_change.map(|(reason, _)| reason);
        let reasons = [("n/update", Reason::Update), ("n/delete", Reason::Delete)];
        let reason = reasons.into_iter().find(|(told, _)| *told == channel).map(|(_, reason)| reason);
        assert!(stays || why == reason, "{channel}: {why:?}");
        process.cache.invalidate(b"n/k", Reason::Write, process.now());
    }
    // A part of a message is none that could be looked into.
    let said = message("n/update", "k");
    keep(&link, &coverage, b"n/k");
    assert_eq!(push(said.as_bytes(), At { last: false, ..whole }), said);
    assert!(is_kept(&process, b"n/k"));
    // Tracking that leads to a session says so of its connection upstream.
    client.change(|who| who.redirects = Some((77, 5)));
    let broken = ">2\r\n$21\r\ntracking-redir-broken\r\n:77\r\n";
    let marked = At { kind: Kind::Push, ..whole };
    assert_eq!(push(broken.as_bytes(), marked), broken.replace("77", "5"));
    let other = ">2\r\n$5\r\nother\r\n:77\r\n";
    assert_eq!(push(other.as_bytes(), marked), other);
}

#[test]
fn what_answers_no_request_is_told_on_a_shared_link_by_its_mark_and_on_its_own_by_its_state() {
    let (shared, above) = a_link();
    assert!(shared.is_push(None, Kind::Push, b">1\r\n") && !shared.is_push(None, Kind::Aggregate, b"*3\r\n"));
    let upcalls = Rc::downgrade(&above) as Weak<dyn Upcalls>;
    let origin = Origin { process: shared.process.clone(), node: shared.node.clone(), upcalls };
    let client = shared.process.clients.enter(Default::default(), Arc::default(), 1);
    let queue = Rc::new(ReplyQueue::new(1000));
    let owner = Owner { queue: queue.clone(), client };
    let link = LinkHandler::new(&origin, NO_LINK, Some(owner), Protocol::Resp2);
    let message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n";
    assert!(!link.is_push(None, Kind::Aggregate, message), "nothing is subscribed");
    link.pushes.listen();
    let subscribe = || {
        let awaited = Awaited::of("subscribe", 1);
        InFlight { since: 1, pending: Pending::Subscribe(slot(&queue), awaited) }
    };
    let confirmation = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
    assert!(answer(&link, subscribe().pending, confirmation).is_none());
    assert_eq!(queue.said().as_bytes(), confirmation);
    assert!(link.is_push(None, Kind::Aggregate, message));
    assert!(link.is_push(None, Kind::Aggregate, confirmation), "the upstream's own accord");
    assert!(!link.is_push(Some(&subscribe()), Kind::Aggregate, confirmation), "that is awaited");
}

/// What is monitored is thrown away as replies are, messages are not.
#[test]
fn what_a_monitor_hears_counts_as_replies() {
    let (link, _above) = a_link();
    let client = link.process.clients.enter(Default::default(), Arc::default(), 1);
    let queue = Rc::new(ReplyQueue::new(1000));
    link.own(Owner { queue: queue.clone(), client });
    let push = |frame: &str, kind| {
        link.push(Chunk::all_of(&mut BytesMut::from(frame)), At { kind, first: true, last: true });
        queue.said()
    };
    queue.open_switch(crate::reply::Replies::Off);
    answer(&link, Pending::Relay(ReplySlot { queue: queue.clone(), slot: 0 }), b"+OK\r\n");
    assert_eq!(queue.said(), "");
    assert_eq!(push("+line\r\n", Kind::Simple), "+line\r\n", "it is no monitor");
    answer(&link, Pending::Monitor(slot(&queue)), b"-NOPERM\r\n");
    assert_eq!(push("+line\r\n", Kind::Simple), "+line\r\n", "it was refused");
    answer(&link, Pending::Monitor(slot(&queue)), b"+OK\r\n");
    assert_eq!(push("+line\r\n", Kind::Simple), "", "it wants no replies");
    assert_eq!(push(">1\r\n+m\r\n", Kind::Push), ">1\r\n+m\r\n");
}
