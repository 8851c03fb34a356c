//! The cache against a model: a server that executes, messages that arrive late, and rules for every hit.
//!
//! The model knows when each write was executed, and what has been delivered on which connection. proptest
//! explores orders of lookup, execution, delivery, fence, loss and time; connections keep their order, as TCP
//! does. What is asserted is never what the cache has, only what it must not serve.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nearside::cache::{
    Bounds, By, Cache, Cover, CoverageId, CoverageSlot, EntryKey, Expiry, Fence, IdentId, Lease, LinkId,
    Lookup, Micros, Reason, Waiter,
};
use proptest::prelude::*;

const KEYS: usize = 2;
const COMMANDS: u16 = 2;
const LINKS: usize = 2;
const MAX_STALENESS: Micros = 300;
const BOUNDS: Bounds = Bounds { max_staleness: MAX_STALENESS, unreachable: false, group: 0 };
const MAX_BYTES: usize = 1500;

#[derive(Clone, Debug)]
enum Step {
    Lookup {
        key: usize,
        command: u16,
        link: usize,
    },
    /// A write through the sidecar, and the command with which what it leaves behind is read.
    Write {
        key: usize,
        link: usize,
        refill: Option<u16>,
    },
    /// One whose keys are not known.
    WriteUnknown {
        key: usize,
        link: usize,
    },
    /// A write of somebody else, executed at once.
    Foreign {
        key: usize,
    },
    /// The upstream empties itself.
    FlushAll,
    /// The upstream executes the next request of a link, or of the feed.
    Execute {
        link: usize,
    },
    ExecutePing,
    /// The next reply arrives; `give_up` says that it is not to be kept.
    Deliver {
        link: usize,
        give_up: bool,
        lives: Micros,
    },
    DeliverFeed {
        refresh: bool,
    },
    Ping,
    /// Whoever fetches a reply leaves.
    DropLease {
        link: usize,
    },
    LoseLink {
        link: usize,
        executed: bool,
    },
    LoseFeed,
    ArmLink {
        link: usize,
    },
    ArmFeed,
    Sweep,
    Pass {
        time: Micros,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (key, link) = (0..KEYS, 0..LINKS);
    prop_oneof![
        40 => (key.clone(), 0..COMMANDS, link.clone())
            .prop_map(|(key, command, link)| Step::Lookup { key, command, link }),
        4 => (key.clone(), link.clone(), prop::option::of(0..COMMANDS))
            .prop_map(|(key, link, refill)| Step::Write { key, link, refill }),
        1 => (key.clone(), link.clone()).prop_map(|(key, link)| Step::WriteUnknown { key, link }),
        4 => key.prop_map(|key| Step::Foreign { key }),
        1 => Just(Step::FlushAll),
        45 => link.clone().prop_map(|link| Step::Execute { link }),
        8 => Just(Step::ExecutePing),
        60 => (link.clone(), prop::bool::weighted(0.05), prop_oneof![3 => Just(1_000_000), 1 => 1..400u64])
            .prop_map(|(link, give_up, lives)| Step::Deliver { link, give_up, lives }),
        12 => any::<bool>().prop_map(|refresh| Step::DeliverFeed { refresh }),
        8 => Just(Step::Ping),
        1 => link.clone().prop_map(|link| Step::DropLease { link }),
        1 => (link.clone(), any::<bool>())
            .prop_map(|(link, executed)| Step::LoseLink { link, executed }),
        1 => Just(Step::LoseFeed),
        6 => link.prop_map(|link| Step::ArmLink { link }),
        6 => Just(Step::ArmFeed),
        1 => Just(Step::Sweep),
        6 => (1..60u64).prop_map(|time| Step::Pass { time }),
    ]
}

/// What a waiter was told, by its number.
type Told = Arc<Mutex<HashMap<usize, Vec<Option<Bytes>>>>>;

struct Waiting {
    number: usize,
    told: Told,
}

impl Waiter for Waiting {
    fn served(self, reply: Bytes) {
        self.told.lock().unwrap().entry(self.number).or_default().push(Some(reply));
    }
    fn released(self) {
        self.told.lock().unwrap().entry(self.number).or_default().push(None);
    }
}

/// Versions that must not be undercut by a reply which is asked for now.
#[derive(Clone, Copy, Debug)]
struct Floor {
    invalidated: u32,
    acknowledged: u32,
    seen: u32,
}

enum Work {
    Read { key: usize, command: u16, lease: Option<Lease<Waiting>>, floor: Floor },
    Past { key: usize, command: u16, floor: Floor },
    Write { key: usize, fence: Option<Fence<Waiting>>, all: bool },
}

struct Request {
    work: Work,
    sent: Micros,
    /// The version that the upstream answered with, or wrote.
    executed: Option<u32>,
}

enum Message {
    Invalidate(usize, u32),
    Flush([u32; KEYS]),
    Pong(Micros),
}

/// What is known of a fill when it is served.
#[derive(Clone, Copy, Debug)]
struct Fill {
    coverage: CoverageId,
    expires: Micros,
}

struct World {
    cache: Arc<Cache<Waiting>>,
    now: Micros,
    told: Told,
    /// When each version of each key was executed; the index is the version.
    executed_at: Vec<Vec<Micros>>,
    feed: CoverageSlot,
    links: Vec<CoverageSlot>,
    feed_up: Option<CoverageId>,
    feed_queue: VecDeque<Message>,
    pings: VecDeque<Micros>,
    feed_proven: Micros,
    link_proven: Vec<Micros>,
    queues: Vec<VecDeque<Request>>,
    invalidated: [u32; KEYS],
    acknowledged: [u32; KEYS],
    seen: HashMap<(usize, u16), u32>,
    fences: [usize; KEYS],
    fences_over_all: usize,
    fills: Vec<Fill>,
    /// What each waiter must not be served less than.
    joined: HashMap<usize, (usize, u16, Floor)>,
    hits: usize,
    joined_behind_writes: usize,
}

const NAMES: [&[u8]; KEYS] = [b"a", b"b"];

impl World {
    fn new() -> Self {
        let cache = Arc::new(Cache::new(MAX_BYTES, MAX_BYTES, 0));
        let feed = cache.coverages().take().unwrap();
        let links = (0..LINKS).map(|_| cache.coverages().take().unwrap()).collect();
        let mut world = Self {
            cache,
            now: 1,
            told: Told::default(),
            executed_at: vec![vec![0]; KEYS],
            feed,
            links,
            feed_up: None,
            feed_queue: VecDeque::new(),
            pings: VecDeque::new(),
            feed_proven: 0,
            link_proven: vec![0; LINKS],
            queues: (0..LINKS).map(|_| VecDeque::new()).collect(),
            invalidated: [0; KEYS],
            acknowledged: [0; KEYS],
            seen: HashMap::new(),
            fences: [0; KEYS],
            fences_over_all: 0,
            fills: Vec::new(),
            joined: HashMap::new(),
            hits: 0,
            joined_behind_writes: 0,
        };
        world.take(Step::ArmFeed);
        (0..LINKS).for_each(|link| world.take(Step::ArmLink { link }));
        world
    }

    fn take(&mut self, step: Step) {
        self.now += 1;
        match step {
            Step::Lookup { key, command, link } => self.lookup(key, command, link),
            Step::Write { key, link, refill } => {
                let fence = self.cache.fence([NAMES[key]], Reason::Write, self.now);
                self.fences[key] += 1;
                let lease = refill.and_then(|command| {
                    let name =
                        EntryKey { key: NAMES[key], ident: IdentId(0), command, args: b"", by: By::ITSELF };
                    let coverage = self.cache.coverages().current(&self.links[link]);
                    let cover = || {
                        let link = LinkId(link as u32 + 1);
                        coverage.map(|coverage| Cover { coverage, link, registers: false })
                    };
                    self.cache.lease_behind_write(&name, self.now, cover)
                });
                self.send(link, Work::Write { key, fence: Some(fence), all: false });
                if let (Some(command), Some(lease)) = (refill, lease) {
                    let floor = self.floor(key, command);
                    self.send(link, Work::Read { key, command, lease: Some(lease), floor });
                }
            }
            Step::WriteUnknown { key, link } => {
                let fence = self.cache.fence_all(Reason::Write);
                self.fences_over_all += 1;
                self.send(link, Work::Write { key, fence: Some(fence), all: true });
            }
            Step::Foreign { key } => {
                self.write(key);
            }
            Step::FlushAll => {
                (0..KEYS).for_each(|key| self.executed_at[key].push(self.now));
                if self.feed_up.is_some() {
                    let versions = std::array::from_fn(|key| self.version(key));
                    self.feed_queue.push_back(Message::Flush(versions));
                }
            }
            Step::Execute { link } => self.execute(link),
            Step::ExecutePing => {
                if let Some(sent) = self.pings.pop_front() {
                    self.feed_queue.push_back(Message::Pong(sent));
                }
            }
            Step::Deliver { link, give_up, lives } => self.deliver(link, give_up, lives),
            Step::DeliverFeed { refresh } => self.deliver_feed(refresh),
            Step::Ping if self.feed_up.is_some() => self.pings.push_back(self.now),
            Step::Ping => {}
            Step::DropLease { link } => {
                let mut works = self.queues[link].iter_mut().map(|request| &mut request.work);
                if let Some(Work::Read { lease, .. }) =
                    works.find(|work| matches!(work, Work::Read { lease: Some(_), .. }))
                {
                    drop(lease.take());
                }
            }
            Step::LoseLink { link, executed } => {
                self.cache.coverages().end(&self.links[link], self.now);
                while executed && self.queues[link].iter().any(|request| request.executed.is_none()) {
                    self.execute(link);
                }
                for request in std::mem::take(&mut self.queues[link]) {
                    self.release(request.work);
                }
            }
            Step::LoseFeed => {
                self.cache.coverages().end(&self.feed, self.now);
                self.feed_up = None;
                self.feed_queue.clear();
                self.pings.clear();
            }
            // Arming again under the same feed is sound as well, but it voids what there is.
            Step::ArmLink { link } if self.cache.coverages().current(&self.links[link]).is_some() => {}
            Step::ArmLink { link } => {
                let armed = self
                    .feed_up
                    .and_then(|feed| self.cache.coverages().arm(&self.links[link], Some(feed), self.now));
                assert_eq!(armed.is_some(), self.feed_up.is_some(), "a standing feed can be armed under");
                self.link_proven[link] = self.now;
            }
            Step::ArmFeed => {
                if self.feed_up.is_none() {
                    self.feed_up = self.cache.coverages().arm(&self.feed, None, self.now);
                    self.feed_proven = self.now;
                }
            }
            Step::Sweep => {
                self.cache.sweep(10, self.now);
            }
            Step::Pass { time } => self.now += time,
        }
    }

    fn send(&mut self, link: usize, work: Work) {
        self.queues[link].push_back(Request { work, sent: self.now, executed: None });
    }

    fn version(&self, key: usize) -> u32 {
        self.executed_at[key].len() as u32 - 1
    }

    /// The newest version that was executed before `time`.
    fn version_before(&self, key: usize, time: Micros) -> u32 {
        self.executed_at[key].iter().rposition(|at| *at < time).unwrap_or(0) as u32
    }

    fn floor(&self, key: usize, command: u16) -> Floor {
        Floor {
            invalidated: self.invalidated[key],
            acknowledged: self.acknowledged[key],
            seen: self.seen.get(&(key, command)).copied().unwrap_or(0),
        }
    }

    fn write(&mut self, key: usize) -> u32 {
        self.executed_at[key].push(self.now);
        let version = self.version(key);
        if self.feed_up.is_some() {
            self.feed_queue.push_back(Message::Invalidate(key, version));
        }
        version
    }

    fn lookup(&mut self, key: usize, command: u16, link: usize) {
        let name = EntryKey { key: NAMES[key], ident: IdentId(0), command, args: b"", by: By::ITSELF };
        let coverage = self.cache.coverages().current(&self.links[link]);
        let cover = || {
            let link = LinkId(link as u32 + 1);
            coverage.map(|coverage| Cover { coverage, link, registers: false })
        };
        let number = self.joined.len();
        let mut behind_write = false;
        let join = |behind| {
            behind_write = behind;
            Some(Waiting { number, told: self.told.clone() })
        };
        let mut served = None;
        let serve = |reply: &[u8]| served = Some(reply.to_vec());
        let floor = self.floor(key, command);
        let found = self.cache.lookup(&name, self.now, BOUNDS, cover, join, serve);
        match found {
            Lookup::Hit => self.hit(key, command, floor, &served.expect("a hit is served")),
            Lookup::Miss(lease) => {
                assert!(self.fences[key] == 0 && self.fences_over_all == 0, "a lease under a fence");
                self.send(link, Work::Read { key, command, lease: Some(lease), floor });
            }
            Lookup::Joined => {
                assert!(self.fences[key] <= 1 && self.fences_over_all == 0, "joined behind two writes");
                assert_eq!(behind_write, self.fences[key] == 1);
                assert!(!behind_write || self.refill_is_under_way(key, command), "joined under a fence");
                self.joined_behind_writes += usize::from(behind_write);
                self.joined.insert(number, (key, command, floor));
            }
            Lookup::Bypass(_) => self.send(link, Work::Past { key, command, floor }),
        }
    }

    /// Whether a write that holds its fence is followed by a read of what it leaves behind.
    fn refill_is_under_way(&self, key: usize, command: u16) -> bool {
        self.queues.iter().any(|queue| {
            let behind = queue
                .iter()
                .skip_while(|request| !matches!(request.work, Work::Write { key: written, .. } if written == key));
            behind.skip(1).any(|request| {
                matches!(request.work, Work::Read { key: k, command: c, lease: Some(_), .. } if (k, c) == (key, command))
            })
        })
    }

    fn hit(&mut self, key: usize, command: u16, floor: Floor, reply: &[u8]) {
        self.hits += 1;
        let (version, fill) = parse(reply);
        let fill = self.fills[fill];
        assert!(self.fences[key] == 0 && self.fences_over_all == 0, "a hit under a fence");
        assert!(self.cache.coverages().stands(fill.coverage), "a hit after its coverage ended");
        assert!(self.now < fill.expires, "a hit after the end of its life");
        let bound = self.now.saturating_sub(MAX_STALENESS);
        let link =
            self.links.iter().position(|slot| self.cache.coverages().current(slot) == Some(fill.coverage));
        let link = link.expect("filled on a link");
        let proven = self.feed_proven.min(self.link_proven[link]);
        assert!(proven >= bound, "a hit without a proof: proven {proven}, bound {bound}");
        let known = self.version_before(key, bound.max(proven));
        assert!(version >= known, "version {version}, but {known} was proven");
        self.check(key, command, floor, version);
    }

    fn check(&mut self, key: usize, command: u16, floor: Floor, version: u32) {
        assert!(version >= floor.invalidated, "version {version} after its invalidation: {floor:?}");
        assert!(version >= floor.acknowledged, "version {version} after a newer write's reply: {floor:?}");
        assert!(version >= floor.seen, "version {version} after a newer one was read: {floor:?}");
        let seen = self.seen.entry((key, command)).or_default();
        *seen = (*seen).max(version);
    }

    fn execute(&mut self, link: usize) {
        let Some(i) = self.queues[link].iter().position(|request| request.executed.is_none()) else { return };
        let executed = match self.queues[link][i].work {
            Work::Read { key, .. } | Work::Past { key, .. } => self.version(key),
            Work::Write { key, .. } => self.write(key),
        };
        self.queues[link][i].executed = Some(executed);
    }

    fn deliver(&mut self, link: usize, give_up: bool, lives: Micros) {
        let Some(version) = self.queues[link].front().and_then(|request| request.executed) else { return };
        let Request { work, sent, .. } = self.queues[link].pop_front().expect("it has a front");
        if self.cache.coverages().current(&self.links[link]).is_some() {
            self.cache.coverages().advance(&self.links[link], sent);
            self.link_proven[link] = self.link_proven[link].max(sent);
        }
        match work {
            Work::Read { key, command, lease, floor } => {
                if let Some(lease) = lease {
                    self.fill(lease, version, give_up, lives, link);
                } else {
                    // Its reader has gone, or it goes on without the cache.
                    self.cache.note_bypass(NAMES[key], LinkId(link as u32 + 1), self.now);
                }
                self.check(key, command, floor, version);
            }
            Work::Past { key, command, floor } => {
                self.cache.note_bypass(NAMES[key], LinkId(link as u32 + 1), self.now);
                self.check(key, command, floor, version);
            }
            Work::Write { key, .. } => {
                self.release(work);
                self.acknowledged[key] = self.acknowledged[key].max(version);
            }
        }
    }

    fn fill(&mut self, lease: Lease<Waiting>, version: u32, give_up: bool, lives: Micros, link: usize) {
        if give_up {
            lease.give_up(Reason::TooLarge, self.now);
            return;
        }
        let expires = lease.opened() + lives;
        let reply = format!("{version} {}", self.fills.len());
        let expiry = Expiry { expires, aged: false };
        // Only a fill under the link's present coverage can succeed.
        if let Some(coverage) = self.cache.coverages().current(&self.links[link]) {
            self.fills.push(Fill { coverage, expires });
            let _ = lease.fill(reply.as_bytes(), expiry, self.now, MAX_STALENESS);
        } else {
            assert!(
                lease.fill(reply.as_bytes(), expiry, self.now, MAX_STALENESS).is_err(),
                "filled uncovered"
            );
        }
        assert!(self.cache.stats().bytes as usize <= MAX_BYTES, "over the budget");
    }

    fn release(&mut self, work: Work) {
        if let Work::Write { key, fence, all } = work {
            drop(fence);
            match all {
                true => self.fences_over_all -= 1,
                false => self.fences[key] -= 1,
            }
        }
    }

    fn deliver_feed(&mut self, refresh: bool) {
        match self.feed_queue.pop_front() {
            Some(Message::Invalidate(key, version)) => {
                match refresh {
                    true => drop(self.cache.heard_for_refresh(NAMES[key], Reason::Update, self.now)),
                    false => self.cache.heard(NAMES[key], Reason::Tracking, self.now),
                }
                self.invalidated[key] = self.invalidated[key].max(version);
            }
            Some(Message::Flush(versions)) => {
                self.cache.flush(Reason::Tracking);
                for (known, version) in self.invalidated.iter_mut().zip(versions) {
                    *known = (*known).max(version);
                }
            }
            Some(Message::Pong(sent)) => {
                self.cache.coverages().advance(&self.feed, sent);
                self.feed_proven = self.feed_proven.max(sent);
            }
            None => {}
        }
    }

    /// After each step: waiters that were told are told once, and not what they must not be told.
    fn check_waiters(&mut self) {
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        for (number, replies) in told {
            assert_eq!(replies.len(), 1, "waiter {number} was told more than once");
            let (key, command, floor) = self.joined.remove(&number).expect("a waiter is told once");
            // The number stays taken.
            self.joined.insert(usize::MAX - number, (key, command, floor));
            if let Some(reply) = &replies[0] {
                let (version, _) = parse(reply);
                self.check(key, command, floor, version);
            }
        }
    }

    fn finish(mut self) {
        for queue in std::mem::take(&mut self.queues) {
            queue.into_iter().for_each(|request| self.release(request.work));
        }
        self.check_waiters();
        let untold = self.joined.keys().filter(|number| **number < usize::MAX / 2).count();
        assert_eq!(untold, 0, "waiters were forgotten");
        for key in NAMES {
            self.cache.invalidate(key, Reason::Update, self.now);
        }
        let stats = self.cache.stats();
        assert_eq!((stats.bytes, stats.entries), (0, 0), "something is left behind");
    }
}

fn parse(reply: &[u8]) -> (u32, usize) {
    let text = std::str::from_utf8(reply).unwrap();
    let (version, fill) = text.split_once(' ').unwrap();
    (version.parse().unwrap(), fill.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_serves_nothing_that_it_must_not(steps in prop::collection::vec(step(), 1..300)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check_waiters();
        }
        world.finish();
    }
}

/// The model proves nothing of what its steps never come to.
#[test]
fn the_steps_come_to_hits_and_to_all_that_is_joined() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut hits, mut joined_behind_writes) = (0, 0);
    for _ in 0..40 {
        let steps = prop::collection::vec(step(), 300).new_tree(&mut runner).unwrap().current();
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check_waiters();
        }
        hits += world.hits;
        joined_behind_writes += world.joined_behind_writes;
        world.finish();
    }
    assert!(hits > 80, "{hits} hits");
    assert!(joined_behind_writes > 5, "{joined_behind_writes} joined behind writes");
}
