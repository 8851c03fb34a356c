//! The alerts and the board against what `/metrics` gives, against each other and against docs/metrics.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::pages::{page, quoted, root, rows};
use super::{Exported, exported};

const ALERTS: &str = "config/prometheus/alerts.yaml";
const ALERT_TESTS: &str = "tests/prometheus/alerts.yaml";
const BOARD: &str = "config/grafana/nearside.json";

/// What every series has from who scrapes it.
const OF_TARGETS: [&str; 2] = ["job", "instance"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands behind `key: ` in each line that begins so, wherever that stands.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(key)).collect()
}

/// The series that are named in a query, each with what stands in braces behind it.
fn series(query: &str) -> Vec<(&str, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_word) {
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |len| start + len);
        let (word, behind) = (&rest[start..end], &rest[end..]);
        let braces =
            behind.strip_prefix('{').and_then(|inside| inside.split_once('}')).map_or("", |(in_, _)| in_);
        if word.starts_with("nearside_") || word.starts_with("process_") {
            found.push((word, braces));
        }
        rest = &behind[braces.len()..];
    }
    found
}

/// Checks that what a query names is there, and adds it to `named`.
fn check(exported: &Exported, of: &str, query: &str, named: &mut BTreeSet<String>) {
    for (name, braces) in series(query) {
        let labels = exported.metric(name);
        let labels = labels.unwrap_or_else(|| panic!("{of}: there is no {name}: {query}"));
        // A metric without any series of it has a type all the same; a histogram's own name has none.
        let is_base = exported.samples.contains(&format!("{name}_bucket"));
        assert!(!is_base, "{of}: {name} is a histogram, of which no series has that name: {query}");
        for matcher in braces.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()) {
            let (label, value) = matcher.split_once('=').unwrap_or_else(|| panic!("{of}: {matcher}"));
            if OF_TARGETS.contains(&label) {
                continue;
            }
            let values = labels.get(label);
            let values = values.unwrap_or_else(|| panic!("{of}: {name} has no label {label}: {query}"));
            let value = value.trim_matches('"');
            assert!(values.contains(value), "{of}: {name} has no {label}={value}: {query}");
        }
        named.insert(name.to_owned());
    }
}

/// By the alert's name, what it asks: its lines up to the next key.
fn alerts(text: &str) -> BTreeMap<&str, String> {
    let rules = text.split("- alert: ").skip(1);
    let rules = rules.map(|rule| {
        let (name, rule) = rule.split_once('\n').unwrap();
        let asked = rule.split("expr: ").nth(1).unwrap_or_else(|| panic!("{name} asks nothing"));
        let asked = ["\n        for:", "\n        labels:"]
            .into_iter()
            .fold(asked, |asked, key| asked.split(key).next().unwrap());
        (name, asked.trim_start_matches('|').to_owned())
    });
    rules.collect()
}

#[test]
fn alerts_ask_for_what_there_is() {
    let (exported, text) = (exported(), read(ALERTS));
    let (alerts, mut named) = (alerts(&text), BTreeSet::new());
    assert!(alerts.len() > 10, "the alerts were not understood: {alerts:?}");
    for (name, asked) in &alerts {
        assert!(!series(asked).is_empty(), "{name} was not understood: {asked}");
        check(&exported, name, asked, &mut named);
    }
    assert!(named.len() > 15, "the alerts were not understood: {named:?}");
}

#[test]
fn every_alert_is_explained_and_tested() {
    let (text, tests, metrics) = (read(ALERTS), read(ALERT_TESTS), page("docs/metrics.md"));
    let told: BTreeSet<_> = alerts(&text).into_keys().collect();
    let severities = values(&text, "severity: ");
    assert_eq!(severities.len(), told.len(), "each has a severity");
    let listed = rows(metrics.section("## Alerts and a board"));
    let listed: BTreeMap<_, _> = listed.iter().map(|row| (quoted(row[0])[0], row[1])).collect();
    assert_eq!(listed.keys().copied().collect::<BTreeSet<_>>(), told);
    let in_order = values(&text, "alert: ").into_iter().zip(severities);
    in_order.for_each(|(name, severity)| assert_eq!(listed[name], severity, "{name}"));
    for name in told {
        let fires = [format!("alertname=\"{name}\""), format!("alertname: {name}\n")];
        assert!(fires.iter().any(|fires| tests.contains(fires)), "{ALERT_TESTS} does not try {name}");
    }
}

/// Every text of this key, however deep.
fn texts<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|value| texts(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

#[test]
fn the_board_asks_for_what_there_is() {
    let (exported, board) =
        (exported(), serde_json::from_str::<Value>(&read(BOARD)).expect("the board is JSON"));
    let (mut queries, mut named) = (Vec::new(), BTreeSet::new());
    ["expr", "definition"].iter().for_each(|key| texts(&board, key, &mut queries));
    assert!(queries.len() > 30, "the board was not understood: {queries:?}");
    queries.iter().for_each(|query| check(&exported, "the board", query, &mut named));
    assert!(named.len() > 30, "the board was not understood: {named:?}");
}

/// What Grafana needs to draw it, and what makes it readable.
#[test]
fn the_panels_of_the_board_lie_side_by_side() {
    let board: Value = serde_json::from_str(&read(BOARD)).unwrap();
    assert!(
        board["schemaVersion"].as_u64() >= Some(36)
            && board["title"] == "nearside"
            && board["uid"] == "nearside"
    );
    let variables: Vec<_> = board["templating"]["list"].as_array().unwrap().iter().collect();
    assert_eq!(variables[0]["type"], "datasource", "the others are asked of it");
    let panels = board["panels"].as_array().unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its number is another's");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title} does not fit");
        for cell in
            (at("y")..at("y") + at("h")).flat_map(|y| (at("x")..at("x") + at("w")).map(move |x| (x, y)))
        {
            assert!(taken.insert(cell), "{title} lies on another");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let names: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert!(!names.is_empty() && names.len() == targets.len(), "{title}");
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        assert!(unit.is_string() || panel["type"] == "table", "{title} has no unit");
    }
}

#[test]
fn queries_are_taken_apart() {
    let query = "sum by (le) (rate(a_b{x=\"y\"}[5m])) / nearside_c{k=\"v\", job=~\"$job\"} and process_d > nearside_e";
    let expected = [("nearside_c", "k=\"v\", job=~\"$job\""), ("process_d", ""), ("nearside_e", "")];
    assert_eq!(series(query), expected);
    let text = "  - alert: A\n        expr: |\n          b\n            > c\n        for: 5m\n  - alert: D\n        expr: e\n        labels: x\n";
    assert_eq!(
        alerts(text),
        BTreeMap::from([("A", "\n          b\n            > c".into()), ("D", "e".into())])
    );
}
