//! What the feed works on, and how it reaches the rest of the process.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;

use super::questions::Told;
use crate::cache::{Cache, CoverageId, CoverageSlot, Micros, Waiter, Wanted};
use crate::command::ServerCommand;
use crate::metrics::Metrics;
use crate::namespace::{Namespace, Namespaces};
use crate::process::{Registrar, Reports};
use crate::upstream::{Credentials, ServerId, Settings};

/// How the feed reaches the rest of the process.
pub trait Hooks: 'static {
    fn namespaces(&self) -> &Namespaces;

    fn metrics(&self) -> &Metrics;

    /// The coverage of the node that it listens to.
    fn slot(&self) -> &CoverageSlot;

    /// What the coverages count time in.
    fn now(&self) -> Micros;

    /// The feed is subscribed, on `server`; `client_id` is the connection to which tracking can redirect. Said again
    /// if one of them is learnt later.
    fn up(&self, coverage: CoverageId, client_id: Option<i64>, server: Option<ServerId>);

    /// The feed's coverage has ended; perhaps that was said before.
    fn down(&self);

    /// From now on the upstream tells the feed of these changes, for the feed's own sake.
    fn report(&self, reports: Reports);

    /// What was said last by that.
    fn reports(&self) -> Reports;

    /// Whether the upstream does not track the links of nearside's own login.
    fn is_redirect_refused(&self) -> bool;

    /// Keys that wait to be registered.
    fn registrar(&self) -> &Registrar;

    /// Users or their rules were changed: what was refused may be allowed now.
    fn rights_changed(&self);

    /// Whether changes of users and their rules are seen.
    fn watches_users(&self, sees: bool);

    /// What the server says of itself (`INFO server`), or refuses to.
    fn server_said(&self, reply: &[u8]);

    /// Whether the node is one of a cluster: then it is only trusted with hash slots that it says are its own.
    fn is_of_cluster(&self) -> bool;

    /// The node's answer to `CLUSTER NODES`, and whether it says that its cluster takes requests; `None` if it does not tell.
    fn slots_said(&self, said: Option<(bool, &[u8])>);

    /// A node of a cluster has answered for itself up to `at`: the watermark moves on as far as that proves something, and once
    /// what it has lost is void.
    fn prove(&self, at: Micros);

    /// Up to when a coverage is proven that is armed upon an answer that does so up to `at`; never 0.
    fn provable(&self, at: Micros) -> Micros;

    /// Whether something that it has lost may still be cached.
    fn is_voiding(&self) -> bool;

    /// Whether the key is this node's, as requests are sent.
    fn owns(&self, key: &[u8]) -> bool;

    /// A key that was taken for this node's may be another's.
    fn slots_doubted(&self);

    /// The server was told whom to replicate, or to fail over: it may be no primary any more.
    fn role_changed(&self);

    /// Told when the upstream is left because another server has taken its place.
    fn left(&self) -> watch::Receiver<u64>;

    /// The upstream's own account of its commands.
    fn commands(&self, commands: &[ServerCommand]);

    /// These replies were in use, and an update of their key was announced.
    fn refresh(&self, key: &[u8], wanted: Vec<Wanted>);

    /// Another has changed a key of this namespace, or may have; `announced` if that was said on its channel.
    fn told(&self, namespace: &Namespace, key: &[u8], announced: bool);

    /// Anything may have been changed.
    fn told_of_all(&self);

    /// Within what time it must be known that the connection is dead.
    fn bound(&self) -> Duration;

    /// Told when that may be another.
    fn bound_told(&self) -> watch::Receiver<()>;

    /// Whether reads come in, so that freshness has to be proven.
    fn is_active(&self, now: Micros) -> bool;
}

/// What the feed works on.
pub struct Feed<W: Waiter, H: Hooks> {
    pub cache: Arc<Cache<W>>,
    pub hooks: H,
    pub own: Credentials,
    pub settings: Settings,
    /// Whether data links are to redirect their tracking here.
    pub redirects: bool,
    /// Prefixes of keys of whose changes the upstream is to tell in any case; the empty one is every key's.
    pub prefixes: Vec<Vec<u8>>,
    /// In which ways the upstream is to tell the feed for its own sake; the first that it allows.
    pub ways: Vec<Reports>,
    /// When it turned out that no key can be registered: for a while that is not asked for.
    pub unregistrable: Cell<Option<Instant>>,
    /// Links are not tracked, and of all keys only registered ones are told of: that is asked for before prefixes are.
    pub registering_first: Cell<bool>,
    /// What of the upstream's refusals was told.
    pub told: Told,
}

impl<W: Waiter, H: Hooks> Feed<W, H> {
    pub(super) fn tell_down(&self, what: &str, cause: &str) {
        if let Some(untold) = self.hooks.metrics().feed_down_told.of(cause) {
            warn!(upstream = %self.settings.address, untold, cause, "{what}");
        }
    }

    pub(super) fn lapse(&self) {
        let coverages = self.cache.coverages();
        let was_up = coverages.current(self.hooks.slot()).is_some();
        coverages.end(self.hooks.slot(), self.hooks.now());
        // What it waited for will not come.
        drop(self.hooks.registrar().take());
        if was_up {
            self.hooks.metrics().feed_lapses.inc();
        }
        self.hooks.down();
    }
}
