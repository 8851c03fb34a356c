//! The README's tables against the program.

use std::process::Command;

const README: &str = include_str!("../README.md");

/// The cells of all rows of the README's tables.
fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    README.lines().filter(|line| line.starts_with("| `")).map(|line| line.split(" | ").collect())
}

fn bare(cell: &str) -> &str {
    cell.trim_matches(|c| matches!(c, '|' | ' ' | '`'))
}

/// Name and default of every setting, as `nearside --help` gives them.
fn settings() -> Vec<(String, String)> {
    let help = Command::new(env!("CARGO_BIN_EXE_nearside")).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
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
fn the_table_of_settings_is_that_of_the_help() {
    let table = README.split("\n## ").find(|section| section.starts_with("Settings")).unwrap();
    let listed: Vec<_> = rows()
        .filter(|cells| table.contains(&cells.join(" | ")))
        .map(|cells| (bare(cells[0]).to_owned(), bare(cells[1]).to_owned()))
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
fn every_reason_is_in_the_readme() {
    let listed = |name: &str| README.contains(&format!("`{name}`"));
    let mut names = nearside::cache::Reason::ALL.iter().map(|reason| reason.name());
    let missing: Vec<_> =
        names.by_ref().filter(|name| !["unknown", "filled"].contains(name) && !listed(name)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_metric_is_in_the_readme() {
    let export = include_str!("../src/admin/export.rs");
    let (_, snapshot) = export.split_once("\n    vec![").expect("the list of metrics");
    let (snapshot, _) = snapshot.split_once("\n}").expect("its end");
    let mut names = 0;
    for piece in snapshot.split(&['(', ':'][..]) {
        let Some(name) = piece.trim().strip_prefix('"').and_then(|piece| piece.split('"').next()) else {
            continue;
        };
        if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && name.contains(char::is_alphabetic) {
            names += 1;
            assert!(README.contains(name), "{name} is not in the README");
        }
    }
    assert!(names > 30, "the list of metrics was not understood: {names} names");
}
