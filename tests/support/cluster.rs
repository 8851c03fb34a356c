//! A real Redis Cluster on free ports: masters that share the slots evenly, and replicas dealt out among them.
//!
//! Ready means that all nodes see each other, agree, and say `cluster_state:ok`, and that the replicas are in step. A new
//! cluster takes some two seconds, because a master serves nothing for so long after its start. What is done to it is in
//! [`changes`](self::changes).

pub mod changes;
pub mod view;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nearside::config::Config;
use nearside::resp::key_slot;
use rustix::process::Signal;

use super::bus::Bus;
use super::sentinel::{Certified, behind};
use super::{Conn, Nearside, Redis, free_port};
use view::Member;

/// How long anything may take that a cluster does by itself, on a machine that has much else to do.
pub const IN_TIME: Duration = Duration::from_secs(60);

/// After so many milliseconds a node is said to fail.
pub const NODE_TIMEOUT: u64 = 1500;

const SLOTS: usize = 16_384;

/// Polls until `done`, for as long as a cluster may take.
#[track_caller]
pub fn in_time(what: &str, done: impl FnMut() -> bool) {
    in_time_else(done, || what.to_owned());
}

/// Likewise; `what` is asked when it is too late.
#[track_caller]
pub fn in_time_else(mut done: impl FnMut() -> bool, what: impl FnOnce() -> String) {
    let deadline = Instant::now() + IN_TIME;
    while !done() {
        if Instant::now() >= deadline {
            panic!("not within {IN_TIME:?}: {}", what());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A server of the cluster, master or replica.
pub struct Node {
    redis: Mutex<Redis>,
    /// Its place among [`Cluster::nodes`].
    pub place: usize,
    /// Of its plain port.
    address: SocketAddr,
    /// How it is known to clients and to the others: the port for TLS if there is one.
    pub port: u16,
    id: Mutex<String>,
    state: Mutex<State>,
    /// When a replica of it was last elected in its place.
    replaced: Mutex<Option<Instant>>,
    /// Where it keeps what it knows of the cluster, also while it is down.
    _folder: tempfile::TempDir,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Up,
    /// Killed, stopped or cut off.
    Away,
    /// Not of the cluster any more.
    Left,
}

impl Node {
    /// Of its plain port, also where clients come by TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connect(&self) -> Conn {
        Conn::to(self.address)
    }

    pub fn redis(&self) -> MutexGuard<'_, Redis> {
        self.redis.lock().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.redis().pid()
    }

    /// What the cluster calls it.
    pub fn id(&self) -> String {
        self.id.lock().unwrap().clone()
    }

    /// How often it has executed a command.
    pub fn calls(&self, command: &str) -> u64 {
        self.redis().calls(command)
    }

    #[track_caller]
    pub fn ask(&self, command: &str) -> String {
        self.connect().text(command)
    }

    /// Fails the test if it is not answered `+OK`.
    #[track_caller]
    pub fn order(&self, command: &str) {
        let said = self.ask(command);
        assert!(said.starts_with("+OK"), "{command} to {}: {said}", self.address);
    }

    /// How the node sees the cluster; nothing if it does not answer.
    pub fn view(&self) -> Vec<Member> {
        let Ok(mut conn) = Conn::try_to(self.address) else { return Vec::new() };
        let said = conn.try_reply_to("CLUSTER NODES").unwrap_or_default();
        view::parse(&String::from_utf8_lossy(&said))
    }

    /// What it says of itself.
    pub fn itself(&self) -> Option<Member> {
        self.view().into_iter().find(Member::is_me)
    }

    pub fn is_master(&self) -> bool {
        self.itself().is_some_and(|me| me.has("master"))
    }

    pub fn state_is_ok(&self) -> bool {
        let Ok(mut conn) = Conn::try_to(self.address) else { return false };
        let said = conn.try_reply_to("CLUSTER INFO").unwrap_or_default();
        String::from_utf8_lossy(&said).contains("cluster_state:ok")
    }

    fn is_up(&self) -> bool {
        *self.state.lock().unwrap() == State::Up
    }

    fn becomes(&self, state: State) {
        *self.state.lock().unwrap() = state;
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.becomes(State::Away);
        self.redis().kill();
    }

    /// Starts it again, without data, but with what it knew of the cluster. Does not wait for the others.
    pub fn restart(&self) {
        self.redis().restart();
        self.becomes(State::Up);
    }

    /// Stops the process, until [`Node::resume`].
    pub fn pause(&self) {
        self.becomes(State::Away);
        super::sentinel::signal(self.pid(), Signal::STOP);
    }

    pub fn resume(&self) {
        super::sentinel::signal(self.pid(), Signal::CONT);
        self.becomes(State::Up);
    }
}

/// How a replica is told to take its master's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failover {
    /// Its master agrees: nothing is lost.
    Graceful,
    /// Without its master, which may be gone.
    Force,
    /// Without anybody's consent.
    Takeover,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    Soft,
    /// With another id.
    Hard,
}

/// See the module.
pub struct Cluster {
    nodes: Vec<Node>,
    bus: Bus,
    args: Vec<String>,
    secure: Option<Certified>,
}

impl Cluster {
    /// The first `masters` nodes are the masters; replica `i` is of master `i` modulo their number.
    pub fn start(masters: usize, replicas: usize) -> Self {
        Self::with(masters, replicas, &[])
    }

    /// With more settings for each node, as on the command line.
    pub fn with(masters: usize, replicas: usize, args: &[&str]) -> Self {
        Self::of(masters, replicas, args, None)
    }

    /// All speak TLS with one another; clients may come by either.
    pub fn secure(masters: usize, replicas: usize) -> Self {
        Self::of(masters, replicas, &[], Some(Certified::new()))
    }

    fn of(masters: usize, replicas: usize, args: &[&str], secure: Option<Certified>) -> Self {
        let args = args.iter().map(ToString::to_string).collect();
        let mut cluster = Self { nodes: Vec::new(), bus: Bus::start(), args, secure };
        (0..masters + replicas).for_each(|_| cluster.launch());
        for (i, node) in cluster.nodes.iter().enumerate() {
            node.order(&format!("CLUSTER SET-CONFIG-EPOCH {}", i + 1));
            if i < masters {
                let (first, behind) = (SLOTS * i / masters, SLOTS * (i + 1) / masters);
                node.order(&format!("CLUSTER ADDSLOTSRANGE {first} {}", behind - 1));
            }
            cluster.nodes[..i].iter().for_each(|other| cluster.introduce(node, other));
        }
        in_time("all nodes know each other", || cluster.all_know_each_other());
        for (i, replica) in cluster.nodes[masters..].iter().enumerate() {
            replica.order(&format!("CLUSTER REPLICATE {}", cluster.nodes[i % masters].id()));
        }
        cluster.wait_ready();
        cluster
    }

    /// Starts a server that is of no cluster yet.
    fn launch(&mut self) {
        let (place, announced) = (self.nodes.len(), self.bus.add());
        let attempt = |_| {
            let (bus_port, folder) = (free_port(), tempfile::tempdir().unwrap());
            let secure_port = self.secure.as_ref().map(|_| free_port());
            let known = folder.path().join("nodes.conf");
            let mut args = vec![
                format!("--cluster-enabled yes --cluster-config-file {}", known.display()),
                format!("--cluster-port {bus_port} --cluster-announce-bus-port {announced}"),
                format!("--cluster-announce-ip 127.0.0.1 --bind-source-addr {}", Bus::source(place)),
                format!("--cluster-node-timeout {NODE_TIMEOUT} --cluster-replica-validity-factor 0"),
                "--cluster-allow-replica-migration no --repl-diskless-sync-delay 0".to_owned(),
                // Which knows no other local address than 127.0.0.1.
                "--protected-mode no".to_owned(),
            ];
            let by_tls = secure_port.zip(self.secure.as_ref()).map(|(port, of)| of.settings(port));
            args.extend(by_tls.into_iter().flatten().map(|(name, value)| format!("--{name} {value}")));
            args.extend(self.secure.iter().map(|_| "--tls-cluster yes".to_owned()));
            let mut args: Vec<_> = args.iter().flat_map(|some| some.split(' ')).map(str::to_owned).collect();
            args.extend(self.args.iter().cloned());
            self.bus.lead_to(place, bus_port);
            Some((Redis::try_with(&args)?, secure_port, folder))
        };
        let (redis, secure_port, folder) = (0..20).find_map(attempt).expect("a node can be started");
        let address = redis.address();
        let id = Conn::to(address).text("CLUSTER MYID").lines().nth(1).expect("an id").to_owned();
        self.nodes.push(Node {
            place,
            address,
            port: secure_port.unwrap_or(redis.port),
            redis: Mutex::new(redis),
            id: Mutex::new(id),
            state: Mutex::new(State::Up),
            replaced: Mutex::default(),
            _folder: folder,
        });
    }

    /// Lets two nodes know each other.
    fn introduce(&self, node: &Node, to: &Node) {
        let bus_port = self.bus.port(to.place);
        node.order(&format!("CLUSTER MEET 127.0.0.1 {} {bus_port}", to.port));
    }

    /// All that ever were; their places stay what they are.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn node(&self, place: usize) -> &Node {
        &self.nodes[place]
    }

    /// Those that are of the cluster, and not killed, stopped or cut off.
    pub fn up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_up())
    }

    /// The masters among them that have slots, by their own account.
    pub fn masters(&self) -> Vec<&Node> {
        let owns = |node: &&Node| node.itself().is_some_and(|me| me.has("master") && !me.slots.is_empty());
        self.up().filter(owns).collect()
    }

    /// `redis+cluster://` with the masters and replicas that are up.
    pub fn url(&self) -> String {
        let seeds: Vec<_> = self.up().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let s = if self.secure.is_some() { "s" } else { "" };
        format!("redis{s}+cluster://{}", seeds.join(","))
    }

    /// The file with the CA's certificate, if it speaks TLS.
    pub fn ca(&self) -> Option<std::path::PathBuf> {
        self.secure.as_ref().map(Certified::ca)
    }

    /// The node whose a slot is, by its own account.
    pub fn owner_of_slot(&self, slot: u16) -> Option<&Node> {
        self.up().find(|node| node.itself().is_some_and(|me| me.owns(slot)))
    }

    #[track_caller]
    pub fn owner_of(&self, key: &str) -> &Node {
        self.owner_of_slot(key_slot(key.as_bytes())).expect("somebody has the key")
    }

    /// So many keys of the namespace `users` that are the node's, in slots of their own.
    pub fn keys_of(&self, node: &Node, n: usize) -> Vec<String> {
        let me = node.itself().expect("it answers");
        assert!(!me.slots.is_empty(), "it has slots");
        let mut seen = std::collections::HashSet::new();
        let keys = (0..).map(|i| format!("users/{i}"));
        let theirs = keys.filter(|key| {
            let slot = key_slot(key.as_bytes());
            me.owns(slot) && seen.insert(slot)
        });
        theirs.take(n).collect()
    }

    fn all_know_each_other(&self) -> bool {
        let number = self.up().count();
        self.up().all(|node| {
            let view = node.view();
            view.len() == number && view.iter().all(Member::is_well)
        })
    }

    /// Whether all that are up say the same of who has which slots since which epoch, and who is whose replica.
    pub fn agrees(&self) -> bool {
        let shape = |node: &Node| {
            let mut view: Vec<_> = node.view().into_iter().filter(|of| !of.has("fail")).collect();
            view.sort_by(|a, b| a.id.cmp(&b.id));
            view.into_iter().map(|of| (of.id, of.master, of.epoch, of.slots)).collect::<Vec<_>>()
        };
        let mut shapes = self.up().map(shape);
        let first = shapes.next().unwrap_or_default();
        !first.is_empty() && shapes.all(|shape| shape == first)
    }

    /// Waits until all that are up see each other, agree, and serve, and the replicas among them are in step.
    #[track_caller]
    pub fn wait_ready(&self) {
        let why = || format!("the cluster is ready: {}", self.is_unready().unwrap_or_default());
        in_time_else(|| self.is_unready().is_none(), why);
    }

    /// What is amiss.
    fn is_unready(&self) -> Option<String> {
        for node in self.up() {
            let view = node.view();
            let missed = self.up().find(|other| !view.iter().any(|of| of.id == other.id() && of.is_well()));
            if let Some(other) = missed {
                return Some(format!("{} does not see {}: {view:?}", node.port, other.port));
            }
            if !node.state_is_ok() {
                return Some(format!("{} serves nothing", node.port));
            }
            let is_in_step = || node.ask("INFO replication").contains("link_status:up");
            if !node.is_master() && !is_in_step() {
                return Some(format!("{} is not in step with its master", node.port));
            }
        }
        (!self.agrees()).then(|| {
            let views: Vec<_> = self.up().map(|node| node.ask("CLUSTER NODES")).collect();
            format!("they do not agree:\n{}", views.join("\n"))
        })
    }

    /// Cuts the node off from all others; clients still reach it. Replication goes on: it is no part of the bus.
    pub fn cut_bus(&self, node: usize) {
        self.nodes[node].becomes(State::Away);
        self.bus.cut(node);
    }

    pub fn restore_bus(&self, node: usize) {
        self.bus.restore(node);
        self.nodes[node].becomes(State::Up);
    }
}

/// A key of the namespace `users` in this slot.
pub fn key_in_slot(slot: u16) -> String {
    let mut keys = (0..).map(|i| format!("users/{i}"));
    keys.find(|key| key_slot(key.as_bytes()) == slot).expect("there are enough numbers")
}

impl Nearside {
    /// In front of a cluster. Ready: a key of each master is a hit when it is read again.
    pub fn cluster(cluster: &Cluster) -> Self {
        Self::cluster_with(cluster, |_| ())
    }

    pub fn cluster_with(cluster: &Cluster, change: impl FnOnce(&mut Config)) -> Self {
        let nearside = behind(&cluster.url(), |config| {
            config.upstream_tls_ca = cluster.ca();
            change(config);
        });
        in_time("it is ready", || nearside.get("/readyz").0 == 200);
        let keys: Vec<_> = cluster.masters().iter().flat_map(|node| cluster.keys_of(node, 1)).collect();
        let mut client = nearside.connect();
        for key in keys {
            in_time("hits are had of each master", || {
                let before = nearside.stat("hits");
                client.args(&[b"GET", key.as_bytes()]);
                nearside.stat("hits") > before
            });
        }
        nearside
    }
}
