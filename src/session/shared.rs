//! What all workers of the process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::warn;

use super::clients::Clients;
use super::gate::Password;
use super::idents::{Ident, Idents};
use super::role::Role;
use super::worker::Ticket;
use crate::cache::{By, Cache, CoverageId, CoverageSlot, IdentId, Micros, Reason, ValidUnder};
use crate::command::Table;
use crate::metrics::Metrics;
use crate::namespace::{Namespace, Namespaces, Tracking};
use crate::resp::framer::Limits;
use crate::upstream::{self, Login, ServerId};

/// See [`Shared::cached_table`].
pub type CachedTable = arc_swap::Cache<Arc<ArcSwap<Table>>, Arc<Table>>;

/// What sessions are told by the configuration.
#[derive(Clone)]
pub struct Settings {
    pub upstream: upstream::Settings,
    /// Nearside's own login and database: those of a session that has not changed them.
    pub login: Option<Login>,
    pub db: u32,
    /// What clients have to give before anything else; `None` lets the upstream ask them.
    pub password: Option<Password>,
    pub limits: Limits,
    pub output_limit: usize,
    /// How many links sessions share, of one worker.
    pub max_links: usize,
    pub stall_timeout: Duration,
    /// For keys outside all namespaces.
    pub max_staleness: Duration,
    pub max_age: Duration,
    /// Whether reads may be served for a while when the upstream is unreachable.
    pub stale_if_error: bool,
    /// How the upstream tells of changes of keys outside all namespaces.
    pub tracking: Tracking,
    /// The commands whose replies are cached; `None` is all that can be.
    pub cache_commands: Option<Vec<String>>,
    /// Name and value of every setting, for `NEARSIDE CONFIG`.
    pub described: Vec<(String, String)>,
}

/// The feed is subscribed: what a data link needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedUp {
    pub coverage: CoverageId,
    /// The connection to which tracking redirects; `None` if the upstream has no tracking.
    pub client_id: Option<i64>,
    /// The server that it is on, if that is known.
    pub server: Option<ServerId>,
    /// When it was said.
    pub since: Micros,
}

/// See the [module](self).
pub struct Shared {
    pub settings: Settings,
    pub cache: Arc<Cache<Ticket>>,
    pub namespaces: Namespaces,
    pub metrics: Metrics,
    pub idents: Idents,
    /// The feed's coverage.
    pub feed: CoverageSlot,
    /// The coverage of what is announced only: it depends on the feed, and is told of nothing else.
    pub announced: CoverageSlot,
    pub feed_up: watch::Sender<Option<FeedUp>>,
    /// Why the upstream does not track what is read with nearside's own login, if it does not.
    pub own_refusal: Mutex<Option<Box<str>>>,
    /// The feed is told of all changes of the keys that are tracked by prefix.
    pub broadcasts: AtomicBool,
    /// Changes of users and their rules are seen; not yet known is no.
    users_watched: AtomicBool,
    /// That they are not was told.
    unwatched_told: AtomicBool,
    /// The number of `GET` in the command table.
    pub get: u16,
    /// Nearside's own login was given a reply to `GET`, and to `MGET`; and was refused one of them.
    said: [ValidUnder; 2],
    refused: ValidUnder,
    table: Arc<ArcSwap<Table>>,
    origin: Instant,
    pub clients: Clients,
    /// Whether the upstream is still the server that it was.
    pub role: Role,
}

impl Shared {
    pub fn new(settings: Settings, cache: Cache<Ticket>, namespaces: Namespaces) -> Option<Self> {
        let (feed, announced) = (cache.coverages().take()?, cache.coverages().take()?);
        let table = Table::builtin();
        let get = table.number(b"get")?;
        Some(Self {
            table: Arc::new(ArcSwap::from_pointee(narrowed(&settings, table))),
            settings,
            cache: Arc::new(cache),
            namespaces,
            metrics: Metrics::default(),
            idents: Idents::default(),
            feed,
            announced,
            feed_up: watch::Sender::new(None),
            own_refusal: Mutex::default(),
            broadcasts: AtomicBool::new(false),
            users_watched: AtomicBool::new(false),
            unwatched_told: AtomicBool::new(false),
            get,
            said: Default::default(),
            refused: ValidUnder::default(),
            origin: Instant::now(),
            clients: Clients::default(),
            role: Role::default(),
        })
    }

    /// Now, in microseconds since the start; never 0.
    pub fn now(&self) -> Micros {
        self.origin.elapsed().as_micros() as Micros + 1
    }

    pub fn uptime(&self) -> Duration {
        self.origin.elapsed()
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

    /// Whether it is seen when somebody changes users or their rules upstream. If not, the replies of those who log
    /// in as another are not cached.
    pub fn watches_users(&self) -> bool {
        self.users_watched.load(Ordering::Relaxed)
    }

    pub fn watch_users(&self, sees: bool) {
        self.users_watched.store(sees, Ordering::Relaxed);
        if !sees && !self.unwatched_told.swap(true, Ordering::Relaxed) {
            warn!(
                "the upstream does not tell nearside of changed users (INFO): replies to other users are not cached"
            );
        }
    }

    /// A reply to `GET`, or an element of `MGET`, was had for the identity of this number: by what it may be had besides.
    ///
    /// Nearside's own login may say both of all keys if it is the server's default user, which has all rights where nobody
    /// took them away, or once it was seen to say each of them; and as long as it was not refused one. Then a reply that
    /// came by one is given by the other without asking. Of other users that is known of each reply only.
    pub fn shared_by(&self, ident: IdentId, by: By) -> By {
        let own = || self.idents.get(ident).is_some_and(|ident| ident.user.is_none());
        let coverages = self.cache.coverages();
        if by == By::ITSELF || !own() {
            return By::ITSELF;
        }
        let seen = &self.said[usize::from(by == By::MGET)];
        if !seen.stands(coverages) {
            coverages.current(&self.feed).into_iter().for_each(|id| seen.note(id));
        }
        let user = self.settings.login.as_ref().and_then(|login| login.user.as_deref());
        let is_default = user.is_none_or(|user| user == b"default");
        let seen = is_default || self.said.iter().all(|said| said.stands(coverages));
        let both = seen && !self.refused.stands(coverages);
        if both { By::GET.and(By::MGET) } else { By::ITSELF }
    }

    /// The identity of this number was answered a `GET` or an `MGET` with this error. If nearside's own login was
    /// refused it, what was shared goes; it is shared again when users or their rules have changed.
    pub fn note_error(&self, ident: IdentId, error: &[u8]) {
        let own = |ident: Ident| ident.user.is_none() && !self.refused.stands(self.cache.coverages());
        // One that was forgotten may have been nearside's own.
        let refused = error.starts_with(b"-NOPERM") && self.idents.get(ident).is_none_or(own);
        if refused && self.cache.coverages().current(&self.feed).is_some() {
            self.cache.flush(Reason::Users);
            self.cache.coverages().current(&self.feed).into_iter().for_each(|id| self.refused.note(id));
        }
    }

    /// How the upstream is to tell of changes of a key.
    pub fn wanted_tracking(&self, namespace: Option<&Namespace>) -> Tracking {
        namespace.map_or(self.settings.tracking, |namespace| namespace.rules.tracking)
    }

    /// Whether any key is to be tracked in this way.
    pub fn wants(&self, how: Tracking) -> bool {
        let namespaces = self.namespaces.iter().map(Some);
        namespaces.chain([None]).any(|namespace| self.wanted_tracking(namespace) == how)
    }

    /// Whether any key is tracked in this way now, for nearside's own login.
    pub fn tracks(&self, how: Tracking) -> bool {
        let granted = match how {
            Tracking::Keys => self.own_refusal.lock().is_none(),
            Tracking::Prefix => self.broadcasts.load(Ordering::Relaxed),
            Tracking::Off => true,
        };
        granted && self.wants(how)
    }

    /// How stale a hit of such a key may be.
    pub fn max_staleness(&self, namespace: Option<&Namespace>) -> Micros {
        micros(namespace.map_or(self.settings.max_staleness, |namespace| namespace.rules.max_staleness))
    }

    /// The tightest bound there is, which sets the pace of the heartbeats; zero if nothing is served.
    pub fn tightest_staleness(&self) -> Duration {
        let all = self.namespaces.iter().map(|namespace| namespace.rules.max_staleness);
        all.chain([self.settings.max_staleness]).filter(|bound| !bound.is_zero()).min().unwrap_or_default()
    }

    pub fn max_age(&self, namespace: Option<&Namespace>) -> Micros {
        micros(namespace.map_or(self.settings.max_age, |namespace| namespace.rules.max_age))
    }
}

/// The table, as far as its commands are to be cached.
fn narrowed(settings: &Settings, table: Table) -> Table {
    match &settings.cache_commands {
        Some(wanted) => table.narrow(wanted),
        None => table,
    }
}

/// As the cache counts time.
pub fn micros(duration: Duration) -> Micros {
    let whole = duration.as_secs().saturating_mul(1_000_000);
    whole.saturating_add(duration.subsec_micros().into()).min(Micros::MAX / 4)
}
