//! What becomes of replies to reads, and of reads that are lost.

use super::*;
use crate::cache::EntryKeyBuf;
use crate::command::Fields;
use crate::upstream::{ConnectError, Loss};

/// With an entry `k` whose proof is older than any bound, and a slot for coverages.
fn with_stale(stale_if_error: bool) -> (LinkHandler, CoverageSlot) {
    let process =
        fixture::process_with(fixture::nowhere(), |settings| settings.stale_if_error = stale_if_error.into());
    let (link, _above) = link(&process);
    let slot = process.cache.coverages().take().unwrap();
    keep(&link, &slot, b"k");
    (link, slot)
}

fn lose(link: &LinkHandler, pending: Pending) {
    let loss = Loss { sent: true, cause: ConnectError::Io("gone".into()) };
    link.lost(InFlight { since: 1, pending }, &loss);
}

fn bypass(link: &LinkHandler, to: ReplySlot, key: Option<&[u8]>) -> Pending {
    let instead = key.map(|key| EntryKeyBuf::new(&name(&link.process, key)));
    Pending::Bypass(to, Box::new(Bypass { instead, ..Bypass::default() }))
}

#[test]
fn a_read_that_is_lost_with_its_link_is_served_from_the_cache_only_where_that_is_asked_for() {
    for stale_if_error in [true, false] {
        let (link, _slot) = with_stale(stale_if_error);
        let queue = Rc::new(ReplyQueue::new(1000));
        lose(&link, bypass(&link, slot(&queue), Some(b"k")));
        let said = queue.said();
        assert_eq!(said == "$1\r\nv\r\n", stale_if_error, "{said}");
        assert!(stale_if_error || said.starts_with("-ERR nearside: upstream"), "{said}");
        for key in [None, Some(&b"unknown"[..])] {
            lose(&link, bypass(&link, slot(&queue), key));
            assert!(queue.said().starts_with("-ERR nearside: upstream"));
        }
        assert_eq!(link.process.metrics.upstream_lost.get(), 2 + u64::from(!stale_if_error));
    }
}

#[test]
fn a_fill_that_is_lost_is_served_what_it_was_to_replace() {
    let (link, coverage) = with_stale(true);
    // It is read anew, for it is not proven fresh enough.
    while link.process.now() < 10 {}
    let lease = lease_within(&link, &coverage, b"k", Bounds { max_staleness: 1, ..EVER });
    let queue = Rc::new(ReplyQueue::new(1000));
    let fill = Fill::new(Some(slot(&queue)), lease, Fields::None);
    lose(&link, Pending::Fill(Box::new(fill)));
    assert_eq!(queue.said(), "$1\r\nv\r\n");
    let unknown = lease_within(&link, &coverage, b"unknown", EVER);
    let fill = Fill::new(Some(slot(&queue)), unknown, Fields::None);
    lose(&link, Pending::Fill(Box::new(fill)));
    assert!(queue.said().starts_with("-ERR nearside: upstream"));
}

#[test]
fn nothing_is_served_behind_a_part_of_a_reply() {
    let (link, _slot) = with_stale(true);
    let queue = Rc::new(ReplyQueue::new(1000));
    let to = slot(&queue);
    to.piece(bytes::Bytes::from_static(b"$9\r\nbeg"), false);
    lose(&link, bypass(&link, to, Some(b"k")));
    assert_eq!(queue.said(), "$9\r\nbeg");
}

#[test]
fn a_reply_proves_what_the_upstream_had_sent_before_its_request() {
    let (link, _above) = a_link();
    let process = link.process.clone();
    let coverages = process.cache.coverages();
    let covered = coverages.arm(link.coverage.borrow().as_ref().unwrap(), None, 1).unwrap();
    let own = process.cache.coverages().take().unwrap();
    let queue = Rc::new(ReplyQueue::new(1000));
    let fill = Fill::new(Some(slot(&queue)), lease(&link, &own, b"k"), Fields::None);
    while process.now() < 10 {}
    let pending = answer(&link, Pending::Fill(Box::new(fill)), b"$1\r\nv\r\n").unwrap();
    assert_eq!(coverages.watermark(covered), 1, "more is to come");
    assert!(answer(&link, pending, b":-1\r\n").is_none());
    assert!(coverages.watermark(covered) >= 10);
    assert!(is_kept(&process, b"k") && queue.said() == "$1\r\nv\r\n");
}

#[test]
fn what_is_as_long_as_may_be_kept_is_kept_and_what_is_longer_is_passed_on_as_it_comes() {
    for longer in [0, 1] {
        let (link, _above) = a_link();
        let process = link.process.clone();
        let coverage = process.cache.coverages().take().unwrap();
        let queue = Rc::new(ReplyQueue::new(8 << 20));
        let lease = lease(&link, &coverage, b"k");
        let fill = Fill::new(Some(slot(&queue)), lease, Fields::None);
        let half = "x".repeat(process.cache.max_value() / 2);
        let second = format!("{half}{}", "y".repeat(longer));
        let piece = |request, bytes: &str, first, last| {
            let mut buf = BytesMut::from(bytes);
            link.reply(request, Chunk::all_of(&mut buf), At { kind: Kind::Bulk, first, last }).unwrap()
        };
        let request = InFlight { since: 1, pending: Pending::Fill(Box::new(fill)) };
        let request = piece(request, &half, true, false);
        assert_eq!(queue.said(), "", "it is held, for it may be kept");
        let request = piece(request, &second, false, true);
        assert_eq!(queue.said().len(), if longer > 0 { half.len() + second.len() } else { 0 });
        assert!(answer(&link, request.pending, b":-1\r\n").is_none());
        assert_eq!(is_kept(&process, b"k"), longer == 0);
        assert_eq!(queue.said().len(), if longer > 0 { 0 } else { half.len() + second.len() });
    }
}

#[test]
fn what_a_reply_says_of_its_server_is_noted() {
    let (link, _above) = a_link();
    let queue = Rc::new(ReplyQueue::new(1000));
    for (reply, busy) in [
        (&b"-BUSY Redis is busy\r\n"[..], true),
        (b"+OK\r\n", false),
        (b"-ERR\r\n", false),
        (b"+-BUSY\r\n", false),
    ] {
        assert!(answer(&link, Pending::Relay(slot(&queue)), reply).is_none());
        assert_eq!(link.front.is_busy(link.process.now()), Some(busy));
        assert!(link.heard.get() > 0);
    }
    // How long they take is known by then: what is stuck is so sooner than before the first answer.
    link.front.is(Some(true), 0);
    assert!(link.front.is_stuck(50_000));
}

#[test]
fn an_answer_of_the_link_s_own_tells_how_long_they_take_but_one_about_another_link_does_not() {
    let took = |pending| {
        let (link, _above) = a_link();
        let is_ping = matches!(pending, Pending::Ping);
        answer(&link, pending, b"+PONG\r\n");
        assert_eq!(link.front.is_ready(), is_ping);
        link.front.is(Some(true), 0);
        link.front.is_stuck(50_000)
    };
    assert!(took(Pending::Ping) && !took(Pending::Standing(LinkId::next())));
}

#[test]
fn the_server_s_word_about_another_link_is_handed_on_when_it_is_whole() {
    let (link, above) = a_link();
    let ask = |pieces: &[&str]| {
        let mut pending = Some(Pending::Standing(LinkId::next()));
        for (i, piece) in pieces.iter().enumerate() {
            let mut buf = BytesMut::from(*piece);
            let at = At { kind: kind_of(piece.as_bytes()), first: i == 0, last: i + 1 == pieces.len() };
            let request = InFlight { since: 1, pending: pending.take().unwrap() };
            pending = link.reply(request, Chunk::all_of(&mut buf), at).map(|request| request.pending);
        }
        assert!(pending.is_none());
        above.called()
    };
    let stands = |standing| vec![Called::Link(LinkEvent::Stands(standing))];
    assert_eq!(ask(&["$20\r\nid=7 flags=b ", "qbuf=0\r\n"]), stands(Standing::Kept));
    assert_eq!(ask(&["$20\r\nid=7 flags=N qbuf=0\r\n"]), stands(Standing::Unheard));
    assert_eq!(ask(&["-NOPERM\r\n"]), []);
}

#[test]
fn a_session_is_woken_when_its_fetch_or_its_answers_have_come_or_are_lost() {
    let session = Woken::new();
    let (queue, woken) = (session.queue.clone(), || session.was());
    assert!(!woken());
    drop(Fetch(queue.clone()));
    assert!(woken());
    let answers = Answers::new(2, &queue);
    let part = At { last: false, ..WHOLE };
    assert!(!answers.take(b"+o", part) && !answers.take(b"ne\r\n", WHOLE) && !woken());
    assert!(!answers.is_complete() && answers.take(b"+two\r\n", WHOLE) && woken() && answers.is_complete());
    assert_eq!(answers.whole(), ["+one\r\n", "+two\r\n"]);
    let lost = Answers::new(2, &queue);
    assert!(!lost.take(b"+one\r\n", WHOLE) && !lost.take(b"+tw", part));
    lost.lose("nearside: gone");
    assert!(woken() && lost.is_complete());
    assert_eq!(lost.whole(), ["+one\r\n", "-nearside: gone\r\n"]);
}

#[test]
fn announcements_are_answered_one_by_one_and_what_may_not_be_looked_at_is_deleted() {
    let (link, above) = a_link();
    let said = |say| {
        let keys = [b"a", b"b"].map(|key| (key[..].into(), say)).into();
        Pending::Said(Box::new(Said { keys, db: 0 }))
    };
    let deleted = |key: &[u8]| vec![Called::Announced(vec![(key.into(), Say::Delete)])];
    let pending = answer(&link, said(Say::Look), b":0\r\n").unwrap();
    assert!(above.called().is_empty());
    assert!(answer(&link, pending, b"-BUSY\r\n").is_none());
    assert_eq!(above.called(), deleted(b"b"));
    assert!(link.may_look(), "it may be allowed in a moment");
    for refusal in [&b"-NOPERM no\r\n"[..], b"-ERR unknown command\r\n"] {
        link.blind.set(false);
        let pending = answer(&link, said(Say::Look), refusal).unwrap();
        assert!(!link.may_look() && above.called() == deleted(b"a"));
        answer(&link, pending, b":1\r\n");
        assert!(above.called().is_empty());
    }
    assert_eq!(link.process.metrics.looks_refused.get(), 3);
    answer(&link, said(Say::Update), b"-NOPERM\r\n");
    assert_eq!(link.process.metrics.announcements_failed.get(), 1);
    assert!(above.called().is_empty());
}

#[test]
fn elements_that_were_read_past_the_cache_drop_what_is_older_unless_they_were_just_kept() {
    // The key that is read past is fetched as another element too, or not.
    for named_twice in [true, false] {
        let (link, _above) = a_link();
        let process = link.process.clone();
        let coverage = process.cache.coverages().take().unwrap();
        keep(&link, &coverage, b"past");
        assert!(is_kept(&process, b"past"));
        let queue = Rc::new(ReplyQueue::new(1000));
        let kept: &[u8] = if named_twice { b"past" } else { b"other" };
        if named_twice {
            process.cache.invalidate(b"past", crate::cache::Reason::Write, process.now());
        }
        let missing = |key: &[u8], lease: Option<CacheLease>| Missing {
            key: key.into(),
            past: lease.is_none(),
            lease,
            reply: 0..0,
        };
        let window = Window {
            to: slot(&queue),
            elements: Some(2),
            last: true,
            held: Default::default(),
            parts: vec![Part::Missing, Part::Missing],
            fetch: Some(Rc::new(Fetch(queue.clone()))),
        };
        let missing = vec![missing(b"past", None), missing(kept, Some(lease(&link, &coverage, kept)))];
        let assembly = MgetAssembly::new(Some(window), missing);
        let reply = b"*2\r\n$1\r\nx\r\n$1\r\nv\r\n";
        let pending = answer(&link, Pending::MgetAssembly(Box::new(assembly)), reply).unwrap();
        assert!(answer(&link, pending, b":-1\r\n").is_none());
        assert_eq!(queue.said().as_bytes(), reply);
        assert_eq!(is_kept(&process, b"past"), named_twice, "an older one is dropped");
        assert!(is_kept(&process, kept));
    }
}

/// One whose keys are these, read past the cache or not, behind an element that is there.
fn assembly(
    link: &LinkHandler,
    coverage: &CoverageSlot,
    queue: &Rc<ReplyQueue>,
    keys: &[(&[u8], bool)],
) -> Pending {
    let missing = keys.iter().map(|(key, past)| {
        let lease = (!past).then(|| lease(link, coverage, key));
        Missing { key: (*key).into(), past: *past, lease, reply: 0..0 }
    });
    let parts = std::iter::once(Part::Held(0..7)).chain(keys.iter().map(|_| Part::Missing));
    let window = Window {
        to: slot(queue),
        elements: Some(keys.len() + 1),
        last: true,
        held: bytes::Bytes::from_static(b"$1\r\nh\r\n"),
        parts: parts.collect(),
        fetch: Some(Rc::new(Fetch(queue.clone()))),
    };
    Pending::MgetAssembly(Box::new(MgetAssembly::new(Some(window), missing.collect())))
}

/// Each is answered by its own `PTTL`, those that are read past the cache by none.
#[test]
fn each_fetched_element_ends_when_its_own_key_does() {
    let (link, _above) = a_link();
    let process = link.process.clone();
    let coverage = process.cache.coverages().take().unwrap();
    let queue = Rc::new(ReplyQueue::new(1 << 20));
    let keys: [(&[u8], bool); 5] = [(b"a", false), (b"p", true), (b"q", true), (b"b", false), (b"r", true)];
    // One that is long is handed over as it is.
    let long = format!("$20000\r\n{}\r\n", "q".repeat(20_000));
    let fetched = format!("$1\r\na\r\n$-1\r\n{long}$-1\r\n$1\r\nr\r\n");
    let pending = assembly(&link, &coverage, &queue, &keys);
    let pending = answer(&link, pending, format!("*5\r\n{fetched}").as_bytes()).unwrap();
    let pending = answer(&link, pending, b":-1\r\n").expect("b's is to come");
    assert!(is_kept(&process, b"a") && queue.said().is_empty());
    // Nil, though the key is there: of another type.
    assert!(answer(&link, pending, b":-1\r\n").is_none());
    assert!(!is_kept(&process, b"b"));
    assert_eq!(queue.said(), format!("*6\r\n$1\r\nh\r\n{fetched}"));
}

#[test]
fn an_error_in_the_place_of_all_elements_is_the_reply_and_nothing_is_kept() {
    for error in ["-NOPERM no\r\n", "*1\r\n$1\r\na\r\n"] {
        let (link, _above) = a_link();
        let coverage = link.process.cache.coverages().take().unwrap();
        let queue = Rc::new(ReplyQueue::new(1000));
        let pending = assembly(&link, &coverage, &queue, &[(b"a", false), (b"b", false)]);
        let pending = answer(&link, pending, error.as_bytes()).unwrap();
        let pending = answer(&link, pending, b":-1\r\n").unwrap();
        assert!(queue.said().is_empty());
        assert!(answer(&link, pending, b":-1\r\n").is_none());
        assert_eq!(queue.said(), error);
        assert!(!is_kept(&link.process, b"a") && !is_kept(&link.process, b"b"));
    }
}

#[test]
fn a_reply_in_pieces_is_passed_on_as_it_comes() {
    let (link, _above) = a_link();
    let queue = Rc::new(ReplyQueue::new(1000));
    let mut request = Some(InFlight { since: 1, pending: Pending::Relay(slot(&queue)) });
    for (piece, first, last) in [("$6\r\nab", true, false), ("cd", false, false), ("ef\r\n", false, true)] {
        let at = At { kind: Kind::Bulk, first, last };
        request = link.reply(request.unwrap(), Chunk::all_of(&mut BytesMut::from(piece)), at);
        assert!(queue.said() == piece && request.is_none() == last);
    }
}

#[test]
fn a_transaction_begins_unless_multi_is_refused() {
    for (reply, refused) in [(&b"+OK\r\n"[..], false), (b"-NOPERM\r\n", true)] {
        let (link, _above) = a_link();
        let queue = Rc::new(ReplyQueue::new(1000));
        let transaction = Rc::new(RefCell::new(Transaction::default()));
        assert!(answer(&link, Pending::Multi(slot(&queue), transaction.clone()), reply).is_none());
        let transaction = transaction.borrow();
        assert!(transaction.answered && transaction.refused.is_some() == refused);
    }
}

#[test]
fn what_a_reply_changes_is_changed_unless_it_is_an_error() {
    let (link, _above) = a_link();
    let queue = Rc::new(ReplyQueue::new(100_000));
    let client = link.process.clients.enter(Default::default(), Arc::default(), 1);
    client.change(|who| who.redirects = Some((77, 5)));
    let said = |change, reply: &str| {
        let pending = Pending::Changed(slot(&queue), Changed::by(change));
        assert!(answer(&link, pending, reply.as_bytes()).is_none());
        queue.said()
    };
    assert!(said(Change::Info { ours: true }, "$3\r\na:b\r\n").contains("# Nearside"));
    assert_eq!(said(Change::Info { ours: true }, "-NOPERM\r\n"), "-NOPERM\r\n");
    let library = || Change::Library(client.clone(), b"lib-name".to_vec(), b"x".to_vec());
    said(library(), "-ERR\r\n");
    assert_eq!(client.who().library, b"");
    said(library(), "+OK\r\n");
    assert_eq!(client.who().library, b"x");
    assert_eq!(said(Change::Redirect(client.clone()), ":77\r\n"), ":5\r\n");
    // In pieces it is held until it is whole.
    let request =
        InFlight { since: 1, pending: Pending::Changed(slot(&queue), Changed::by(Change::HelloId(5, None))) };
    let at = At { kind: Kind::Aggregate, first: true, last: false };
    let request = link.reply(request, Chunk::all_of(&mut BytesMut::from("*2\r\n$2\r\n")), at).unwrap();
    assert_eq!(queue.said(), "");
    let at = At { first: false, last: true, ..at };
    assert!(link.reply(request, Chunk::all_of(&mut BytesMut::from("id\r\n:77\r\n")), at).is_none());
    assert_eq!(queue.said(), "*2\r\n$2\r\nid\r\n:5\r\n");
}

#[test]
fn a_login_is_answered_by_the_upstream_s_word_and_answers_by_all_of_them() {
    let (link, _above) = a_link();
    let queue = Rc::new(ReplyQueue::new(1000));
    let login = |reply: &[u8]| {
        let asked = Asked::new(&queue);
        assert!(answer(&link, Pending::Login(asked.clone()), reply).is_none());
        asked.take()
    };
    assert!(matches!(login(b"+OK\r\n"), Some(Answer::Accepted)));
    let refused = login(b"-WRONGPASS no\r\n");
    assert!(matches!(refused, Some(Answer::Refused(said)) if said == "-WRONGPASS no\r\n"));
    let answers = Answers::new(2, &queue);
    let pending = answer(&link, Pending::Answers(answers.clone()), b"+one\r\n").expect("another is to come");
    assert!(answer(&link, pending, b"+two\r\n").is_none());
    assert_eq!(answers.whole(), ["+one\r\n", "+two\r\n"]);
}

#[test]
fn a_refused_read_of_nearside_s_own_is_noted_only_if_it_is_one_that_others_share() {
    for by in [By::GET, By::ITSELF] {
        let (link, _above) = a_link();
        let process = link.process.clone();
        let coverages = process.cache.coverages();
        coverages.arm(&link.node.feed, None, 1).unwrap();
        let coverage = process.cache.coverages().take().unwrap();
        let covered = coverages.arm(&coverage, None, 1).unwrap();
        // By both, until one of them is refused.
        let ident = name(&process, b"k").ident;
        let both = |by| process.shared_by(&link.node, ident, by);
        let _ = (both(By::GET), both(By::MGET));
        let before = both(By::GET);
        let asked = EntryKey { by, ..name(&process, b"k") };
        let found = process.cache.lookup(
            &asked,
            process.now(),
            EVER,
            || Some(Cover { coverage: covered, link: link.id, registers: false }),
            |_| None,
            |_| (),
        );
        let Lookup::Miss(lease) = found else { panic!("it is not there") };
        let queue = Rc::new(ReplyQueue::new(1000));
        let fill = Fill::new(Some(slot(&queue)), lease, Fields::None);
        let pending = answer(&link, Pending::Fill(Box::new(fill)), b"-NOPERM\r\n").unwrap();
        assert!(answer(&link, pending, b":-1\r\n").is_none() && queue.said() == "-NOPERM\r\n");
        assert_eq!(before != both(By::GET), by == By::GET);
    }
}
