mod cover;
mod link;
mod redirected;
mod replies;
mod writes;

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;

use super::*;
use crate::cache::{Bounds, By, Cover, CoverageSlot, EntryKey, Expiry, LinkId, Lookup, Micros, Wanted};
use crate::command::Say;
use crate::process::{Ident, Process, fixture};
use crate::reply::{ReplyQueue, ReplySlot};
use crate::resp::Protocol;
use crate::resp::scanner::Kind;
use crate::upstream::{At, Chunk, ReplyHandler};

/// What replies have called upward.
#[derive(Debug, PartialEq)]
enum Called {
    Link(LinkEvent),
    Announced(Vec<(Key, Say)>),
    Owed(Vec<Key>),
}

#[derive(Default)]
struct Above(RefCell<Vec<Called>>);

impl Above {
    fn called(&self) -> Vec<Called> {
        self.0.take()
    }
}

impl Upcalls for Above {
    fn link(&self, _link: LinkId, event: LinkEvent) {
        self.0.borrow_mut().push(Called::Link(event));
    }

    fn announce(&self, _via: LinkId, _db: u32, said: Vec<(Key, Say)>) {
        self.0.borrow_mut().push(Called::Announced(said));
    }

    fn owe(&self, keys: Vec<Key>) {
        self.0.borrow_mut().push(Called::Owed(keys));
    }

    fn refresh(&self, _key: &[u8], _wanted: &Wanted) {}
}

/// A shared link that stands, as far as its handler knows, and whoever is above.
fn link(process: &Arc<Process>) -> (LinkHandler, Rc<Above>) {
    let above = Rc::new(Above::default());
    let upcalls: Weak<dyn Upcalls> = Rc::downgrade(&above) as Weak<dyn Upcalls>;
    let origin = Origin { process: process.clone(), node: process.first_node(), upcalls };
    let link = LinkHandler::new(&origin, LinkId::next(), None, Protocol::Resp2);
    link.attempt();
    link.up(Some(1));
    above.called();
    (link, above)
}

fn a_link() -> (LinkHandler, Rc<Above>) {
    link(&fixture::process(4))
}

/// Where the reply of a new request of this queue goes.
fn slot(queue: &Rc<ReplyQueue>) -> ReplySlot {
    ReplySlot { queue: queue.clone(), slot: queue.open() }
}

/// Of a `GET` of nearside's own.
fn name<'a>(process: &Process, key: &'a [u8]) -> EntryKey<'a> {
    let ident = Ident { db: 0, protocol: Protocol::Resp2, user: None };
    EntryKey { key, ident: process.idents.number(&ident), command: process.get, args: b"", by: By::GET }
}

const EVER: Bounds = Bounds { max_staleness: Micros::MAX / 4, unreachable: false, group: 0 };

/// A lease under the coverage in this slot, which is armed.
fn lease(link: &LinkHandler, slot: &CoverageSlot, key: &[u8]) -> CacheLease {
    lease_within(link, slot, key, EVER)
}

/// Likewise of what is not there within the bounds.
fn lease_within(link: &LinkHandler, slot: &CoverageSlot, key: &[u8], bounds: Bounds) -> CacheLease {
    let process = &link.process;
    let coverage = process.cache.coverages().current(slot);
    let coverage = coverage.or_else(|| process.cache.coverages().arm(slot, None, 1));
    let found = process.cache.lookup(
        &name(process, key),
        process.now(),
        bounds,
        || coverage.map(|coverage| Cover { coverage, link: link.id, registers: false }),
        |_| None,
        |_| (),
    );
    match found {
        Lookup::Miss(lease) => lease,
        _ => panic!("it is there, or must not be kept"),
    }
}

/// Keeps `v` as the reply to `GET` of this key.
fn keep(link: &LinkHandler, slot: &CoverageSlot, key: &[u8]) {
    let expiry = Expiry { expires: Micros::MAX / 4, aged: false };
    lease(link, slot, key).fill(b"$1\r\nv\r\n", expiry, link.process.now(), Micros::MAX / 4).unwrap();
}

/// Whether a reply to `GET` of this key is served.
fn is_kept(process: &Process, key: &[u8]) -> bool {
    let found = process.cache.lookup(&name(process, key), process.now(), EVER, || None, |_| None, |_| ());
    matches!(found, Lookup::Hit)
}

const WHOLE: At = At { kind: Kind::Simple, first: true, last: true };

fn kind_of(reply: &[u8]) -> Kind {
    match reply[0] {
        b'-' => Kind::Error,
        b'+' => Kind::Simple,
        b'*' if reply == b"*-1\r\n" => Kind::Null,
        b'*' => Kind::Aggregate,
        b'_' => Kind::Null,
        b'$' if reply == b"$-1\r\n" => Kind::Null,
        b'$' => Kind::Bulk,
        _ => Kind::Simple,
    }
}

/// Hands a whole reply to a request, as the link does.
fn answer(link: &LinkHandler, pending: Pending, reply: &[u8]) -> Option<Pending> {
    let since = link.process.now();
    link.heard();
    let mut buf = BytesMut::from(reply);
    let at = At { kind: kind_of(reply), ..WHOLE };
    link.reply(InFlight { since, pending }, Chunk::all_of(&mut buf), at).map(|request| request.pending)
}

/// A session's queue, and how often the session was woken.
struct Woken {
    queue: Rc<ReplyQueue>,
    count: Arc<Count>,
    waker: std::task::Waker,
}

#[derive(Default)]
struct Count(AtomicUsize);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn new() -> Self {
        let count = Arc::<Count>::default();
        let woken = Self { queue: Rc::new(ReplyQueue::new(1000)), waker: count.clone().into(), count };
        woken.was();
        woken
    }

    /// Whether it was since it was last asked.
    fn was(&self) -> bool {
        self.queue.set_waker(&std::task::Context::from_waker(&self.waker));
        self.count.0.swap(0, Ordering::Relaxed) > 0
    }
}
