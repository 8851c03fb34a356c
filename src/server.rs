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
mod entrance;
mod error;
mod export;
mod files;
mod gate;
mod journals;
mod nodes;
mod notify;
mod opening;
mod pages;
mod parts;
mod passed;
mod password;
mod program;
mod reload;
mod rights;
mod runtime;
mod stop;
mod takeover;
mod tls;
mod watchdog;
mod writeback;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use self::writeback::Journals;
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
pub use journals::check_journals;
pub use reload::Source as ConfigSource;
pub use stop::{Shutdown, Stop};

use accept::{Listener, Ours, SocketFile};
use alarm::Alarm;
use entrance::{Around, Entrance};
use export::Export;
use files::Room;
use nodes::Nodes;
use notify::Notify;
use pages::Pages;
use passed::Passed;
use reload::{Reloads, Wish, wishes};
use rights::Rights;
use runtime::runtime;
use takeover::Old;
use tls::Tls;

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
    ours: Ours,
    /// What others have passed, and was not needed.
    passed: Passed,
    /// Who is taken over.
    old: Option<Old>,
    journals: Journals,
}

impl Server {
    /// Binds every port, or takes the sockets that systemd passes. Errors: which one could not be bound, and why.
    pub fn bind(config: Config) -> Result<Server, ServerError> {
        let passed = Passed::of_environment(&config)?;
        Self::bind_to(config, passed, Ours::new(true), single)
    }

    /// Takes the sockets of the nearside that serves at one of these addresses, and its place as soon as it is run; if there is
    /// none, binds every port. Errors: why not; the other one goes on then.
    pub fn take_over(config: Config) -> Result<Server, ServerError> {
        match runtime()?.block_on(takeover::find(&config))? {
            Some((old, sockets)) => {
                // The sockets' files are its own until it makes way.
                let (passed, ours) = (Passed::of_nearside(sockets), Ours::new(false));
                let mut server = Self::bind_to(config, passed, ours, single)?;
                server.old = Some(old);
                Ok(server)
            }
            None => {
                info!("there is no nearside to take over: starting as usual");
                Self::bind(config)
            }
        }
    }

    /// Likewise, in front of several servers that have divided the slots of keys among them, instead of the one that the
    /// configuration names: `owner` tells for each slot whose it is, by its place in `nodes`. Requests with keys of
    /// several slots are refused, and what has no keys goes to the first.
    pub fn bind_sharded(
        config: Config,
        nodes: &[Address],
        owner: impl Fn(u16) -> u16,
    ) -> Result<Server, ServerError> {
        Self::bind_to(config, Passed::default(), Ours::new(true), |settings, cache| {
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
        mut passed: Passed,
        ours: Ours,
        topology: impl FnOnce(&Settings, &Cache<Ticket>) -> Option<Topology>,
    ) -> Result<Server, ServerError> {
        config.warnings().iter().for_each(|warning| warn!("{warning}"));
        if let Some(why) = journals::unusable(&config).into_iter().next() {
            return Err(ServerError::JournalFolder(why));
        }
        for folder in journals::orphans(&config) {
            let folder = folder.display();
            warn!(%folder, "a journal of no namespace that is written back: what may be in it is not flushed; write that namespace \
                back again until it is, or remove the folder");
        }
        let tls = Tls::of(&config)?;
        let room = files::make_room(config.max_clients, config.workers)?;
        let rights = Rights { mode: config.unix_socket_mode, group: config.unix_socket_group.clone() };
        let with = (&rights, &ours);
        let listeners = accept::listeners(&config.listen, false, with, &tls, &mut passed)?;
        let pages = Pages::bind(&config, with, &tls, &mut passed)?;
        let namespaces = parts::namespaces(&config);
        let grace = micros(config.stale_if_error);
        let prefixes = namespaces.iter().map(Namespace::prefix);
        let cache = Cache::of_groups(config.max_memory, config.max_value, grace, prefixes);
        let settings = parts::settings(&config, room.files, tls.outward.clone());
        settings.max_clients.set(room.clients);
        let topology = topology(&settings, &cache).ok_or(ServerError::Broken)?;
        let process = Process::new(topology, settings, cache, namespaces);
        let process = Arc::new(process.ok_or(ServerError::Broken)?);
        // Whoever is taken over still writes it.
        let journals = Journals::open(&process, !ours.are())?;
        let (source, old) = (None, None);
        Ok(Server { config, process, listeners, pages, room, tls, source, ours, passed, old, journals })
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
        let is_program = shutdown.is_of_program();
        let notify = Rc::new(if is_program { Notify::of_environment() } else { Notify::default() });
        let orders = shutdown.hear()?;
        let (reload, wished) = wishes();
        let (failed, failure) = oneshot::channel();
        let around = Around { is_program, notify: notify.clone(), stop: stop.clone(), failed };
        let mut running = self.start(around, &alarm, reload.clone(), wished)?;
        let follow = orders.follow(&stop, &reload);
        tokio::pin!(follow);
        let drain = async {
            let _ = stopped.wait_for(|stop| *stop >= Stop::Leave).await;
        };
        let mut forced = false;
        tokio::select! {
            () = &mut follow => forced = true,
            () = drain => {}
            part = alarm.rung() => {
                stop.send_replace(Stop::Now);
                return Err(ServerError::Fault(part));
            }
            Ok(error) = failure => {
                stop.send_replace(Stop::Now);
                return Err(error);
            }
        }
        let (clients, timeout) = (process.metrics.clients.get(), process.settings.drain_timeout.get());
        info!(clients, ?timeout, "stopping: no new clients, finishing what is in flight");
        let is_taken_over = *stop.borrow() == Stop::Leave;
        let most = if is_taken_over { timeout * 2 } else { timeout };
        notify.stopping(most, &format!("draining, with {clients} clients"));
        running.begin_to_stop();
        writeback::close(&process);
        if is_taken_over {
            tokio::select! {
                () = &mut follow, if !forced => forced = true,
                () = running.leave(&stop, timeout) => {}
            }
        }
        running.tell(|| Message::Drain);
        let result = tokio::select! {
            () = async { if !forced { follow.await } } => Err(ServerError::Forced),
            drained = drained(&running.workers, timeout, stop.subscribe()) => drained,
        };
        if result.is_ok() {
            running.export.finish().await;
        }
        let left = process.metrics.clients.get();
        stop.send_replace(Stop::Now);
        running.tasks.iter().for_each(|task| task.abort());
        match left {
            0 => info!("stopped"),
            _ => warn!(
                clients = left,
                "stopped with clients still connected: raise drain-timeout if they are to finish"
            ),
        }
        writeback::tell_left(&process);
        if result.is_ok() {
            running.join(&process);
        }
        result
    }

    /// Starts all parts; the last are those that let clients in.
    fn start(
        self,
        around: Around,
        alarm: &Alarm,
        reload: mpsc::Sender<Wish>,
        wished: mpsc::Receiver<Wish>,
    ) -> Result<Running, ServerError> {
        let Server { config, process, listeners, pages, room, tls, source, ours, passed, old, journals } =
            self;
        let (reread, stop, notify) = (Reread::new(()), &around.stop, around.notify.clone());
        let workers: Vec<_> = (0..config.workers)
            .map(|i| {
                let audits = config.audit.filter(|_| i == 0);
                WorkerThread::start(i, process.clone(), audits, stop.subscribe(), alarm)
            })
            .collect::<Result<_, _>>()?;
        let inboxes: Vec<_> = workers.iter().map(|worker| worker.inbox.clone()).collect();
        let journals = journals.start(&process, alarm)?;
        writeback::start_flushers(&process, &inboxes, alarm);
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
        let (export, told) = Export::start(&config, &process, alarm);
        let draining = Arc::new(AtomicBool::new(false));
        let (door, reload) = (pages::door(&config), Reload(reload));
        let admin = Admin { process: process.clone(), draining: draining.clone(), door, reload };
        let offered = pages.offered()?;
        let (admin, sockets) = pages.serve(admin, room.admin)?;
        let (pages, keepalive) = ((offered, admin.abort_handle()), config.tcp_keepalive);
        tasks.push(admin);
        let entrance = Entrance {
            around,
            process: process.clone(),
            upstream: config.upstream.to_string(),
            workers: inboxes,
            room,
            keepalive,
            ours,
            passed,
            old,
            pages,
        };
        let (accepting, more) = entrance.open(listeners, alarm)?;
        tasks.extend(more);
        let reloads = Reloads { process, config, source, reread, told, notify };
        tasks.push(alarm.spawn("the reload of the configuration", reloads.run(wished)));
        Ok(Running { workers, accepting, tasks, journals, export, draining, _sockets: sockets })
    }
}

/// In front of the one server of the configuration.
fn single(settings: &Settings, cache: &Cache<Ticket>) -> Option<Topology> {
    let node = Node::new(NodeId(0), settings.upstream.clone(), cache)?;
    Some(Topology::single(Arc::new(node)))
}

/// What was started.
struct Running {
    workers: Vec<WorkerThread>,
    accepting: Vec<Task>,
    tasks: Vec<Task>,
    journals: Vec<JoinHandle<()>>,
    export: Export,
    /// Whether it is no more for new clients.
    draining: Arc<AtomicBool>,
    /// Of the admin pages.
    _sockets: Vec<SocketFile>,
}

type Task = tokio::task::JoinHandle<()>;

impl Running {
    /// Lets nobody in any more.
    fn begin_to_stop(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.accepting.iter().for_each(|task| task.abort());
    }

    fn tell(&self, message: impl Fn() -> Message) {
        self.workers.iter().for_each(|worker| worker.inbox.send(message()));
    }

    /// Lets clients go whenever they rest, until all are gone, or the time is over, or it is to stop.
    async fn leave(&self, stop: &watch::Sender<Stop>, timeout: Duration) {
        self.tell(|| Message::Leave);
        let mut stopped = stop.subscribe();
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop >= Stop::Drain) => {}
            _ = drained(&self.workers, timeout, stop.subscribe()) => {}
        }
    }

    /// Waits for the threads, which have ended or are about to.
    fn join(self, process: &Process) {
        writeback::end(process, self.journals);
        for worker in self.workers {
            if worker.thread.join().is_err() {
                error!("a worker has panicked; please report it, with the lines before");
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
