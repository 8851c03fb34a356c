//! What is cached of a cluster: each node's for itself, and only as long as the node has the key's hash slot and says so.

use crate::support;

use std::time::{Duration, Instant};

use nearside::config::{Config, Mapped, OnUpdate, Tracking, TrackingForm};
use nearside::resp::key_slot;
use support::cluster::{Cluster, Failover, in_time};
use support::relay::Relay;
use support::{Nearside, eventually};

/// What the tests' nearside promises, and how long after that it is still no fault of its own on a busy machine.
const BOUND: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(4);

fn bounded(config: &mut Config) {
    config.max_staleness = BOUND;
    config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = BOUND);
}

fn before(cluster: &Cluster) -> Nearside {
    Nearside::cluster_with(cluster, bounded)
}

/// Reads `key` until that is a hit; gives the reply.
#[track_caller]
fn hit(nearside: &Nearside, key: &str) -> String {
    let mut said = String::new();
    in_time(&format!("{key} is a hit"), || {
        let hits = nearside.stat("hits");
        said = nearside.connect().text(&format!("GET {key}"));
        nearside.stat("hits") > hits
    });
    said
}

/// How many of these reads are hits.
fn hits(nearside: &Nearside, keys: &[String]) -> usize {
    let mut client = nearside.connect();
    let hits = nearside.stat("hits");
    keys.iter().for_each(|key| drop(client.text(&format!("GET {key}"))));
    (nearside.stat("hits") - hits) as usize
}

/// Reads the key until it has this value, and fails if that is not within the bound, or at an error.
#[track_caller]
fn converges(nearside: &Nearside, key: &str, value: Option<&str>) {
    let wanted = value.map_or("$-1\r\n".to_owned(), |value| format!("${}\r\n{value}\r\n", value.len()));
    let (mut client, begun) = (nearside.connect(), Instant::now());
    loop {
        let said = client.text(&format!("GET {key}"));
        assert!(!said.starts_with('-'), "{key}: {said}");
        if said == wanted {
            return;
        }
        assert!(
            begun.elapsed() < BOUND + SLACK,
            "{key} is {said:?} and not {wanted:?}, after {:?}",
            begun.elapsed()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn keys_of(cluster: &Cluster, place: usize, n: usize) -> Vec<String> {
    cluster.keys_of(cluster.node(place), n)
}

#[test]
fn while_a_master_is_away_the_keys_of_the_others_are_hits() {
    let cluster = Cluster::start(3, 1);
    let nearside = before(&cluster);
    let others: Vec<String> = [1, 2].into_iter().flat_map(|place| keys_of(&cluster, place, 10)).collect();
    others.iter().for_each(|key| drop(hit(&nearside, key)));
    let all_hit = |during: &str| {
        let hits = hits(&nearside, &others);
        assert_eq!(hits, others.len(), "{during}");
    };
    all_hit("before");
    cluster.node(0).pause();
    let lost = Instant::now();
    while lost.elapsed() < Duration::from_secs(1) {
        all_hit("it is silent");
    }
    // Those who are left take no requests until its replica has its place, which waits until that was seen.
    cluster.node(3).order("CONFIG SET cluster-replica-no-failover yes");
    cluster.node(0).kill();
    in_time("they say that the cluster is down", || {
        all_hit("nobody has its slots");
        [1, 2].into_iter().all(|node| !cluster.node(node).state_is_ok())
    });
    cluster.node(3).order("CONFIG SET cluster-replica-no-failover no");
    in_time("its replica has its place", || {
        all_hit("nobody has its slots");
        cluster.node(3).is_master() && cluster.node(1).state_is_ok() && cluster.node(2).state_is_ok()
    });
    let own = keys_of(&cluster, 3, 1).remove(0);
    hit(&nearside, &own);
    all_hit("afterwards");
}

#[test]
fn an_absent_key_is_seen_when_it_is_made_where_its_slot_went() {
    let cluster = Cluster::start(3, 0);
    let nearside = before(&cluster);
    let keys = keys_of(&cluster, 0, 10);
    keys.iter().for_each(|key| drop(hit(&nearside, key)));
    let (moved, stay) = keys.split_first().unwrap();
    let before = nearside.stat("reason_slot_moved");
    cluster.migrate(key_slot(moved.as_bytes()), 0, 1);
    cluster.node(1).order(&format!("SET {moved} new"));
    converges(&nearside, moved, Some("new"));
    assert_eq!(hits(&nearside, stay), stay.len(), "the slot's keys have gone, and no others");
    assert_eq!(nearside.stat("reason_slot_moved") - before, 1);
    assert!(hit(&nearside, moved).contains("new"), "it is cached from where it is");
}

#[test]
fn a_key_that_is_made_where_its_slot_goes_is_seen_while_it_goes() {
    let cluster = Cluster::start(3, 0);
    let nearside = before(&cluster);
    let key = keys_of(&cluster, 0, 1).remove(0);
    let slot = key_slot(key.as_bytes());
    assert_eq!(hit(&nearside, &key), "$-1\r\n");
    cluster.begin_move(slot, 0, 1);
    let mut there = cluster.node(1).connect();
    assert_eq!(there.pipeline(&["ASKING".to_owned(), format!("SET {key} new")]), ["+OK\r\n", "+OK\r\n"]);
    converges(&nearside, &key, Some("new"));
    assert!(!nearside.is_cached(&key), "nothing is kept of what was asked for there");
    cluster.end_move(slot, 0, 1);
    converges(&nearside, &key, Some("new"));
    assert!(hit(&nearside, &key).contains("new"));
}

#[test]
fn a_move_that_comes_to_nothing_leaves_the_slot_cached_where_it_is() {
    let cluster = Cluster::start(3, 0);
    let nearside = before(&cluster);
    let mut client = nearside.connect();
    let key = keys_of(&cluster, 0, 1).remove(0);
    cluster.node(0).order(&format!("SET {key} v"));
    hit(&nearside, &key);
    let slot = key_slot(key.as_bytes());
    cluster.begin_move(slot, 0, 1);
    in_time("it is on the move", || {
        client.text(&format!("GET {key}"));
        !nearside.is_cached(&key)
    });
    cluster.abort_move(slot, 0, 1);
    assert!(hit(&nearside, &key).contains('v'));
    cluster.node(0).order(&format!("SET {key} w"));
    converges(&nearside, &key, Some("w"));
}

#[test]
fn keys_that_their_node_drops_without_a_word_with_their_slot_are_seen_to_be_gone() {
    let cluster = Cluster::start(3, 0);
    let nearside = before(&cluster);
    let keys = keys_of(&cluster, 0, 5);
    for key in &keys {
        cluster.node(0).order(&format!("SET {key} old"));
        converges(&nearside, key, Some("old"));
        assert!(hit(&nearside, key).contains("old"));
    }
    let (moved, stay) = keys.split_first().unwrap();
    cluster.setslot_without_migrate(key_slot(moved.as_bytes()), 0, 1);
    converges(&nearside, moved, None);
    cluster.node(1).order(&format!("SET {moved} new"));
    converges(&nearside, moved, Some("new"));
    assert_eq!(hits(&nearside, stay), stay.len());
}

#[test]
fn what_is_written_behind_a_failover_on_order_is_seen() {
    let cluster = Cluster::start(3, 1);
    let nearside = before(&cluster);
    let key = keys_of(&cluster, 0, 1).remove(0);
    cluster.node(0).order(&format!("SET {key} old"));
    converges(&nearside, &key, Some("old"));
    assert!(hit(&nearside, &key).contains("old"));
    let others = keys_of(&cluster, 1, 5);
    others.iter().for_each(|key| drop(hit(&nearside, key)));
    in_time("the replica has it", || {
        cluster.node(3).connect().pipeline(&["READONLY".to_owned(), format!("GET {key}")])[1].contains("old")
    });
    cluster.failover(3, Failover::Graceful);
    in_time("it takes writes", || cluster.node(3).ask(&format!("SET {key} new")).starts_with("+OK"));
    converges(&nearside, &key, Some("new"));
    assert_eq!(hits(&nearside, &others), others.len());
    assert!(hit(&nearside, &key).contains("new"));
}

#[test]
fn a_master_that_is_cut_off_is_not_believed() {
    let cluster = Cluster::start(3, 1);
    let nearside = before(&cluster);
    let mut client = nearside.connect();
    let key = keys_of(&cluster, 0, 1).remove(0);
    cluster.node(0).order(&format!("SET {key} old"));
    converges(&nearside, &key, Some("old"));
    assert!(hit(&nearside, &key).contains("old"));
    let others = keys_of(&cluster, 1, 5);
    others.iter().for_each(|key| drop(hit(&nearside, key)));
    cluster.cut_bus(0);
    let mut round = 0;
    in_time("its replica has its place and takes writes", || {
        round += 1;
        let _ = client.text(&format!("GET {key}"));
        cluster.node(3).ask(&format!("SET {key} {round}")).starts_with("+OK")
    });
    converges(&nearside, &key, Some(&round.to_string()));
    hit(&nearside, &key);
    cluster.restore_bus(0);
    cluster.wait_ready();
    converges(&nearside, &key, Some(&round.to_string()));
}

/// Cut off together with it, nearside hears only what the old master believes.
#[test]
fn a_master_alone_proves_nothing() {
    let cluster = Cluster::start(3, 0);
    let relays: Vec<_> = (0..3).map(|place| Relay::to(cluster.node(place).address())).collect();
    let nearside = Nearside::cluster_with(&cluster, |config| {
        bounded(config);
        let announced = (0..3).map(|place| cluster.node(place).address());
        let map = announced
            .zip(&relays)
            .map(|(from, to)| Mapped::parse(&format!("{from}={}", to.address)).unwrap());
        config.cluster_address_map = map.collect();
    });
    let key = keys_of(&cluster, 0, 1).remove(0);
    hit(&nearside, &key);
    let cut = |places: &[usize], cut: bool| {
        for place in places {
            relays[*place].refuse(cut);
            if cut {
                relays[*place].cut();
            }
        }
    };
    cut(&[2], true);
    let cut_at = Instant::now();
    while cut_at.elapsed() < BOUND * 3 {
        assert_eq!(hits(&nearside, std::slice::from_ref(&key)), 1, "two of three are most");
    }
    cut(&[1], true);
    in_time("its own word is not enough", || hits(&nearside, std::slice::from_ref(&key)) == 0);
    let alone_at = Instant::now();
    while alone_at.elapsed() < BOUND * 3 {
        assert_eq!(hits(&nearside, std::slice::from_ref(&key)), 0);
    }
    assert!(cluster.node(0).state_is_ok(), "it is well, by its own account");
    assert!(nearside.connect().text(&format!("SET {key} v")).starts_with("+OK"), "it is served");
    cut(&[1], false);
    assert!(hit(&nearside, &key).contains('v'));
}

/// Its keys are hits, and what others write is seen.
#[track_caller]
fn is_coherent(cluster: &Cluster, nearside: &Nearside, told: bool) {
    for place in 0..3 {
        let key = keys_of(cluster, place, 7).remove(6);
        for value in ["one", "two", "three"] {
            let node = cluster.node(place);
            node.order(&format!("SET {key} {value}"));
            if !told {
                // By another node: it comes to all.
                cluster.node((place + 1) % 3).ask(&format!("PUBLISH users/update {}", &key[6..]));
            }
            converges(nearside, &key, Some(value));
            assert!(hit(nearside, &key).contains(value));
        }
        cluster.node(place).ask(&format!("DEL {key}"));
        if !told {
            cluster.node(place).ask(&format!("PUBLISH users/delete {}", &key[6..]));
        }
        converges(nearside, &key, None);
        assert_eq!(hit(nearside, &key), "$-1\r\n");
    }
}

#[test]
fn every_form_of_tracking_is_coherent() {
    let cluster = Cluster::start(3, 0);
    for (form, name) in [
        (TrackingForm::Redirect, "redirect"),
        (TrackingForm::Register, "register"),
        (TrackingForm::Broadcast, "broadcast"),
        (TrackingForm::Off, "channels"),
    ] {
        let nearside = Nearside::cluster_with(&cluster, |config| {
            bounded(config);
            config.tracking_form = form;
        });
        let stats = nearside.stats();
        assert!(stats.contains(&format!("nearside_tracking_form:{name}\r\n")), "{name} in {stats}");
        is_coherent(&cluster, &nearside, form != TrackingForm::Off);
    }
}

#[test]
fn many_keys_of_many_slots_are_registered_at_once() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster_with(&cluster, |config| {
        bounded(config);
        config.tracking_form = TrackingForm::Register;
    });
    let mut client = nearside.connect();
    let keys: Vec<_> = (0..3).flat_map(|place| keys_of(&cluster, place, 100)).collect();
    let reads: Vec<_> = keys.iter().map(|key| format!("GET {key}")).collect();
    in_time("all are cached", || {
        let before = nearside.stat("hits");
        assert!(client.pipeline(&reads).iter().all(|reply| reply == "$-1\r\n"));
        nearside.stat("hits") - before == keys.len() as i64
    });
}

#[test]
fn an_announcement_comes_to_all_feeds_and_counts_once() {
    let cluster = Cluster::start(3, 0);
    let off = |config: &mut Config| {
        bounded(config);
        config.tracking = Tracking::Off;
        config.namespaces.iter_mut().for_each(|namespace| {
            namespace.tracking = Tracking::Off;
            namespace.refill_on_write = true;
        });
    };
    let (near, other) = (Nearside::cluster_with(&cluster, off), Nearside::cluster_with(&cluster, off));
    let mut client = near.connect();
    let updates = |nearside: &Nearside| {
        let (_, page) = nearside.get("/metrics");
        let line = page
            .lines()
            .find(|line| line.starts_with("nearside_invalidations_total") && line.contains("update"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_else(|| panic!("{page}"))
            as u64
    };
    for place in 0..3 {
        let key = keys_of(&cluster, place, 7).remove(6);
        hit(&other, &key);
        for value in ["one", "two"] {
            let heard = [updates(&near), updates(&other)];
            assert_eq!(client.text(&format!("SET {key} {value}")), "+OK\r\n");
            converges(&other, &key, Some(value));
            eventually("both have heard it", || updates(&near) > heard[0] && updates(&other) > heard[1]);
            // Whatever else may come is there by then.
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!([updates(&near), updates(&other)], [heard[0] + 1, heard[1] + 1]);
            assert!(hit(&near, &key).contains(value));
        }
    }
}

#[test]
fn an_announced_update_is_fetched_from_the_key_s_node() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster_with(&cluster, |config| {
        bounded(config);
        config.namespaces.iter_mut().for_each(|namespace| namespace.on_update = OnUpdate::Refresh);
    });
    let mut client = nearside.connect();
    for place in 0..3 {
        let key = keys_of(&cluster, place, 7).remove(6);
        hit(&nearside, &key);
        let (fills, refreshes) = (nearside.stat("fills"), refreshed(&nearside));
        let node = cluster.node(place);
        node.order(&format!("SET {key} new"));
        node.ask(&format!("PUBLISH users/update {}", &key[6..]));
        eventually("it is fetched", || refreshed(&nearside) > refreshes && nearside.stat("fills") > fills);
        let hits = nearside.stat("hits");
        assert_eq!(client.value(&key).as_deref(), Some("new"));
        assert_eq!(nearside.stat("hits"), hits + 1, "nobody had to ask for it");
        assert_eq!(refreshed(&nearside), refreshes + 1);
    }
}

fn refreshed(nearside: &Nearside) -> u64 {
    let (_, page) = nearside.get("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix("nearside_refreshes_total "));
    line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{page}")) as u64
}

#[test]
fn why_names_the_key_s_node() {
    let cluster = Cluster::start(3, 0);
    let nearside = before(&cluster);
    let mut client = nearside.connect();
    for place in 0..3 {
        let (key, node) = (keys_of(&cluster, place, 1).remove(0), cluster.node(place));
        hit(&nearside, &key);
        let slot = key_slot(key.as_bytes());
        let line = format!("node: {} at {}, hash slot {slot}\r\n", node.id(), node.address());
        let why = nearside.why(&key);
        assert!(why.contains(&line), "{line} in {why}");
    }
    let key = keys_of(&cluster, 0, 1).remove(0);
    cluster.begin_move(key_slot(key.as_bytes()), 0, 1);
    in_time("it says that the slot is on the move", || {
        client.text(&format!("GET {key}"));
        nearside.why(&key).contains("which does not say that the slot is its own")
    });
}

#[test]
fn cached_replies_are_compared_with_their_own_node_s() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::cluster_with(&cluster, |config| {
        bounded(config);
        config.audit = Some(Duration::from_millis(2));
    });
    let mut client = nearside.connect();
    for place in 0..3 {
        let key = keys_of(&cluster, place, 1).remove(0);
        cluster.node(place).order(&format!("SET {key} v"));
        converges(&nearside, &key, Some("v"));
    }
    let before = nearside.stat("audits_agreed");
    in_time("audits of all nodes' keys", || {
        (0..3).for_each(|place| drop(client.value(&keys_of(&cluster, place, 1)[0])));
        nearside.stat("audits_agreed") > before + 100
    });
    assert_eq!(nearside.stat("audits_stale"), 0);
}

#[test]
fn cached_reads_of_a_node_that_is_gone_go_on_for_a_while_if_that_is_wished() {
    let cluster = Cluster::with(3, 0, &["--cluster-require-full-coverage", "no"]);
    let nearside = Nearside::cluster_with(&cluster, |config| {
        bounded(config);
        config.stale_if_error = Duration::from_secs(60);
    });
    let mut client = nearside.connect();
    for lost in [2, 0] {
        let (key, another) = (keys_of(&cluster, lost, 1).remove(0), keys_of(&cluster, 1, 1).remove(0));
        for key in [&key, &another] {
            hit(&nearside, key);
        }
        cluster.node(lost).kill();
        let begun = Instant::now();
        while begun.elapsed() < BOUND * 3 {
            assert_eq!(client.value(&key), None, "as it was");
            assert_eq!(client.value(&another), None);
        }
        eventually("it is beyond the bound", || {
            assert_eq!(client.value(&key), None);
            nearside.stat("stale_hits") > 0
        });
        let stale = nearside.stat("stale_hits");
        assert_eq!(client.value(&another), None);
        assert_eq!(nearside.stat("stale_hits"), stale, "of the other node nothing is");
        cluster.node(lost).restart();
        cluster.wait_ready();
        in_time("it is there again", || client.text(&format!("SET {key} v")) == "+OK\r\n");
        converges(&nearside, &key, Some("v"));
        assert_eq!(client.text(&format!("DEL {key}")), ":1\r\n");
    }
}

#[test]
fn of_a_node_that_does_not_tell_which_slots_are_its_own_nothing_is_cached() {
    let cluster = Cluster::start(3, 0);
    let nearside = before(&cluster);
    let mut client = nearside.connect();
    let (key, another) = (keys_of(&cluster, 2, 1).remove(0), keys_of(&cluster, 1, 1).remove(0));
    for refused in ["cluster|nodes", "cluster|info"] {
        for key in [&key, &another] {
            hit(&nearside, key);
        }
        cluster.node(2).order(&format!("ACL SETUSER default -{refused}"));
        in_time("nothing is cached of it", || {
            client.text(&format!("GET {key}"));
            !nearside.is_cached(&key)
        });
        assert!(!nearside.is_cached(&key));
        assert_eq!(hits(&nearside, std::slice::from_ref(&another)), 1);
        let (mut direct, begun) = (cluster.node(2).connect(), Instant::now());
        while begun.elapsed() < BOUND {
            assert_eq!(client.value(&key), None);
            assert!(!nearside.is_cached(&key));
        }
        direct.cmd(&format!("SET {key} v"));
        assert_eq!(client.value(&key).as_deref(), Some("v"));
        direct.cmd(&format!("DEL {key}"));
        assert_eq!(direct.text(&format!("ACL SETUSER default +{refused}")), "+OK\r\n");
        hit(&nearside, &key);
    }
}

#[test]
fn a_server_that_is_noticed_to_be_of_a_cluster_is_asked_before_anything_is_cached() {
    let cluster = Cluster::start(3, 0);
    let nearside = Nearside::with(cluster.node(0).address(), bounded);
    for place in 0..3 {
        let key = keys_of(&cluster, place, 1).remove(0);
        hit(&nearside, &key);
    }
    let key = keys_of(&cluster, 0, 1).remove(0);
    cluster.migrate(key_slot(key.as_bytes()), 0, 1);
    cluster.node(1).order(&format!("SET {key} new"));
    converges(&nearside, &key, Some("new"));
}
