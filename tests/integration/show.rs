//! What nearside tells about itself: `INFO`, `NEARSIDE …` and the admin pages.

use crate::support;

use std::collections::HashMap;
use std::time::Duration;

use nearside::config::Tracking;
use support::{Conn, Nearside, Redis, eventually, line};

/// The text of a bulk or verbatim string.
fn body(reply: &str) -> &str {
    reply.split_once("\r\n").unwrap().1.strip_suffix("\r\n").unwrap()
}

/// The strings of a flat array or map.
fn strings(reply: &str) -> Vec<String> {
    let mut lines = reply.split("\r\n").skip(1);
    let mut strings = Vec::new();
    while let Some(line) = lines.next() {
        match line.chars().next() {
            Some('$') => strings.push(lines.next().unwrap().to_string()),
            Some('+') => strings.push(line[1..].to_string()),
            _ => {}
        }
    }
    strings
}

#[test]
fn info_gains_a_section() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    for (mut client, mark) in [(nearside.connect(), '$'), (nearside.connect_resp3(), '=')] {
        for line in ["INFO", "INFO everything", "info ALL", "INFO server nearside"] {
            let info = client.text(line);
            assert!(info.starts_with(mark), "{line}");
            assert!(info.contains("redis_version:"), "{line} is the upstream's");
            assert_eq!(info.matches("# Nearside\r\n").count(), 1, "{line}");
            let section = info.split_once("\r\n\r\n# Nearside\r\n").expect("an empty line before it").1;
            let fields = section.lines().filter(|line| !line.is_empty());
            assert!(
                fields.clone().all(|line| line.starts_with("nearside_") && line.contains(':')),
                "{section}"
            );
            assert!(fields.count() > 10);
        }
        let only = client.text("INFO nearside");
        assert!(
            !only.contains("redis_version") && only.contains("# Nearside\r\nnearside_version:0."),
            "{only}"
        );
        assert!(!client.text("INFO server").contains("Nearside"));
        assert_eq!(client.pipeline(&["ECHO a", "INFO", "ECHO b"])[2], "$1\r\nb\r\n");
    }
    let info = nearside.connect().text("INFO");
    let header: usize = info[1..].split_once("\r\n").unwrap().0.parse().unwrap();
    assert_eq!(header, body(&info).len());
}

#[test]
fn stats_count() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    // The write is of another key, for what is heard of it may drop what is read behind it.
    client.pipeline(&["GET users/2", "SET users/2 v"]);
    for _ in 0..4 {
        client.cmd("GET users/1");
    }
    for (name, expected) in
        [("hits", 3), ("misses", 2), ("entries", 1), ("announcements", 1), ("announcements_failed", 0)]
    {
        assert_eq!(nearside.stat(name), expected, "{name}");
    }
    assert!(nearside.stats().contains("nearside_feed:up\r\n"));
    assert!(nearside.stats().contains("nearside_tracking:keys\r\n"));
    assert!(nearside.stats().contains("nearside_hit_ratio:0.6000\r\n"), "{}", nearside.stats());
    let bytes = nearside.stat("bytes");
    assert!((80..1000).contains(&bytes), "{bytes}");
    assert!((0..10_000_000).contains(&nearside.stat("proven_staleness_us")));
}

#[test]
fn keys_are_listed() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    for i in 0..20 {
        client.cmd(&format!("GET users/{i}"));
    }
    client.cmd("GET items/1");
    let mut keys = |line: &str| {
        let mut keys = strings(&client.text(line));
        keys.sort();
        keys
    };
    assert_eq!(keys("NEARSIDE KEYS").len(), 21);
    assert_eq!(keys("NEARSIDE KEYS *").len(), 21);
    assert_eq!(keys("NEARSIDE KEYS *s/1"), ["items/1", "users/1"]);
    assert_eq!(keys("nearside keys users/1?").len(), 10);
    assert_eq!(keys("NEARSIDE KEYS users/* COUNT 5").len(), 5);
    assert_eq!(keys("NEARSIDE KEYS COUNT 7").len(), 7);
    assert_eq!(keys("NEARSIDE KEYS nothing*"), [""; 0]);
    assert!(client.text("NEARSIDE KEYS a b").starts_with("-ERR syntax error"));
    assert!(client.text("NEARSIDE KEYS a COUNT x").starts_with("-ERR syntax error"));
}

#[test]
fn why_a_key_is_cached_or_not() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| config.max_value = 100);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    direct.pipeline(&[
        "RPUSH users/list a b",
        &format!("SET users/big {}", "x".repeat(200)),
        "SET users/soon v EX 50",
    ]);
    let why = |key: &str, expected: &[&str]| {
        let why = nearside.why(key);
        for part in expected {
            assert!(why.contains(part), "{part} is not in the account of {key}:\n{why}");
        }
    };
    why("users/1", &["cached: no", "namespace: users", "last change: none that is remembered"]);
    client.pipeline(&["GET users/1", "LRANGE users/list 0 -1", "GET outside"]);
    why(
        "users/1",
        &["cached: yes", "reply: GET,", "db 0, RESP2", "coverage tracking", "last change: filled"],
    );
    why("users/list", &["reply: LRANGE $1 0 $2 -1", "18 bytes"]);
    client.cmd("SET outside v");
    // The write, or what the upstream says of it afterwards.
    let account = nearside.why("outside");
    assert!(account.contains("last change: write") || account.contains("last change: tracking"), "{account}");
    why("outside", &["cached: no"]);
    client.pipeline(&["GET users/big", "GET users/list", "GET users/soon", "GET elsewhere"]);
    why("users/big", &["cached: no", "last bypass: too_large", "larger than max-value"]);
    why("users/soon", &["cached: yes", "ends in 4"]);
    why("elsewhere", &["cached: yes", "namespace: none"]);
    client.cmd("GET users/later");
    direct.cmd("RPUSH users/later a");
    eventually("tracking", || nearside.why("users/later").contains("last change: tracking"));
    client.cmd("GET users/later");
    why("users/later", &["cached: no", "last bypass: error_reply"]);
    client.cmd("GET users/1");
    client.cmd("NEARSIDE FLUSH users/1");
    why("users/1", &["cached: no", "last change: flushed"]);
}

#[test]
fn flush_forgets() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    redis.connect().cmd("MSET users/1 a users/2 b users/3 c");
    let read = |client: &mut Conn| client.text("MGET users/1 users/2 users/3");
    let before = read(&mut client);
    assert_eq!(client.text("NEARSIDE FLUSH users/1 users/3 unknown"), "+OK\r\n");
    let cached = || [1, 2, 3].map(|i| nearside.is_cached(&format!("users/{i}")));
    assert_eq!(cached(), [false, true, false]);
    assert_eq!(read(&mut client), before);
    assert_eq!(cached(), [true; 3]);
    assert_eq!(client.text("NEARSIDE FLUSH"), "+OK\r\n");
    assert_eq!(cached(), [false; 3]);
    let calls = redis.calls("mget");
    assert_eq!(read(&mut client), before);
    assert_eq!(redis.calls("mget"), calls + 1);
    assert_eq!(redis.connect().text("EXISTS users/1 users/2 users/3"), ":3\r\n", "the upstream is as it was");
}

#[test]
fn config_and_help() {
    let redis = Redis::start();
    redis.connect().cmd("ACL SETUSER side on >geheim ~* &* +@all");
    let nearside = Nearside::with(redis.address(), |config| {
        config.max_memory = 5 << 20;
        config.upstream =
            nearside::config::Upstream::parse(&format!("redis://side:geheim@{}", redis.address())).unwrap();
    });
    for mut client in [nearside.connect(), nearside.connect_resp3()] {
        let reply = client.text("NEARSIDE CONFIG");
        assert!(!reply.contains("geheim"), "{reply}");
        let words = strings(&reply);
        let config: HashMap<_, _> =
            words.chunks(2).map(|pair| (pair[0].trim_matches('"'), &*pair[1])).collect();
        assert!(config["max-memory"].contains('5'), "{config:?}");
        for name in
            ["listen", "upstream", "max-staleness", "max-age", "tracking", "log-level", "drain-timeout"]
        {
            assert!(config.contains_key(name), "{name}: {config:?}");
        }
        let help = strings(&client.text("NEARSIDE HELP")).join("\n");
        for subcommand in
            ["STATS", "KEYS [pattern] [COUNT n]", "WHY <key>", "CLIENTS", "FLUSH [key ...]", "CONFIG", "HELP"]
        {
            assert!(help.contains(subcommand), "{help}");
        }
        assert_eq!(client.text("nearside help"), client.text("NEARSIDE"));
        for wrong in
            ["NEARSIDE NONSENSE", "NEARSIDE WHY", "NEARSIDE WHY a b", "NEARSIDE STATS x", "NEARSIDE CONFIG x"]
        {
            assert!(client.text(wrong).starts_with("-ERR unknown subcommand"), "{wrong}");
        }
    }
    // None of it goes upstream.
    assert!(
        !redis.connect().text("INFO errorstats").contains("ERR"),
        "{}",
        redis.connect().text("INFO errorstats")
    );
}

/// The samples of a page of metrics. Every line is checked.
fn samples(page: &str) -> HashMap<String, f64> {
    let mut samples = HashMap::new();
    let mut types = HashMap::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(lines.peek().is_none(), "the end is the end");
            return samples;
        }
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<_> = comment.splitn(3, ' ').collect();
            assert!(["HELP", "TYPE", "UNIT"].contains(&words[0]) && words.len() == 3, "{line}");
            assert!(["nearside_", "process_"].iter().any(|start| words[1].starts_with(start)), "{line}");
            if words[0] == "TYPE" {
                assert!(types.insert(words[1], words[2]).is_none(), "{line}, twice");
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect(line);
        let value: f64 = value.parse().expect(line);
        let family = name.split('{').next().unwrap();
        let known = types.iter().any(|(base, kind)| match *kind {
            "counter" => family == format!("{base}_total"),
            "gauge" => family == *base,
            "histogram" => ["_bucket", "_sum", "_count"].iter().any(|end| family == format!("{base}{end}")),
            _ => false,
        });
        assert!(known, "{line} belongs to no family");
        assert!(samples.insert(name.to_string(), value).is_none(), "{line}, twice");
    }
    panic!("no # EOF");
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (status, head, page) = nearside.page("/metrics");
    assert_eq!(status, 200);
    let head = head.to_lowercase();
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    let before = samples(&page);
    let mut client = nearside.connect();
    for line in ["GET users/9", "SET users/9 v"] {
        client.cmd(line);
    }
    for _ in 0..5 {
        client.cmd("GET users/1");
    }
    redis.connect().pipeline(&["PUBLISH users/delete 1", "PUBLISH users/update 2", "SET users/1 w"]);
    client.pipeline(&["MULTI", "GET users/1", "EXEC", "WATCH x", "GET users/1", "UNWATCH"]);
    eventually("all is heard", || {
        samples(&nearside.get("/metrics").1)["nearside_invalidations_total{source=\"delete\"}"] >= 1.0
    });
    let after = samples(&nearside.get("/metrics").1);
    let grown = |name: &str| after[name] - before[name];
    assert_eq!(grown("nearside_hits_total"), 4.0);
    assert_eq!(grown("nearside_misses_total"), 2.0);
    assert_eq!(grown("nearside_announcements_total"), 1.0);
    assert_eq!(grown("nearside_request_duration_seconds_count{path=\"hit\"}"), 4.0);
    for name in [
        "nearside_fills_total",
        "nearside_requests_total",
        "nearside_upstream_requests_total",
        "nearside_accepted_clients_total",
        "nearside_dropped_entries_total{reason=\"write\"}",
        "nearside_bypasses_total{reason=\"transaction\"}",
        "nearside_request_duration_seconds_count{path=\"upstream\"}",
        "nearside_request_duration_seconds_bucket{le=\"+Inf\",path=\"upstream\"}",
    ] {
        assert!(after.contains_key(name), "{name}: {:?}", after.keys());
        assert!(grown(name) >= 1.0, "{name}");
    }
    // A histogram's last bucket holds all.
    let buckets =
        after.iter().filter(|(name, _)| name.starts_with("nearside_request_duration_seconds_bucket{"));
    let (inf, total) = ("le=\"+Inf\"", after["nearside_request_duration_seconds_count{path=\"upstream\"}"]);
    let upstream: Vec<_> = buckets.filter(|(name, _)| name.contains("path=\"upstream\"")).collect();
    assert!(upstream.iter().any(|(name, count)| name.contains(inf) && **count == total), "{upstream:?}");
    assert!(upstream.iter().all(|(_, count)| **count <= total));
    assert_eq!((after["nearside_feed_up"], after["nearside_clients"]), (1.0, 1.0));
    assert!(after["nearside_upstream_links"] >= 1.0 && after["nearside_tracked_links"] >= 1.0);
    assert_eq!(after["nearside_cache_limit_bytes"], 67_108_864.0);
    assert!(after["nearside_proven_staleness_seconds"] < 10.0);
}

#[test]
fn probes() {
    let mut redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    assert_eq!(nearside.get("/livez"), (200, "ok\n".into()));
    assert_eq!(nearside.get("/readyz"), (200, "ok\n".into()));
    assert_eq!(nearside.get("/no-such-page").0, 404);
    redis.kill();
    eventually("it is not ready", || {
        let (status, why) = nearside.get("/readyz");
        status == 503
            && why.starts_with("the upstream is not reachable: 127.0.0.1:")
            && why.contains("refused")
    });
    assert_eq!(nearside.get("/livez").0, 200, "alive all the same");
    let down = samples(&nearside.get("/metrics").1);
    assert_eq!(down["nearside_feed_up"], 0.0);
    assert!(down["nearside_feed_lapses_total"] >= 1.0);
    redis.restart();
    eventually("it is ready again", || nearside.get("/readyz").0 == 200);
}

/// Why a read was not a hit has a name in every case, and is counted under it.
#[test]
fn every_read_past_the_cache_has_its_reason() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let reads = ["GET users/1", "MGET users/1 users/2", "HGETALL users/h"];
    let expect = |reason: &str, count: i64, ask: &mut dyn FnMut()| {
        let counted = |name: &str| nearside.stat(&format!("reason_{name}"));
        let before = counted(reason);
        ask();
        assert_eq!(counted(reason) - before, count, "{reason}: {}", nearside.stats());
    };
    let mut client = nearside.connect();
    expect("transaction", 3, &mut || {
        client.pipeline(&[&["MULTI"][..], &reads, &["EXEC"]].concat());
    });
    let mut client = nearside.connect();
    expect("watching", 3, &mut || {
        client.pipeline(&[&["WATCH users/1"][..], &reads].concat());
    });
    let mut client = nearside.connect_resp3();
    expect("subscribed", 3, &mut || {
        client.pipeline(&[&["SUBSCRIBE c"][..], &reads].concat());
    });
    let mut client = nearside.connect();
    expect("dedicated", 3, &mut || {
        client.pipeline(&[&["CLIENT NO-EVICT on"][..], &reads].concat());
    });
    let mut client = nearside.connect();
    expect("transaction", 3, &mut || {
        let lines = [&["CLIENT REPLY OFF", "MULTI"][..], &reads, &["EXEC", "CLIENT REPLY ON"]].concat();
        client.send(&lines.iter().flat_map(|words| line(words)).collect::<Vec<_>>());
        assert_eq!(client.reply(), b"+OK\r\n");
    });
    let mut client = nearside.connect();
    expect("uncacheable", 4, &mut || {
        client.pipeline(&["TTL users/1", "EXISTS users/1 users/2", "SCAN 0", "SINTER a b"]);
    });
    expect("uncacheable", 1, &mut || {
        client.pipeline(&["MULTI", "TTL users/1", "EXEC"]);
    });
    expect("too_long", 1, &mut || {
        let long = "f".repeat(5000);
        client.cmd(&format!("HGET users/h {long}"));
    });
    let untold = Nearside::with(redis.address(), |config| config.tracking = Tracking::Off);
    untold.connect().pipeline(&["GET elsewhere", "GET elsewhere"]);
    assert_eq!(untold.stat("reason_no_coverage"), 2);
    let never = Nearside::with(redis.address(), |config| {
        config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = Duration::ZERO);
    });
    never.connect().pipeline(&["GET users/1", "GET users/1"]);
    assert_eq!(never.stat("reason_never_served"), 2);
}

/// As a scraper of the older format has it: each name that has a type has samples of that very name.
#[test]
fn metrics_come_in_the_text_format_unless_openmetrics_is_asked_for() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    for accept in ["*/*", "text/plain;version=0.0.4"] {
        let (status, head, page) = nearside.page_as("/metrics", accept);
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        assert!(page.contains("# HELP nearside_hits_total Reads answered from the cache"), "{page}");
        assert!(!page.contains("# EOF") && !page.contains("# UNIT"), "{page}");
        for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            let has = |line: &str| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with(['{', ' ']) || rest.starts_with("_bucket"))
            };
            // Of certificates there is nothing to say without TLS.
            let may_lack = name == "nearside_tls_certificate_end_timestamp_seconds";
            assert!(may_lack || page.lines().any(has), "{name} has no samples");
        }
    }
}
