//! The rooms stand in a strict downward order, and a third-party crate that one room is for stays in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each room and what it may look down on. `main` stands above all.
const BELOW: &[(&str, &[&str])] = &[
    ("main", &["server", "config", "dev", "logging"]),
    // `server/parts.rs` tells every room in its own words what the configuration says, and wires them.
    (
        "server",
        &[
            "session",
            "feed",
            "admin",
            "config",
            "upstream",
            "command",
            "cache",
            "namespace",
            "metrics",
            "resp",
        ],
    ),
    ("admin", &["session", "cache", "metrics"]),
    ("session", &["resp", "command", "cache", "upstream", "namespace", "metrics"]),
    ("feed", &["cache", "upstream", "namespace", "metrics", "resp", "command"]),
    ("upstream", &["resp"]),
    ("command", &["resp"]),
    ("dev", &["config"]),
    ("logging", &["config", "metrics"]),
    ("cache", &[]),
    ("config", &[]),
    ("metrics", &[]),
    ("namespace", &[]),
    ("resp", &[]),
];

/// Crates that have one room, or a few.
const KEPT: &[(&str, &[&str])] = &[
    ("hashbrown", &["cache"]),
    ("clap", &["config"]),
    ("toml", &["config"]),
    ("strsim", &["config"]),
    ("bytesize", &["config"]),
    ("redis_protocol", &["resp"]),
    ("hyper", &["admin"]),
    ("hyper_util", &["admin"]),
    ("http_body_util", &["admin"]),
    ("prometheus_client", &["admin"]),
    // The configuration checks what the log is told.
    ("tracing_subscriber", &["logging", "config"]),
    ("rustix", &["server", "dev"]),
    ("socket2", &["server", "upstream"]),
    ("lru", &["session"]),
    ("mimalloc", &["main"]),
];

/// The files of `src` with the room that each belongs to.
fn files() -> Vec<(String, PathBuf)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let first = entry.strip_prefix(&src).expect("below src").components().next();
                let room = Path::new(first.expect("a file").as_os_str()).with_extension("");
                found.push((room.display().to_string(), entry));
            }
        }
    }
    found
}

/// The code of a file: without comments and without what stands in quotes.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if rest.starts_with("'\"'") || rest.starts_with("b'\"'") {
            rest.find("\"'").unwrap_or(0) + 2
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let mut escaped = false;
            let end = quoted.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else {
            code.push(first);
            first.len_utf8()
        };
        rest = &rest[len..];
    }
    code
}

/// What follows `root::` in paths: `a` of `root::a::B`, and `a`, `b` of `root::{a::B, b}`.
fn paths(code: &str, root: &str) -> BTreeSet<String> {
    let word =
        |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = BTreeSet::new();
    for (at, matched) in code.match_indices(&format!("{root}::")) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = code[at + matched.len()..].trim_start();
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut starts = true;
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => starts = true,
                _ if starts && !c.is_whitespace() => {
                    found.insert(word(&list[i..]));
                    starts = false;
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn every_room_looks_only_down() {
    let below: BTreeMap<&str, &[&str]> = BELOW.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (room, file) in files() {
        let code = code(&fs::read_to_string(&file).expect("a source file"));
        if room == "lib" {
            continue;
        }
        let Some(allowed) = below.get(&*room) else {
            wrong.push(format!("{}: the room {room} has no place in the order", file.display()));
            continue;
        };
        let root = if room == "main" { "nearside" } else { "crate" };
        let mut others = paths(&code, root);
        // `super` may lead out of a room as well.
        let own = |name: &str| file.parent().is_some_and(|folder| folder.join(format!("{name}.rs")).exists());
        others.extend(paths(&code, "super").into_iter().filter(|n| below.contains_key(&**n) && !own(n)));
        for other in others.into_iter().filter(|other| *other != room) {
            if !allowed.contains(&&*other) {
                wrong.push(format!("{}: {room} must not use {other}", file.display()));
            }
            used.insert((room.clone(), other));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The test would be blind if it found nothing.
    for (room, other) in [("main", "server"), ("server", "session"), ("session", "cache"), ("feed", "cache")]
    {
        assert!(used.contains(&(room.into(), other.into())), "{room} uses {other}, and it was not seen");
    }
}

#[test]
fn the_order_has_no_circle() {
    let below: BTreeMap<&str, &[&str]> = BELOW.iter().copied().collect();
    for room in below.keys() {
        let mut seen = BTreeSet::new();
        let mut next = below[room].to_vec();
        while let Some(other) = next.pop() {
            assert_ne!(other, *room, "{room} stands below itself");
            if seen.insert(other) {
                next.extend(below[other]);
            }
        }
    }
}

#[test]
fn crates_keep_to_their_rooms() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (room, file) in files() {
        let code = code(&fs::read_to_string(&file).expect("a source file"));
        for (name, rooms) in KEPT {
            if paths(&code, name).is_empty() {
                continue;
            }
            used.insert(*name);
            if !rooms.contains(&&*room) {
                wrong.push(format!("{}: {name} is for {}", file.display(), rooms.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in ["hashbrown", "clap", "hyper", "prometheus_client", "tracing_subscriber"] {
        assert!(used.contains(name), "{name} is used, and it was not seen");
    }
}

#[test]
fn paths_are_found_in_every_form() {
    let text = r##"
        use crate::{a::{B, c}, d};
        // crate::comment
        fn f(x: crate::e::F) -> &'static str { "crate::quoted \" crate::quoted" ; '"'; crate::g::h() }
        pub(in crate::i) fn mycrate::j() {}
    "##;
    let found = paths(&code(text), "crate");
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "d", "e", "g", "i"]);
}
