//! The audit counts agreement, and finds an entry that nothing would have ended.

use crate::support;

use std::time::Duration;

use nearside::config::Tracking;
use support::{Nearside, Redis, eventually};

#[test]
fn fresh_entries_agree() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| config.audit = Some(Duration::from_millis(5)));
    let mut client = nearside.connect();
    client.value("users/1");
    eventually("ten audits", || nearside.stat("audits_agreed") >= 10);
    assert_eq!(nearside.stat("audits_stale"), 0);
}

#[test]
fn an_entry_whose_change_nobody_told_is_found_and_dropped() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| {
        config.audit = Some(Duration::from_millis(5));
        config.tracking = Tracking::Off;
        config.namespaces.truncate(1);
        config.namespaces[0].tracking = Tracking::Off;
        config.namespaces[0].max_staleness = Duration::from_millis(300);
    });
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    eventually("the audit", || {
        direct.cmd("INCR users/1");
        client.value("users/1");
        nearside.stat("audits_stale") > 0
    });
    let truth = direct.value("users/1");
    eventually("the stale entry's end", || client.value("users/1") == truth);
}
