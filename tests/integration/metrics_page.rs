//! The page of the metrics in both of its formats, line by line, as promtool and a strict parser of OpenMetrics hold it; and
//! what is counted by namespace and by node.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use support::program::Program;
use support::{Redis, eventually};

const OPEN_METRICS: &str =
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// The kind of the page, and what stands on it.
fn metrics(program: &Program, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", program.admin)).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let (head, page) = said.split_once("\r\n\r\n").unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
    (kind.to_owned(), page.to_owned())
}

/// One line of a page.
struct Sample<'p> {
    name: &'p str,
    labels: BTreeMap<&'p str, String>,
    value: f64,
}

impl<'p> Sample<'p> {
    fn of(line: &'p str) -> Self {
        let (mut labels, end) = (BTreeMap::new(), line.find(['{', ' ']).expect("a value"));
        let (name, mut rest) = line.split_at(end);
        while let Some(inside) = rest.strip_prefix(['{', ',']) {
            let (label, behind) = inside.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            let (mut value, mut chars) = (String::new(), behind.char_indices());
            let end = loop {
                match chars.next().unwrap_or_else(|| panic!("no end: {line}")) {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        escaped @ ('"' | '\\') => escaped,
                        other => panic!("\\{other}: {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            assert!(labels.insert(label, value).is_none(), "{label} twice: {line}");
            rest = &behind[end + 1..];
        }
        let value = rest.trim_start_matches('}').strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
        Sample { name, labels, value: value.parse().unwrap_or_else(|_| panic!("{line}")) }
    }
}

/// Checks a page, and gives its samples. `open` if it is OpenMetrics.
fn checked(page: &str, open: bool) -> Vec<Sample<'_>> {
    assert!(page.ends_with('\n'));
    assert_eq!(page.ends_with("\n# EOF\n"), open);
    assert_eq!(page.matches("# EOF").count(), usize::from(open));
    let (mut families, mut series, mut samples) = (BTreeMap::new(), BTreeSet::new(), Vec::<Sample>::new());
    let (mut helped, mut family, mut kind) = ("", "", "");
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(words) = line.strip_prefix("# HELP ") {
            let (name, help) = words.split_once(' ').unwrap();
            assert!(!help.is_empty(), "{line}");
            helped = name;
        } else if let Some(words) = line.strip_prefix("# TYPE ") {
            (family, kind) = words.split_once(' ').unwrap();
            assert_eq!(helped, family, "each has its help, just before");
            assert!(families.insert(family, kind).is_none(), "{family} twice");
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            let is_name = family.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            assert!(is_name, "{line}");
            let is_total = family.ends_with("_total");
            assert_eq!(is_total, kind == "counter" && !open, "{line}");
            let ends = ["_bucket", "_count", "_sum", "_created", "_counter", "_gauge", "_histogram"];
            assert!(!ends.iter().any(|end| family.ends_with(end)), "{line}");
        } else if let Some(words) = line.strip_prefix("# UNIT ") {
            let (name, unit) = words.split_once(' ').unwrap();
            assert!(open && name == family && family.ends_with(&format!("_{unit}")), "{line}");
        } else {
            let sample = Sample::of(line);
            let end = sample.name.strip_prefix(family).unwrap_or_else(|| panic!("{line}, under {family}"));
            let ends: &[&str] = match kind {
                "counter" if open => &["_total"],
                "histogram" => &["_bucket", "_count", "_sum"],
                _ => &[""],
            };
            assert!(ends.contains(&end), "{line}, a {kind}");
            assert_eq!(sample.labels.contains_key("le"), end == "_bucket", "{line}");
            assert!(series.insert((sample.name, sample.labels.clone())), "twice: {line}");
            assert!(!sample.value.is_nan() && (sample.value >= 0.0 || kind == "gauge"), "{line}");
            samples.push(sample);
        }
    }
    buckets_add_up(&families, &samples);
    samples
}

/// Each histogram's buckets grow with their bounds, up to the count.
fn buckets_add_up(families: &BTreeMap<&str, &str>, samples: &[Sample<'_>]) {
    let mut histograms = BTreeMap::<_, Vec<(f64, f64)>>::new();
    for sample in samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
        let mut of = sample.labels.clone();
        let bound = of.remove("le").unwrap().parse().unwrap();
        let family = sample.name.trim_end_matches("_bucket");
        histograms.entry((family, of)).or_default().push((bound, sample.value));
    }
    let kinds = families.values().filter(|kind| **kind == "histogram").count();
    assert!(histograms.len() >= kinds && kinds > 1);
    for ((family, labels), buckets) in histograms {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{family} {labels:?}: {buckets:?}");
        let count =
            samples.iter().find(|s| s.name == format!("{family}_count") && s.labels == labels).unwrap();
        assert_eq!(*buckets.last().unwrap(), (f64::INFINITY, count.value), "{family} {labels:?}");
    }
}

/// The value of the series with this label, and no other.
fn value(samples: &[Sample<'_>], name: &str, label: &str, is: &str) -> f64 {
    let labels = BTreeMap::from([(label, is.to_owned())]);
    let found = samples.iter().find(|sample| sample.name == name && sample.labels == labels);
    found.unwrap_or_else(|| panic!("no {name} of {label} {is}")).value
}

#[test]
fn both_formats_are_well_formed_and_tell_the_same() {
    let redis = Redis::start();
    let named = r#"a "b" \c"#;
    let program = Program::start(redis.port, &["--namespace", named]);
    // While nothing has come, too.
    let (_, idle) = metrics(&program, "*/*");
    checked(&idle, false);
    assert!(!idle.contains("writeback"), "where no namespace is write-back nothing is told of it");
    let mut conn = program.connect();
    eventually("reads are kept", || {
        conn.args(&[b"GET", b"users/1"]);
        conn.args(&[b"GET", br#"a "b" \c/1"#]);
        conn.args(&[b"GET", b"other"]);
        let (_, page) = metrics(&program, "*/*");
        let hits = |is: &str| value(&checked(&page, false), "nearside_namespace_hits_total", "namespace", is);
        ["users", named, ""].iter().all(|is| hits(is) > 1.0)
    });
    conn.args(&[b"SET", b"users/1", b"v"]);

    let (kind, text) = metrics(&program, "*/*");
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let (kind, open) = metrics(&program, OPEN_METRICS);
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let (text, open) = (checked(&text, false), checked(&open, true));
    let series = |samples: &[Sample<'_>]| -> Vec<(String, Vec<(String, String)>)> {
        let of = |sample: &Sample<'_>| {
            let labels = sample.labels.iter().map(|(label, is)| ((*label).to_owned(), is.clone()));
            (sample.name.to_owned(), labels.collect())
        };
        samples.iter().map(of).collect()
    };
    assert_eq!(series(&text), series(&open));

    for name in ["hits_total", "misses_total", "cache_bytes"] {
        let whole = text.iter().find(|sample| sample.name == format!("nearside_{name}")).unwrap().value;
        let parts = ["users", named, ""]
            .map(|is| value(&text, &format!("nearside_namespace_{name}"), "namespace", is));
        assert!(parts.iter().sum::<f64>() == whole && whole > 0.0, "{name}: {whole} is not {parts:?}");
    }
    let node = format!("127.0.0.1:{}", redis.port);
    let by_node = value(&text, "nearside_upstream_duration_seconds_count", "node", &node);
    let of_all = value(&text, "nearside_request_duration_seconds_count", "path", "upstream");
    assert!(by_node == of_all && of_all > 3.0, "{by_node} is not {of_all}");
}

#[test]
fn what_write_back_does_is_told_by_namespace() {
    let redis = Redis::start();
    let words = ["--write", "back", "--ack", "memory", "--flush-after", "1h", "--namespace", "other"];
    let program = Program::start(redis.port, &words);
    let mut conn = program.connect();
    // By name and value of a label, if there is one beside the namespace.
    let told = |namespace: &str| -> BTreeMap<String, f64> {
        let (_, page) = metrics(&program, OPEN_METRICS);
        let of = |sample: Sample<'_>| {
            let name = sample.name.strip_prefix("nearside_writeback_")?;
            let result = sample.labels.get("result").map_or(String::new(), |result| format!(" {result}"));
            (sample.labels["namespace"] == namespace).then(|| (name.to_owned() + &result, sample.value))
        };
        checked(&page, true).into_iter().filter_map(of).collect()
    };
    let mut idle = told("users");
    assert_eq!((idle.remove("open"), idle.remove("flush_after_seconds")), (Some(1.0), Some(3600.0)));
    assert!(idle.values().all(|value| *value == 0.0), "{idle:?}");

    assert_eq!(conn.pipeline(&["SET users/1 a", "SET users/1 b"]), ["+OK\r\n", "+OK\r\n"]);
    let dirty = told("users");
    let expected =
        [("open", 1.0), ("dirty_keys", 1.0), ("acknowledged_total", 2.0), ("coalesced_total", 1.0)];
    expected.iter().for_each(|(name, is)| assert_eq!(dirty[*name], *is, "{name}: {dirty:?}"));
    assert!(dirty["dirty_bytes"] > 0.0 && dirty["oldest_seconds"] > 0.0, "{dirty:?}");
    assert_eq!(told("other")["dirty_keys"], 0.0);
    let ready = program.page("/readyz");
    assert!(ready.starts_with("ok\nnearside_writeback_users:dirty_keys=1,dirty_bytes="), "{ready}");
    assert!(
        ready.contains("\nnearside_writeback_other:dirty_keys=0,") && ready.ends_with(",open=yes\n"),
        "{ready}"
    );

    assert_eq!(conn.cmd("NEARSIDE SYNC"), b"+OK\r\n");
    assert_eq!(conn.cmd("SET users/2 a"), b"+OK\r\n");
    redis.connect().cmd("SET users/2 foreign");
    eventually("the conflict is found and logged", || {
        conn.cmd("NEARSIDE SYNC");
        told("users")["logged_conflicts_total"] == 1.0
    });
    conn.cmd("INCR users/3");
    conn.cmd("SET users/4 a NX");
    let clean = told("users");
    let expected = [
        ("dirty_keys", 0.0),
        ("oldest_seconds", 0.0),
        ("flushes_total done", 1.0),
        ("flushes_total refused", 0.0),
        ("conflicts_total", 1.0),
        ("conflict_log_entries", 1.0),
        ("through_total", 1.0),
        ("journal_commits_total", 0.0),
    ];
    expected.iter().for_each(|(name, is)| assert_eq!(clean[*name], *is, "{name}: {clean:?}"));
    assert!(clean["conflict_log_bytes"] > 0.0, "{clean:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_process_takes_is_told_as_it_is() {
    let redis = Redis::start();
    let program = Program::start(redis.port, &[]);
    let (_, page) = metrics(&program, "*/*");
    let samples = checked(&page, false);
    let of = |name: &str| {
        samples.iter().find(|sample| sample.name == name).unwrap_or_else(|| panic!("no {name}")).value
    };
    let (resident, all) = (of("process_resident_memory_bytes"), of("process_virtual_memory_bytes"));
    assert!(1e6 < resident && resident < all, "{resident} of {all}");
    assert!(of("process_cpu_seconds_total") > 0.0);
    assert!((10.0..of("process_max_fds")).contains(&of("process_open_fds")));
    // Linux tells it in hundredths of a second, counted from a start of the system that is told in whole ones.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 300.0..now + 60.0).contains(&of("process_start_time_seconds")), "it is {now}");
    let version = env!("CARGO_PKG_VERSION");
    let build = samples.iter().find(|sample| sample.name == "nearside_build_info").expect("what runs");
    assert_eq!((build.labels["version"].as_str(), build.value), (version, 1.0));
    assert!(build.labels["rustc"].starts_with("1."), "{:?}", build.labels);
}
