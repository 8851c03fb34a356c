//! The rooms stand in a strict downward order, so do the files in them, and a third-party crate that one room is for stays
//! in it.

#[path = "rooms/imports.rs"]
mod imports;
#[path = "rooms/reader.rs"]
mod reader;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use imports::Tree;

/// Each room and what it may look down on. `main` stands above all.
const BELOW: &[(&str, &[&str])] = &[
    ("main", &["server", "top", "config", "dev", "logging"]),
    // `server/parts.rs` tells every room in its own words what the configuration says, and wires them.
    (
        "server",
        &[
            "worker",
            "process",
            "feed",
            "admin",
            "otlp",
            "config",
            "upstream",
            "io",
            "command",
            "cache",
            "namespace",
            "metrics",
            "resp",
            "writeback",
        ],
    ),
    ("admin", &["process", "cache", "config", "metrics"]),
    ("otlp", &["process", "config", "upstream", "io", "cache"]),
    (
        "worker",
        &[
            "session",
            "request",
            "pending",
            "reply",
            "process",
            "upstream",
            "io",
            "command",
            "cache",
            "namespace",
            "resp",
        ],
    ),
    (
        "session",
        &[
            "request",
            "router",
            "pending",
            "reply",
            "process",
            "upstream",
            "io",
            "command",
            "cache",
            "namespace",
            "resp",
            "writeback",
        ],
    ),
    (
        "request",
        &[
            "router",
            "pending",
            "reply",
            "process",
            "upstream",
            "writeback",
            "io",
            "command",
            "cache",
            "namespace",
            "resp",
        ],
    ),
    ("router", &["pending", "reply", "process", "upstream", "cache", "namespace", "resp"]),
    ("pending", &["reply", "process", "upstream", "io", "command", "cache", "namespace", "resp"]),
    ("reply", &["io", "resp"]),
    ("process", &["command", "cache", "namespace", "upstream", "writeback", "io", "metrics", "resp"]),
    ("feed", &["process", "cache", "upstream", "namespace", "metrics", "resp", "command"]),
    ("upstream", &["io", "resp"]),
    ("command", &["resp"]),
    ("dev", &["config"]),
    ("top", &["config"]),
    ("logging", &["config", "metrics"]),
    ("config", &["command", "io", "namespace"]),
    ("writeback", &["cache", "namespace", "metrics", "resp"]),
    ("cache", &[]),
    ("io", &[]),
    ("metrics", &[]),
    ("namespace", &[]),
    ("resp", &[]),
];

/// Crates that have one room, or a few.
const KEPT: &[(&str, &[&str])] = &[
    ("hashbrown", &["cache", "writeback"]),
    ("clap", &["config"]),
    ("clap_complete", &["config"]),
    ("clap_mangen", &["config"]),
    ("anstream", &["main", "logging"]),
    ("anstyle", &["config", "server"]),
    ("toml", &["config"]),
    ("strsim", &["config"]),
    ("shlex", &["config"]),
    ("bytesize", &["config"]),
    ("redis_protocol", &["resp"]),
    ("hyper", &["admin", "otlp", "top"]),
    ("hyper_util", &["admin", "otlp", "top"]),
    ("http_body_util", &["admin", "otlp", "top"]),
    ("ratatui", &["top"]),
    ("prometheus_client", &["admin"]),
    ("percent_encoding", &["admin", "namespace", "otlp"]),
    // The configuration checks what the log is told.
    ("tracing_subscriber", &["logging", "config"]),
    ("rustix", &["server", "admin", "dev", "writeback"]),
    ("crc32fast", &["writeback"]),
    ("listenfd", &["server"]),
    ("socket2", &["server", "io"]),
    ("lru", &["process", "router"]),
    ("mimalloc", &["main"]),
    ("tokio_rustls", &["io"]),
    ("rustls_native_certs", &["io"]),
    ("x509_parser", &["io"]),
];

/// All files of `src`.
fn tree() -> Tree {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut files, mut folders) = (Vec::new(), vec![src.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let path = entry.strip_prefix(&src).expect("below src").display().to_string();
                files.push((path, fs::read_to_string(&entry).expect("a source file")));
            }
        }
    }
    Tree::of(files.iter().map(|(path, text)| (path.as_str(), text.as_str())))
}

#[test]
fn every_room_looks_only_down() {
    let below: BTreeMap<&str, &[&str]> = BELOW.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    let tree = tree();
    for file in tree.files().filter(|file| file.room != "lib") {
        let (room, path) = (&file.room, &file.path);
        let Some(allowed) = below.get(room.as_str()) else {
            wrong.push(format!("{path}: the room {room} has no place in the order"));
            continue;
        };
        let others = file.taken.iter().filter(|taken| taken.is_ours).filter_map(|taken| taken.names.first());
        for other in others.filter(|other| *other != room) {
            if !allowed.contains(&other.as_str()) {
                wrong.push(format!("{path}: {room} must not use {other}"));
            }
            used.insert((room.clone(), other.clone()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The test would be blind if it found nothing.
    for (room, other) in [
        ("main", "server"),
        ("worker", "session"),
        ("session", "request"),
        ("pending", "cache"),
        ("feed", "cache"),
    ] {
        assert!(used.contains(&(room.into(), other.into())), "{room} uses {other}, and it was not seen");
    }
}

#[test]
fn no_files_take_from_one_another_in_a_circle() {
    let circles = tree().circles();
    let told: String =
        circles.iter().map(|circle| format!("{} files:{}\n", circle.files.len(), circle.told)).collect();
    assert!(circles.is_empty(), "files in a circle, {told}");
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
    let tree = tree();
    for file in tree.files() {
        let others: BTreeSet<&str> =
            file.taken.iter().filter(|taken| !taken.is_ours).map(|taken| taken.names[0].as_str()).collect();
        for (name, rooms) in KEPT.iter().filter(|(name, _)| others.contains(name)) {
            used.insert(*name);
            if !rooms.contains(&file.room.as_str()) {
                wrong.push(format!("{}: {name} is for {}", file.path, rooms.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in ["hashbrown", "clap", "hyper", "prometheus_client", "tracing_subscriber"] {
        assert!(used.contains(name), "{name} is used, and it was not seen");
    }
}
