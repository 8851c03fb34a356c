//! An `MGET` of any size: the upstream's bytes, in bounded memory, at the pace of its client.

use crate::support;

use std::io::{Read, Write};

use nearside::config::Upstream;
use support::{Conn, Nearside, Redis, eventually, line, request};

/// This process' memory, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_large_value_that_is_asked_for_many_times_flows_in_bounded_memory() {
    const TIMES: usize = 600;
    let redis = Redis::start();
    redis.connect().args(&[b"SET", b"users/big", &vec![b'x'; 1 << 20]]);
    let nearside = Nearside::with(redis.address(), |config| {
        config.client_output_limit = 8 << 20;
        config.max_value = 2 << 20;
        config.max_memory = 256 << 20;
    });
    let (mut client, mut other) = (nearside.connect(), nearside.connect());
    eventually("it is cached", || {
        other.cmd("GET users/big");
        nearside.is_cached("users/big")
    });
    let (before, fetched) = (resident(), redis.calls("mget"));
    client.send(&[line(&format!("MGET{}", " users/big".repeat(TIMES))), line("PING")].concat());
    let header = format!("*{TIMES}\r\n");
    let mut left = header.len() + TIMES * ((1 << 20) + 12);
    let (mut chunk, mut most) = (vec![0; 1 << 20], 0);
    while left > 0 {
        let n = chunk.len().min(left);
        let n = client.stream.read(&mut chunk[..n]).expect("more of the reply");
        assert!(n > 0, "closed with {left} bytes to come");
        left -= n;
        most = most.max(resident().saturating_sub(before));
    }
    assert_eq!(client.reply(), b"+PONG\r\n");
    assert_eq!(redis.calls("mget"), fetched, "all of it is from the cache");
    println!("{} MB in {} kB", TIMES, most >> 10);
    assert!(most < 64 << 20, "{most} bytes of memory");
    // Whoever does not take it holds no more than the limit.
    let before = resident();
    client.send(&line(&format!("MGET{}", " users/big".repeat(TIMES))));
    for _ in 0..20 {
        assert_eq!(other.text("PING"), "+PONG\r\n");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(resident().saturating_sub(before) < 64 << 20, "{} bytes", resident() - before);
}

#[test]
fn many_keys_cached_or_not_are_answered_as_by_the_upstream() {
    const MANY: usize = 5000;
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut direct = redis.connect();
    for i in (0..MANY).filter(|i| i % 3 != 0) {
        direct.send(&line(&format!("SET users/{i} {}", "v".repeat(i % 200))));
        direct.reply();
    }
    direct.args(&[b"SET", b"users/4000", &vec![b'y'; 300_000]]);
    direct.cmd("HSET users/3 f v");
    let keys: Vec<String> = (0..MANY).map(|i| format!("users/{i}")).collect();
    let words: Vec<&[u8]> =
        std::iter::once(&b"MGET"[..]).chain(keys.iter().map(|key| key.as_bytes())).collect();
    for resp3 in [false, true] {
        let mut client = if resp3 { nearside.connect_resp3() } else { nearside.connect() };
        if resp3 {
            direct.cmd("HELLO 3");
        }
        let expected = direct.args(&words);
        // Some are there.
        for i in (0..MANY).step_by(7) {
            client.cmd(&format!("GET users/{i}"));
        }
        for round in 0..3 {
            client.send(&[line("ECHO first"), request(&words), line("ECHO last")].concat());
            assert_eq!(client.reply(), b"$5\r\nfirst\r\n");
            assert!(client.reply() == expected, "round {round}, RESP3 {resp3}");
            assert_eq!(client.reply(), b"$4\r\nlast\r\n");
        }
        let fetched = redis.calls("mget");
        assert!(client.args(&words) == expected);
        // The hash is no string, and so is never kept: its window is asked for that.
        assert!(redis.calls("mget") - fetched <= 1, "hits");
    }
}

#[test]
fn what_the_upstream_refuses_is_its_error_if_nothing_was_delivered_and_else_the_end() {
    let redis = Redis::start();
    redis.connect().cmd("ACL SETUSER limited on >sesame ~users/* &* +@all");
    let nearside = Nearside::with(redis.address(), |config| {
        config.upstream = Upstream::parse(&format!("redis://limited:sesame@{}", redis.address())).unwrap();
    });
    let ask = |conn: &mut Conn, keys: usize| {
        let keys = (0..keys).map(|i| format!(" users/{i}")).collect::<String>();
        let _ = conn.stream.write_all(&line(&format!("MGET{keys} forbidden")));
    };
    let mut client = nearside.connect();
    ask(&mut client, 10);
    assert!(client.reply().starts_with(b"-NOPERM"));
    ask(&mut client, 3000);
    assert!(client.try_reply().is_err() && client.is_closed(), "a reply that cannot be completed");
    assert_eq!(nearside.connect().text("PING"), "+PONG\r\n");
}
