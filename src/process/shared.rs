//! What all threads of the process share: settings, cache, identities, clients, and the upstream's nodes.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::info;

use super::clients::Clients;
use super::cluster::Cluster;
use super::hot::Hot;
use super::idents::Idents;
use super::inbox::Ticket;
use super::node::Node;
use super::reports::Form;
use super::scans::Scans;
use super::scripts::Scripts;
use super::settings::Settings;
use super::topology::Topology;
use super::traces::Traces;
use super::voids::Voids;
use crate::cache::{By, Cache, IdentId, Micros};
use crate::command::Table;
use crate::io::Address;
use crate::metrics::Metrics;
use crate::namespace::{Namespace, Namespaces, Tracking, TrackingForm};
use crate::resp::{Protocol, SlotSet, key_slot};
use crate::writeback::WriteBack;

/// What is dirty of a namespace.
pub type Back = Arc<WriteBack<Ticket>>;

/// See [`Process::cached_table`].
pub type CachedTable = arc_swap::Cache<Arc<ArcSwap<Table>>, Arc<Table>>;

/// How long heartbeats go on after the last read: an application that reads now and then still hits.
const ACTIVE: Duration = Duration::from_secs(60);

/// See the [module](self).
pub struct Process {
    pub settings: Settings,
    pub cache: Arc<Cache<Ticket>>,
    pub namespaces: Namespaces,
    pub metrics: Metrics,
    pub idents: Idents,
    pub clients: Clients,
    /// The keys that are hit most.
    pub hot: Hot,
    /// Misses that are sampled.
    pub traces: Traces,
    /// The number of `GET` in the command table.
    pub get: u16,
    /// What is known of the upstream as a cluster.
    pub cluster: Cluster,
    /// How far each `SCAN` over its nodes has come.
    pub scans: Scans,
    /// Scripts that its nodes may have to be told.
    pub scripts: Scripts,
    /// What the upstream said last to a `HELLO`, in RESP2 and in RESP3.
    hello: [Mutex<Bytes>; 2],
    /// For each namespace, if its writes are acknowledged here; empty if none's are.
    backs: Box<[Option<Back>]>,
    topology: ArcSwap<Topology>,
    voids: Arc<Voids>,
    /// Told when the bounds are others.
    bounds: watch::Sender<()>,
    /// The epoch of the present topology.
    epoch: watch::Sender<u64>,
    /// The same, and that there is but one node, for who asks before all requests.
    present: AtomicU64,
    single: AtomicBool,
    /// A number of this process, by which it differs from others.
    turn: usize,
    table: Arc<ArcSwap<Table>>,
    origin: Instant,
}

impl Process {
    /// In front of these nodes. `None` if the built-in command table is broken.
    pub fn new(
        topology: Topology,
        settings: Settings,
        cache: Cache<Ticket>,
        namespaces: Namespaces,
    ) -> Option<Self> {
        let table = Table::builtin();
        let get = table.number(b"get")?;
        let metrics = Metrics::default();
        metrics.nodes.set(topology.nodes().len() as u64);
        let back = |namespace: &Namespace| {
            namespace.writes_back().map(|writing| Arc::new(WriteBack::new(&namespace.name, writing)))
        };
        let backs: Box<[_]> = namespaces.iter().map(back).collect();
        Some(Self {
            hello: Default::default(),
            backs: if backs.iter().any(Option::is_some) { backs } else { Box::default() },
            cluster: Cluster::new(settings.cluster.is_named, topology.nodes().len()),
            table: Arc::new(ArcSwap::from_pointee(narrowed(&settings, table))),
            settings,
            cache: Arc::new(cache),
            namespaces,
            metrics,
            idents: Idents::default(),
            scans: Scans::default(),
            scripts: Scripts::default(),
            clients: Clients::default(),
            hot: Hot::default(),
            traces: Traces::default(),
            get,
            turn: RandomState::new().hash_one(0) as usize,
            present: AtomicU64::new(topology.epoch),
            single: AtomicBool::new(topology.is_single()),
            voids: Arc::default(),
            bounds: watch::Sender::default(),
            epoch: watch::Sender::new(topology.epoch),
            topology: ArcSwap::from_pointee(topology),
            origin: Instant::now(),
        })
    }

    /// The upstream has answered a `HELLO`.
    pub fn note_hello(&self, reply: &[u8]) {
        let mut known = self.hello[usize::from(reply.starts_with(b"%"))].lock();
        if **known != *reply {
            *known = Bytes::copy_from_slice(reply);
        }
    }

    /// What it said last to one that asked for this protocol.
    pub fn hello_said(&self, protocol: Protocol) -> Option<Bytes> {
        let said = self.hello[usize::from(protocol == Protocol::Resp3)].lock().clone();
        Some(said).filter(|said| !said.is_empty())
    }

    /// What is dirty of this namespace, if its writes are acknowledged here.
    #[inline(always)]
    pub fn back(&self, namespace: Option<&Namespace>) -> Option<&Back> {
        self.backs.get(namespace?.number() - 1)?.as_ref()
    }

    /// All of these.
    pub fn backs(&self) -> impl Iterator<Item = &Back> {
        self.backs.iter().flatten()
    }

    /// Whether there are any.
    pub fn writes_back(&self) -> bool {
        !self.backs.is_empty()
    }

    /// Now, in microseconds since the start; never 0.
    pub fn now(&self) -> Micros {
        self.origin.elapsed().as_micros() as Micros + 1
    }

    pub fn uptime(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The nodes as they are now.
    pub fn topology(&self) -> arc_swap::Guard<Arc<Topology>> {
        self.topology.load()
    }

    /// Likewise, to be kept.
    pub fn present_topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// Puts a topology in the place of the present one. Precondition: one at a time.
    ///
    /// When this returns, whoever routes by the present topology asks the new one, and under what was read from whoever had a
    /// hash slot before no watermark moves on: it is void soon.
    pub(super) fn set_topology(&self, topology: Topology) {
        let before = self.topology.load_full();
        let topology = Arc::new(topology.behind(&before));
        let changed = topology.changed_since(&before);
        self.metrics.nodes.set(topology.nodes().len() as u64);
        self.metrics.topology_changes.inc();
        self.topology.store(topology.clone());
        self.present.store(topology.epoch, Ordering::SeqCst);
        self.single.store(topology.is_single(), Ordering::SeqCst);
        // From here on nobody is given a lease by the one before. Who left is told first, and so are those who lost: a node
        // whose own word already took the slots from it has none of their keys any more (see `Owned`). Nor had a server that
        // stood alone before it was known for a node of a cluster: it is none of the new ones.
        before.nodes().iter().filter(|node| !topology.has(node)).for_each(|node| self.retire(node));
        if !changed.is_empty() {
            // Each message comes to the feeds of all nodes, and that of whose the key is counts. One that came to each of two
            // while the key was the other's has not been counted, so it is not waited for.
            self.cache.forget_echoes_of(&|key| changed.contains(key_slot(key)));
            before
                .nodes()
                .iter()
                .for_each(|node| self.void_slots(node, node.owned.lose(&before.of(node, &changed))));
        }
        self.epoch.send_replace(topology.epoch);
    }

    /// A node has said that this hash slot is another's now. It is asked for there at once if that is known, and else soon.
    pub fn slot_has_moved(&self, slot: u16, to: Address) {
        let _making = self.cluster.making.lock();
        let (to, present) = (self.settings.cluster.reached(to), self.present_topology());
        if let Some(moved) = present.node_at(&to).and_then(|node| present.moved(slot, node)) {
            self.set_topology(moved);
        }
        self.cluster.refresh_soon();
    }

    /// What was read of these hash slots, which the node has lost, is void soon.
    pub(super) fn void_slots(&self, node: &Arc<Node>, lost: Option<SlotSet>) {
        if let Some(lost) = lost {
            self.metrics.slots_lost.add(lost.len() as u64);
            self.voids.void(&self.cache, node, &lost, self.now());
        }
    }

    /// How many nodes' feeds stand.
    pub fn feeds_up(&self) -> usize {
        self.topology.load().nodes().iter().filter(|node| node.is_up()).count()
    }

    /// A node is none any more: what was read from it is void.
    pub fn retire(&self, node: &Node) {
        node.retire(&self.cache, self.now());
    }

    /// The epoch of the present topology, and of each that takes its place.
    pub fn epochs(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// The epoch of the present topology.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.present.load(Ordering::Relaxed)
    }

    /// Whether there is but one node.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.single.load(Ordering::Relaxed)
    }

    /// The node for what concerns no key: one that is there. Of many sidecars not all take the same.
    pub fn first_node(&self) -> Arc<Node> {
        let topology = self.topology.load();
        let nodes = topology.nodes();
        let (before, from) = nodes.split_at(self.turn % nodes.len());
        let up = from.iter().chain(before).find(|node| nodes.len() == 1 || node.is_up());
        up.unwrap_or(&nodes[0]).clone()
    }

    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// The table for one thread, which asks for it all the time: a look at whether it was replaced.
    pub fn cached_table(&self) -> CachedTable {
        arc_swap::Cache::new(self.table.clone())
    }

    /// Replaces the command table by this one, as far as its commands are to be cached.
    pub fn set_table(&self, table: Table) {
        self.table.store(Arc::new(narrowed(&self.settings, table)));
    }

    /// A reply to `GET`, or an element of `MGET`, was had from `node` for the identity of this number: by what it may be
    /// had besides. Of other users than nearside's own that is known of each reply only.
    pub fn shared_by(&self, node: &Node, ident: IdentId, by: By) -> By {
        let own = || self.idents.get(ident).is_some_and(|ident| ident.user.is_none());
        if by == By::ITSELF || !own() {
            return By::ITSELF;
        }
        node.shared_by(&self.cache, self.settings.upstream.own.user() == b"default", by)
    }

    /// The identity of this number was answered a `GET` or an `MGET` with this error.
    pub fn note_error(&self, node: &Node, ident: IdentId, error: &[u8]) {
        // One that was forgotten may have been nearside's own.
        let own = || self.idents.get(ident).is_none_or(|ident| ident.user.is_none());
        if error.starts_with(b"-NOPERM") && own() {
            node.note_refusal(&self.cache);
        }
    }

    /// How the upstream is to tell of changes of a key.
    pub fn wanted_tracking(&self, namespace: Option<&Namespace>) -> Tracking {
        namespace.map_or(self.settings.tracking, Namespace::tracking)
    }

    /// Whether any key is to be tracked in this way.
    pub fn wants(&self, how: Tracking) -> bool {
        let namespaces = self.namespaces.iter().map(Some);
        namespaces.chain([None]).any(|namespace| self.wanted_tracking(namespace) == how)
    }

    /// Whether links are to be tracked, and their reports to go to the feed, where the upstream allows that.
    pub fn redirects(&self) -> bool {
        let form = self.settings.tracking_form;
        matches!(form, TrackingForm::Auto | TrackingForm::Redirect) && self.wants(Tracking::Keys)
    }

    /// Whether any key is tracked in this way now, on every node, for nearside's own login.
    pub fn tracks(&self, how: Tracking) -> bool {
        let redirects = self.redirects();
        self.wants(how) && self.topology.load().nodes().iter().all(|node| node.form(how, redirects).is_some())
    }

    /// How changes of keys outside all namespaces, or else of those within, become known from this node.
    pub fn form(&self, node: &Node) -> Form {
        let redirects = self.redirects();
        let forms = [Tracking::Keys, Tracking::Prefix].into_iter().filter(|how| self.wants(*how));
        let best = forms.filter_map(|how| node.form(how, redirects)).min();
        best.unwrap_or(if self.namespaces.is_empty() { Form::Nothing } else { Form::Channels })
    }

    /// The node may tell of changes in another form than before; if so, that is news. That it tells of none while its feed is
    /// away, or still asks, is no news.
    pub fn tell_form(&self, node: &Node) {
        if node.feed_up.borrow().is_none() {
            return;
        }
        let form = self.form(node);
        if node.note_form(form) {
            let upstream = &node.upstream.address;
            info!(%upstream, form = form.name(), "how changes become known (tracking-form)");
        }
    }

    /// How stale a hit of such a key may be.
    pub fn max_staleness(&self, namespace: Option<&Namespace>) -> Micros {
        match namespace {
            Some(namespace) => namespace.max_staleness(),
            None => self.settings.max_staleness.micros(),
        }
    }

    /// The tightest bound there is, which sets the pace of the heartbeats; zero if nothing is served.
    pub fn tightest_staleness(&self) -> Duration {
        let all = self.namespaces.iter().map(Namespace::max_staleness);
        let bounds = all.chain([self.settings.max_staleness.micros()]).filter(|bound| *bound > 0);
        Duration::from_micros(bounds.min().unwrap_or_default())
    }

    /// The bounds may be others than before: who keeps a pace by them is to look.
    pub fn tell_bounds(&self) {
        self.bounds.send_replace(());
    }

    /// Told by [`Process::tell_bounds`].
    pub fn bounds_told(&self) -> watch::Receiver<()> {
        self.bounds.subscribe()
    }

    pub fn max_age(&self, namespace: Option<&Namespace>) -> Micros {
        match namespace {
            Some(namespace) => namespace.max_age(),
            None => self.settings.max_age.micros(),
        }
    }

    /// Whether reads came in lately, so that freshness is to be proven.
    pub fn is_active(&self, now: Micros) -> bool {
        now.saturating_sub(self.cache.last_lookup()) < ACTIVE.as_micros() as Micros
    }
}

/// The table, as far as its commands are to be cached.
fn narrowed(settings: &Settings, table: Table) -> Table {
    match &settings.cache_commands {
        Some(wanted) => table.narrow(wanted),
        None => table,
    }
}
