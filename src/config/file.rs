//! The TOML file: every key known, every problem with its line.
//!
//! An error never quotes a line of the file, since a password may stand in it.

use std::{borrow::Cow, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    draft::Draft,
    namespace::{KEYS, Written, parse_name},
    settings::settings,
    text::did_you_mean,
};

/// Lays the file over `draft`; whatever is wrong, also a file that cannot be read, becomes a problem of it.
pub(super) fn lay(path: &Path, draft: &mut Draft) {
    match std::fs::read_to_string(path) {
        Ok(text) => lay_text(&path.display().to_string(), &text, draft),
        Err(error) => draft.problems.push(format!("{}: {error}", path.display())),
    }
}

fn lay_text(name: &str, text: &str, draft: &mut Draft) {
    let file = File { name, text };
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let at = file.at(error.span().map_or(0, |span| span.start));
            draft.problems.push(format!("{at}: {}", error.message()));
        }
        return;
    }
    for (key, value) in in_order(root.get_ref()) {
        let name: &str = key.get_ref();
        let origin = file.key(key, name);
        let Some(setting) = settings().iter().find(|setting| setting.name == *name) else {
            let near = did_you_mean(name, settings().iter().map(|setting| &*setting.name));
            draft.problems.push(format!("{}: unknown key {name:?}{near}", file.at(key.span().start)));
            continue;
        };
        if name == "namespace" && file.lay_namespaces(value, &origin, draft) {
            continue;
        }
        match plain(value.get_ref(), setting.list) {
            Some(text) => draft.apply(setting, &text, origin),
            None => {
                let found = value.get_ref().type_str();
                draft.problems.push(format!("{origin}: expected {}, found {found}", setting.metavar));
            }
        }
    }
}

struct File<'a> {
    name: &'a str,
    text: &'a str,
}

type Key<'a> = Spanned<Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

impl File<'_> {
    /// `FILE:LINE` of a byte position.
    fn at(&self, position: usize) -> String {
        let before = self.text.as_bytes().iter().take(position);
        format!("{}:{}", self.name, 1 + before.filter(|byte| **byte == b'\n').count())
    }

    fn key(&self, key: &Key<'_>, name: &str) -> String {
        format!("{}: {name}", self.at(key.span().start))
    }

    /// Takes `[namespace.NAME]` and `[[namespace]]`; gives false for a plain value, which is a list of names.
    fn lay_namespaces(&self, value: &Value<'_>, origin: &str, draft: &mut Draft) -> bool {
        let mut all = Vec::new();
        match value.get_ref() {
            DeValue::Table(tables) => {
                for (name, table) in in_order(tables) {
                    let origin = self.key(name, &format!("namespace.{}", name.get_ref()));
                    match (parse_name(name.get_ref()), table.get_ref()) {
                        (Ok(written), DeValue::Table(table)) => {
                            all.push(self.namespace(written, table, &origin, draft));
                        }
                        (Err(why), _) => draft.problems.push(format!("{origin}: {why}")),
                        _ => draft
                            .problems
                            .push(format!("{origin}: expected a table such as [namespace.users]")),
                    }
                }
            }
            DeValue::Array(array) if array.iter().any(|one| one.get_ref().is_table()) => {
                for one in array.iter() {
                    let origin = format!("{}: namespace", self.at(one.span().start));
                    let given = one.get_ref().get("name").unwrap_or(one);
                    let written = match given.get_ref() {
                        DeValue::String(name) => parse_name(name),
                        _ => Err("expected a name, or a table with the key \"name\"".to_owned()),
                    };
                    match (written, one.get_ref()) {
                        (Err(why), _) => draft.problems.push(format!("{origin}: {why}")),
                        (Ok(written), DeValue::Table(table)) => {
                            all.push(self.namespace(written, table, &origin, draft));
                        }
                        (Ok(written), _) => all.push(written),
                    }
                }
            }
            _ => return false,
        }
        draft.given.namespaces = all;
        draft.origins.insert("namespace", origin.to_owned());
        true
    }

    fn namespace(
        &self,
        mut written: Written,
        table: &DeTable<'_>,
        origin: &str,
        draft: &mut Draft,
    ) -> Written {
        let named = !origin.contains(": namespace.");
        for (key, value) in
            in_order(table).into_iter().filter(|(key, _)| !(named && *key.get_ref() == "name"))
        {
            let origin = self.key(key, &format!("namespace.{}.{}", written.name, key.get_ref()));
            let Some((_, set)) = KEYS.iter().find(|(known, _)| *known == *key.get_ref()) else {
                let near = did_you_mean(key.get_ref(), KEYS.map(|(known, _)| known));
                let at = self.at(key.span().start);
                draft.problems.push(format!(
                    "{at}: unknown key {:?} in namespace {:?}{near}",
                    key.get_ref(),
                    written.name
                ));
                continue;
            };
            let result = match plain(value.get_ref(), false) {
                Some(text) => set(&mut written, &text),
                None => Err(format!("expected a plain value, found {}", value.get_ref().type_str())),
            };
            if let Err(why) = result {
                draft.problems.push(format!("{origin}: {why}"));
            }
        }
        written
    }
}

/// The text that a flag would have; `None` for what no flag can say.
fn plain(value: &DeValue<'_>, list: bool) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Array(all) if list => {
            let all: Option<Vec<_>> = all.iter().map(|one| plain(one.get_ref(), false)).collect();
            all.map(|all| all.join(","))
        }
        _ => None,
    }
}

/// A table's entries as they stand in the file; the parser sorts them by name.
fn in_order<'a, 'b>(table: &'b DeTable<'a>) -> Vec<(&'b Key<'a>, &'b Value<'a>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Ack, Config, Listen, Namespace, OnConflict, OnUpdate};

    fn read(text: &str) -> Result<Config, Vec<String>> {
        let mut draft = Draft::default();
        lay_text("n.toml", text, &mut draft);
        draft.finish().map(|(config, _)| config)
    }

    fn problems(text: &str) -> Vec<String> {
        read(text).expect_err(text)
    }

    fn names(config: &Config) -> Vec<&str> {
        config.namespaces.iter().map(|namespace| &*namespace.name).collect()
    }

    #[test]
    fn plain_values_are_taken_in_their_natural_types() {
        let config =
            read("max-memory = 0x100000\nworkers = 3\nmax-staleness = 0\nlisten = [7000, 'unix:/n']\n");
        let config = config.expect("valid");
        assert_eq!((config.max_memory, config.workers, config.max_staleness.as_secs()), (1 << 20, 3, 0));
        assert_eq!(
            config.listen.iter().map(Listen::to_string).collect::<Vec<_>>(),
            ["127.0.0.1:7000", "unix:/n"]
        );
    }

    #[test]
    fn namespaces_are_a_list_tables_or_an_array_of_tables() {
        for text in [
            "namespace = ['b', 'a']",
            "namespace = 'b, a'",
            "[namespace.b]\n[namespace.a]",
            "[[namespace]]\nname = 'b'\n[[namespace]]\nname = 'a'",
            "namespace = ['b', {name = 'a'}]",
        ] {
            assert_eq!(names(&read(text).expect(text)), ["b", "a"], "{text}");
        }
        let text =
            "max-age = '9s'\n[namespace.users]\nprefix = 'u:'\non-update = 'refresh'\nmax-staleness = '5s'";
        let config = read(text).expect("valid");
        let users = Namespace {
            name: "users".to_owned(),
            prefix: "u:".to_owned(),
            channel: "users".to_owned(),
            on_update: OnUpdate::Refresh,
            refill_on_write: false,
            tracking: config.tracking,
            max_age: std::time::Duration::from_secs(9),
            max_staleness: std::time::Duration::from_secs(5),
            writing: None,
        };
        assert_eq!(config.namespaces, [users]);
        let text = "write = 'back'\njournal = '/j'\n[namespace.users]\nack = 'memory'\non-conflict = 'keep-local'\n\
                    [namespace.sessions]\nwrite = 'through'";
        let config = read(text).expect("valid");
        let [users, sessions] = &config.namespaces[..] else { panic!("{config:?}") };
        let users = users.writing.as_ref().expect("write-back");
        assert_eq!((users.ack, users.on_conflict), (Ack::Memory, OnConflict::KeepLocal));
        assert_eq!(users.journal.as_deref(), Some(Path::new("/j")));
        assert_eq!(sessions.writing, None);
    }

    #[test]
    fn everything_wrong_is_told_at_once_with_its_line_and_key() {
        let text = "max-memroy = '1mb'\nmax-age = 'soon'\n\nadmin = {}\n[namespace.users]\nprefx = 'u:'\nmax-age = 1";
        assert_eq!(
            problems(text),
            [
                "n.toml:1: unknown key \"max-memroy\"; did you mean max-memory?",
                "n.toml:2: max-age: \"soon\" is not a time; write a number with a unit, such as 500ms, 1s or 5m",
                "n.toml:4: admin: expected ADDR|unix:PATH|off, found table",
                "n.toml:6: unknown key \"prefx\" in namespace \"users\"; did you mean prefix?",
                "n.toml:7: namespace.users.max-age: \"1\" is not a time; write a number with a unit, such as 500ms, 1s or 5m",
            ]
        );
    }

    #[test]
    fn namespaces_that_do_not_go_together_are_named() {
        for (text, says) in [
            ("namespace = ['a', 'a']", "namespace \"a\" is given twice"),
            (
                "[namespace.a]\nprefix = 'x'\n[namespace.b]\nprefix = 'xy'",
                "namespaces \"a\" and \"b\" overlap",
            ),
            ("[namespace.a]\nprefix = ''\n[namespace.b]", "namespaces \"a\" and \"b\" overlap"),
            ("[namespace.a]\nchannel = 'b'\n[namespace.b]", "have the same channel \"b\""),
            ("[namespace]\nprefix = 'x'", "n.toml:2: namespace.prefix: expected a table such as"),
            ("[[namespace]]\nprefix = 'x'", "n.toml:1: namespace: expected a name"),
            (
                "[namespace.a]\nwrite = 'back'",
                "namespace \"a\": write = \"back\" with ack = \"disk\" needs a journal",
            ),
            ("namespace = ['']\nworkers = 1", ""),
            ("namespace = ['a', '']", "a namespace needs a name"),
        ] {
            match says {
                "" => assert!(read(text).expect(text).namespaces.is_empty()),
                _ => assert!(
                    problems(text).iter().any(|problem| problem.contains(says)),
                    "{:?}",
                    problems(text)
                ),
            }
        }
    }

    #[test]
    fn a_syntax_error_has_its_line_and_does_not_show_the_password() {
        let problems = problems("workers = 1\nupstream = \"redis://:s3cret@db\nadmin = 'off'\n");
        assert!(problems[0].starts_with("n.toml:2: "), "{problems:?}");
        assert!(!problems.concat().contains("s3cret"), "{problems:?}");
    }

    #[test]
    fn listening_twice_on_one_address_is_refused() {
        assert_eq!(problems("listen = [7000, 7000]"), ["listen: 127.0.0.1:7000 is already listened on"]);
        assert_eq!(problems("listen = 9380"), ["admin: 127.0.0.1:9380 is already listened on"]);
        assert!(read("listen = ['127.0.0.1:0', '127.0.0.1:0']\nadmin = '127.0.0.1:0'").is_ok());
    }
}
