//! Replication and the Lua debugger through nearside: bytes both ways, as they come.

use crate::support;

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Conn, Nearside, Redis, SOON, eventually, line};

fn start() -> (Redis, Nearside) {
    let redis = Redis::with(&["--repl-diskless-sync-delay", "0"]);
    let nearside = Nearside::start(redis.address());
    (redis, nearside)
}

/// Reads until `text` has come; gives all that came.
#[track_caller]
fn read_until(conn: &mut Conn, text: &str) -> Vec<u8> {
    let deadline = Instant::now() + SOON;
    let mut said = Vec::new();
    let mut chunk = [0; 65536];
    while !said.windows(text.len()).any(|window| window == text.as_bytes()) {
        assert!(Instant::now() < deadline, "{text:?} does not come: {}", said.escape_ascii());
        let n = match conn.stream.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                // Without this the upstream may send nothing, and it counts only once the snapshot is through.
                conn.send(&line("REPLCONF ACK 1"));
                continue;
            }
            read => read.expect("more"),
        };
        assert!(n > 0, "closed before {text:?}: {}", said.escape_ascii());
        said.extend_from_slice(&chunk[..n]);
    }
    said
}

fn read_to_end(conn: &mut Conn) -> String {
    let mut said = Vec::new();
    conn.stream.read_to_end(&mut said).expect("the end");
    String::from_utf8_lossy(&said).into_owned()
}

fn replicas(direct: &mut Conn) -> bool {
    !direct.text("INFO replication").contains("connected_slaves:0")
}

#[test]
fn the_replication_stream_comes_as_it_is() {
    let (redis, nearside) = start();
    let (mut direct, mut other) = (redis.connect(), nearside.connect());
    direct.cmd("SET users/a before");
    for lines in [
        &["SYNC"][..],
        &["PSYNC ? -1"],
        &["PING", "REPLCONF listening-port 1", "REPLCONF capa eof capa psync2", "PSYNC ? -1"],
    ] {
        let mut client = nearside.connect();
        for text in &lines[..lines.len() - 1] {
            assert!(!client.text(text).starts_with('-'), "{text}");
        }
        // Behind a read, in one packet.
        client.send(&[line("GET users/a"), line(lines[lines.len() - 1])].concat());
        client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let said = read_until(&mut client, "REDIS0");
        assert!(said.starts_with(b"$6\r\nbefore\r\n"), "{}", said.escape_ascii());
        // What the replica says is heard, and it gets what is written then.
        client.send(&line("REPLCONF ACK 1"));
        eventually("it is heard", || direct.text("INFO replication").contains("offset=1,"));
        assert_eq!(other.text("SET users/a during"), "+OK\r\n");
        read_until(&mut client, "during");
        assert_eq!(other.value("users/a").as_deref(), Some("during"));
        drop(client);
        eventually("it ends with its client", || !replicas(&mut direct));
        other.cmd("SET users/a before");
    }
    assert!(nearside.get("/metrics").1.contains("nearside_tunnels_total 3"));
    // With the upstream's side, too.
    let mut client = nearside.connect();
    client.send(&line("SYNC"));
    read_until(&mut client, "REDIS0");
    direct.cmd("CLIENT KILL TYPE replica");
    assert!(client.is_closed());
}

#[test]
fn a_large_snapshot_comes_whole() {
    let (redis, nearside) = start();
    let mut direct = redis.connect();
    direct.cmd("CONFIG SET rdbcompression no");
    direct.args(&[b"SET", b"big", &vec![b'x'; 40 << 20]]);
    let mut client = nearside.connect();
    client.send(&line("SYNC"));
    // Not read for a while.
    std::thread::sleep(Duration::from_millis(200));
    let mut head = Vec::new();
    while head.last() != Some(&b'\n') || head == b"\n" {
        if head == b"\n" {
            head.clear();
        }
        let mut byte = [0];
        client.stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let len: usize = std::str::from_utf8(&head[1..head.len() - 2]).unwrap().parse().unwrap();
    let mut snapshot = vec![0; len];
    client.stream.read_exact(&mut snapshot).unwrap();
    assert!(len > 40 << 20 && snapshot.starts_with(b"REDIS0"));
    assert_eq!(snapshot.iter().filter(|byte| **byte == b'x').count() >> 20, 40);
}

#[test]
fn a_refusal_leaves_the_session_as_it_was() {
    let (redis, nearside) = start();
    redis.connect().cmd("ACL SETUSER default -sync -psync");
    let mut client = nearside.connect();
    for refused in ["SYNC", "PSYNC ? -1"] {
        client.send(&[line("SELECT 2"), line(refused), line("SET users/a 1"), line("GET users/a")].concat());
        assert_eq!(client.reply(), b"+OK\r\n");
        assert!(client.reply().starts_with(b"-NOPERM"), "{refused}");
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(client.reply(), b"$1\r\n1\r\n");
        let before = nearside.stat("hits");
        eventually("a hit", || client.value("users/a").is_some() && nearside.stat("hits") > before);
    }
    assert!(client.text("SYNC x").starts_with("-ERR wrong number"));
    for text in ["MULTI", "SYNC", "EXEC"] {
        let said = client.text(text);
        assert_eq!(said.starts_with('-'), text != "MULTI", "{said}");
    }
    assert_eq!(client.text("PING"), "+PONG\r\n");
}

#[test]
fn a_replica_follows_through_it() {
    let (redis, nearside) = start();
    redis.connect().cmd("SET k 1");
    let port = nearside.address.port().to_string();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
    let mut there = replica.connect();
    eventually("it has what was before", || there.value("k").as_deref() == Some("1"));
    assert_eq!(nearside.connect().text("SET k 2"), "+OK\r\n");
    eventually("it follows", || there.value("k").as_deref() == Some("2"));
    assert!(there.text("INFO replication").contains("master_link_status:up"));
}

/// `redis-cli --rdb`, `--functions-rdb` and `--replica`, where it is there.
#[test]
fn the_command_line_client_takes_snapshots() {
    let (redis, nearside) = start();
    redis.connect().cmd("SET k 1");
    let folder = tempfile::tempdir().unwrap();
    let port = nearside.address.port().to_string();
    for option in ["--rdb", "--functions-rdb"] {
        let file = folder.path().join(option);
        let done = Command::new("redis-cli").args(["-p", &port, option]).arg(&file).output();
        let Ok(done) = done else { panic!("redis-cli is installed") };
        assert!(done.status.success(), "{option}: {done:?}");
        assert!(std::fs::read(&file).unwrap().starts_with(b"REDIS0"), "{option}");
    }
}

#[test]
fn the_debugger_speaks_to_its_end() {
    let (redis, nearside) = start();
    for mode in ["YES", "SYNC"] {
        let session = |conn: &mut Conn| {
            assert_eq!(conn.text(&format!("SCRIPT DEBUG {mode}")), "+OK\r\n");
            conn.send(&support::request(&[
                b"EVAL",
                b"local a = 1\nredis.call('set', 'users/a', 'new')\nreturn a",
                b"0",
            ]));
            let mut said = conn.reply();
            for step in ["s", "p a", "c"] {
                conn.send(&line(step));
                if step != "c" {
                    said.extend(conn.reply());
                }
            }
            String::from_utf8_lossy(&said).into_owned() + &read_to_end(conn)
        };
        redis.connect().cmd("SET users/a old");
        let straight = session(&mut redis.connect());
        redis.connect().cmd("SET users/a old");
        let mut other = nearside.connect();
        eventually("it is cached", || {
            other.value("users/a").as_deref() == Some("old") && nearside.is_cached("users/a")
        });
        assert_eq!(session(&mut nearside.connect()), straight, "{mode}");
        assert!(straight.contains("<endsession>"), "{straight}");
        let now = if mode == "SYNC" { "new" } else { "old" };
        assert_eq!(other.value("users/a").as_deref(), Some(now), "{mode}");
    }
    // Switched off again, a script is a script.
    let mut client = nearside.connect();
    for (text, expected) in
        [("SCRIPT DEBUG YES", "+OK\r\n"), ("SCRIPT DEBUG NO", "+OK\r\n"), ("EVAL return(7) 0", ":7\r\n")]
    {
        let said = client.text(text);
        assert!(said.starts_with(expected), "{text}: {said}");
    }
}

#[test]
fn a_tunnel_does_not_delay_a_stop() {
    let (redis, mut nearside) = start();
    let mut client = nearside.connect();
    client.send(&line("SYNC"));
    read_until(&mut client, "REDIS0");
    let began = Instant::now();
    nearside.begin_stop(nearside::server::Stop::Drain);
    nearside.wait_stopped().unwrap();
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(client.is_closed());
    eventually("nobody is left upstream", || !replicas(&mut redis.connect()));
}
