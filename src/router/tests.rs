mod alive;
mod choose;
mod follow;
mod left;
mod stuck;

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::task::LocalSet;

use super::key::LinkKey;
use super::links::{Router, UNUSED};
use crate::cache::{LinkId, Wanted};
use crate::command::Say;
use crate::namespace::Tracking;
use crate::pending::{InFlight, Key, Link, LinkEvent, Pending, Upcalls, Write};
use crate::process::{Ident, fixture};
use crate::resp::Protocol;

/// Nobody is above.
struct Nobody;

impl Upcalls for Nobody {
    fn link(&self, _link: LinkId, _event: LinkEvent) {}
    fn announce(&self, _via: LinkId, _db: u32, _said: Vec<(Key, Say)>) {}
    fn owe(&self, _keys: Vec<Key>) {}
    fn refresh(&self, _key: &[u8], _wanted: &Wanted) {}
}

const MAX_LINKS: usize = 4;

/// A router whose links lead nowhere, and connect only if they are used.
fn router() -> Router {
    let nobody: Weak<dyn Upcalls> = Rc::downgrade(&Rc::new(Nobody)) as Weak<dyn Upcalls>;
    Router::new(fixture::process(MAX_LINKS), nobody)
}

/// Runs a test of a router whose links stand once they are used, and are answered nothing.
fn with_mute(test: impl AsyncFnOnce(Rc<Router>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mute = fixture::Mute::start();
        let nobody: Weak<dyn Upcalls> = Rc::downgrade(&Rc::new(Nobody)) as Weak<dyn Upcalls>;
        let process = fixture::process_with(mute.settings.clone(), |settings| {
            settings.max_links = MAX_LINKS.into();
            settings.tracking = Tracking::Keys;
            // So long that no link is silent within a test unless it says so.
            settings.max_staleness = (60 * UNUSED).into();
        });
        test(Rc::new(Router::new(process, nobody))).await;
    });
}

/// Waits until it stands.
async fn up(link: &Link) {
    poll_fn(|cx| link.poll_ready(cx)).await.unwrap();
}

/// Sends a write on it, or a read.
fn ask(link: &Link, writes: bool) {
    let pending = if writes { Pending::Write(Box::new(Write::new(None))) } else { Pending::Name };
    let since = link.client().process.now();
    assert!(link.send(|out| out.copy(b"*1\r\n$4\r\nECHO\r\n"), InFlight { since, pending }).is_ok());
}

/// How many requests of a kind are in flight on it.
fn awaited(link: &Link, kind: impl Fn(&Pending) -> bool) -> usize {
    let count = Cell::new(0);
    link.awaits(|request| {
        count.set(count.get() + usize::from(kind(&request.pending)));
        false
    });
    count.get()
}

fn pings(link: &Link) -> usize {
    awaited(link, |pending| matches!(pending, Pending::Ping))
}

fn of_db(router: &Router, db: u32) -> LinkKey {
    let key = router.default_key(Protocol::Resp2);
    LinkKey { ident: Ident { db, ..key.ident }, ..key }
}

/// The databases that have a link.
fn dbs(router: &Router) -> Vec<u32> {
    let mut dbs: Vec<u32> = router
        .links
        .borrow()
        .iter()
        .map(|known| known.link.client().process.idents.get(known.ident).unwrap().db)
        .collect();
    dbs.sort_unstable();
    dbs
}

#[tokio::test(start_paused = true)]
async fn as_many_links_are_kept_as_the_bound_says_and_the_default_always() {
    let router = router();
    for db in 0..MAX_LINKS as u32 {
        router.link(&of_db(&router, db));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(dbs(&router), [0, 1, 2, 3], "so many may be there");
    // Used again, so the second is now the one that was least lately used.
    router.link(&of_db(&router, 1));
    tokio::time::advance(Duration::from_secs(1)).await;
    router.link(&of_db(&router, 9));
    assert_eq!(dbs(&router), [0, 1, 3, 9]);
    for db in 10..30 {
        tokio::time::advance(Duration::from_secs(1)).await;
        router.link(&of_db(&router, db));
    }
    assert_eq!(dbs(&router), [0, 27, 28, 29]);
    assert_eq!(router.process.metrics.links_closed.get(), 21);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_nobody_uses_ends_after_a_while_but_the_default_does_not() {
    let router = router();
    router.link(&of_db(&router, 0));
    router.link(&of_db(&router, 1));
    let held = router.link(&of_db(&router, 2));
    tokio::time::advance(UNUSED).await;
    router.drop_unused();
    assert_eq!(dbs(&router), [0, 1, 2], "not before it is over");
    tokio::time::advance(Duration::from_millis(1)).await;
    router.drop_unused();
    assert_eq!(dbs(&router), [0, 2], "one that a session holds is in use");
    drop(held);
    tokio::time::advance(UNUSED + Duration::from_millis(1)).await;
    router.drop_unused();
    assert_eq!(dbs(&router), [0]);
}

#[test]
fn who_shares_a_link_gets_the_same_and_others_another() {
    let router = router();
    let [one, again, other] = [0, 0, 1].map(|db| router.link(&of_db(&router, db)));
    assert!(one.is(&again) && !one.is(&other));
    let links = router.links.borrow();
    assert!(links[0].is_as(&links[0]) && !links[0].is_as(&links[1]));
    drop(links);
    // What is tried is nobody's yet, and that of all who try the same.
    let key = of_db(&router, 5);
    let (tried, by_another) = (router.candidate(&key), router.candidate(&key));
    assert!(tried.is(&by_another) && dbs(&router) == [0, 1]);
    router.settle(&key, &tried);
    assert!(router.link(&key).is(&tried) && dbs(&router) == [0, 1, 5]);
    router.clear();
    assert!(dbs(&router).is_empty());
}
