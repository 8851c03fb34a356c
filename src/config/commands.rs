//! `cache-commands`: which of the commands whose replies can be cached are.

use std::sync::LazyLock;

use super::text::{did_you_mean, quoted};
use super::value::{Kind, parse_list};
use crate::command::Table;

/// `None` is all of them.
pub(super) const COMMANDS: Kind<Option<Vec<String>>> = Kind { metavar: "COMMAND|all", parse, show };

/// The names of all commands whose replies can be cached, in the order of the alphabet.
fn cacheable() -> &'static [String] {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let table = Table::builtin();
        let rows = (0..).map_while(|number| table.row(number)).filter(|row| row.is_cached());
        let mut names: Vec<_> = rows.map(|row| row.name.clone().into_owned()).collect();
        names.sort_unstable();
        names
    });
    &NAMES
}

fn parse(text: &str) -> Result<Option<Vec<String>>, String> {
    if text == "all" {
        return Ok(None);
    }
    let names = parse_list(text, |name| {
        let lower = name.to_ascii_lowercase();
        if cacheable().contains(&lower) {
            return Ok(lower);
        }
        let near = did_you_mean(&lower, cacheable().iter().map(String::as_str));
        let possible = cacheable().join(", ");
        Err(format!(
            "{name:?} is no command whose reply can be cached{near}; possible are all, or {possible}"
        ))
    })?;
    if names.is_empty() {
        return Err(
            "at least one command is needed: write all, or a max-staleness of 0 to cache nothing".to_owned()
        );
    }
    Ok(Some(names))
}

fn show(names: &Option<Vec<String>>) -> String {
    match names {
        None => quoted("all"),
        Some(names) => format!("[{}]", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_in_any_case_and_shown_as_they_are_given() {
        assert_eq!(parse("all"), Ok(None));
        let two = Some(vec!["get".to_owned(), "hgetall".to_owned()]);
        assert_eq!(parse("GET, hgetall"), Ok(two.clone()));
        assert_eq!(show(&two), "[\"get\", \"hgetall\"]");
        let why = parse("get,hgetal").expect_err("a slip");
        assert!(why.contains("\"hgetal\"") && why.contains("did you mean hgetall?"), "{why}");
        let why = parse("set").expect_err("a write");
        assert!(why.contains("possible are all, or bitcount, ") && why.ends_with("zscore"), "{why}");
        assert!(parse("").is_err() && parse("all,get").is_err());
    }
}
