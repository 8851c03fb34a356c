//! The order in which a feed of a cluster's node proves what: first it hears which hash slots are the node's own, then what was
//! lost is voided, and only then it is armed.

use crate::support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use support::alone::Running;
use support::cluster::Cluster;
use support::eventually;

const BOUND: Duration = Duration::from_millis(300);

#[test]
fn nothing_is_proven_before_the_node_has_told_of_its_slots_and_what_it_lost_is_void() {
    let cluster = Cluster::start(1, 0);
    let running = Running::start(cluster.node(0).address(), BOUND, true);
    let (cache, state) = (&running.cache, &running.state);
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
    running.stop();
}
