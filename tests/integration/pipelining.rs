//! P1: replies come in the order of the requests, whatever way each of them took.

use crate::support;

use std::io::Write;

use support::{Conn, Nearside, Redis, line};

/// Sends all at once, from another thread, and gives the replies in order.
fn pipeline(conn: &mut Conn, requests: &[Vec<u8>]) -> Vec<String> {
    let mut writer = conn.stream.try_clone().unwrap();
    let bytes = requests.concat();
    let sender = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    let replies = requests.iter().map(|_| String::from_utf8(conn.reply()).unwrap()).collect();
    sender.join().unwrap();
    replies
}

#[test]
fn a_write_and_its_read_in_one_packet() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    for i in 0..200 {
        let set = line(&format!("SET users/k {i}"));
        let replies =
            pipeline(&mut client, &[line("GET users/k"), set, line("GET users/k"), line("GET users/k")]);
        let before = if i == 0 { "$-1\r\n".to_string() } else { bulk(&(i - 1).to_string()) };
        assert_eq!(replies, [before, "+OK\r\n".into(), bulk(&i.to_string()), bulk(&i.to_string())]);
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

#[test]
fn hits_and_misses_and_writes_and_transactions_keep_their_order() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut direct = redis.connect();
    for i in 0..50 {
        direct.cmd(&format!("SET users/{i} old{i}"));
    }
    let mut client = nearside.connect();
    for i in 0..25 {
        client.value(&format!("users/{i}"));
    }
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    for round in 0..20 {
        for i in 0..50 {
            requests.push(line(&format!("GET users/{i}")));
            expected.push(bulk(&if round == 0 { format!("old{i}") } else { format!("new{}", round - 1) }));
            requests.push(line(&format!("ECHO {round}.{i}")));
            expected.push(bulk(&format!("{round}.{i}")));
        }
        requests.extend(["MULTI", "GET users/0", "INCR n", "EXEC"].map(line));
        let value = if round == 0 { "old0".into() } else { format!("new{}", round - 1) };
        expected.extend(["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n"].map(String::from));
        expected.push(format!("*2\r\n{}:{}\r\n", bulk(&value), round + 1));
        requests.extend(["LPUSH l x", "BLPOP l 0", "NOSUCH a", "CLIENT GETNAME", "SELECT 0"].map(line));
        expected.push(":1\r\n".into());
        expected.push("*2\r\n$1\r\nl\r\n$1\r\nx\r\n".into());
        expected.push("-ERR unknown command 'NOSUCH', with args beginning with: 'a' \r\n".into());
        expected.extend(["$-1\r\n", "+OK\r\n"].map(String::from));
        for i in 0..50 {
            requests.push(line(&format!("SET users/{i} new{round}")));
            expected.push("+OK\r\n".into());
        }
        requests.push(line("MGET users/0 users/49 users/none"));
        let new = bulk(&format!("new{round}"));
        expected.push(format!("*3\r\n{new}{new}$-1\r\n"));
    }
    let replies = pipeline(&mut client, &requests);
    assert_eq!(replies, expected);
    assert!(nearside.stat("hits") >= 25, "some of them were hits");
}

#[test]
fn ten_thousand_deep() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    let requests: Vec<_> = (0..10_000)
        .map(|i| match i % 4 {
            0 => line(&format!("SET users/{} v{i}", i / 4 % 100)),
            1 => line(&format!("GET users/{}", i / 4 % 100)),
            2 => line(&format!("INCR items/n{}", i % 7)),
            _ => line(&format!("ECHO e{i}")),
        })
        .collect();
    let mut counters = [0; 7];
    let replies = pipeline(&mut client, &requests);
    for (i, reply) in replies.iter().enumerate() {
        let expected = match i % 4 {
            0 => "+OK\r\n".to_string(),
            1 => bulk(&format!("v{}", i - 1)),
            2 => {
                counters[i % 7] += 1;
                format!(":{}\r\n", counters[i % 7])
            }
            _ => bulk(&format!("e{i}")),
        };
        assert_eq!(*reply, expected, "reply {i}");
    }
}

/// Sessions of several databases and protocols, each on a link of its own, deep at the same time.
#[test]
fn several_links_at_once() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| config.workers = 2);
    let address = nearside.address;
    let threads: Vec<_> = (0..8)
        .map(|n| {
            std::thread::spawn(move || {
                let mut client = Conn::to(address);
                if n % 2 == 1 {
                    assert!(client.cmd("HELLO 3").starts_with(b"%"));
                }
                assert_eq!(client.cmd(&format!("SELECT {}", n / 2)), b"+OK\r\n");
                for round in 0..20 {
                    let requests: Vec<_> = (0..100)
                        .flat_map(|i| {
                            [
                                line(&format!("SET users/{n}.{i} {round}.{i}")),
                                line(&format!("GET users/{n}.{i}")),
                            ]
                        })
                        .collect();
                    for (i, pair) in pipeline(&mut client, &requests).chunks(2).enumerate() {
                        assert_eq!(pair, ["+OK\r\n".to_string(), bulk(&format!("{round}.{i}"))]);
                    }
                    assert_eq!(client.text(&format!("GET users/{n}.99")), bulk(&format!("{round}.99")));
                }
                // Nobody else's database is seen.
                let other = (n + 2) % 8;
                let absent = if n % 2 == 1 { "_\r\n" } else { "$-1\r\n" };
                assert_eq!(client.text(&format!("GET users/{other}.1")), absent);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Bytes may come one at a time.
#[test]
fn a_pipeline_in_single_bytes() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    let bytes =
        [line("SET users/a 1"), line("GET users/a"), b"GET users/a\r\n".to_vec(), line("MULTI")].concat();
    for byte in bytes.iter().chain(&line("EXEC")) {
        client.send(&[*byte]);
    }
    for expected in ["+OK\r\n", "$1\r\n1\r\n", "$1\r\n1\r\n", "+OK\r\n", "*0\r\n"] {
        assert_eq!(String::from_utf8(client.reply()).unwrap(), expected);
    }
}

/// A session that waits for a blocked one's flight or link is not held up by it.
#[test]
fn a_blocked_session_holds_up_no_other() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut blocked, mut other) = (nearside.connect(), nearside.connect());
    blocked.send(&[line("BLPOP never 0"), line("GET users/a")].concat());
    for i in 0..100 {
        assert_eq!(other.cmd(&format!("SET users/a {i}")), b"+OK\r\n");
        assert_eq!(other.value("users/a").as_deref(), Some(i.to_string().as_str()));
    }
    other.cmd("RPUSH never now");
    assert_eq!(blocked.reply(), b"*2\r\n$5\r\nnever\r\n$3\r\nnow\r\n");
    assert_eq!(blocked.reply(), b"$2\r\n99\r\n");
}

/// In one packet and of the same length, as to all but the last word.
#[test]
fn a_subcommand_is_not_taken_for_the_one_before_it() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    for (first, second) in [
        ("CLIENT GETNAME", "CLIENT UNPAUSE"),
        ("CLIENT NOSUCHW", "CLIENT GETNAME"),
        ("ACL LIST", "ACL LOAD"),
        ("ACL USERS", "ACL NOSUC"),
        ("SCRIPT EXISTS", "SCRIPT NOSUCH"),
        ("GET users/1", "DEL users/1"),
        ("GET users/1", "TTL users/1"),
        ("get users/1", "GET users/1"),
        ("EXISTS users/1", "SELECT nonumb1"),
    ] {
        direct.cmd("SET users/1 v");
        let replies = client.pipeline(&[first, second]);
        direct.cmd("SET users/1 v");
        assert_eq!(replies, [direct.text(first), direct.text(second)], "{first}, {second}");
    }
    assert_eq!(redis.calls("client|unpause"), 2);
}
