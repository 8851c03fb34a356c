//! What is let go, and what is still awaited, when a node of a cluster has not executed a request.

use bytes::Bytes;
use smallvec::smallvec;

use super::super::astray::Keeps;
use super::super::redirected::address;
use super::*;
use crate::cache::Sample;
use crate::command::{Fields, KeyUse, Tells};
use crate::resp::Redirection;
use crate::upstream::{ConnectError, Loss};

const MOVED: &[u8] = b"-MOVED 15495 127.0.0.1:7001\r\n";
const ASK: &[u8] = b"-ASK 15495 :7001\r\n";

/// Of a process in front of a cluster.
fn node() -> (LinkHandler, Rc<Above>) {
    link(&fixture::process_with(fixture::nowhere(), |settings| settings.cluster.is_named = true))
}

/// Of a request that is kept.
fn kept() -> (ReplySlot, Rc<ReplyQueue>) {
    let queue = Rc::new(ReplyQueue::new(1000));
    let to = slot(&queue);
    queue.keep(to.slot, Bytes::from_static(b"request"));
    (to, queue)
}

fn is_back(queue: &ReplyQueue) -> bool {
    queue.has_back() && !queue.has_sent() && queue.said().is_empty()
}

/// What a request is lost with: some of it was sent, or nothing.
fn loss(sent: bool) -> Loss {
    Loss { sent, cause: ConnectError::Io("gone".into()) }
}

fn lose(link: &LinkHandler, pending: Pending, loss: &Loss) {
    link.lost(InFlight { since: 1, pending }, loss);
}

#[test]
fn each_of_the_errors_puts_a_request_back_and_is_counted() {
    let lines: [&[u8]; Redirection::KINDS] = [
        MOVED,
        ASK,
        b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    ];
    for (number, line) in lines.into_iter().enumerate() {
        let (link, _above) = node();
        let (to, queue) = kept();
        assert!(answer(&link, Pending::Relay(to), line).is_none());
        assert!(is_back(&queue) && queue.standing()[0].again.as_ref().unwrap().refusal.line == line);
        assert_eq!(link.process.metrics.redirects[number].get(), 1);
    }
    // Others are replies, and so is whatever stands within one.
    for line in [&b"-ERR MOVED 1 127.0.0.1:1\r\n"[..], b"*1\r\n-MOVED 1 127.0.0.1:1\r\n"] {
        let (link, _above) = node();
        let (to, queue) = kept();
        assert!(answer(&link, Pending::Relay(to), line).is_none());
        assert_eq!(queue.said().as_bytes(), line);
    }
}

#[test]
fn in_front_of_one_server_they_are_replies() {
    for line in [MOVED, b"-LOADING Redis is loading the dataset in memory\r\n"] {
        let (link, _above) = a_link();
        let queue = Rc::new(ReplyQueue::new(1000));
        let script = Write { barrier: Some(Barrier::Keys), ..Write::new(Some(slot(&queue))) };
        let read = Pending::Bypass(slot(&queue), Box::default());
        let each = [Pending::Relay(slot(&queue)), Pending::Write(Box::new(script)), read];
        for (i, pending) in each.into_iter().enumerate() {
            assert!(answer(&link, pending, line).is_none());
            // But whoever says MOVED is no single server, unless a script has said it.
            assert_eq!(link.process.cluster.is(), line == MOVED && i == 2);
        }
        assert_eq!(queue.said(), String::from_utf8_lossy(line).repeat(3));
    }
}

#[test]
fn a_node_that_names_no_host_means_its_own() {
    let at = |port| crate::io::Address::Tcp { host: "a.example".into(), port };
    let process = fixture::process_with(fixture::nowhere(), |settings| {
        settings.cluster.is_named = true;
        settings.upstream.address = at(7000).into();
    });
    let (link, _above) = link(&process);
    let (to, queue) = kept();
    answer(&link, Pending::Relay(to), ASK);
    let said = queue.standing().remove(0).again.unwrap().refusal.said;
    let Some(Redirection::Ask { to, .. }) = said else { panic!("{said:?}") };
    assert_eq!(address(&to), Some(at(7001)));
}

#[test]
fn a_write_lets_go_of_its_fence_and_says_nothing() {
    for by in [Some(MOVED), None] {
        let (link, above) = node();
        let coverage = link.process.cache.coverages().take().unwrap();
        let (to, queue) = kept();
        let mut write = Write::new(Some(to));
        write.fence = Some(link.process.cache.fence([&b"a"[..]], crate::cache::Reason::Write, 1));
        let keys = vec![(b"a"[..].into(), KeyUse::Update)];
        write.sayings = vec![announcement::Saying { tells: Tells::There, keys, place: None }];
        let pending = Pending::Write(Box::new(write));
        match by {
            Some(line) => assert!(answer(&link, pending, line).is_none()),
            None => lose(&link, pending, &loss(false)),
        }
        assert!(is_back(&queue) && above.called().is_empty());
        assert!(link.process.cache.barrier() == 0);
        keep(&link, &coverage, b"a");
        assert!(is_kept(&link.process, b"a"), "no fence stands");
    }
}

#[test]
fn a_script_is_sent_again_only_on_the_server_s_own_word() {
    for (line, back) in [
        (&b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n"[..], true),
        (b"-TRYAGAIN as the script has it\r\n", false),
        (b"-READONLY You can't write against a read only replica. script: x\r\n", false),
    ] {
        let (link, _above) = node();
        let (to, queue) = kept();
        let mut write = Write::new(Some(to));
        write.barrier = Some(Barrier::Keys);
        assert!(answer(&link, Pending::Write(Box::new(write)), line).is_none());
        assert_eq!(is_back(&queue), back, "{}", String::from_utf8_lossy(line));
        assert!(link.process.cache.barrier() > 0, "there are but words for it that nothing was written");
    }
}

#[test]
fn a_write_that_is_announced_already_is_answered() {
    let (link, _above) = node();
    let (to, queue) = kept();
    let mut write = Write::new(Some(to));
    (write.announced, write.say, write.echoed) = (1, Say::Update, vec![b"a"[..].into()]);
    let pending = answer(&link, Pending::Write(Box::new(write)), MOVED).expect("the announcement is to come");
    assert_eq!(queue.said().as_bytes(), MOVED);
    assert!(answer(&link, pending, b":0\r\n").is_none() && !queue.has_back());
}

#[test]
fn a_read_gives_its_lease_up_and_what_was_asked_behind_it_is_swallowed() {
    for fields in [Fields::None, Fields::All] {
        let (link, _above) = node();
        let coverage = link.process.cache.coverages().take().unwrap();
        let (to, queue) = kept();
        let fill = Fill::new(Some(to), lease(&link, &coverage, b"a"), fields);
        let mut pending = answer(&link, Pending::Fill(Box::new(fill)), MOVED);
        drop(lease(&link, &coverage, b"a"));
        for _ in 0..1 + usize::from(fields == Fields::All) {
            pending = answer(&link, pending.expect("more is to come"), MOVED);
        }
        assert!(pending.is_none() && is_back(&queue));
        assert!(!link.process.metrics.ttl_refused_told.over());
    }
}

#[test]
fn only_the_time_to_live_was_refused_so_the_reply_is_good() {
    let (link, _above) = node();
    let coverage = link.process.cache.coverages().take().unwrap();
    let (to, queue) = kept();
    let fill = Fill::new(Some(to), lease(&link, &coverage, b"a"), Fields::None);
    let pending = answer(&link, Pending::Fill(Box::new(fill)), b"$1\r\nv\r\n").expect("PTTL is to come");
    assert!(answer(&link, pending, ASK).is_none());
    assert_eq!(queue.said(), "$1\r\nv\r\n");
    assert!(!is_kept(&link.process, b"a"));
}

#[test]
fn what_nobody_waits_for_is_dropped() {
    let (link, above) = node();
    let coverage = link.process.cache.coverages().take().unwrap();
    let refresh = Fill::new(None, lease(&link, &coverage, b"a"), Fields::None);
    let pending = answer(&link, Pending::Fill(Box::new(refresh)), MOVED).expect("PTTL is to come");
    assert!(answer(&link, pending, MOVED).is_none());
    keep(&link, &coverage, b"b");
    let name = crate::cache::EntryKeyBuf::new(&name(&link.process, b"b"));
    let sample = Sample { name, opened: 1, reply: b"$1\r\nv\r\n"[..].into() };
    let audit = Audit { sample, reply: BytesMut::new() };
    let down = b"-CLUSTERDOWN The cluster is down\r\n";
    assert!(answer(&link, Pending::Audit(Box::new(audit)), down).is_none());
    assert!(above.called().is_empty() && link.process.metrics.audits_agreed.get() == 0);
    assert!(answer(&link, Pending::Asking, b"+OK\r\n").is_none());
}

#[test]
fn a_read_past_the_cache_is_put_back_and_so_are_the_keys_of_an_mget() {
    let (link, _above) = node();
    let (to, queue) = kept();
    let bypass = Bypass { keys: smallvec![b"a"[..].into()], ..Bypass::default() };
    assert!(answer(&link, Pending::Bypass(to, Box::new(bypass)), ASK).is_none() && is_back(&queue));
    for whole in [true, false] {
        let coverage = link.process.cache.coverages().take().unwrap();
        let (to, queue) = kept();
        let window = Window {
            to,
            elements: Some(1),
            last: whole,
            held: Bytes::new(),
            parts: vec![Part::Missing],
            fetch: None,
        };
        let key: Key = if whole { b"m"[..].into() } else { b"n"[..].into() };
        let leased = lease(&link, &coverage, &key);
        let missing = vec![Missing { key, past: false, lease: Some(leased), reply: 0..0 }];
        let assembly = MgetAssembly::new(Some(window), missing);
        let pending = answer(&link, Pending::MgetAssembly(Box::new(assembly)), MOVED);
        assert!(answer(&link, pending.expect("PTTL is to come"), MOVED).is_none());
        assert_eq!(is_back(&queue), whole);
    }
}

#[test]
fn in_the_place_of_a_look_that_was_refused_delete_is_said() {
    let (link, above) = node();
    let keys = [(b"a"[..].into(), Say::Look), (b"b"[..].into(), Say::Update)].into_iter().collect();
    let pending = Pending::Said(Box::new(Said { keys, db: 0 }));
    let pending = answer(&link, pending, MOVED).expect("the other is to come");
    assert_eq!(above.called(), [Called::Announced(vec![(b"a"[..].into(), Say::Delete)])]);
    assert!(link.may_look() && link.process.metrics.looks_refused.get() == 0);
    assert!(answer(&link, pending, b":0\r\n").is_none());
}

#[test]
fn what_was_sent_and_lost_is_an_error_and_what_was_not_is_put_back() {
    for sent in [true, false] {
        let (link, _above) = node();
        let (to, queue) = kept();
        lose(&link, Pending::Relay(to), &loss(sent));
        assert_eq!(is_back(&queue), !sent);
        assert_eq!(queue.said().starts_with("-ERR nearside: upstream"), sent);
    }
    // Behind what may yet be executed it might come first.
    let (link, _above) = node();
    let (first, queue) = kept();
    let second = slot(&queue);
    queue.keep(second.slot, Bytes::from_static(b"second"));
    lose(&link, Pending::Relay(first), &loss(true));
    lose(&link, Pending::Relay(second), &loss(false));
    assert!(!queue.has_back() && queue.said().matches("-ERR nearside").count() == 2);
    // Whom the node does not let in it will not let in again.
    for (refusal, back) in [("-WRONGPASS no\r\n", false), ("-LOADING Redis is loading\r\n", true)] {
        let (to, queue) = kept();
        let cause = ConnectError::Refused(refusal.as_bytes().into());
        lose(&link, Pending::Relay(to), &Loss { sent: false, cause });
        assert_eq!(is_back(&queue), back, "{refusal}");
    }
}

#[test]
fn a_transaction_of_which_a_part_was_lost_on_its_way_does_not_begin_anew() {
    for sent in [false, true] {
        let (link, _above) = node();
        link.astray.keeps(Keeps::Transaction(Some(1)));
        let queue = Rc::new(ReplyQueue::new(1000));
        let [queued, exec] = [(); 2].map(|()| slot(&queue));
        lose(&link, Pending::Relay(queued), &loss(sent));
        lose(&link, Pending::Relay(exec), &loss(false));
        assert_eq!((link.astray.is_held(), queue.waiting() == 0), (!sent, sent), "both are told, or neither");
    }
}
