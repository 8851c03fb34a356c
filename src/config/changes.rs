//! What another configuration changes, and what of that can be in effect without a restart.
//!
//! Invariants: [`Config::adopt`] alone says what can: whatever it takes over is put into effect by `server`, and whatever it
//! leaves is told to need a restart. No value of a secret is told.

use std::fmt;

use super::namespace::describe;
use super::settings::{Config, settings};
use super::writing;

/// A setting that has another value than is in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    /// The new value as the file has it, secrets hidden; empty if there is none any more.
    pub to: String,
    /// Whether it was applied; else it needs a restart.
    pub applied: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, to, applied } = self;
        let done = if *applied { "applied" } else { "needs a restart" };
        match to.is_empty() {
            true => write!(f, "{name} is gone: {done}"),
            false => write!(f, "{name} = {to}: {done}"),
        }
    }
}

impl Config {
    /// This configuration with all of `new` that can be in effect at once.
    pub fn adopt(&self, new: &Config) -> Config {
        let mut adopted = Config {
            on_update: new.on_update,
            refill_on_write: new.refill_on_write,
            max_memory: new.max_memory,
            max_value: new.max_value,
            max_staleness: new.max_staleness,
            max_age: new.max_age,
            flush_after: new.flush_after,
            flush_bytes: new.flush_bytes,
            on_conflict: new.on_conflict,
            journal_max: new.journal_max,
            stale_if_error: new.stale_if_error,
            max_clients: new.max_clients,
            max_links: new.max_links,
            max_request: new.max_request,
            client_output_limit: new.client_output_limit,
            client_stall_timeout: new.client_stall_timeout,
            drain_timeout: new.drain_timeout,
            log_level: new.log_level.clone(),
            otlp_endpoint: new.otlp_endpoint.clone(),
            otlp_sample_ratio: new.otlp_sample_ratio,
            ..self.clone()
        };
        if self.auth == new.auth {
            // From wherever it comes.
            (adopted.password_file, adopted.password) = (new.password_file.clone(), new.password.clone());
        }
        if let (Some(_), Some(password)) = (&self.upstream.password, &new.upstream.password) {
            adopted.upstream.password = Some(password.clone());
            if adopted.upstream != new.upstream {
                // Another server, or user: it is theirs.
                adopted.upstream = self.upstream.clone();
            }
        }
        for namespace in &mut adopted.namespaces {
            let Some(new) = new.namespaces.iter().find(|new| new.name == namespace.name) else { continue };
            if (&new.prefix, &new.channel) == (&namespace.prefix, &namespace.channel) {
                let writing = writing::adopt(&namespace.writing, &new.writing);
                *namespace = super::Namespace { tracking: namespace.tracking, writing, ..new.clone() };
            }
        }
        adopted
    }

    /// What `new` changes of this configuration, of which `adopted` is in effect from now on, in the order of the settings.
    pub fn changes(&self, adopted: &Config, new: &Config) -> Vec<Change> {
        let mut changes = Vec::new();
        for setting in settings() {
            if setting.name == "namespace" {
                changes.extend(namespaces(self, adopted, new));
            } else if !(setting.same)(self, new) {
                let shown = (setting.show)(new).into_iter().next();
                let (name, to) = shown.unwrap_or_else(|| (setting.name.clone(), String::new()));
                changes.push(Change { name, to, applied: (setting.same)(adopted, new) });
            }
        }
        // A row of its own it has not; where the file is another, that says it.
        if self.password != new.password && self.password_file == new.password_file {
            let (name, to) = ("password".to_owned(), "\"***\"".to_owned());
            changes.push(Change { name, to, applied: adopted.password == new.password });
        }
        changes
    }
}

fn namespaces(old: &Config, adopted: &Config, new: &Config) -> Vec<Change> {
    let lines = |config: &Config| config.namespaces.iter().flat_map(describe).collect::<Vec<_>>();
    let (old, adopted, new) = (lines(old), lines(adopted), lines(new));
    let of = |all: &[(String, String)], name: &str| {
        all.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    let gone = old.iter().filter(|(name, _)| of(&new, name).is_none());
    let names = new.iter().chain(gone).map(|(name, _)| name);
    let changed = names.filter(|name| of(&old, name) != of(&new, name));
    changed
        .map(|name| Change {
            name: name.clone(),
            to: of(&new, name).unwrap_or_default(),
            applied: of(&adopted, name) == of(&new, name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Invocation;

    fn config(flags: &str) -> Config {
        let arguments: Vec<_> = std::iter::once("nearside").chain(flags.split_whitespace()).collect();
        Invocation::parse(arguments, |_| None).expect(flags).config
    }

    /// What is told of going from one to the other.
    fn told(old: &str, new: &str) -> Vec<String> {
        let (old, new) = (config(old), config(new));
        let changes = old.changes(&old.adopt(&new), &new);
        changes.iter().map(Change::to_string).collect()
    }

    #[test]
    fn each_change_is_told_with_what_becomes_of_it() {
        assert_eq!(told("--workers 1", "--workers 1"), [""; 0]);
        assert_eq!(
            told("--workers 1", "--workers 2 --max-memory 1mb --log-level debug"),
            [
                "max-memory = \"1mb\": applied",
                "workers = 2: needs a restart",
                "log-level = \"debug\": applied"
            ]
        );
    }

    #[test]
    fn of_the_upstream_only_the_password_can_be_another() {
        let old = "--upstream redis://app:one@db";
        assert_eq!(
            told(old, "--upstream redis://app:two@db"),
            ["upstream = \"redis://app:***@db:6379\": applied"]
        );
        for new in ["redis://app:two@other", "redis://bob:one@db", "redis://db", "redis://app:one@db/3"] {
            let told = told(old, &format!("--upstream {new}"));
            assert!(told.len() == 1 && told[0].ends_with(": needs a restart"), "{told:?}");
        }
    }

    #[test]
    fn of_write_back_only_the_journal_and_the_promises_need_a_restart() {
        let back = "--workers 1 --namespace a --write back --journal /j";
        assert_eq!(
            told(
                back,
                "--workers 1 --namespace a --write back --journal /k --flush-after 1s --flush-bytes 1mb --ack memory \
                 --on-conflict newest --journal-max 1mb"
            ),
            [
                "namespace.a.flush-after = \"1s\": applied",
                "namespace.a.flush-bytes = \"1mb\": applied",
                "namespace.a.journal = \"/k\": needs a restart",
                "namespace.a.ack = \"memory\": needs a restart",
                "namespace.a.on-conflict = \"newest\": applied",
                "namespace.a.journal-max = \"1mb\": applied",
                "flush-after = \"1s\": applied",
                "flush-bytes = \"1mb\": applied",
                "journal = \"/k\": needs a restart",
                "ack = \"memory\": needs a restart",
                "on-conflict = \"newest\": applied",
                "journal-max = \"1mb\": applied",
            ]
        );
        let through = told(back, "--workers 1 --namespace a --journal /j");
        assert!(
            through.contains(&"namespace.a.write = \"through\": needs a restart".to_owned())
                && through.iter().all(|line| line.ends_with(": needs a restart")),
            "{through:?}"
        );
        let (old, new) = (config("--workers 1 --namespace a"), config(back));
        assert_eq!(old.adopt(&new).namespaces[0].writing, None);
        assert_eq!(new.adopt(&old).namespaces[0].writing, new.namespaces[0].writing);
    }

    #[test]
    fn the_rules_of_a_namespace_can_be_others_but_not_the_namespaces() {
        let of = |max_age: &str, prefix: &str| {
            let mut config = config("--workers 1 --namespace a");
            config.namespaces[0].max_age = humantime::parse_duration(max_age).expect("a time");
            config.namespaces[0].prefix = prefix.to_owned();
            config
        };
        let (old, aged, moved) = (of("1s", "a/"), of("2s", "a/"), of("2s", "b/"));
        let changes = old.changes(&old.adopt(&aged), &aged);
        let change = |name: &str, to: &str, applied| Change { name: name.into(), to: to.into(), applied };
        assert_eq!(changes, [change("namespace.a.max-age", "\"2s\"", true)]);
        let changes = old.changes(&old.adopt(&moved), &moved);
        assert_eq!(
            changes,
            [change("namespace.a.prefix", "\"b/\"", false), change("namespace.a.max-age", "\"2s\"", false)]
        );
        let told = told("--workers 1 --namespace a", "--workers 1");
        assert!(
            told.len() == 8 && told.iter().all(|line| line.ends_with(" is gone: needs a restart")),
            "{told:?}"
        );
    }
}
