//! The log: what is told of an upstream that stays away, and a standard error that takes nothing.

use crate::support;

use support::program::Program;
use support::relay::Relay;
use support::{Redis, eventually};

/// What is logged of the links, and of the feed.
fn losses(program: &mut Program) -> Vec<String> {
    let lines = program.logged().lines().filter(|line| line.contains(" WARN "));
    lines.map(str::to_owned).collect()
}

#[test]
fn an_upstream_that_stays_away_is_told_of_once_for_each_reason() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let mut program = Program::start(relay.address.port(), &[]);
    program.wait_for("the feed is subscribed");
    relay.refuse(true);
    relay.cut();
    program.wait_for("link is down");
    let attempts = |program: &Program| {
        let page = program.page("/metrics");
        let counts = page.lines().filter(|line| line.starts_with("nearside_connect_attempts_total"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let before = attempts(&program);
    eventually("it is tried again and again", || attempts(&program) > before + 5);
    let told = losses(&mut program);
    // Of the links and of the feed; and how the connection ended may differ from how it is refused then.
    assert!((1..=8).contains(&told.len()), "{told:#?}");
    assert!(told.iter().all(|line| line.contains("cause=") && line.contains("untold=")), "{told:#?}");
    // Now nobody is there at all, which is another reason.
    drop(relay);
    program.wait_for("Connection refused");
    let before = attempts(&program);
    eventually("it is tried again and again", || attempts(&program) > before + 5);
    let told = losses(&mut program);
    let refused = told.iter().filter(|line| line.contains("Connection refused")).count();
    // One of the links and one of the feed, and as many again if a minute has passed: fewer than there were attempts.
    assert!((1..=4).contains(&refused), "{told:#?}");
    assert!(told.len() <= 12, "{told:#?}");
}

#[test]
fn a_closed_standard_error_and_a_full_disk_stop_nothing() {
    let redis = Redis::start();
    for redirection in ["2>&-", "2>/dev/full", "2>&- 1>&- <&-"] {
        let mut program = Program::start_with_errors_to(redirection, redis.port);
        for i in 0..100 {
            let mut client = program.connect();
            match i % 2 {
                0 => assert_eq!(client.text("SET users/1 v"), "+OK\r\n", "{redirection}"),
                _ => client.send(b"POST / HTTP/1.1\r\n\r\n"),
            }
        }
        if redirection == "2>/dev/full" {
            let lost = || {
                let page = program.page("/metrics");
                let line = page.lines().find(|line| line.starts_with("nearside_lost_log_lines_total "));
                line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap()
            };
            eventually("what is lost is counted", || lost() > 0);
        }
        program.terminate();
        assert_eq!(program.ended().code(), Some(0), "{redirection}");
    }
}
