//! The order in which a feed of a cluster's node proves what: first it hears which hash slots are the node's own, then what was
//! lost is voided, and only then it is armed.

use crate::support;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nearside::cache::{Cache, CoverageId, CoverageSlot, Micros, Waiter, Wanted};
use nearside::command::ServerCommand;
use nearside::feed::{Feed, Hooks, Registrar, Reports, Told};
use nearside::io::{Address, Dial};
use nearside::metrics::Metrics;
use nearside::namespace::Namespaces;
use nearside::upstream::{Ours, ServerId, Settings};
use support::cluster::Cluster;
use support::eventually;

const BOUND: Duration = Duration::from_millis(300);

/// What the feed has told, and what it is told.
struct Heard {
    metrics: Metrics,
    slot: CoverageSlot,
    origin: Instant,
    /// Whether the node is of a cluster, as far as that is known.
    is_cluster: AtomicBool,
    is_voiding: AtomicBool,
    /// How often the node has told of its slots, and how often that it does not.
    told: AtomicU64,
    refused: AtomicU64,
    /// How often that was so when the feed was up.
    told_when_up: AtomicU64,
    proofs: AtomicU64,
}

impl Heard {
    fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    fn proofs(&self) -> u64 {
        self.proofs.load(Ordering::SeqCst)
    }
}

struct Alone {
    registrar: Registrar,
    namespaces: Namespaces,
    state: Arc<Heard>,
}

struct Nobody;

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
        self.state.origin.elapsed().as_micros() as Micros + 1
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
    fn server_said(&self, _reply: &[u8]) {
        // Only now, behind what stands in front of the first `PING`.
        self.state.is_cluster.store(true, Ordering::SeqCst);
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
    fn commands(&self, _commands: &[ServerCommand]) {}
    fn refresh(&self, _key: &[u8], _wanted: Vec<Wanted>) {}
    fn is_active(&self, _now: Micros) -> bool {
        true
    }
}

fn feed(cache: Arc<Cache<Nobody>>, state: Arc<Heard>, node: std::net::SocketAddr) -> Feed<Nobody, Alone> {
    Feed {
        cache,
        hooks: Alone { namespaces: Namespaces::new(Vec::new()), registrar: Registrar::default(), state },
        own: Default::default(),
        settings: Settings {
            address: Address::Tcp { host: node.ip().to_string(), port: node.port() }.into(),
            own: Default::default(),
            connect_timeout: Duration::from_secs(2),
            reply_timeout: Duration::from_secs(60),
            ours: Ours::default(),
            dial: Dial::default(),
        },
        bound: BOUND,
        redirects: true,
        prefixes: Vec::new(),
        ways: Vec::new(),
        unregistrable: Cell::default(),
        registering_first: Cell::default(),
        told: Told::default(),
    }
}

#[test]
fn nothing_is_proven_before_the_node_has_told_of_its_slots_and_what_it_lost_is_void() {
    let cluster = Cluster::start(1, 0);
    let cache = Arc::new(Cache::<Nobody>::new(1 << 20, 1 << 10, 0));
    let state = Arc::new(Heard {
        metrics: Metrics::default(),
        slot: cache.coverages().take().unwrap(),
        origin: Instant::now(),
        is_cluster: AtomicBool::new(false),
        is_voiding: AtomicBool::new(true),
        told: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        told_when_up: AtomicU64::new(0),
        proofs: AtomicU64::new(0),
    });
    let (theirs, heard, node) = (cache.clone(), state.clone(), cluster.node(0).address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            tokio::select! {
                () = feed(theirs, heard, node).run() => {}
                _ = stopped => {}
            }
        });
    });
    let is_up = || cache.coverages().current(&state.slot).is_some();
    eventually("it is asked while keys are voided", || state.told() >= 3);
    assert!(!is_up(), "and no answer arms it");
    state.is_voiding.store(false, Ordering::SeqCst);
    eventually("it is up", is_up);
    assert!(state.told_when_up.load(Ordering::SeqCst) >= 3);
    eventually("its answers count", || state.proofs() >= 3);
    // Who does not tell has nothing, and is asked again.
    cluster.node(0).order("ACL SETUSER default -cluster|nodes");
    eventually("that is heard", || state.refused.load(Ordering::SeqCst) > 0);
    let before = state.proofs();
    eventually("its answers count, for nothing is its own", || state.proofs() > before + 1);
    let told = state.told();
    cluster.node(0).order("ACL SETUSER default +cluster|nodes");
    eventually("it tells again", || state.told() > told + 1);
    let _ = stop.send(());
    thread.join().unwrap();
}
