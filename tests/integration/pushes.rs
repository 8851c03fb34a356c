//! What is a message and what is a reply: on RESP3 only `>` is a push, on RESP2 the connection's state tells.

use crate::support;

use support::{Conn, Nearside, Redis, eventually, line};

fn start() -> (Redis, Nearside) {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    (redis, nearside)
}

/// Words with which messages and confirmations begin.
const WORDS: [&str; 10] = [
    "message",
    "pmessage",
    "smessage",
    "subscribe",
    "unsubscribe",
    "psubscribe",
    "punsubscribe",
    "ssubscribe",
    "sunsubscribe",
    "invalidate",
];

#[track_caller]
fn same(client: &mut Conn, straight: &mut Conn, command: &str) {
    assert_eq!(client.text(command), straight.text(command), "{command}");
}

/// Lists that look like messages.
fn fill(redis: &Redis) {
    let mut direct = redis.connect();
    for word in WORDS {
        direct.cmd(&format!("RPUSH list:{word} {word} c 1"));
        direct.cmd(&format!("HSET hash:{word} {word} 1"));
    }
}

#[test]
fn a_subscriber_in_resp3_reads_what_looks_like_a_message() {
    let (redis, nearside) = start();
    fill(&redis);
    let (mut client, mut straight) = (nearside.connect_resp3(), redis.connect());
    straight.cmd("HELLO 3");
    let subscribe = ["SUBSCRIBE c", "PSUBSCRIBE p*", "SSUBSCRIBE s", "CLIENT TRACKING ON"];
    for command in subscribe {
        same(&mut client, &mut straight, command);
        for word in WORDS {
            same(&mut client, &mut straight, &format!("LRANGE list:{word} 0 -1"));
            same(&mut client, &mut straight, &format!("HGETALL hash:{word}"));
            for text in ["MULTI".to_string(), format!("LRANGE list:{word} 0 -1"), "EXEC".into()] {
                same(&mut client, &mut straight, &text);
            }
        }
    }
}

#[test]
fn who_has_unsubscribed_in_resp2_reads_what_looks_like_a_message() {
    let (redis, nearside) = start();
    fill(&redis);
    for leave in
        [&["UNSUBSCRIBE c"][..], &["UNSUBSCRIBE", "UNSUBSCRIBE"], &["UNSUBSCRIBE x", "UNSUBSCRIBE c"]]
    {
        let (mut client, mut straight) = (nearside.connect(), redis.connect());
        // What keeps it on the connection of its own.
        same(&mut client, &mut straight, "WATCH x");
        same(&mut client, &mut straight, "SUBSCRIBE c");
        same(&mut client, &mut straight, "PING message");
        leave.iter().for_each(|command| same(&mut client, &mut straight, command));
        for word in WORDS {
            same(&mut client, &mut straight, &format!("LRANGE list:{word} 0 -1"));
        }
        // Nothing is open any more: it is on the shared link again.
        same(&mut client, &mut straight, "UNWATCH");
        let before = nearside.stat("hits");
        eventually("a hit", || {
            same(&mut client, &mut straight, "GET users/probe");
            same(&mut client, &mut straight, "GET users/probe");
            nearside.stat("hits") > before
        });
    }
}

/// Several confirmations to one request, in one packet with what comes behind them.
#[test]
fn each_confirmation_belongs_to_its_request() {
    let (redis, nearside) = start();
    fill(&redis);
    for hello in ["HELLO 2", "HELLO 3"] {
        let (mut client, mut straight) = (nearside.connect(), redis.connect());
        client.cmd(hello);
        straight.cmd(hello);
        let lines = [
            "SUBSCRIBE a b c",
            "PSUBSCRIBE p q",
            "UNSUBSCRIBE",
            "SUBSCRIBE d",
            "UNSUBSCRIBE",
            "PUNSUBSCRIBE",
            "UNSUBSCRIBE",
            "LRANGE list:unsubscribe 0 -1",
            "WATCH x",
            "LRANGE list:message 0 -1",
            "ECHO end",
        ];
        let packet: Vec<u8> = lines.iter().flat_map(|text| line(text)).collect();
        let all = |conn: &mut Conn| {
            conn.send(&packet);
            let mut said = String::new();
            while !said.ends_with("$3\r\nend\r\n") {
                said += &String::from_utf8(conn.reply()).unwrap();
            }
            said
        };
        assert_eq!(all(&mut client), all(&mut straight), "{hello}");
    }
}

#[test]
fn a_protocol_change_of_a_subscriber_is_followed() {
    let (redis, nearside) = start();
    fill(&redis);
    let (mut client, mut straight, mut other) = (nearside.connect_resp3(), redis.connect(), redis.connect());
    straight.cmd("HELLO 3");
    let mut messages = |client: &mut Conn, straight: &mut Conn| {
        assert_eq!(other.text("PUBLISH c hello"), ":2\r\n");
        assert_eq!(client.reply(), straight.reply());
    };
    same(&mut client, &mut straight, "SUBSCRIBE c");
    messages(&mut client, &mut straight);
    client.cmd("HELLO 2");
    straight.cmd("HELLO 2");
    messages(&mut client, &mut straight);
    same(&mut client, &mut straight, "PING x");
    same(&mut client, &mut straight, "LRANGE list:message 0 -1");
    same(&mut client, &mut straight, "UNSUBSCRIBE c");
    same(&mut client, &mut straight, "LRANGE list:message 0 -1");
}

/// In RESP2, what a transaction subscribes to is known from its EXEC.
#[test]
fn a_subscription_in_a_transaction_is_followed() {
    let (redis, nearside) = start();
    fill(&redis);
    for hello in ["HELLO 2", "HELLO 3"] {
        let (mut client, mut straight, mut other) = (nearside.connect(), redis.connect(), redis.connect());
        client.cmd(hello);
        straight.cmd(hello);
        for command in
            ["MULTI", "LRANGE list:message 0 -1", "SUBSCRIBE c", "LRANGE list:subscribe 0 -1", "EXEC"]
        {
            same(&mut client, &mut straight, command);
        }
        assert_eq!(other.text("PUBLISH c hello"), ":2\r\n");
        assert_eq!(client.reply(), straight.reply());
        for command in ["UNSUBSCRIBE c", "WATCH x", "LRANGE list:message 0 -1"] {
            same(&mut client, &mut straight, command);
        }
    }
}

/// Confirmations and messages come though the client wants no replies.
#[test]
fn a_subscriber_that_wants_no_replies_hears_messages() {
    let (redis, nearside) = start();
    for hello in ["HELLO 2", "HELLO 3"] {
        for quiet in ["CLIENT REPLY OFF", "CLIENT REPLY SKIP"] {
            let (mut client, mut straight, mut other) =
                (nearside.connect(), redis.connect(), redis.connect());
            client.cmd(hello);
            straight.cmd(hello);
            for conn in [&mut client, &mut straight] {
                conn.send(&[line(quiet), line("PSUBSCRIBE *")].concat());
            }
            assert_eq!(client.reply(), straight.reply(), "{hello} {quiet}");
            for i in 0..3 {
                assert_eq!(other.text(&format!("PUBLISH c {i}")), ":2\r\n");
                assert_eq!(client.reply(), straight.reply(), "{hello} {quiet}");
            }
            // Not confirmed as a reply, and yet the end is heard of.
            for conn in [&mut client, &mut straight] {
                conn.send(&line("PUNSUBSCRIBE *"));
            }
            assert_eq!(client.reply(), straight.reply(), "{hello} {quiet}");
            for conn in [&mut client, &mut straight] {
                conn.send(&[line("CLIENT REPLY ON"), line("PING")].concat());
            }
            assert_eq!(client.reply(), straight.reply(), "{hello} {quiet}");
            assert_eq!(client.reply(), straight.reply(), "{hello} {quiet}");
            drop((client, straight));
            eventually("nobody listens", || other.text("PUBLISH c x") == ":0\r\n");
        }
    }
}

/// And leaves nobody listening when it goes.
#[test]
fn a_silent_subscriber_that_leaves_is_gone() {
    let (redis, nearside) = start();
    let mut other = redis.connect();
    for hello in ["HELLO 2", "HELLO 3"] {
        let mut client = nearside.connect();
        client.cmd(hello);
        client.send(&[line("CLIENT REPLY OFF"), line("PSUBSCRIBE *")].concat());
        assert!(client.reply().ends_with(b"psubscribe\r\n$1\r\n*\r\n:1\r\n"));
        assert_eq!(other.text("PUBLISH c x"), ":1\r\n");
        drop(client);
        eventually("nobody listens", || other.text("PUBLISH c x") == ":0\r\n");
        eventually("it is not counted any more", || nearside.stat("clients") == 1);
    }
}
