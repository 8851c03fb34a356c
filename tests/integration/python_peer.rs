//! Python processes that use redis-pubsub-dict 0.0.2 from PyPI are peers, in both directions.

use crate::support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nearside::config::Tracking;
use support::python::python;
use support::{Nearside, Redis, eventually, request};

/// A Python process with a `PubSubCacheManager` over `users`.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(port: u16) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/peer.py");
        let mut command = Command::new(python());
        command.arg(script).args([&port.to_string(), "users"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Self { child, input, output };
        assert_eq!(peer.answer(), "ready");
        peer
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// A short string as msgpack has it.
fn packed(value: &str) -> Vec<u8> {
    [&[0xa0 | value.len() as u8], value.as_bytes()].concat()
}

/// The reply to `GET` for such a value.
fn bulk(value: &str) -> Vec<u8> {
    [format!("${}\r\n", value.len() + 1).as_bytes(), &packed(value), b"\r\n"].concat()
}

/// Only the channels tell, not the upstream's tracking.
fn untold(redis: &Redis) -> Nearside {
    Nearside::with(redis.address(), |config| config.tracking = Tracking::Off)
}

#[test]
fn what_python_sets_and_deletes_is_seen_here() {
    let redis = Redis::start();
    let nearside = untold(&redis);
    let mut peer = Peer::start(redis.port);
    let mut client = nearside.connect();
    let mut get = || client.args(&[b"GET", b"users/1"]);
    assert_eq!(get(), b"$-1\r\n");
    for value in ["one", "two", "three"] {
        assert!(nearside.is_cached("users/1"));
        assert_eq!(peer.ask(&format!("set 1 {value}")), "ok");
        eventually("what Python has set", || get() == bulk(value));
        let hits = nearside.stat("hits");
        assert_eq!((get(), nearside.stat("hits") - hits), (bulk(value), 1));
    }
    assert_eq!(peer.ask("del 1"), "ok");
    eventually("that Python has deleted it", || get() == b"$-1\r\n");
    assert!(nearside.is_cached("users/1"), "that it is not there is cached as well");
}

#[test]
fn what_is_set_and_deleted_here_is_seen_by_python() {
    let redis = Redis::start();
    let nearside = untold(&redis);
    let mut peer = Peer::start(redis.port);
    let mut client = nearside.connect();
    let mut set = |value: &str| assert_eq!(client.args(&[b"SET", b"users/1", &packed(value)]), b"+OK\r\n");
    set("zero");
    assert_eq!(peer.ask("get 1"), "value zero");
    for value in ["one", "two", "three"] {
        set(value);
        let expected = format!("value {value}");
        eventually("it is in Python's cache", || peer.ask("cached 1") == expected);
    }
    assert_eq!(client.text("DEL users/1"), ":1\r\n");
    eventually("it has left Python's cache", || peer.ask("cached 1") == "no");
    assert_eq!(peer.ask("get 1"), "none");
}

#[test]
fn python_behind_a_sidecar() {
    let redis = Redis::start();
    let (here, there) = (untold(&redis), untold(&redis));
    // One that reaches the upstream through a sidecar, and one straight.
    let mut behind = Peer::start(here.address.port());
    let mut straight = Peer::start(redis.port);
    let mut client = there.connect();
    for (i, value) in ["one", "two", "three", "four"].into_iter().enumerate() {
        let expected = format!("value {value}");
        straight.ask("get 1");
        behind.ask("get 1");
        client.cmd("GET users/1");
        match i % 3 {
            0 => assert_eq!(behind.ask(&format!("set 1 {value}")), "ok"),
            1 => assert_eq!(straight.ask(&format!("set 1 {value}")), "ok"),
            _ => {
                client.send(&request(&[b"SET", b"users/1", &packed(value)]));
                assert_eq!(client.reply(), b"+OK\r\n");
            }
        }
        eventually("straight", || straight.ask("get 1") == expected);
        eventually("behind a sidecar", || behind.ask("get 1") == expected);
        eventually("the other sidecar", || client.args(&[b"GET", b"users/1"]) == bulk(value));
    }
}

/// What is announced is true, so the peer's listener never looks for a key that is not there: it would end.
#[test]
fn pythons_listener_outlives_whatever_is_written_here() {
    let redis = Redis::start();
    let nearside = untold(&redis);
    let mut peer = Peer::start(redis.port);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    let set = |key: &str, value: &str| {
        let mut direct = redis.connect();
        assert_eq!(direct.args(&[b"SET", key.as_bytes(), &packed(value)]), b"+OK\r\n");
    };
    // What is there without a word, and what is then said through nearside.
    let cases: &[(&str, &str)] = &[
        ("PING", "SET users/k v XX"),
        ("PING", "SET users/k v GET XX"),
        ("HSET users/k f v", "HDEL users/k f"),
        ("RPUSH users/k v", "LPOP users/k"),
        ("RPUSH users/k v", "BLPOP users/k 1"),
        ("RPUSH users/k v", "LMOVE users/k users/other LEFT LEFT"),
        ("RPUSH users/k v", "LTRIM users/k 5 9"),
        ("SADD users/k v", "SREM users/k v"),
        ("SADD users/k v", "SPOP users/k"),
        ("SADD users/k v", "SMOVE users/k users/other v"),
        ("ZADD users/k 1 v", "ZREM users/k v"),
        ("ZADD users/k 1 v", "ZPOPMIN users/k"),
        ("SADD users/k v", "SUNIONSTORE users/k absent"),
        ("string", "EXPIRE users/k -1"),
        ("string", "PEXPIREAT users/k 1"),
        ("string", "GETEX users/k PXAT 1"),
        ("string", "SET users/k v PXAT 1"),
        ("string", "GETDEL users/k"),
        ("string", "RENAME users/k elsewhere"),
        ("string", "MOVE users/k 5"),
        ("string", "EVAL redis.call('DEL',KEYS[1]) 1 users/k"),
        ("string", "EVAL redis.call('DEL',KEYS[1]);redis.call('LPOP','users/k',1,1) 1 users/k"),
        ("string", "BITOP NOT users/k absent"),
    ];
    for (i, (before, write)) in cases.iter().enumerate() {
        for transaction in [false, true] {
            direct.cmd("DEL users/k users/other elsewhere");
            direct.cmd("PUBLISH users/delete k");
            eventually("the peer has forgotten it", || peer.ask("cached k") == "no");
            if *before == "string" {
                set("users/k", "old");
                assert_eq!(peer.ask("get k"), "value old");
            } else {
                assert_eq!(peer.ask("get k"), "none");
                direct.cmd(before);
            }
            match transaction {
                false => drop(client.text(write)),
                true => drop(client.pipeline(&["MULTI", write, "EXEC"])),
            }
            assert_eq!(direct.value("users/k"), None, "{write}");
            // It listens still, and knows.
            let value = format!("{i}-{}", u8::from(transaction));
            peer.ask("get probe");
            client.args(&[b"SET", b"users/probe", &packed(&value)]);
            let expected = format!("value {value}");
            eventually(&format!("it listens after {write}"), || peer.ask("cached probe") == expected);
            assert_eq!(peer.ask("get k"), "none", "{write}");
            direct.cmd("FLUSHALL");
            direct.cmd("PUBLISH users/delete probe");
        }
    }
}
