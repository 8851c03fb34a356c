//! What runs for each of the upstream's nodes: its feed, and the watches of its role and its name. Nodes of a cluster come
//! and go.
//!
//! Invariants: a node's tasks run as long as it is in the topology, and no longer; connections to it end soon after. What it had in the cache is given back once
//! nobody holds it any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alarm::Alarm;
use super::parts;
use crate::process::{Inbox, Node, NodeId, Process, refresh_name, watch_role};
use tokio::task::JoinHandle;

/// How long what was asked of a node that has left may take to be answered. One that does not answer has mostly left because of that.
const GRACE: Duration = Duration::from_secs(2);

/// See the [module](self).
pub(super) struct Nodes {
    process: Arc<Process>,
    inboxes: Vec<Arc<Inbox>>,
    dns_refresh: Option<Duration>,
    alarm: Alarm,
    known: HashMap<NodeId, (Arc<Node>, Vec<JoinHandle<()>>)>,
    left: Vec<(Arc<Node>, Instant)>,
}

impl Nodes {
    /// Starts the tasks of the present nodes.
    pub(super) fn start(
        process: &Arc<Process>,
        inboxes: &[Arc<Inbox>],
        dns_refresh: Option<Duration>,
        alarm: &Alarm,
    ) -> Self {
        let (process, alarm) = (process.clone(), alarm.clone());
        let (known, left) = (HashMap::new(), Vec::new());
        let mut nodes = Self { process, inboxes: inboxes.to_vec(), dns_refresh, alarm, known, left };
        nodes.follow();
        nodes
    }

    /// Follows the topologies until it is dropped.
    pub(super) async fn run(mut self) {
        let mut epochs = self.process.epochs();
        loop {
            match tokio::time::timeout(GRACE, epochs.changed()).await {
                Ok(Ok(())) => self.follow(),
                Ok(Err(_)) => return,
                Err(_) => self.let_go(),
            }
        }
    }

    fn follow(&mut self) {
        let topology = self.process.present_topology();
        for (_, (node, tasks)) in self.known.extract_if(|_, (node, _)| !topology.has(node)) {
            tasks.iter().for_each(|task| task.abort());
            // What its feed may have said meanwhile is over.
            self.process.retire(&node);
            self.left.push((node, Instant::now()));
        }
        for node in topology.nodes() {
            if !self.known.contains_key(&node.id) {
                self.known.insert(node.id, (node.clone(), self.tasks(node)));
            }
        }
        self.let_go();
    }

    fn tasks(&self, node: &Arc<Node>) -> Vec<JoinHandle<()>> {
        let (process, alarm) = (&self.process, &self.alarm);
        let mut tasks = vec![
            alarm.spawn("the feed", parts::feed(process, node, &self.inboxes).run()),
            alarm.spawn("the watch of the upstream's role", watch_role(process.clone(), node.clone())),
        ];
        if let Some(every) = self.dns_refresh {
            let refresh = refresh_name(process.clone(), node.clone(), every);
            tasks.push(alarm.spawn("the watch of the upstream's name", refresh));
        }
        tasks
    }

    /// Ends the connections to nodes that have left a while ago, and gives back what nobody holds any more.
    fn let_go(&mut self) {
        for (node, since) in std::mem::take(&mut self.left) {
            if since.elapsed() >= GRACE {
                node.leave();
            }
            match Arc::try_unwrap(node) {
                Ok(node) => node.give_back(&self.process.cache, self.process.now()),
                Err(node) => self.left.push((node, since)),
            }
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.known.values().flat_map(|(_, tasks)| tasks).for_each(|task| task.abort());
    }
}
