//! The whole program but for its command line: listeners, workers, feed and admin, from start to drain.
//!
//! Invariants: every port is bound before anything runs, or nothing does; a drain stops accepting
//! first, lets every session finish what is in flight, and ends at one deadline.
//!
//! The first signal drains, the second ends at once. Tests run it in-process, on port 0, with
//! [`Shutdown::by_hand`].

mod accept;
mod alarm;
mod check;
mod error;
mod files;
mod nodes;
mod pages;
mod parts;
mod password;
mod program;
mod reload;
mod rights;
mod runtime;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::admin::{Admin, Reload};
use crate::cache::Cache;
use crate::config::Config;
use crate::io::Address;
use crate::namespace::Namespace;
use crate::process::{
    Inbox, Message, Node, NodeId, Process, Settings, Ticket, Topology, follow_cluster, follow_sentinels,
    micros,
};
use crate::upstream;
use crate::worker::Worker;
pub use check::{Findings, check};
pub use error::ServerError;
pub use reload::Source as ConfigSource;

use accept::{Door, Listener, SocketFile};
use alarm::Alarm;
use files::{Room, Spare};
use nodes::Nodes;
use pages::Pages;
use reload::{Reloads, Wish, wishes};
use rights::Rights;
use runtime::runtime;
use tls::Tls;

/// How far the shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    Not,
    Drain,
    Now,
}

/// Who tells the server to stop.
pub struct Shutdown(Source);

enum Source {
    Signals,
    Hand(watch::Receiver<Stop>),
}

/// The same, heard from now on.
enum Orders {
    /// Which end the process no more by themselves.
    Signals {
        end: [Signal; 2],
        hangup: Signal,
    },
    Hand(watch::Receiver<Stop>),
}

impl Shutdown {
    /// SIGTERM or SIGINT.
    pub fn on_signals() -> Self {
        Self(Source::Signals)
    }

    /// Whoever holds the sender.
    pub fn by_hand() -> (watch::Sender<Stop>, Self) {
        let (sender, receiver) = watch::channel(Stop::Not);
        (sender, Self(Source::Hand(receiver)))
    }

    /// From now on no signal is missed.
    fn hear(self) -> std::io::Result<Orders> {
        Ok(match self.0 {
            Source::Signals => Orders::Signals {
                end: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
                hangup: signal(SignalKind::hangup())?,
            },
            Source::Hand(receiver) => Orders::Hand(receiver),
        })
    }
}

impl Orders {
    /// Drives `stop` until the process ends, and wishes for a reload when one is asked for.
    async fn follow(self, stop: &watch::Sender<Stop>, reload: &mpsc::Sender<Wish>) {
        match self {
            Orders::Signals { end: [mut term, mut int], mut hangup } => {
                let mut next = Stop::Drain;
                loop {
                    tokio::select! {
                        _ = term.recv() => {}
                        _ = int.recv() => {}
                        _ = hangup.recv() => {
                            info!("SIGHUP: files are read again, and so are the settings");
                            // If so many wait already, the last of them will read what is there now.
                            let _ = reload.try_send(oneshot::channel().0);
                            continue;
                        }
                    }
                    stop.send_replace(next);
                    if std::mem::replace(&mut next, Stop::Now) == Stop::Now {
                        break;
                    }
                }
            }
            Orders::Hand(mut receiver) => {
                while receiver.changed().await.is_ok() {
                    stop.send_replace(*receiver.borrow_and_update());
                }
                // Nobody is left who could say more.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Told by a reload: what is read from files is to be read anew.
type Reread = watch::Sender<()>;

/// A server whose ports are bound.
pub struct Server {
    config: Config,
    process: Arc<Process>,
    listeners: Vec<Listener>,
    pages: Pages,
    room: Room,
    tls: Tls,
    source: Option<ConfigSource>,
}

impl Server {
    /// Binds every port. Errors: which one could not be bound, and why.
    pub fn bind(config: Config) -> Result<Server, ServerError> {
        Self::bind_to(config, |settings, cache| {
            let node = Node::new(NodeId(0), settings.upstream.clone(), cache)?;
            Some(Topology::single(Arc::new(node)))
        })
    }

    /// Likewise, in front of several servers that have divided the slots of keys among them, instead of the one that the
    /// configuration names: `owner` tells for each slot whose it is, by its place in `nodes`. Requests with keys of
    /// several slots are refused, and what has no keys goes to the first.
    pub fn bind_sharded(
        config: Config,
        nodes: &[Address],
        owner: impl Fn(u16) -> u16,
    ) -> Result<Server, ServerError> {
        Self::bind_to(config, |settings, cache| {
            let of = |(id, address): (usize, &Address)| {
                let dial = settings.upstream.dial.another();
                let address = address.clone().into();
                let upstream = upstream::Settings { address, dial, ..settings.upstream.clone() };
                Node::new(NodeId(id.try_into().ok()?), upstream, cache).map(Arc::new)
            };
            let nodes: Option<Vec<_>> = nodes.iter().enumerate().map(of).collect();
            Topology::sharded(nodes?, |slot| Some(owner(slot)))
        })
    }

    fn bind_to(
        config: Config,
        topology: impl FnOnce(&Settings, &Cache<Ticket>) -> Option<Topology>,
    ) -> Result<Server, ServerError> {
        config.warnings().iter().for_each(|warning| warn!("{warning}"));
        let tls = Tls::of(&config)?;
        let room = files::make_room(config.max_clients, config.workers)?;
        let mut listeners = Vec::new();
        let rights = Rights { mode: config.unix_socket_mode, group: config.unix_socket_group.clone() };
        for listen in &config.listen {
            listeners.push(Listener::bind(listen, &rights, &tls)?);
        }
        let pages = Pages::bind(&config, &rights, &tls)?;
        let namespaces = parts::namespaces(&config);
        let grace = micros(config.stale_if_error);
        let prefixes = namespaces.iter().map(Namespace::prefix);
        let cache = Cache::of_groups(config.max_memory, config.max_value, grace, prefixes);
        let settings = parts::settings(&config, room.files, tls.outward.clone());
        settings.max_clients.set(room.clients);
        let topology = topology(&settings, &cache).ok_or(ServerError::Broken)?;
        let process = Process::new(topology, settings, cache, namespaces);
        let process = Arc::new(process.ok_or(ServerError::Broken)?);
        Ok(Server { config, process, listeners, pages, room, tls, source: None })
    }

    /// From where it is to read its configuration anew when that is asked for.
    pub fn reloading(self, source: ConfigSource) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Where clients can connect by TCP.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::address).collect()
    }

    /// Where clients can connect by Unix socket.
    pub fn sockets(&self) -> Vec<PathBuf> {
        self.listeners.iter().filter_map(Listener::path).collect()
    }

    /// Where the admin pages are, if on a port.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.pages.address()
    }

    /// Serves until it is told to stop, and the drain is over.
    pub fn run(self, shutdown: Shutdown) -> Result<(), ServerError> {
        runtime()?.block_on(self.serve(shutdown))
    }

    async fn serve(self, shutdown: Shutdown) -> Result<(), ServerError> {
        let process = self.process.clone();
        let (stop, mut stopped) = watch::channel(Stop::Not);
        let alarm = Alarm::new();
        let orders = shutdown.hear()?;
        let (reload, wished) = wishes();
        let running = self.start(&stop, &alarm, reload.clone(), wished)?;
        let follow = orders.follow(&stop, &reload);
        tokio::pin!(follow);
        let drain = async {
            let _ = stopped.wait_for(|stop| *stop >= Stop::Drain).await;
        };
        tokio::select! {
            () = &mut follow => {}
            () = drain => {}
            part = alarm.rung() => {
                stop.send_replace(Stop::Now);
                return Err(ServerError::Fault(part));
            }
        }
        let (clients, timeout) = (process.metrics.clients.get(), process.settings.drain_timeout.get());
        info!(clients, ?timeout, "stopping: no new clients, finishing what is in flight");
        running.drain();
        let result = tokio::select! {
            () = &mut follow => Err(ServerError::Forced),
            drained = drained(&running.workers, timeout, stop.subscribe()) => drained,
        };
        let left = process.metrics.clients.get();
        stop.send_replace(Stop::Now);
        running.tasks.iter().for_each(|task| task.abort());
        match left {
            0 => info!("stopped"),
            _ => warn!(clients = left, "stopped with clients still connected"),
        }
        if result.is_ok() {
            running.join();
        }
        result
    }

    /// Starts all parts; the last are those that let clients in.
    fn start(
        self,
        stop: &watch::Sender<Stop>,
        alarm: &Alarm,
        reload: mpsc::Sender<Wish>,
        wished: mpsc::Receiver<Wish>,
    ) -> Result<Running, ServerError> {
        let Server { config, process, listeners, pages, room, tls, source } = self;
        let reread = Reread::new(());
        let workers: Vec<_> = (0..config.workers)
            .map(|i| {
                let audits = config.audit.filter(|_| i == 0);
                WorkerThread::start(i, process.clone(), audits, stop.subscribe(), alarm)
            })
            .collect::<Result<_, _>>()?;
        let inboxes: Vec<_> = workers.iter().map(|worker| worker.inbox.clone()).collect();
        let mut tasks = Vec::new();
        let nodes = Nodes::start(&process, &inboxes, config.dns_refresh, alarm);
        tasks.push(alarm.spawn("the upstream's nodes", nodes.run()));
        for node in process.topology().nodes() {
            if let Some((asking, addresses)) = parts::sentinels(&config, &process.settings.upstream.dial) {
                let follow = follow_sentinels(process.clone(), node.clone(), asking, addresses);
                tasks.push(alarm.spawn("the watch of the sentinels", follow));
            }
        }
        if !process.settings.cluster.seeds.is_empty() {
            tasks.push(alarm.spawn("the watch of the cluster", follow_cluster(process.clone())));
        }
        tasks.push(alarm.spawn("the sweep", sweep(process.clone())));
        if let Some(source) = password::Source::of(&config) {
            let keep = password::keep(source, process.clone(), reread.subscribe());
            tasks.push(alarm.spawn("the upstream password", keep));
        }
        if let Some(renewal) = tls.renewal(&process, reread.subscribe()) {
            tasks.push(alarm.spawn("the watch of the files for TLS", renewal));
        }
        let draining = Arc::new(AtomicBool::new(false));
        let (door, reload) = (pages::door(&config), Reload(reload));
        let admin = Admin { process: process.clone(), draining: draining.clone(), door, reload };
        let (admin, sockets) = pages.serve(admin, room.admin)?;
        tasks.push(admin);
        for listener in &listeners {
            info!("listening on {listener}");
        }
        info!(upstream = %config.upstream, workers = config.workers, "ready for clients");
        let accepting = listeners
            .into_iter()
            .map(|listener| {
                let (process, workers) = (process.clone(), inboxes.clone());
                let (keepalive, spare, plain) = (config.tcp_keepalive, Spare::new(), !listener.is_secure());
                listener.accept(Door { process, workers, room, keepalive, plain, spare }, alarm)
            })
            .collect::<Result<_, _>>()?;
        let reloads = Reloads { process, config, source, reread };
        tasks.push(alarm.spawn("the reload of the configuration", reloads.run(wished)));
        Ok(Running { workers, accepting, tasks, draining, _sockets: sockets })
    }
}

/// What was started.
struct Running {
    workers: Vec<WorkerThread>,
    accepting: Vec<Task>,
    tasks: Vec<Task>,
    /// Whether it is no more for new clients.
    draining: Arc<AtomicBool>,
    /// Of the admin pages.
    _sockets: Vec<SocketFile>,
}

type Task = tokio::task::JoinHandle<()>;

impl Running {
    /// Lets nobody in any more, and tells the workers to finish.
    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.accepting.iter().for_each(|task| task.abort());
        self.workers.iter().for_each(|worker| worker.inbox.send(Message::Drain));
    }

    /// Waits for the workers' threads, which have ended or are about to.
    fn join(self) {
        for worker in self.workers {
            if worker.thread.join().is_err() {
                error!("a worker has panicked");
            }
        }
    }
}

/// Waits until every worker is done, or the time is over.
async fn drained(
    workers: &[WorkerThread],
    timeout: Duration,
    mut stop: watch::Receiver<Stop>,
) -> Result<(), ServerError> {
    let deadline = Instant::now() + timeout;
    while workers.iter().any(|worker| !worker.thread.is_finished()) && Instant::now() < deadline {
        if *stop.borrow_and_update() == Stop::Now {
            return Err(ServerError::Forced);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Frees void entries, and those that are too many, bit by bit, about a sixth of the time: a flush of a million does not
/// keep a processor from the workers.
async fn sweep(process: Arc<Process>) {
    /// How many of each shard in a row, after how long it rests, and how long.
    const BATCH: usize = 16;
    const SLICE: Duration = Duration::from_micros(200);
    const REST: Duration = Duration::from_millis(1);
    /// How often it looks for some.
    const PAUSE: Duration = Duration::from_millis(250);
    loop {
        let begun = Instant::now();
        let mut more = true;
        while more && begun.elapsed() < SLICE {
            let now = process.now();
            more = process.cache.sweep(BATCH, now) > 0 || process.cache.shrink(now);
        }
        tokio::time::sleep(if more { REST } else { PAUSE }).await;
    }
}

struct WorkerThread {
    inbox: Arc<Inbox>,
    thread: JoinHandle<()>,
}

impl WorkerThread {
    fn start(
        i: usize,
        process: Arc<Process>,
        audits: Option<Duration>,
        mut stop: watch::Receiver<Stop>,
        alarm: &Alarm,
    ) -> std::io::Result<Self> {
        let guard = alarm.guard(format_args!("worker {i}"));
        let inbox = Arc::new(Inbox::default());
        let theirs = inbox.clone();
        let (ready, built) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("worker-{i}")).spawn(move || {
            let _guard = guard;
            let runtime = match runtime() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            runtime.block_on(async {
                tokio::select! {
                    () = Worker::new(process, theirs).run(audits) => {}
                    _ = stop.wait_for(|stop| *stop == Stop::Now) => {}
                }
            });
        })?;
        built.recv().unwrap_or_else(|_| Err(std::io::Error::other("a worker has panicked at its start")))?;
        Ok(Self { inbox, thread })
    }
}
