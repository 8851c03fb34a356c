//! A client that closes its sending side (`printf … | nc`) gets every reply to what it has sent, unless what it asked
//! for may wait for ever.

use crate::support;

use std::io::Read;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use support::{Conn, Nearside, Redis, eventually};

fn start() -> (Redis, Nearside) {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    (redis, nearside)
}

/// Everything that comes to these lines, until the connection is closed.
fn piped(nearside: &Nearside, lines: &[&str]) -> String {
    let mut client = nearside.connect();
    client.send(lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().as_bytes());
    client.stream.shutdown(Shutdown::Write).unwrap();
    let mut said = Vec::new();
    client.stream.read_to_end(&mut said).unwrap_or_else(|error| panic!("{lines:?}: {error}"));
    String::from_utf8_lossy(&said).into_owned()
}

fn blocked(direct: &mut Conn) -> bool {
    !direct.text("INFO clients").contains("blocked_clients:0")
}

#[test]
fn every_reply_comes() {
    let (redis, nearside) = start();
    redis.connect().cmd("ACL SETUSER bob on >p ~* &* +@all");
    for (lines, expected) in [
        (&["WAIT 0 10", "PING"][..], ":0\r\n+PONG\r\n"),
        (&["WAIT 1 30", "PING"], ":0\r\n+PONG\r\n"),
        (&["NOSUCH x", "PING"], "-ERR unknown command 'NOSUCH', with args beginning with: 'x' \r\n+PONG\r\n"),
        (&["DEBUG SLEEP 0.1", "PING"], "+OK\r\n+PONG\r\n"),
        (&["CLIENT NO-EVICT ON", "PING"], "+OK\r\n+PONG\r\n"),
        (&["CLIENT NO-EVICT ON", "CLIENT REPLY SKIP", "PING", "ECHO x"], "+OK\r\n$1\r\nx\r\n"),
        (&["CLIENT REPLY SKIP", "PING", "ECHO x"], "$1\r\nx\r\n"),
        (&["CLIENT REPLY OFF", "SET users/a 1", "RESET", "ECHO x"], "+RESET\r\n$1\r\nx\r\n"),
        (
            &["MULTI", "ECHO a", "ECHO b", "EXEC", "PING"],
            "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n+PONG\r\n",
        ),
        (&["MULTI", "PING"], "+OK\r\n+QUEUED\r\n"),
        (&["WATCH users/a", "GET users/b", "PING"], "+OK\r\n$-1\r\n+PONG\r\n"),
        (&["WATCH users/a", "AUTH bob p", "ACL WHOAMI"], "+OK\r\n+OK\r\n$3\r\nbob\r\n"),
        (
            &["SUBSCRIBE c", "PING"],
            "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n",
        ),
        (&["BLPOP l 0.05", "PING"], "*-1\r\n+PONG\r\n"),
        (&["XREAD BLOCK 50 STREAMS s $", "PING"], "*-1\r\n+PONG\r\n"),
        (&["MONITOR"], "+OK\r\n"),
        (&["ECHO x", "BLPOP l 0"], "$1\r\nx\r\n"),
        (&["CLIENT GETREDIR", "PING"], ":-1\r\n+PONG\r\n"),
        (&["AUTH bob p", "SELECT 3", "ECHO x"], "+OK\r\n+OK\r\n$1\r\nx\r\n"),
    ] {
        for _ in 0..5 {
            assert_eq!(piped(&nearside, lines), expected, "{lines:?}");
        }
    }
    eventually("nobody is left", || nearside.stat("clients") == 1);
}

/// A worker that dies while it waits takes no job: the wait is over at once, whatever its timeout is.
#[test]
fn who_has_gone_takes_nothing() {
    let (redis, nearside) = start();
    let mut direct = redis.connect();
    for wait in [
        "BLPOP jobs 100",
        "BRPOPLPUSH jobs taken 100",
        "BLMPOP 100 1 jobs LEFT",
        "BLPOP jobs 0",
        "BLPOP jobs 100\r\nBLPOP jobs 100",
    ] {
        let begun = Instant::now();
        let said = piped(&nearside, &[wait]);
        assert!(begun.elapsed() < Duration::from_secs(5), "{wait}");
        assert!(
            said.is_empty() || said.replace("*-1\r\n", "").replace("$-1\r\n", "").is_empty(),
            "{wait}: {said}"
        );
        eventually("nobody waits", || !blocked(&mut direct));
        assert_eq!(direct.text("RPUSH jobs job"), ":1\r\n", "{wait}");
        assert_eq!(direct.text("LPOP jobs"), "$3\r\njob\r\n", "{wait}: nobody has taken it");
    }
}
