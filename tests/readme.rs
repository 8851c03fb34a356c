//! README.md and the pages of `docs/` against the program, the sources and each other.

#[path = "readme/commands.rs"]
mod commands;
#[path = "readme/pages.rs"]
mod pages;
#[path = "readme/prometheus.rs"]
mod prometheus;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use pages::{page, pages, quoted, root, rows};
use support::Redis;
use support::program::Program;

/// What the newcomer reads in three minutes.
const README_LINES: usize = 170;

/// Settings of the server behind.
const OF_REDIS: [&str; 2] = ["cluster-preferred-endpoint-type", "cluster-require-full-coverage"];

/// Hyphenated names that are no settings.
const PROGRAMS: [&str; 6] =
    ["redis-server", "valkey-server", "redis-cli", "redis-pubsub-dict", "lib-name", "lib-ver"];

fn nearside(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearside"));
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("NEARSIDE_")) {
        command.env_remove(name);
    }
    let output = command.args(arguments).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// Name and default of every setting, as `nearside --help` gives them.
fn settings() -> Vec<(String, String)> {
    let help = nearside(&["--help"]);
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let flags = words.split(" --").skip(1).filter(|flag| flag.contains("[default: "));
    flags
        .map(|flag| {
            let default = flag.split("[default: ").nth(1).unwrap();
            let name = flag.split(' ').next().unwrap();
            (name.to_owned(), default.split(']').next().unwrap().to_owned())
        })
        .collect()
}

#[test]
fn the_readme_is_short_and_leads_to_every_page() {
    let readme = page("README.md");
    let lines = readme.text.lines().count();
    assert!(lines < README_LINES, "{lines} lines");
    for page in pages().iter().filter(|page| page.path != "README.md") {
        assert!(readme.links().contains(&&*page.path), "README.md does not lead to {}", page.path);
    }
}

#[test]
fn figures_of_the_readme_are_those_of_the_benchmarks() {
    let (readme, benchmarks) = (page("README.md"), page("docs/benchmarks.md"));
    let is_figure = |word: &&str| word.contains(',') && word.chars().all(|c| c.is_ascii_digit() || c == ',');
    let words = |page: &pages::Page| page.text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (named, measured) = (words(&readme), words(&benchmarks));
    let figures: Vec<_> = named.iter().map(|word| word.trim_end_matches(',')).filter(is_figure).collect();
    assert_eq!(figures.len(), 2, "{figures:?}");
    figures.iter().for_each(|figure| assert!(measured.iter().any(|word| word == figure), "{figure}"));
}

#[test]
fn links_lead_somewhere() {
    let mut followed = 0;
    for page in pages() {
        for link in page.links() {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) =
                link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { root().join(&page.path) } else { page.folder().join(path) };
            let target = target.canonicalize().unwrap_or_else(|_| panic!("{}: no {link}", page.path));
            if let Some(anchor) = anchor {
                let other = pages()
                    .into_iter()
                    .find(|other| root().join(&other.path).canonicalize().unwrap() == target);
                let other = other.unwrap_or_else(|| panic!("{}: {link} is no page", page.path));
                assert!(other.anchors().iter().any(|known| known == anchor), "{}: no {link}", page.path);
            }
            followed += 1;
        }
    }
    assert!(followed > 40, "the pages were not understood: {followed} links");
}

#[test]
fn files_that_are_named_exist() {
    const FOLDERS: [&str; 7] = ["src/", "tests/", "scripts/", "config/", "benches/", "fuzz/", "docs/"];
    let mut named = 0;
    for page in pages() {
        // Links are followed by another test, and are seen from the page.
        let words = page.text.split(|c: char| !c.is_ascii_alphanumeric() && !"_-./".contains(c));
        for path in words.map(|word| word.trim_end_matches('.')) {
            if FOLDERS.iter().any(|folder| path.starts_with(folder)) {
                assert!(root().join(path).exists(), "{} names {path}", page.path);
                named += 1;
            }
        }
    }
    assert!(named > 20, "the pages were not understood: {named} files");
}

/// A function that is named behind a file stands in it.
#[test]
fn functions_that_are_named_stand_in_their_files() {
    let mut named = 0;
    for page in pages() {
        let mut file = None;
        for span in page.spans() {
            if span.starts_with("src/") && span.ends_with(".rs") {
                file = Some(span);
            } else if let Some(function) = span.strip_suffix("()") {
                let file = file.unwrap_or_else(|| panic!("{}: {span} is in no file", page.path));
                let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
                let stands = ["(", "<"].iter().any(|next| source.contains(&format!("fn {function}{next}")));
                assert!(stands, "{}: there is no {span} in {file}", page.path);
                named += 1;
            }
        }
    }
    assert!(named > 40, "the pages were not understood: {named} functions");
}

#[test]
fn the_rooms_are_those_of_the_source() {
    let architecture = page("docs/architecture.md");
    let listed = rows(architecture.section("## Rooms"));
    let mut listed: Vec<_> = listed.iter().flat_map(|row| quoted(row[0])).map(str::to_owned).collect();
    listed.sort();
    let files = std::fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().file_name());
    let rooms = files.filter_map(|name| name.to_str().unwrap().strip_suffix(".rs").map(str::to_owned));
    let rooms: BTreeSet<_> = rooms.filter(|room| room != "lib").collect();
    assert_eq!(listed, rooms.into_iter().collect::<Vec<_>>());
}

#[test]
fn the_table_of_settings_is_that_of_the_help() {
    let configuration = page("docs/configuration.md");
    let listed: Vec<_> = rows(configuration.section("## Settings"))
        .iter()
        .map(|cells| (cells[0].trim_matches('`').to_owned(), cells[1].trim_matches('`').to_owned()))
        .collect();
    let mut expected = settings();
    assert!(expected.len() > 20, "the help was not understood: {expected:?}");
    assert_eq!(listed.len(), expected.len());
    for setting in listed {
        let at = expected.iter().position(|known| *known == setting);
        expected.remove(at.unwrap_or_else(|| panic!("not in the help: {setting:?}; left: {expected:?}")));
    }
}

#[test]
fn the_keys_of_a_namespace_are_those_that_it_has() {
    let configuration = page("docs/configuration.md");
    let section = configuration.section("## Namespaces");
    let (_, table) = section.split_once("| key | without it |").expect("the table of keys");
    let table = table.split("\n\n").next().unwrap();
    let listed: Vec<_> = rows(table).iter().map(|cells| cells[0].trim_matches('`').to_owned()).collect();
    let report = nearside(&["check", "--namespace", "users"]);
    let known = report.lines().filter_map(|line| line.strip_prefix("namespace.users."));
    let known: Vec<_> = known.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert!(known.len() > 3, "{report}");
    assert_eq!(listed, known);
}

#[test]
fn settings_that_are_named_exist() {
    let known: BTreeSet<_> = settings().into_iter().map(|(name, _)| name).collect();
    let mut named = 0;
    for page in pages() {
        for span in page.spans() {
            let flag = span.strip_prefix("--").map(|flag| flag.split([' ', '=']).next().unwrap());
            let is_name = span.contains('-') && span.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            match flag.or(is_name.then_some(span)) {
                // These are flags alone.
                Some("config" | "takeover") | None => {}
                Some(name) if PROGRAMS.contains(&name) || OF_REDIS.contains(&name) => {}
                Some(name) => {
                    assert!(known.contains(name), "{}: there is no setting `{span}`", page.path);
                    named += 1;
                }
            }
        }
    }
    assert!(named > 40, "the pages were not understood: {named} settings");
}

#[test]
fn the_commands_that_are_cached_are_those_that_can_be() {
    let refused = nearside(&["check", "--cache-commands", "nope"]);
    let (_, possible) = refused.split_once("possible are all, or ").expect("the list");
    let possible: BTreeSet<_> = possible.trim_end().split(", ").map(str::to_uppercase).collect();
    let commands = page("docs/commands.md");
    let listed = rows(commands.section("## What is cached"));
    let listed: BTreeSet<_> = listed.iter().flat_map(|row| quoted(row[1])).map(str::to_owned).collect();
    // What `MGET` is put together with is named as itself.
    assert_eq!(listed, possible);
}

/// The names, labels and values that `/metrics` gives, and the names of `INFO nearside`.
struct Exported {
    metrics: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// The names of the series, with `_bucket` and the like.
    samples: BTreeSet<String>,
    info: BTreeSet<String>,
}

impl Exported {
    /// The metric of this name, or of the name of one of its series.
    fn metric(&self, name: &str) -> Option<&BTreeMap<String, BTreeSet<String>>> {
        let of_histogram = || {
            let ends = ["_bucket", "_sum", "_count"].into_iter();
            ends.filter_map(|end| name.strip_suffix(end)).find_map(|base| self.metrics.get(base))
        };
        self.metrics.get(name).or_else(|| of_histogram().filter(|_| self.samples.contains(name)))
    }
}

fn exported() -> Exported {
    let redis = Redis::start();
    // Of write-back there is nothing to tell where no namespace has it.
    let near = Program::start(redis.port, &["--write", "back", "--ack", "memory"]);
    let info = near.connect().text("NEARSIDE STATS");
    let info =
        info.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_owned()).collect();
    let mut metrics = BTreeMap::<String, BTreeMap<_, BTreeSet<_>>>::new();
    let (mut last, mut samples) = (String::new(), BTreeSet::new());
    for line in near.page("/metrics").lines() {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            last = of.split(' ').next().unwrap().to_owned();
            metrics.entry(last.clone()).or_default();
            continue;
        }
        if !line.starts_with('#') {
            samples.insert(line.split(['{', ' ']).next().unwrap().to_owned());
        }
        if let Some((_, labels)) = line.split_once('{') {
            for label in
                labels.split('}').next().unwrap().split(',').filter(|label| !label.starts_with("le="))
            {
                let (label, value) = label.split_once('=').unwrap();
                let values = metrics.get_mut(&last).unwrap().entry(label.to_owned()).or_default();
                values.insert(value.trim_matches('"').to_owned());
            }
        }
    }
    assert!(metrics.len() > 30, "the metrics were not understood: {metrics:?}");
    Exported { metrics, samples, info }
}

#[test]
fn the_table_of_metrics_is_what_is_exported() {
    let mut exported = exported();
    let metrics = page("docs/metrics.md");
    let mut listed = BTreeMap::new();
    for row in rows(metrics.section("## Metrics")) {
        let mut labels = BTreeMap::<_, BTreeSet<_>>::new();
        if row[1].ends_with(": any") {
            labels.extend(quoted(row[1]).into_iter().map(|label| (label.to_owned(), BTreeSet::new())));
        } else if let [label, values @ ..] = &quoted(row[1])[..] {
            let mut values: BTreeSet<_> = values.iter().map(ToString::to_string).collect();
            if row[1].ends_with("[below](#reasons)") {
                values = reasons_of(&metrics, row[0]);
            }
            labels.insert(label.to_string(), values);
        }
        for name in quoted(row[0]) {
            assert!(listed.insert(name.to_owned(), labels.clone()).is_none(), "{name} stands there twice");
        }
    }
    assert_eq!(listed.keys().collect::<Vec<_>>(), exported.metrics.keys().collect::<Vec<_>>());
    // Whose values may be any is not asked which there are.
    for (name, labels) in &listed {
        let any = labels.iter().filter(|(_, values)| values.is_empty()).map(|(label, _)| label);
        let known = exported.metrics.get_mut(name).unwrap();
        any.for_each(|label| known.get_mut(label).into_iter().for_each(BTreeSet::clear));
    }
    assert_eq!(listed, exported.metrics);
}

/// The reasons that are listed under the name of this metric.
fn reasons_of(metrics: &pages::Page, name: &str) -> BTreeSet<String> {
    let section = metrics.section("## Reasons");
    let (_, table) =
        section.split_once(&format!("({name}):\n\n")).unwrap_or_else(|| panic!("no reasons of {name}"));
    rows(table.split("\n\n").next().unwrap()).iter().map(|row| row[0].trim_matches('`').to_owned()).collect()
}

#[test]
fn metrics_that_are_named_exist() {
    let exported = exported();
    for page in pages() {
        let words = page.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("nearside_")) {
            let known = exported.metric(name).is_some() || exported.info.contains(name);
            assert!(known, "{} names {name}, which is neither exported nor shown by INFO", page.path);
        }
    }
}
