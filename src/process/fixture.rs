//! For unit tests of the rooms above: an upstream that is never reached, one that lets in whoever comes, and a process in
//! front of either.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{ClusterSettings, Node, NodeId, Process, Settings, Topology, Traced};
use crate::cache::{By, Cache, EntryKey, IdentId};
use crate::io::Address;
use crate::namespace::{Namespace, Namespaces, OnUpdate, Rules, Tracking, TrackingForm};
use crate::resp::framer::Limits;
use crate::upstream;

const SECOND: Duration = Duration::from_secs(1);

/// Of an upstream that is nowhere: what connects to it fails.
pub fn nowhere() -> upstream::Settings {
    upstream::Settings {
        address: Address::Unix("/nowhere".into()).into(),
        own: Default::default(),
        connect_timeout: SECOND,
        reply_timeout: SECOND,
        ours: Default::default(),
        dial: Default::default(),
    }
}

/// An upstream that gives each connection its identity, and a number, and answers nothing else.
pub struct Mute {
    _directory: TempDir,
    pub settings: upstream::Settings,
}

impl Mute {
    /// Serves for as long as the local tasks run.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mute");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::task::spawn_local(async move {
            for id in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(let_in(stream, id));
            }
        });
        let address = Address::Unix(path);
        // However busy the machine is.
        let (connect_timeout, reply_timeout) = (60 * SECOND, Duration::ZERO);
        let settings =
            upstream::Settings { address: address.into(), connect_timeout, reply_timeout, ..nowhere() };
        Self { _directory: directory, settings }
    }
}

/// The handshake ends with the question for the connection's number.
async fn let_in(mut stream: UnixStream, id: i64) {
    let mut said = Vec::new();
    while !said.ends_with(b"$6\r\nCLIENT\r\n$2\r\nID\r\n") {
        if stream.read_buf(&mut said).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let commands = said.iter().filter(|byte| **byte == b'*').count();
    let answers = format!("{}:{id}\r\n", "+OK\r\n".repeat(commands - 1));
    let _ = stream.write_all(answers.as_bytes()).await;
    while stream.read_buf(&mut said).await.unwrap_or(0) > 0 {
        said.clear();
    }
}

/// Of keys that begin with `<name>/`, as long as they are tracked so.
pub fn namespace(name: &str, tracking: Tracking) -> Namespace {
    let rules = Rules {
        on_update: OnUpdate::Invalidate,
        refill_on_write: false,
        tracking,
        max_age: SECOND,
        max_staleness: SECOND,
    };
    Namespace::new(name, format!("{name}/").as_bytes(), name, rules)
}

/// The node's server is left.
pub fn leave(node: &Node) {
    node.role.leave();
}

/// A sampled miss of a key that was never there.
pub fn traced(process: &Arc<Process>) -> Option<Box<Traced>> {
    let name = EntryKey { key: b"k", ident: IdentId(0), command: process.get, args: b"", by: By::GET };
    Traced::begin(process, &process.first_node(), 1, &name, 1)
}

/// Whether its server may be no primary any more.
pub fn is_doubted(node: &Node) -> bool {
    node.role.is_doubted(1)
}

/// Where new connections to the node lead, as it was last asked.
pub fn leads_to(node: &Node, is_primary: bool) {
    node.role.leads_to(is_primary);
}

/// A process whose one node is nowhere.
pub fn process(max_links: usize) -> Arc<Process> {
    process_with(nowhere(), |settings| settings.max_links = max_links.into())
}

/// A process with this one node, and no namespaces.
pub fn process_with(upstream: upstream::Settings, change: impl FnOnce(&mut Settings)) -> Arc<Process> {
    process_of(upstream, Vec::new(), change)
}

/// A process with this one node.
pub fn process_of(
    upstream: upstream::Settings,
    namespaces: Vec<Namespace>,
    change: impl FnOnce(&mut Settings),
) -> Arc<Process> {
    let mut settings = Settings {
        upstream,
        cluster: ClusterSettings::default(),
        db: 0,
        password: None,
        limits: Limits::default(),
        max_request: (1 << 30).into(),
        output_limit: (1 << 20).into(),
        max_clients: 16.into(),
        max_links: 16.into(),
        stall_timeout: SECOND.into(),
        drain_timeout: SECOND.into(),
        max_staleness: SECOND.into(),
        max_age: SECOND.into(),
        stale_if_error: false.into(),
        tracking: Tracking::Off,
        tracking_form: TrackingForm::Auto,
        cache_commands: None,
        admin_keys: true,
        described: Default::default(),
    };
    change(&mut settings);
    let cache = Cache::new(8 << 20, 1 << 20, 0);
    let node = Node::new(NodeId(0), settings.upstream.clone(), &cache).unwrap();
    let topology = Topology::single(Arc::new(node));
    Arc::new(Process::new(topology, settings, cache, Namespaces::new(namespaces)).unwrap())
}
