//! `nearside check --connect` tells what the upstream allows, what can be cached by that, and what to change.

use crate::support;

use std::process::{Command, Output};

use support::filter::{Filter, no_redirect, no_tracking};
use support::sentinel::{SERVICE, Sentinel, watch};
use support::{Redis, free_port, without};

fn check(upstream: &str, more: &[&str]) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_nearside");
    let Output { status, stdout, .. } = Command::new(program)
        .args(["check", "--connect", "--upstream", upstream])
        .args(more)
        .output()
        .unwrap();
    (status.code().expect("no signal"), String::from_utf8(stdout).unwrap())
}

#[track_caller]
fn says(text: &str, lines: &[&str]) {
    for line in lines {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.lines().any(|said| words(said).starts_with(line)), "{line} in\n{text}");
    }
}

#[test]
fn a_plain_server_allows_everything() {
    let redis = Redis::start();
    let (code, text) = check(&format!("redis://{}", redis.address()), &["--namespace", "users"]);
    says(
        &text,
        &[
            "yes connect",
            "yes RESP3",
            "yes tracking-form redirect",
            "yes tracking-form register",
            "yes tracking-form broadcast",
            "yes channels of namespace users",
            "yes PTTL",
            "changes become known by: redirect",
        ],
    );
    let mut direct = redis.connect();
    // Before 7.0 the upstream cannot be asked for that.
    let tells = direct.text("ACL DRYRUN default PING") == "+OK\r\n";
    let sign = if tells { "yes" } else { "?" };
    says(&text, &[&format!("{sign} announcements in namespace users")]);
    assert_eq!(code, 0);
    assert!(!text.contains("\nno "), "{text}");
    assert_eq!(direct.text("DBSIZE"), ":0\r\n", "nothing was written");
    assert_eq!(redis.calls("publish"), 0, "and nothing announced");
}

#[test]
fn the_best_form_that_is_allowed_is_named() {
    let redis = Redis::start();
    let filter = Filter::to(redis.address(), no_redirect);
    let (code, text) = check(&format!("redis://{}", filter.address), &[]);
    says(
        &text,
        &[
            "no tracking-form redirect ERR REDIRECT is not supported",
            "yes tracking-form register",
            "changes become known by: register",
        ],
    );
    assert_eq!(code, 0);
    filter.refuse(no_tracking);
    let upstream = format!("redis://{}", filter.address);
    let (code, text) = check(&upstream, &["--namespace", "users"]);
    says(&text, &["no tracking-form broadcast", "changes become known by: channels"]);
    assert_eq!(code, 0);
    let (code, text) = check(&upstream, &[]);
    says(&text, &["nothing can be cached"]);
    assert_eq!(code, 1);
}

#[test]
fn what_a_user_lacks_is_named_as_the_rule_that_gives_it() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    let rules = format!("{} -exists -info", without("client|tracking"));
    direct.cmd(&format!("ACL SETUSER app on >s3cret ~users/* &users/update +@all {rules}"));
    let upstream = format!("redis://app:s3cret@{}", redis.address());
    let (code, text) = check(&upstream, &["--namespace", "users"]);
    says(&text, &["no tracking-form redirect NOPERM", "no channels of namespace users NOPERM"]);
    assert_eq!(code, 1, "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let rules = text.lines().find_map(|line| line.split_once("ACL SETUSER app ")).expect("the rules").1;
    direct.cmd(&format!("ACL SETUSER app {rules}"));
    let (code, text) = check(&upstream, &["--namespace", "users"]);
    says(&text, &["yes tracking-form redirect", "changes become known by: redirect"]);
    assert_eq!(code, 0, "what it advised was enough: {text}");
}

#[test]
fn an_upstream_that_is_not_there_is_told_with_its_cause() {
    let (code, text) = check(&format!("redis://127.0.0.1:{}", free_port()), &[]);
    says(&text, &["no connect Connection refused"]);
    assert_eq!(code, 1);
}

#[test]
fn sentinels_are_asked_where_the_master_is() {
    let redis = Redis::start();
    let sentinel = Sentinel::start(&watch(redis.port, 1));
    let at = |service: &str| {
        format!("redis+sentinel://127.0.0.1:{},{}/{service}", free_port(), sentinel.address())
    };
    let (code, text) = check(&at(SERVICE), &[]);
    says(
        &text,
        &[
            "no sentinel 127.0.0.1:",
            &format!("yes sentinel {} names {}", sentinel.address(), redis.address()),
            "yes connect Redis",
            "changes become known by: redirect",
        ],
    );
    assert_eq!(code, 0, "{text}");
    let (code, text) = check(&at("mian"), &[]);
    says(&text, &[&format!("no sentinel {} it knows no service \"mian\"", sentinel.address())]);
    assert_eq!(code, 1, "{text}");
    assert!(!text.contains(" connect "), "there is nowhere to connect to: {text}");
}

#[test]
fn why_nothing_is_cached_is_said_where_the_configuration_is_the_reason() {
    let redis = Redis::start();
    for setting in ["tracking", "tracking-form"] {
        let (code, text) = check(&format!("redis://{}", redis.address()), &[&format!("--{setting}"), "off"]);
        says(&text, &[&format!("nothing can be cached: {setting} is off")]);
        assert_eq!(code, 1);
    }
}

#[test]
fn an_upstream_that_asks_for_a_password_is_asked_nothing_else() {
    let redis = Redis::start();
    redis.connect().cmd("CONFIG SET requirepass s3cret");
    let (code, text) = check(&format!("redis://{}", redis.address()), &[]);
    says(&text, &["no login NOAUTH", "give its password"]);
    assert!(code == 1 && text.lines().count() == 3, "{text}");
    let (code, text) = check(&format!("redis://:s3cret@{}", redis.address()), &[]);
    says(&text, &["yes connect Redis"]);
    assert!(code == 0 && !text.contains("s3cret"), "{text}");
}
