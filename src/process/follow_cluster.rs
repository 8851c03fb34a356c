//! Keeps the topology up to date.
//!
//! Invariants:
//! - One look at a time, and the next no sooner than [`PAUSE`] after the last; however many ask for it, it is one.
//! - A look that comes to nothing changes nothing, and is tried again after a delay that grows.
//! - A server of which nobody has said that it is a node of a cluster is not asked: its feed hears whether it is.

mod layout;
mod look;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use self::look::{Question, Seen, candidates, look, place};
use super::settings::ClusterSettings;
use super::shared::Process;
use crate::io::Address;
use crate::resp::SlotSet;
use crate::upstream::{Location, Settings, backoff};

/// Between two looks when nothing has happened; half of it at least.
const EVERY: Duration = Duration::from_secs(30);

/// Likewise while a node cannot be reached: another may take its place.
const LACKING: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Between two looks at least.
const PAUSE: Duration = Duration::from_millis(100);

/// Before the next when one came to nothing.
const FAILED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Runs until it is dropped, in a `LocalRuntime`.
pub async fn follow_cluster(process: Arc<Process>) {
    process.cluster.noticed().await;
    let mut epoch = 0;
    let (mut failures, mut lacking) = (0, 0);
    loop {
        let seen = look(question(&process, epoch)).await;
        process.metrics.topology_looks.inc();
        let pause = match seen {
            Ok(seen) => {
                (failures, epoch) = (0, seen.epoch());
                adopt(&process, &seen);
                PAUSE
            }
            Err(why) => {
                failures += 1;
                fail(&process, why);
                backoff(FAILED, failures)
            }
        };
        process.cluster.looked.send_replace(true);
        let earliest = Instant::now() + pause;
        lacking = if process.topology().nodes().iter().all(|node| node.is_up()) { 0 } else { lacking + 1 };
        let idle = match (failures, lacking) {
            (0, 0) => backoff((EVERY, EVERY), 0),
            (0, turns) => backoff(LACKING, turns - 1),
            _ => pause,
        };
        tokio::select! {
            () = process.cluster.wanted.notified() => {}
            () = sleep(idle) => {}
        }
        sleep_until(earliest).await;
    }
}

/// The masters of the cluster that these settings lead to, as they are reached, and their hash slots. Errors: nobody says.
pub async fn see_cluster(
    upstream: &Settings,
    cluster: &ClusterSettings,
) -> Result<Vec<(Address, SlotSet)>, String> {
    let (upstream, candidates) = (upstream.clone(), cluster.seeds.clone());
    let seen = look(Question { upstream, candidates, known: Vec::new(), epoch: 0 }).await?;
    let masters = layout::masters(&seen, cluster);
    Ok(masters.into_iter().map(|master| (master.address.clone(), layout::slots_of(&seen, &master))).collect())
}

/// Those whose feeds stand come first, then the others, then whom the configuration names.
fn question(process: &Process, epoch: u64) -> Question {
    let topology = process.topology();
    let nodes = topology.nodes();
    let (up, down): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.is_up());
    // Not always the same one.
    let turn = process.metrics.topology_looks.get() as usize % up.len().max(1);
    let known = up[turn..].iter().chain(&up[..turn]).chain(&down);
    let of_nodes = known.filter_map(|node| place(node.address()));
    // The seeds are tried early enough not to wait for many nodes that are gone.
    let (mut of_nodes, seeds) = (candidates(of_nodes), &process.settings.cluster.seeds);
    let rest = of_nodes.split_off(of_nodes.len().min(4));
    let all = of_nodes.into_iter().chain(seeds.iter().cloned()).chain(rest);
    Question {
        upstream: process.settings.upstream.clone(),
        candidates: candidates(all),
        known: nodes.iter().filter_map(|node| node.name.clone()).collect(),
        epoch,
    }
}

fn adopt(process: &Process, seen: &Seen) {
    let _making = process.cluster.making.lock();
    let Some(topology) = layout::topology(process, seen) else { return };
    process.metrics.topology_told.over();
    if topology.is_as(&process.topology()) {
        return;
    }
    let slots = crate::resp::SLOTS as u16;
    let unowned = (0..slots).filter(|slot| topology.owner_of(*slot).is_none()).count();
    let nodes = topology.nodes().len();
    match process.metrics.topology_news.now() {
        Some(untold) if unowned == 0 => match process.is_single() {
            true => info!(nodes, by = %seen.by, "the cluster's nodes are known"),
            false => {
                info!(nodes, by = %seen.by, untold, "the cluster's nodes, or whose the hash slots are, have changed");
            }
        },
        Some(untold) => warn!(
            nodes, unowned, by = %seen.by, untold,
            "hash slots of the cluster are nobody's: requests for their keys are answered with CLUSTERDOWN; give the slots \
             to a node (redis-cli --cluster fix)"
        ),
        None => {}
    }
    process.set_topology(topology);
}

fn fail(process: &Process, why: String) {
    process.metrics.topology_failures.inc();
    process.metrics.unreachable.say(why.clone());
    if let Some(untold) = process.metrics.topology_told.of(&why) {
        warn!(
            untold,
            why,
            "no node says how the cluster stands: they are asked again; look whether they run, and let nearside's user say \
             CLUSTER SLOTS"
        );
    }
    // Those who wait for the first word hear why there is none.
    if let Location::Elected(elected) = &process.topology().nodes()[0].upstream.address {
        elected.explain(why);
    }
}
