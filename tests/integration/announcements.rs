//! What is published for a write: the channels and payloads of redis-pubsub-dict, heard straight at the server.

use crate::support;

use support::{Listener, Nearside, Redis, eventually, line, namespace, request};

/// Fails unless each line makes exactly these announcements, in this order.
#[track_caller]
fn check(nearside: &Nearside, listener: &mut Listener, cases: &[(&str, &[&str])]) {
    let mut client = nearside.connect();
    for (line, expected) in cases {
        let reply = client.text(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
        assert_eq!(listener.heard(&mut client), *expected, "{line}");
    }
}

#[test]
fn every_write_is_announced_by_its_bare_key() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut listener = redis.listen();
    redis.connect().pipeline(&["RPUSH users/list a b c", "ZADD users/z 1 a 2 b", "SADD users/set a"]);
    let cases: &[(&str, &[&str])] = &[
        ("SET users/1 v", &["users/update 1"]),
        ("SET users/a/b/c v", &["users/update a/b/c"]),
        ("SET users/ v", &["users/update "]),
        ("SET items/1 v EX 100", &["items/update 1"]),
        ("MSET users/a 1 outside 2 items/b 3", &["users/update a", "items/update b"]),
        ("INCR users/a", &["users/update a"]),
        ("APPEND users/a x", &["users/update a"]),
        ("GETSET users/a y", &["users/update a"]),
        ("EXPIRE users/a 1000", &["users/update a"]),
        ("PERSIST users/a", &["users/update a"]),
        ("GETEX users/a EX 10", &["users/update a"]),
        ("COPY users/a users/c", &["users/update c"]),
        ("RENAME users/a users/b", &["users/delete a", "users/update b"]),
        ("RENAME users/b items/moved", &["users/delete b", "items/update moved"]),
        ("GETDEL users/c", &["users/delete c"]),
        ("SET users/x 1", &["users/update x"]),
        ("DEL users/x outside users/y items/z", &["users/delete x", "users/delete y", "items/delete z"]),
        ("UNLINK users/1", &["users/delete 1"]),
        ("LPOP users/list", &["users/update list"]),
        ("RPOPLPUSH users/list users/list2", &["users/update list", "users/update list2"]),
        ("BLPOP users/list 1", &["users/delete list"]),
        ("LMPOP 2 users/nolist users/list2 LEFT", &["users/delete list2"]),
        ("HSET users/h f v", &["users/update h"]),
        ("ZPOPMIN users/z", &["users/update z"]),
        ("SMOVE users/set items/set a", &["users/delete set", "items/update set"]),
        ("SORT users/z ALPHA STORE users/sorted", &["users/update sorted"]),
        ("XADD users/x 1-1 f v", &["users/update x"]),
        ("PFADD users/p a", &["users/update p"]),
        ("SETBIT users/bits 3 1", &["users/update bits"]),
        ("EVAL redis.call('SET',KEYS[1],'v') 2 users/e items/f x", &["users/update e", "items/delete f"]),
    ];
    check(&nearside, &mut listener, cases);
    let expected: usize = cases.iter().map(|(_, announced)| announced.len()).sum();
    assert_eq!(nearside.stat("announcements"), expected as i64);
    assert_eq!(nearside.stat("announcements_failed"), 0);
}

#[test]
fn reads_and_other_keys_are_not_announced() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut listener = redis.listen();
    let cases: &[(&str, &[&str])] = &[
        ("SET outside v", &[]),
        ("SET users v", &[]),
        ("SET user/1 v", &[]),
        ("SET xusers/1 v", &[]),
        ("SET USERS/1 v", &[]),
        ("DEL outside", &[]),
        ("GET users/1", &[]),
        ("MGET users/1 users/2", &[]),
        ("EXISTS users/1 users/2", &[]),
        ("LRANGE users/1 0 -1", &[]),
        ("TTL users/1", &[]),
        ("PING", &[]),
        ("EVAL_RO return(1) 1 users/1", &[]),
        ("EVAL return(1) 0", &[]),
    ];
    check(&nearside, &mut listener, cases);
    assert_eq!(nearside.stat("announcements"), 0);
}

#[test]
fn keys_are_any_bytes() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut listener = redis.listen();
    let mut client = nearside.connect();
    let all: Vec<u8> = (0..=255).collect();
    for bare in [&all[..], b"\r\n", b"", b"\0", "schlüssel".as_bytes(), &[b'x'; 100_000]] {
        let key = [b"users/", bare].concat();
        assert_eq!(client.args(&[b"SET", &key, b"v"]), b"+OK\r\n");
        assert_eq!(listener.next(), (b"users/update".to_vec(), bare.to_vec()));
        assert_eq!(client.args(&[b"DEL", &key]), b":1\r\n");
        assert_eq!(listener.next(), (b"users/delete".to_vec(), bare.to_vec()));
    }
}

#[test]
fn a_transaction_is_announced_when_it_is_executed() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut listener = redis.listen();
    let (mut client, mut other) = (nearside.connect(), nearside.connect());
    client.pipeline(&["MULTI", "SET users/1 v", "GET users/2", "DEL items/3 outside", "RPUSH users/4 x"]);
    assert_eq!(listener.heard(&mut other), [""; 0], "nothing has happened yet");
    assert_eq!(client.text("EXEC"), "*4\r\n+OK\r\n$-1\r\n:0\r\n:1\r\n");
    assert_eq!(listener.heard(&mut client), ["users/update 1", "users/update 4"]);
    assert_eq!(
        client.pipeline(&["MULTI", "SET users/1 w", "DISCARD"]),
        ["+OK\r\n", "+QUEUED\r\n", "+OK\r\n"]
    );
    assert_eq!(listener.heard(&mut client), [""; 0]);
    let replies = client.pipeline(&["WATCH users/1", "MULTI", "INCR users/5", "EXEC", "GET users/5"]);
    assert_eq!(replies[3..], ["*1\r\n:1\r\n", "$1\r\n1\r\n"]);
    assert_eq!(listener.heard(&mut client), ["users/update 5"]);
}

#[test]
fn what_waited_is_announced_when_it_is_done() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut listener = redis.listen();
    let (mut client, mut other) = (nearside.connect(), nearside.connect());
    client.send(&line("BLPOP users/queue 0"));
    eventually("the client waits", || redis.connect().text("INFO clients").contains("blocked_clients:1"));
    assert_eq!(listener.heard(&mut other), [""; 0]);
    assert_eq!(other.text("RPUSH users/queue x"), ":1\r\n");
    assert_eq!(client.reply(), b"*2\r\n$11\r\nusers/queue\r\n$1\r\nx\r\n");
    let twice = [listener.next(), listener.next()];
    // What was pushed was gone at once.
    assert_eq!(twice, [(); 2].map(|()| (b"users/delete".to_vec(), b"queue".to_vec())));
}

#[test]
fn the_client_sees_nothing_of_it() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    for mut client in [nearside.connect(), nearside.connect_resp3()] {
        let mut packet = Vec::new();
        for i in 0..100 {
            packet.extend(line(&format!("SET users/{i} v")));
            packet.extend(line(&format!("MSET users/a {i} users/b {i}")));
            packet.extend(line("MULTI"));
            packet.extend(line("DEL users/a"));
            packet.extend(line("EXEC"));
            packet.extend(line(&format!("ECHO {i}")));
        }
        client.send(&packet);
        for i in 0..100 {
            let echo = format!("${}\r\n{i}\r\n", i.to_string().len());
            for expected in ["+OK\r\n", "+OK\r\n", "+OK\r\n", "+QUEUED\r\n", "*1\r\n:1\r\n", &echo] {
                assert_eq!(String::from_utf8(client.reply()).unwrap(), expected);
            }
        }
        assert_eq!(client.text("PING"), "+PONG\r\n");
    }
    assert_eq!(nearside.stat("announcements"), 2 * 100 * 4);
}

#[test]
fn a_client_without_replies_is_announced_for_as_well() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut listener = redis.listen();
    let mut client = nearside.connect();
    let lines = ["CLIENT REPLY OFF", "SET users/1 v", "SET users/2 v", "DEL users/2", "CLIENT REPLY ON"];
    client.send(&lines.map(line).concat());
    assert_eq!(client.reply(), b"+OK\r\n");
    assert_eq!(listener.heard(&mut client), ["users/update 1", "users/update 2", "users/delete 2"]);
    client.send(&["CLIENT REPLY SKIP", "SET users/3 v", "GET users/3"].map(line).concat());
    assert_eq!(client.reply(), b"$1\r\nv\r\n");
    assert_eq!(listener.next(), (b"users/update".to_vec(), b"3".to_vec()));
}

#[test]
fn prefix_and_channel_can_be_chosen() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| {
        let mut people = namespace(config, "people");
        (people.prefix, people.channel) = ("p:".into(), "chan".into());
        config.namespaces = vec![people];
        config.tracking = nearside::config::Tracking::Off;
    });
    let mut listener = redis.listen();
    let cases: &[(&str, &[&str])] = &[
        ("SET p:7 v", &["chan/update 7"]),
        ("DEL p:7", &["chan/delete 7"]),
        ("SET p: v", &["chan/update "]),
        ("SET people/7 v", &[]),
        ("SET chan/7 v", &[]),
    ];
    check(&nearside, &mut listener, cases);
    // And what others say there is obeyed.
    let (mut direct, mut client) = (redis.connect(), nearside.connect());
    for (i, event) in ["update", "delete"].iter().enumerate() {
        eventually("it is cached", || {
            client.value("p:7");
            nearside.is_cached("p:7")
        });
        direct.pipeline(&[format!("SET p:7 {i}"), format!("PUBLISH chan/{event} 7")]);
        eventually("the announcement", || client.value("p:7") == Some(i.to_string()));
    }
}

#[test]
fn a_user_who_may_not_publish_still_keeps_everyone_coherent() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut listener = redis.listen();
    redis.connect().cmd("ACL SETUSER writer on >pw ~* +@all -publish resetchannels");
    let mut client = nearside.connect();
    assert_eq!(client.text("AUTH writer pw"), "+OK\r\n");
    assert!(client.text("PUBLISH users/update 1").starts_with("-NOPERM"));
    assert_eq!(
        client.pipeline(&["SET users/1 v", "SET users/2 v", "DEL users/2", "GET users/1"]),
        ["+OK\r\n", "+OK\r\n", ":1\r\n", "$1\r\nv\r\n"]
    );
    assert_eq!(listener.next(), (b"users/update".to_vec(), b"1".to_vec()));
    assert_eq!(listener.next(), (b"users/update".to_vec(), b"2".to_vec()));
    assert_eq!(listener.next(), (b"users/delete".to_vec(), b"2".to_vec()));
    assert_eq!(client.pipeline(&["MULTI", "SET users/3 v", "EXEC"])[2], "*1\r\n+OK\r\n");
    assert_eq!(listener.next(), (b"users/update".to_vec(), b"3".to_vec()));
    assert_eq!(nearside.stat("announcements_failed"), 0);
}

#[test]
fn a_refused_announcement_is_counted_and_the_write_stands() {
    let redis = Redis::start();
    redis.connect().cmd("ACL SETUSER sidecar on >pw ~* &* +@all -publish");
    let upstream = format!("redis://sidecar:pw@{}", redis.address());
    let nearside = Nearside::with(redis.address(), |config| {
        config.upstream = nearside::config::Upstream::parse(&upstream).unwrap();
    });
    let mut client = nearside.connect();
    assert_eq!(
        client.pipeline(&["SET users/1 v", "PING", "GET users/1"]),
        ["+OK\r\n", "+PONG\r\n", "$1\r\nv\r\n"]
    );
    assert_eq!(client.text("MSET users/1 w users/2 w"), "+OK\r\n");
    assert_eq!(redis.connect().value("users/2").as_deref(), Some("w"));
    eventually("it is counted", || nearside.stat("announcements_failed") == 3);
    assert_eq!(client.args(&[b"GET", b"users/1"]), b"$1\r\nw\r\n");
    let (_, metrics) = nearside.get("/metrics");
    assert!(metrics.contains("\nnearside_failed_announcements_total 3\n"), "{metrics}");
}

#[test]
fn a_write_that_is_too_large_to_be_copied_is_announced_behind_it() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut listener = redis.listen();
    let mut client = nearside.connect();
    for len in [10_000, 70_000, 3_000_000] {
        client.send(&request(&[b"SET", b"users/big", &vec![b'x'; len]]));
        client.send(&line("STRLEN users/big"));
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(client.reply(), format!(":{len}\r\n").into_bytes());
        assert_eq!(listener.heard(&mut client), ["users/update big"]);
    }
}
