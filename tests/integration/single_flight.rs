//! However many read a cold key at once, the upstream is asked once.

use crate::support;

use std::time::Duration;

use support::relay::Relay;
use support::{Conn, Nearside, Redis, eventually, line};

/// A redis-server behind a relay that holds everything back when it is told to, without the feed being given
/// up meanwhile.
fn behind_a_relay(workers: usize) -> (Redis, Relay, Nearside) {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::with(relay.address, |config| {
        (config.workers, config.max_staleness) = (workers, Duration::from_secs(30));
        config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = config.max_staleness);
    });
    (redis, relay, nearside)
}

/// Sends `line` on so many new connections, and waits until each is in the flight of the first.
fn join(nearside: &Nearside, count: i64, line: &str) -> Vec<Conn> {
    let before = nearside.stat("shared_flights");
    let mut clients: Vec<_> = (0..count).map(|_| nearside.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&support::line(line)));
    eventually("all wait", || nearside.stat("shared_flights") - before == count);
    clients
}

/// One connection that has asked, and whose request is on its way upstream.
fn leader(nearside: &Nearside, line: &str) -> Conn {
    let before = nearside.stat("misses");
    let mut client = nearside.connect();
    client.send(&support::line(line));
    eventually("it is fetched", || nearside.stat("misses") > before);
    client
}

#[test]
fn a_thousand_connections_ask_once() {
    for workers in [1, 2, 4] {
        let (redis, relay, nearside) = behind_a_relay(workers);
        redis.connect().cmd("SET users/1 v");
        relay.hold(true);
        let mut first = leader(&nearside, "GET users/1");
        let others = join(&nearside, 999, "GET users/1");
        relay.hold(false);
        assert_eq!(first.reply(), b"$1\r\nv\r\n");
        for mut client in others {
            assert_eq!(client.reply(), b"$1\r\nv\r\n");
            assert_eq!(client.text("PING"), "+PONG\r\n", "one reply, not two");
        }
        assert_eq!(redis.calls("get"), 1);
        assert_eq!(first.value("users/1").as_deref(), Some("v"));
        assert_eq!(redis.calls("get"), 1, "and from then on it is cached");
    }
}

#[test]
fn replies_stay_in_order_around_the_flight() {
    let (redis, relay, nearside) = behind_a_relay(1);
    redis.connect().cmd("MSET users/1 v users/2 w");
    relay.hold(true);
    let mut first = leader(&nearside, "GET users/1");
    let mut client = nearside.connect();
    let lines =
        ["ECHO a", "GET users/1", "GET users/2", "GET users/1", "ECHO b", "SET users/1 x", "GET users/1"];
    client.send(&lines.map(line).concat());
    eventually("it waits", || nearside.stat("shared_flights") > 0);
    relay.hold(false);
    assert_eq!(first.reply(), b"$1\r\nv\r\n");
    for expected in
        ["$1\r\na\r\n", "$1\r\nv\r\n", "$1\r\nw\r\n", "$1\r\nv\r\n", "$1\r\nb\r\n", "+OK\r\n", "$1\r\nx\r\n"]
    {
        assert_eq!(String::from_utf8(client.reply()).unwrap(), expected);
    }
}

#[test]
fn the_first_may_go_away() {
    let (redis, relay, nearside) = behind_a_relay(1);
    redis.connect().cmd("SET users/1 v");
    relay.hold(true);
    let first = leader(&nearside, "GET users/1");
    let others = join(&nearside, 30, "GET users/1");
    first.abort();
    // The one that asks is a client, too.
    eventually("it is gone", || nearside.stat("clients") == 31);
    relay.hold(false);
    for mut client in others {
        assert_eq!(client.reply(), b"$1\r\nv\r\n");
    }
    assert!(redis.calls("get") <= 2, "{}", redis.calls("get"));
}

#[test]
fn the_first_may_close_its_side() {
    let (redis, relay, nearside) = behind_a_relay(1);
    redis.connect().cmd("SET users/1 v");
    relay.hold(true);
    let mut first = leader(&nearside, "GET users/1");
    let others = join(&nearside, 30, "GET users/1");
    first.stream.shutdown(std::net::Shutdown::Write).unwrap();
    relay.hold(false);
    for mut client in others {
        assert_eq!(client.reply(), b"$1\r\nv\r\n");
    }
    assert_eq!(first.reply(), b"$1\r\nv\r\n");
    assert!(first.is_closed());
    assert_eq!(redis.calls("get"), 1);
}

#[test]
fn those_who_wait_may_go_away() {
    let (redis, relay, nearside) = behind_a_relay(2);
    redis.connect().cmd("SET users/1 v");
    relay.hold(true);
    let mut first = leader(&nearside, "GET users/1");
    let mut others = join(&nearside, 30, "GET users/1");
    others.split_off(10).into_iter().for_each(Conn::abort);
    eventually("they are gone", || nearside.stat("clients") == 12);
    relay.hold(false);
    assert_eq!(first.reply(), b"$1\r\nv\r\n");
    others.iter_mut().for_each(|client| assert_eq!(client.reply(), b"$1\r\nv\r\n"));
    assert_eq!(redis.calls("get"), 1);
}

#[test]
fn an_error_reaches_everyone() {
    let (redis, relay, nearside) = behind_a_relay(1);
    redis.connect().cmd("RPUSH users/1 x");
    relay.hold(true);
    let mut first = leader(&nearside, "GET users/1");
    let others = join(&nearside, 30, "GET users/1");
    relay.hold(false);
    assert!(first.reply().starts_with(b"-WRONGTYPE"));
    for mut client in others {
        assert!(client.reply().starts_with(b"-WRONGTYPE"));
    }
}

#[test]
fn a_lost_link_leaves_nobody_waiting() {
    let (redis, relay, nearside) = behind_a_relay(1);
    redis.connect().cmd("SET users/1 v");
    relay.hold(true);
    let mut first = leader(&nearside, "GET users/1");
    let others = join(&nearside, 30, "GET users/1");
    relay.cut();
    relay.hold(false);
    // An error, or the value from another link; but an answer.
    for mut client in others {
        let reply = client.reply();
        assert!(reply == b"$1\r\nv\r\n" || reply.starts_with(b"-"), "{}", reply.escape_ascii());
    }
    assert!(first.reply().starts_with(b"-"), "it may have been executed: it is not sent twice");
    eventually("it is served again", || first.text("GET users/1") == "$1\r\nv\r\n");
}

#[test]
fn a_write_in_the_middle() {
    for workers in [1, 2] {
        let (redis, relay, nearside) = behind_a_relay(workers);
        redis.connect().cmd("SET users/1 old");
        relay.hold(true);
        let mut first = leader(&nearside, "GET users/1");
        let mut others = join(&nearside, 50, "GET users/1");
        let mut writer = nearside.connect();
        let before = nearside.stat("upstream_requests");
        writer.send(&line("SET users/1 new"));
        eventually("the write is on its way", || nearside.stat("upstream_requests") > before);
        relay.hold(false);
        assert_eq!(writer.reply(), b"+OK\r\n");
        // Asked after the write's reply, behind what was asked before it.
        first.send(&line("GET users/1"));
        others.iter_mut().for_each(|client| client.send(&line("GET users/1")));
        assert_eq!(writer.value("users/1").as_deref(), Some("new"));
        others.push(first);
        for client in &mut others {
            let early = client.reply();
            assert!([&b"$3\r\nold\r\n"[..], b"$3\r\nnew\r\n"].contains(&&*early), "{early:?}");
            assert_eq!(client.reply(), b"$3\r\nnew\r\n");
        }
    }
}

#[test]
fn a_foreign_write_in_the_middle() {
    let (redis, relay, nearside) = behind_a_relay(2);
    let mut direct = redis.connect();
    for i in 0..20 {
        let key = format!("users/{i}");
        direct.cmd(&format!("SET {key} old"));
        relay.hold(true);
        let first = leader(&nearside, &format!("GET {key}"));
        let mut others = join(&nearside, 5, &format!("GET {key}"));
        if i % 2 == 0 {
            relay.hold(false);
        }
        direct.cmd(&format!("SET {key} new"));
        relay.hold(false);
        others.push(first);
        for client in &mut others {
            let reply = client.reply();
            assert!([&b"$3\r\nold\r\n"[..], b"$3\r\nnew\r\n"].contains(&&*reply), "{reply:?}");
        }
        let mut fresh = nearside.connect();
        eventually("the new value", || fresh.value(&key).as_deref() == Some("new"));
    }
}
