//! Links whose oldest request is stuck, and the spare ones.

use std::sync::Arc;

use tokio::time::Instant;

use super::*;
use crate::cache::{Bounds, By, Cover, EntryKey, Lookup};
use crate::command::Fields;
use crate::io::Address;
use crate::pending::{CacheLease, Fill, MgetAssembly, Missing, Part, Window};
use crate::process::Ticket;
use crate::reply::{ReplyQueue, ReplySlot};
use crate::upstream::Location;
use crate::upstream::PING;

/// So late that what is at the front for so long is stuck.
const LATE: u64 = u64::MAX / 2;

/// Whether those who wait for what is behind its front were let go at that time.
fn was_let_go(link: &Link) -> bool {
    !link.client().front.lets_go(LATE)
}

#[test]
fn those_behind_a_stuck_front_are_let_go_unless_all_of_their_links_are_stuck() {
    with_mute(async |router| {
        let [alone, other] = [0, 1].map(|db| router.link(&of_db(&router, db)));
        for link in [&alone, &other] {
            up(link).await;
        }
        ask(&alone, false);
        router.let_go_of_stuck(LATE);
        assert!(was_let_go(&alone) && !was_let_go(&other), "the other is not stuck");
    });
    with_mute(async |router| {
        let key = of_db(&router, 0);
        let first = router.link(&key);
        up(&first).await;
        ask(&first, false);
        assert!(router.route(&key, false, LATE).is_none(), "a spare one is made");
        let spare = router.spares.borrow()[0].link.clone();
        up(&spare).await;
        ask(&spare, false);
        router.let_go_of_stuck(LATE);
        assert!(!was_let_go(&first) && !was_let_go(&spare), "there is no other way to go");
    });
}

#[test]
fn a_spare_link_stays_while_it_is_used_and_its_first_is_there() {
    with_mute(async |router| {
        let keys = [0, 1, 2].map(|db| of_db(&router, db));
        let mut spares = Vec::new();
        for key in &keys {
            let first = router.link(key);
            up(&first).await;
            ask(&first, false);
            assert!(router.route(key, false, LATE).is_none());
            let spare = router.spares.borrow().last().unwrap().link.clone();
            up(&spare).await;
            spares.push(spare);
        }
        let stand = || spares.iter().map(Link::is_up).collect::<Vec<_>>();
        tokio::time::pause();
        // The first of another identity is no first of this one.
        router
            .links
            .borrow_mut()
            .retain(|known| !known.is(router.process.idents.number(&keys[2].ident), &keys[2]));
        router.drop_unused();
        assert_eq!(stand(), [true, true, false], "it is alone");
        ask(&spares[1], false);
        router.spares.borrow().iter().for_each(|spare| spare.used.set(Instant::now()));
        tokio::time::advance(UNUSED).await;
        router.drop_unused();
        assert_eq!(stand(), [true, true, false], "not before it is over");
        tokio::time::advance(Duration::from_millis(1)).await;
        router.drop_unused();
        assert_eq!(stand(), [false, true, false], "one in use is not unused");
        assert_eq!(router.spares.borrow().len(), 1);
    });
}

#[test]
fn a_spare_link_that_is_alone_stays_until_it_is_answered() {
    with_mute(async |router| {
        let key = of_db(&router, 1);
        let first = router.link(&key);
        up(&first).await;
        ask(&first, false);
        assert!(router.route(&key, false, LATE).is_none());
        let spare = router.spares.borrow()[0].link.clone();
        up(&spare).await;
        ask(&spare, false);
        router.links.borrow_mut().clear();
        router.drop_unused();
        assert!(spare.is_up() && router.spares.borrow().len() == 1);
    });
}

/// A router whose first link has a request at its front that is stuck at [`LATE`], and a spare one that can be used.
async fn with_spare(router: &Router, writes: bool) -> (LinkKey, Link, Link) {
    let key = of_db(router, 0);
    let first = router.link(&key);
    up(&first).await;
    ask(&first, writes);
    assert!(router.route(&key, false, LATE).is_none(), "it has to be made");
    let spare = router.spares.borrow()[0].link.clone();
    up(&spare).await;
    assert!(router.route(&key, false, LATE).is_none(), "it is not known whether it is tracked");
    spare.client().front.become_ready(true);
    (key, first, spare)
}

#[test]
fn behind_a_read_that_is_stuck_all_go_the_other_way_unless_that_is_stuck_too() {
    with_mute(async |router| {
        let (key, first, spare) = with_spare(&router, false).await;
        let ident = router.process.idents.number(&key.ident);
        assert!(router.route(&key, false, 1).is_some_and(|link| link.is(&first)), "it is not stuck yet");
        for writes in [true, false] {
            assert!(router.route(&key, writes, LATE).is_some_and(|link| link.is(&spare)));
        }
        assert!(was_let_go(&first) && !was_let_go(&spare));
        assert!(!router.keeps_writes_off(ident, &spare, LATE));
        ask(&spare, false);
        let now = LATE + 1_000_000;
        for writes in [true, false] {
            assert!(router.route(&key, writes, now).is_some_and(|link| link.is(&first)));
        }
        assert!(first.client().front.lets_go(now), "nobody is let go where there is no other way");
    });
}

#[test]
fn behind_a_write_that_is_stuck_reads_go_the_other_way_and_writes_if_the_server_is_busy() {
    with_mute(async |router| {
        let (key, first, spare) = with_spare(&router, true).await;
        let ident = router.process.idents.number(&key.ident);
        assert!(router.route(&key, false, LATE).is_some_and(|link| link.is(&spare)));
        assert!(router.route(&key, true, LATE).is_none() && pings(&spare) == 1, "the server is asked");
        assert!(router.route(&key, true, LATE).is_none() && pings(&spare) == 1, "once");
        spare.client().front.answered(true, LATE);
        assert!(router.route(&key, true, LATE).is_some_and(|link| link.is(&spare)), "it is told so there");
        spare.client().front.answered(false, LATE);
        assert!(router.route(&key, true, LATE).is_some_and(|link| link.is(&first)), "it is paused there");
        assert!(router.route(&key, true, LATE + 1_000_000).is_none(), "that is not believed for long");
        assert!(router.keeps_writes_off(ident, &spare, LATE));
        assert!(!router.keeps_writes_off(ident, &first, LATE), "that is no spare one");
        assert!(!router.keeps_writes_off(ident, &spare, 1), "it is not stuck yet");
        // Reads wait on the spare link rather than behind the write, but not behind another one.
        ask(&spare, false);
        assert!(router.route(&key, false, LATE).is_some_and(|link| link.is(&spare)));
        spare.client().front.is(Some(true), 1);
        assert!(router.route(&key, false, LATE).is_some_and(|link| link.is(&first)));
    });
}

#[test]
fn where_no_connection_is_to_be_had_all_wait_behind_what_is_stuck() {
    with_mute(async |router| {
        let key = of_db(&router, 0);
        let first = router.link(&key);
        first.client().front.is(Some(false), 1);
        assert!(router.route(&key, false, LATE).is_some_and(|link| link.is(&first)), "it connects");
        assert!(router.spares.borrow().is_empty());
        up(&first).await;
        ask(&first, false);
        let node = router.process.first_node();
        let Location::Fixed(address) = &node.upstream.address else { panic!("one place") };
        let Address::Unix(path) = &**address else { panic!("a socket") };
        std::fs::remove_file(path).unwrap();
        assert!(router.route(&key, false, LATE).is_none(), "the spare one connects");
        let spare = router.spares.borrow()[0].link.clone();
        assert!(poll_fn(|cx| spare.poll_ready(cx)).await.is_err());
        assert!(router.route(&key, false, LATE).is_some_and(|link| link.is(&first)));
    });
}

#[test]
fn who_waits_for_the_stuck_request_itself_waits_on() {
    for mget in [true, false] {
        with_mute(async |router| {
            let link = router.link(&of_db(&router, 0));
            up(&link).await;
            let process = router.process.clone();
            let ident = process.idents.number(&of_db(&router, 0).ident);
            let coverages = process.cache.coverages();
            let covered = coverages.arm(link.client().coverage.borrow().as_ref().unwrap(), None, 1).unwrap();
            let look = |key: &[u8]| {
                let name = EntryKey { key, ident, command: process.get, args: b"", by: By::GET };
                let bounds = Bounds { max_staleness: LATE, unreachable: false, group: 0 };
                let wait = |_| Some(Ticket { inbox: Arc::default(), session: 0, slot: 0 });
                let cover = || Some(Cover { coverage: covered, link: link.client().id, registers: false });
                process.cache.lookup(&name, process.now(), bounds, cover, wait, |_| ())
            };
            let lease = |key: &[u8]| match look(key) {
                Lookup::Miss(lease) => lease,
                _ => panic!("it is not there"),
            };
            let front = match mget {
                false => Pending::Fill(Box::new(Fill::new(None, lease(b"front"), Fields::None))),
                true => Pending::MgetAssembly(Box::new(assembly(b"front", lease(b"front")))),
            };
            let _behind = lease(b"behind");
            assert!(link.send(|out| out.copy(PING), InFlight { since: 1, pending: front }).is_ok());
            router.let_go_of_stuck(LATE);
            assert!(matches!(look(b"front"), Lookup::Joined), "the server is at it");
            assert!(matches!(look(b"behind"), Lookup::Miss(_)), "it is read another way");
        });
    }
}

fn assembly(key: &[u8], lease: CacheLease) -> MgetAssembly {
    let queue = Rc::new(ReplyQueue::new(1000));
    let to = ReplySlot { queue: queue.clone(), slot: queue.open() };
    let window = Window {
        to,
        elements: Some(1),
        last: true,
        held: Default::default(),
        parts: vec![Part::Missing],
        fetch: None,
    };
    let missing = vec![Missing { key: key.into(), past: false, lease: Some(lease), reply: 0..0 }];
    MgetAssembly::new(Some(window), missing)
}
