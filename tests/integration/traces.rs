//! Sampled misses as spans of OpenTelemetry, and as exemplars of the metrics: what is told, what is not, and what happens while
//! nobody takes it.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nearside::config::{Config, TrackingForm};
use nearside::server::Stop;
use rustix::process::{Pid, Signal, kill_process};
use support::collector::{Collector, Span};
use support::program::Program;
use support::{Nearside, Redis, eventually, free_port, line};

/// All misses are told to this collector. However busy the machine is, what is read is covered.
fn all_to(collector: &Collector) -> impl FnOnce(&mut Config) {
    let endpoint = collector.endpoint();
    move |config| {
        (config.otlp_endpoint, config.otlp_sample_ratio) = (endpoint, 1.0);
        config.max_staleness = Duration::from_secs(30);
        config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = config.max_staleness);
    }
}

/// What waits is told by then.
fn drain(nearside: &mut Nearside) {
    nearside.begin_stop(Stop::Drain);
    nearside.wait_stopped().unwrap();
}

fn signal(redis: &Redis, signal: Signal) {
    let pid = Pid::from_raw(redis.pid() as i32).unwrap();
    kill_process(pid, signal).unwrap();
}

/// The client's read and the request upstream, by the trace.
fn pairs(spans: &[Span]) -> Vec<(Span, Span)> {
    let mut traces = BTreeMap::<String, Vec<Span>>::new();
    for span in spans {
        traces.entry(span.text("traceId").to_owned()).or_default().push(span.clone());
    }
    let pair = |spans: Vec<Span>| {
        let (server, client): (Vec<_>, Vec<_>) = spans.into_iter().partition(Span::is_server);
        let (Ok([server]), Ok([client])) = (<[Span; 1]>::try_from(server), <[Span; 1]>::try_from(client))
        else {
            panic!("one each")
        };
        (server, client)
    };
    traces.into_values().map(pair).collect()
}

/// The value of a sample with this label.
fn counted(page: &str, outcome: &str) -> u64 {
    let prefix = format!("nearside_spans_total{{outcome=\"{outcome}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&prefix)).expect("a counter").parse().unwrap()
}

#[test]
fn each_miss_is_told_and_no_hit() {
    let (redis, collector) = (Redis::start(), Collector::start());
    let mut nearside = Nearside::with(redis.address(), all_to(&collector));
    let (mut conn, mut direct) = (nearside.connect(), redis.connect());
    direct.cmd("SET users/secret-key secret-value");
    direct.cmd("RPUSH list x");
    conn.cmd("SELECT 2");
    eventually("a link of that database is covered", || {
        conn.cmd("GET other");
        nearside.stat("hits") > 0
    });
    let counted = || (nearside.stat("hits"), nearside.stat("misses"));
    let (mut conn, before) = (nearside.connect(), counted());
    for _ in 0..5 {
        assert_eq!(conn.value("users/secret-key").as_deref(), Some("secret-value"));
    }
    assert!(conn.text("GET list").starts_with("-WRONGTYPE"));
    assert!(conn.text("MGET users/secret-key a b").starts_with("*3"));
    // The elements of MGET are counted singly.
    assert_eq!(counted(), (before.0 + 5, before.1 + 4));
    drain(&mut nearside);
    let spans = collector.spans();

    let told = collector.told();
    let (head, body) = &told[0];
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/json\r\n") && head.contains("host: 127.0.0.1:"),
        "{head}"
    );
    let resource = Span(body["resourceSpans"][0]["resource"].clone());
    assert_eq!(resource.get("service.name"), Some("nearside"));
    assert_eq!(resource.get("service.version"), Some(env!("CARGO_PKG_VERSION")));
    assert!(resource.get("service.instance.id").is_some_and(|id| id.len() == 36));
    assert!(told.iter().all(|(_, body)| !body.to_string().contains("secret")), "no key and no value");

    let mut pairs = pairs(&spans);
    pairs.sort_by_key(|(read, _)| read.time("startTimeUnixNano"));
    let is_other = |(read, _): &(Span, Span)| read.get("db.namespace") == Some("2");
    // Of these the first may have been more than one.
    while pairs.iter().filter(|pair| is_other(pair)).count() > 1 {
        pairs.remove(0);
    }
    let [other, users, list, mget] = &pairs[..] else { panic!("four misses: {pairs:?}") };
    for ((read, asked), command) in pairs.iter().zip(["GET", "GET", "GET", "MGET"]) {
        for span in [read, asked] {
            let is_hex = |text: &str| text.bytes().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
            assert!(span.text("traceId").len() == 32 && is_hex(span.text("traceId")), "{span:?}");
            assert!(span.text("spanId").len() == 16 && is_hex(span.text("spanId")), "{span:?}");
            assert_eq!((span.text("name"), span.get("db.operation.name")), (command, Some(command)));
            assert_eq!(span.get("db.system.name"), Some("redis"));
        }
        assert_eq!(asked.text("parentSpanId"), read.text("spanId"));
        assert!(read.0.get("parentSpanId").is_none());
        let [begun, sent] = [read, asked].map(|span| span.time("startTimeUnixNano"));
        let [ended, heard] = [read, asked].map(|span| span.time("endTimeUnixNano"));
        assert!(begun <= sent && sent < heard && heard <= ended, "{read:?} {asked:?}");
        assert_eq!(asked.get("server.address"), Some("127.0.0.1"));
        assert_eq!(asked.get("server.port"), Some(redis.port.to_string().as_str()));
    }
    let db = |(read, asked): &(Span, Span)| {
        assert_eq!(read.get("db.namespace"), asked.get("db.namespace"));
        read.get("db.namespace").map(str::to_owned)
    };
    assert_eq!((db(other).as_deref(), db(users).as_deref()), (Some("2"), Some("0")));
    assert_eq!((users.0.get("nearside.namespace"), other.0.get("nearside.namespace")), (Some("users"), None));
    assert_eq!(
        (users.0.get("nearside.fill"), list.0.get("nearside.fill")),
        (Some("filled"), Some("error_reply"))
    );
    assert_eq!(mget.0.get("nearside.keys"), Some("2"), "of three, one was there");
    for span in [&list.0, &list.1] {
        assert_eq!((span.get("error.type"), &span.0["status"]["code"]), (Some("WRONGTYPE"), &2.into()));
    }
    assert_eq!(list.1.get("db.response.status_code"), Some("WRONGTYPE"));
    assert!(users.0.get("error.type").is_none() && users.1.0.get("status").is_none());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let minutes = 10 * 60 * 1_000_000_000;
    assert!((now - minutes..=now).contains(&mget.0.time("endTimeUnixNano")), "it is {now}");
}

#[test]
fn the_newest_stands_behind_its_bucket_in_open_metrics_alone() {
    let (redis, collector) = (Redis::start(), Collector::start());
    let mut nearside = Nearside::with(redis.address(), all_to(&collector));
    let mut conn = nearside.connect();
    (0..20).for_each(|i| drop(conn.cmd(&format!("GET users/{i}"))));
    let text = nearside.page_as("/metrics", "text/plain").2;
    assert!(!text.contains("trace_id") && !text.contains(" # "), "{text}");
    let open = nearside.get("/metrics").1;
    drain(&mut nearside);
    let told: BTreeSet<_> = pairs(&collector.spans())
        .into_iter()
        .map(|(read, _)| (read.text("traceId").to_owned(), read.text("spanId").to_owned()))
        .collect();
    assert_eq!(told.len(), 20);
    let exemplified: Vec<_> = open.lines().filter(|line| line.contains(" # ")).collect();
    for family in ["nearside_request_duration_seconds_bucket{", "nearside_upstream_duration_seconds_bucket{"]
    {
        let of = |line: &&&str| line.starts_with(family);
        assert!(exemplified.iter().filter(of).count() > 0, "{family}: {open}");
    }
    for line in exemplified {
        let (sample, exemplar) = line.split_once(" # ").unwrap();
        assert!(sample.contains("path=\"upstream\"") || sample.contains("node=\"127.0.0.1:"), "{line}");
        let (labels, rest) = exemplar.strip_prefix("{trace_id=\"").unwrap().split_once("\"} ").unwrap();
        let (trace, span) = labels.split_once("\",span_id=\"").unwrap();
        assert!(told.contains(&(trace.to_owned(), span.to_owned())), "{line}");
        let (took, at) = rest.split_once(' ').unwrap();
        let (took, at): (f64, f64) = (took.parse().unwrap(), at.parse().unwrap());
        let le: f64 = sample.split_once("le=\"").unwrap().1.split_once('"').unwrap().0.parse().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(0.0 < took && took <= le && (now - 600.0..=now).contains(&at), "{line}");
        assert!(sample.rsplit(' ').next().unwrap().parse::<u64>().unwrap() > 0, "{line}");
    }
}

#[test]
fn in_the_form_register_too_and_what_was_lost_with_its_link() {
    let (mut redis, collector) = (Redis::start(), Collector::start());
    let mut nearside = Nearside::with(redis.address(), |config| {
        all_to(&collector)(config);
        config.tracking_form = TrackingForm::Register;
    });
    let mut conn = nearside.connect();
    conn.cmd("GET users/1");
    let misses = nearside.stat("misses");
    signal(&redis, Signal::STOP);
    conn.send(&line("GET users/2"));
    eventually("it is sent", || nearside.stat("misses") > misses);
    redis.kill();
    assert!(conn.reply().starts_with(b"-"));
    drain(&mut nearside);
    let mut pairs = pairs(&collector.spans());
    pairs.sort_by_key(|(read, _)| read.time("startTimeUnixNano"));
    let [answered, lost] = &pairs[..] else { panic!("two misses: {pairs:?}") };
    assert_eq!(answered.1.text("parentSpanId"), answered.0.text("spanId"));
    assert!(answered.0.get("error.type").is_none());
    for span in [&lost.0, &lost.1] {
        assert_eq!((span.get("error.type"), &span.0["status"]["code"]), (Some("no_reply"), &2.into()));
        assert!(span.get("db.response.status_code").is_none());
    }
}

#[test]
fn what_is_not_taken_now_is_told_again() {
    let (redis, collector) = (Redis::start(), Collector::start());
    collector.answer(&["503 Service Unavailable"]);
    let nearside = Nearside::with(redis.address(), all_to(&collector));
    let mut conn = nearside.connect();
    conn.cmd("GET users/1");
    let spans = collector.wait_for(4);
    assert_eq!(spans[..2], spans[2..]);
    eventually("it is counted", || counted(&nearside.get("/metrics").1, "exported") == 2);
    let page = nearside.get("/metrics").1;
    assert_eq!(["refused", "lost", "crowded"].map(|outcome| counted(&page, outcome)), [0; 3]);
}

#[test]
fn while_the_collector_is_away_clients_are_served_and_the_oldest_give_way() {
    /// As many wait for a collector, or are on their way to it.
    const KEPT: usize = 2048 + 128;
    const MANY: usize = 2600;
    let redis = Redis::start();
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-sample-ratio", "1", "--max-staleness", "30s"];
    let mut program = Program::start(redis.port, &flags);
    let mut conn = program.connect();
    eventually("it is cached", || {
        conn.cmd("GET users/0");
        program.stat("hits") > 0
    });
    for from in (0..MANY).step_by(100) {
        let reads: Vec<_> = (from..from + 100).map(|i| format!("GET users/{i}")).collect();
        assert!(conn.pipeline(&reads).iter().all(|reply| reply == "$-1\r\n"));
    }
    program.wait_for("spans of sampled misses cannot be exported");
    let page = program.page("/metrics");
    assert!(
        counted(&page, "crowded") >= 2 * (MANY - KEPT) as u64 && counted(&page, "exported") == 0,
        "{page}"
    );
    program.terminate();
    assert!(program.ended().success());
    assert_eq!(program.seen.matches("cannot be exported").count(), 1, "{}", program.seen);
    assert!(program.seen.contains("stopped before the collector took"), "{}", program.seen);
}

#[test]
fn it_is_switched_on_and_off_while_it_runs() {
    let (redis, collector, folder) = (Redis::start(), Collector::start(), tempfile::tempdir().unwrap());
    let (port, admin, file) = (free_port(), free_port(), folder.path().join("n.toml"));
    let write = |more: &str| {
        let always = format!("listen = {port}\nadmin = {admin}\nupstream = 'redis://{}'\n", redis.address());
        std::fs::write(&file, format!("{always}max-staleness = '30s'\notlp-sample-ratio = 1.0\n{more}"))
            .unwrap();
    };
    write("");
    let mut program = Program::run(&["--config", file.to_str().unwrap()], port, admin);
    program.wait_for("ready for clients");
    let mut conn = program.connect();
    eventually("it is cached", || {
        conn.cmd("GET a");
        program.stat("hits") > 0
    });
    conn.cmd("GET b");
    write(&format!("otlp-endpoint = '{}'\n", collector.url()));
    program.signal(Signal::HUP);
    program.wait_for(&format!("otlp-endpoint = \"{}\": applied", collector.url()));
    program.wait_for("the configuration was read again");
    conn.cmd("GET c");
    collector.wait_for(2);
    write("");
    program.seen.clear();
    program.signal(Signal::HUP);
    program.wait_for("otlp-endpoint = \"off\": applied");
    program.wait_for("the configuration was read again");
    conn.cmd("GET d");
    program.terminate();
    assert!(program.ended().success());
    // Of what was missed before, and after, nothing.
    assert_eq!((collector.spans().len(), collector.connections()), (2, 1));
}

#[test]
fn what_waits_is_told_before_the_end() {
    let (redis, collector) = (Redis::start(), Collector::start());
    let mut nearside = Nearside::with(redis.address(), all_to(&collector));
    nearside.connect().cmd("GET users/1");
    drain(&mut nearside);
    assert_eq!(collector.spans().len(), 2);
}

#[test]
fn an_endpoint_that_cannot_be_used_is_refused() {
    for (given, says) in [
        ("https://127.0.0.1:4318", "--otlp-endpoint: \"https://127.0.0.1:4318\" asks for TLS"),
        ("127.0.0.1:4318", "is no http:// URL; write the collector's base URL: http://HOST:4318, or off"),
    ] {
        let program = Command::new(env!("CARGO_BIN_EXE_nearside"))
            .args(["check", "--otlp-endpoint", given, "--otlp-sample-ratio", "2"])
            .output()
            .unwrap();
        let said = String::from_utf8(program.stderr).unwrap();
        assert_eq!(program.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(said.contains("--otlp-sample-ratio: \"2\" is no part of a whole"), "{said}");
    }
}
