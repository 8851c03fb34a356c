//! A feed without sessions: the test says whether reads come in and keys are voided, and hears what the feed tells.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nearside::cache::{Cache, CoverageId, CoverageSlot, Micros, Waiter, Wanted};
use nearside::command::ServerCommand;
use nearside::feed::{Feed, Hooks, Registrar, Reports, Told};
use nearside::io::{Address, Dial};
use nearside::metrics::Metrics;
use nearside::namespace::Namespaces;
use nearside::upstream::{Ours, ServerId, Settings};
use tokio::sync::oneshot;

/// What the feed has told, and what it is told.
pub struct Heard {
    pub metrics: Metrics,
    pub slot: CoverageSlot,
    origin: Instant,
    /// Reads come in.
    pub reads: AtomicBool,
    /// The node is of a cluster, as it has said by now.
    is_cluster: AtomicBool,
    pub is_voiding: AtomicBool,
    /// How often the node has told of its slots, and how often that it does not.
    told: AtomicU64,
    pub refused: AtomicU64,
    /// How often that was so when the feed was up.
    pub told_when_up: AtomicU64,
    proofs: AtomicU64,
}

impl Heard {
    pub fn now(&self) -> Micros {
        self.origin.elapsed().as_micros() as Micros + 1
    }

    pub fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    pub fn proofs(&self) -> u64 {
        self.proofs.load(Ordering::SeqCst)
    }
}

struct Alone {
    registrar: Registrar,
    namespaces: Namespaces,
    state: Arc<Heard>,
    bound: Duration,
}

/// Nobody waits.
pub struct Nobody;

impl Waiter for Nobody {
    fn served(self, _reply: Bytes) {}
    fn released(self) {}
}

impl Hooks for Alone {
    fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }
    fn metrics(&self) -> &Metrics {
        &self.state.metrics
    }
    fn slot(&self) -> &CoverageSlot {
        &self.state.slot
    }
    fn now(&self) -> Micros {
        self.state.now()
    }
    fn up(&self, _coverage: CoverageId, _client_id: Option<i64>, _server: Option<ServerId>) {
        self.state.told_when_up.store(self.state.told(), Ordering::SeqCst);
    }
    fn down(&self) {}
    fn report(&self, _reports: Reports) {}
    fn reports(&self) -> Reports {
        Reports::Nothing
    }
    fn is_redirect_refused(&self) -> bool {
        false
    }
    fn registrar(&self) -> &Registrar {
        &self.registrar
    }
    fn rights_changed(&self) {}
    fn watches_users(&self, _sees: bool) {}
    fn server_said(&self, reply: &[u8]) {
        // Only now, behind what stands in front of the first `PING`.
        let is_cluster = String::from_utf8_lossy(reply).contains("redis_mode:cluster");
        self.state.is_cluster.store(is_cluster, Ordering::SeqCst);
    }
    fn is_of_cluster(&self) -> bool {
        self.state.is_cluster.load(Ordering::SeqCst)
    }
    fn slots_said(&self, said: Option<(bool, &[u8])>) {
        match said {
            Some((is_ok, nodes)) => {
                assert!(is_ok && nodes.windows(6).any(|word| word == b"myself"));
                self.state.told.fetch_add(1, Ordering::SeqCst);
            }
            None => drop(self.state.refused.fetch_add(1, Ordering::SeqCst)),
        }
    }
    fn prove(&self, at: Micros) {
        assert!(at <= self.now());
        self.state.proofs.fetch_add(1, Ordering::SeqCst);
    }
    fn provable(&self, at: Micros) -> Micros {
        at
    }
    fn is_voiding(&self) -> bool {
        self.state.is_voiding.load(Ordering::SeqCst)
    }
    fn owns(&self, _key: &[u8]) -> bool {
        true
    }
    fn slots_doubted(&self) {}
    fn role_changed(&self) {}
    fn left(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }
    fn bound(&self) -> std::time::Duration {
        self.bound
    }
    fn bound_told(&self) -> tokio::sync::watch::Receiver<()> {
        tokio::sync::watch::channel(()).1
    }
    fn commands(&self, _commands: &[ServerCommand]) {}
    fn refresh(&self, _key: &[u8], _wanted: Vec<Wanted>) {}
    fn told(&self, _: &nearside::namespace::Namespace, _: &[u8], _: bool) {}

    fn told_of_all(&self) {}

    fn is_active(&self, _now: Micros) -> bool {
        self.state.reads.load(Ordering::Relaxed)
    }
}

/// A feed that runs, on a thread of its own.
pub struct Running {
    pub cache: Arc<Cache<Nobody>>,
    pub state: Arc<Heard>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Running {
    /// To this node; it must be proven within `bound`. Keys are voided all the time, or not.
    pub fn start(node: SocketAddr, bound: Duration, is_voiding: bool) -> Self {
        let cache = Arc::new(Cache::<Nobody>::new(1 << 20, 1 << 10, 0));
        let state = Arc::new(Heard {
            metrics: Metrics::default(),
            slot: cache.coverages().take().unwrap(),
            origin: Instant::now(),
            reads: AtomicBool::new(true),
            is_cluster: AtomicBool::new(false),
            is_voiding: AtomicBool::new(is_voiding),
            told: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            told_when_up: AtomicU64::new(0),
            proofs: AtomicU64::new(0),
        });
        let (theirs, heard) = (cache.clone(), state.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let feed = feed(theirs, heard, node, bound);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = feed.run() => {}
                    _ = stopped => {}
                }
            });
        });
        Self { cache, state, stop, thread }
    }

    pub fn stop(self) {
        let _ = self.stop.send(());
        self.thread.join().unwrap();
    }
}

fn feed(
    cache: Arc<Cache<Nobody>>,
    state: Arc<Heard>,
    node: SocketAddr,
    bound: Duration,
) -> Feed<Nobody, Alone> {
    Feed {
        cache,
        hooks: Alone {
            namespaces: Namespaces::new(Vec::new()),
            registrar: Registrar::default(),
            state,
            bound,
        },
        own: Default::default(),
        settings: Settings {
            address: Address::Tcp { host: node.ip().to_string(), port: node.port() }.into(),
            own: Default::default(),
            connect_timeout: Duration::from_secs(2),
            reply_timeout: Duration::from_secs(60),
            ours: Ours::default(),
            dial: Dial::default(),
        },
        redirects: true,
        prefixes: Vec::new(),
        ways: Vec::new(),
        unregistrable: Cell::default(),
        registering_first: Cell::default(),
        told: Told::default(),
    }
}
