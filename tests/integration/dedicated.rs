//! A session whose state lives on the server: transactions, blocking, pub/sub, and what CLIENT sets.

use crate::support;

use std::time::{Duration, Instant};

use support::{Conn, Nearside, Redis, eventually, line};

fn start() -> (Redis, Nearside) {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    (redis, nearside)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// The next `n` frames, as one text.
fn frames(conn: &mut Conn, n: usize) -> String {
    (0..n).map(|_| text(conn.reply())).collect()
}

/// Sends `lines` in one packet and gives as many replies, as one text.
fn packet(conn: &mut Conn, lines: &[&str]) -> String {
    conn.send(&lines.iter().map(|text| line(text)).collect::<Vec<_>>().concat());
    frames(conn, lines.len())
}

/// Connections upstream that wait in a blocking command.
fn blocked(direct: &mut Conn) -> usize {
    text(direct.cmd("INFO clients"))
        .lines()
        .find_map(|line| line.strip_prefix("blocked_clients:")?.trim().parse().ok())
        .unwrap()
}

/// The session is on the shared link again: its reads are served from memory.
#[track_caller]
fn reads_are_cached(nearside: &Nearside, conn: &mut Conn) {
    let before = nearside.stat("hits");
    eventually("a hit", || {
        conn.cmd("GET users/probe");
        conn.cmd("GET users/probe");
        nearside.stat("hits") > before
    });
}

mod transactions {
    use super::*;

    #[test]
    fn in_one_packet_and_across_packets() {
        let (_redis, nearside) = start();
        let mut client = nearside.connect();
        let expected = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\n1\r\n";
        let lines = ["MULTI", "SET users/a 1", "GET users/a", "EXEC"];
        assert_eq!(packet(&mut client, &lines), expected);
        let apart: String = lines.iter().map(|line| client.text(line)).collect();
        assert_eq!(apart, expected);
        reads_are_cached(&nearside, &mut client);
    }

    #[test]
    fn what_it_writes_is_seen_and_announced() {
        let (redis, nearside) = start();
        let (mut client, mut other, mut python) = (nearside.connect(), nearside.connect(), redis.connect());
        python.cmd("SUBSCRIBE users/update");
        other.value("users/a");
        assert!(nearside.is_cached("users/a"));
        packet(&mut client, &["MULTI", "SET users/a 2"]);
        assert_eq!(other.value("users/a"), None, "not carried out yet");
        assert_eq!(client.cmd("EXEC"), b"*1\r\n+OK\r\n");
        assert_eq!(other.value("users/a").as_deref(), Some("2"));
        assert_eq!(text(python.reply()), "*3\r\n$7\r\nmessage\r\n$12\r\nusers/update\r\n$1\r\na\r\n");
    }

    #[test]
    fn an_error_at_queue_time_aborts_it() {
        let (_redis, nearside) = start();
        let mut client = nearside.connect();
        for wrong in ["GET", "NOSUCH a", "SET users/a"] {
            let replies = packet(&mut client, &["MULTI", "SET users/a 1", wrong, "EXEC", "GET users/a"]);
            assert!(replies.starts_with("+OK\r\n+QUEUED\r\n-ERR "), "{replies}");
            assert!(replies.contains("-EXECABORT Transaction discarded because of previous errors.\r\n$-1"));
        }
        let replies =
            packet(&mut client, &["SET users/a x", "MULTI", "INCR users/a", "SET users/a 2", "EXEC"]);
        assert!(
            replies.ends_with("*2\r\n-ERR value is not an integer or out of range\r\n+OK\r\n"),
            "{replies}"
        );
        reads_are_cached(&nearside, &mut client);
    }

    #[test]
    fn watched_keys_written_by_others_abort_it() {
        let (redis, nearside) = start();
        let (mut client, mut other, mut direct) = (nearside.connect(), nearside.connect(), redis.connect());
        for foreign in [false, true] {
            assert_eq!(packet(&mut client, &["WATCH users/a", "GET users/a"]).lines().next(), Some("+OK"));
            if foreign { &mut direct } else { &mut other }.cmd("INCR users/a");
            assert_eq!(
                packet(&mut client, &["MULTI", "SET users/a lost", "EXEC"]),
                "+OK\r\n+QUEUED\r\n*-1\r\n"
            );
            // Not a second time.
            assert_eq!(packet(&mut client, &["MULTI", "EXEC"]), "+OK\r\n*0\r\n");
        }
        assert_eq!(client.value("users/a").as_deref(), Some("2"));
        // UNWATCH and DISCARD forget it.
        for forget in [&["UNWATCH"][..], &["MULTI", "DISCARD"]] {
            client.cmd("WATCH users/a");
            other.cmd("INCR users/a");
            packet(&mut client, forget);
            assert_eq!(packet(&mut client, &["MULTI", "PING", "EXEC"]), "+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n");
        }
        // What ends no transaction ends no watch either.
        client.cmd("WATCH users/a");
        assert!(client.text("EXEC").starts_with("-ERR EXEC without MULTI"));
        packet(&mut client, &["SUBSCRIBE c", "UNWATCH", "UNSUBSCRIBE c"]);
        assert!(client.text("DISCARD").starts_with("-ERR DISCARD without MULTI"));
        other.cmd("INCR users/a");
        assert_eq!(packet(&mut client, &["MULTI", "PING", "EXEC"]), "+OK\r\n+QUEUED\r\n*-1\r\n");
        // A key watched by one session is not watched by the next that is given the connection.
        client.cmd("WATCH users/a");
        drop(client);
        other.cmd("INCR users/a");
        let mut next = nearside.connect();
        assert_eq!(packet(&mut next, &["MULTI", "EXEC"]), "+OK\r\n*0\r\n");
    }

    #[test]
    fn without_multi_the_upstream_says_so() {
        let (_redis, nearside) = start();
        let mut client = nearside.connect();
        assert_eq!(client.text("EXEC"), "-ERR EXEC without MULTI\r\n");
        assert_eq!(client.text("DISCARD"), "-ERR DISCARD without MULTI\r\n");
        assert_eq!(packet(&mut client, &["MULTI", "MULTI"]), "+OK\r\n-ERR MULTI calls can not be nested\r\n");
        assert_eq!(client.text("WATCH a"), "-ERR WATCH inside MULTI is not allowed\r\n");
        assert_eq!(client.text("DISCARD"), "+OK\r\n");
    }

    #[test]
    fn an_open_one_dies_with_its_session() {
        let (_redis, nearside) = start();
        for _ in 0..20 {
            let mut client = nearside.connect();
            packet(&mut client, &["MULTI", "SET users/a 1"]);
            drop(client);
            let mut next = nearside.connect();
            assert_eq!(
                packet(&mut next, &["MULTI", "GET users/a", "EXEC"]),
                "+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n"
            );
        }
    }

    /// In RESP2 a subscriber may not begin one; what comes behind the refused MULTI is no transaction.
    #[test]
    fn a_refused_multi_is_none() {
        let (_redis, nearside) = start();
        let (mut client, mut other) = (nearside.connect(), nearside.connect());
        let lines = ["SUBSCRIBE c", "MULTI", "UNSUBSCRIBE c", "SET users/a 1", "GET users/a"];
        let replies = packet(&mut client, &lines);
        assert!(replies.contains("-ERR Can't execute 'multi'"), "{replies}");
        assert!(replies.ends_with(":0\r\n+OK\r\n$1\r\n1\r\n"), "{replies}");
        for i in 0..20 {
            other.value("users/a");
            assert_eq!(client.text(&format!("SET users/a {i}")), "+OK\r\n");
            assert_eq!(other.value("users/a"), Some(i.to_string()));
        }
        assert_eq!(client.text("EXEC"), "-ERR EXEC without MULTI\r\n");
    }

    /// A user that may not say MULTI, with everything in one packet: the writes are carried out, and seen.
    #[test]
    fn a_multi_that_is_not_allowed() {
        let (redis, nearside) = start();
        redis.connect().cmd("ACL SETUSER poor on >p ~* &* +@all -multi");
        let (mut poor, mut other) = (nearside.connect(), nearside.connect());
        assert_eq!(poor.text("AUTH poor p"), "+OK\r\n");
        for i in 0..20 {
            other.value("users/a");
            poor.send(&[line("MULTI"), line(&format!("SET users/a {i}")), line("ECHO x")].concat());
            assert!(text(poor.reply()).starts_with("-NOPERM"));
            assert_eq!(poor.reply(), b"+OK\r\n");
            assert_eq!(other.value("users/a"), Some(i.to_string()));
            assert_eq!(poor.reply(), b"$1\r\nx\r\n");
        }
        reads_are_cached(&nearside, &mut other);
    }
}

mod blocking {
    use super::*;

    #[test]
    fn each_times_out_as_the_server_says() {
        let (redis, nearside) = start();
        let (mut client, mut direct) = (nearside.connect(), redis.connect());
        direct.cmd("XGROUP CREATE s g $ MKSTREAM");
        for command in [
            "BLPOP users/l 0.02",
            "BRPOP users/l 0.02",
            "BRPOPLPUSH users/l users/m 0.02",
            "BLMOVE users/l users/m LEFT RIGHT 0.02",
            "BLMPOP 0.02 1 users/l LEFT",
            "BZPOPMIN users/z 0.02",
            "BZPOPMAX users/z 0.02",
            "BZMPOP 0.02 1 users/z MIN",
            "XREAD BLOCK 20 STREAMS s $",
            "XREADGROUP GROUP g me BLOCK 20 STREAMS s >",
        ] {
            let begun = Instant::now();
            let said = client.text(command);
            assert!(begun.elapsed() >= Duration::from_millis(20), "{command}");
            assert_eq!(said, direct.text(command), "{command}");
        }
        reads_are_cached(&nearside, &mut client);
    }

    #[test]
    fn another_session_unblocks_it() {
        let (redis, nearside) = start();
        let (mut waiting, mut other, mut direct) = (nearside.connect(), nearside.connect(), redis.connect());
        direct.cmd("XGROUP CREATE s g $ MKSTREAM");
        for (command, by, expected) in [
            ("BLPOP users/l 0", "RPUSH users/l x", "*2\r\n$7\r\nusers/l\r\n$1\r\nx\r\n"),
            ("BRPOPLPUSH users/l users/m 0", "RPUSH users/l x", "$1\r\nx\r\n"),
            ("BLMOVE users/l users/m LEFT LEFT 0", "RPUSH users/l x", "$1\r\nx\r\n"),
            ("BZPOPMIN users/z 0", "ZADD users/z 1 x", "*3\r\n$7\r\nusers/z\r\n$1\r\nx\r\n$1\r\n1\r\n"),
            ("XREAD BLOCK 0 STREAMS s $", "XADD s 1-1 f v", "1-1"),
            ("XREADGROUP GROUP g me BLOCK 0 STREAMS s >", "XADD s 2-1 f v", "1-1"),
        ] {
            waiting.send(&line(command));
            // The group has an entry to deliver already.
            if !command.starts_with("XREADGROUP") {
                eventually("it waits", || blocked(&mut direct) == 1);
            }
            assert!(!other.text(by).starts_with('-'), "{by}");
            let said = text(waiting.reply());
            assert!(said.contains(expected), "{command}: {said}");
        }
    }

    /// What a blocked pop takes away, or moves, is not served from memory.
    #[test]
    fn what_it_changes_is_seen() {
        let (redis, nearside) = start();
        let (mut waiting, mut other, mut direct) = (nearside.connect(), nearside.connect(), redis.connect());
        for i in 0..20 {
            waiting.send(&line("BLMOVE users/l users/m LEFT RIGHT 0"));
            eventually("it waits", || blocked(&mut direct) == 1);
            assert_eq!(other.text("LLEN users/m"), format!(":{i}\r\n"));
            assert_eq!(other.text("LLEN users/l"), ":0\r\n");
            other.cmd("RPUSH users/l x");
            assert_eq!(waiting.reply(), b"$1\r\nx\r\n");
            assert_eq!(other.text("LLEN users/m"), format!(":{}\r\n", i + 1));
            assert_eq!(other.text("LLEN users/l"), ":0\r\n");
        }
    }

    #[test]
    fn what_is_pipelined_behind_it_waits() {
        let (redis, nearside) = start();
        let (mut waiting, mut direct) = (nearside.connect(), redis.connect());
        let lines = ["SET users/a 1", "BLPOP l 0", "GET users/a", "CLIENT GETNAME", "MULTI", "PING", "EXEC"];
        waiting.send(&lines.map(line).concat());
        assert_eq!(waiting.reply(), b"+OK\r\n");
        eventually("it waits", || blocked(&mut direct) == 1);
        direct.cmd("SET users/a 2");
        direct.cmd("RPUSH l x");
        let said = frames(&mut waiting, 6);
        let expected = "*2\r\n$1\r\nl\r\n$1\r\nx\r\n$1\r\n2\r\n$-1\r\n+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n";
        assert_eq!(said, expected);
    }

    #[test]
    fn a_client_that_leaves_frees_the_connection() {
        let (redis, nearside) = start();
        let mut direct = redis.connect();
        let links = nearside.stat("upstream_links");
        for _ in 0..5 {
            let mut waiting = nearside.connect();
            waiting.send(&line("BLPOP l 0"));
            eventually("it waits", || blocked(&mut direct) == 1);
            drop(waiting);
            eventually("nobody waits", || blocked(&mut direct) == 0);
        }
        direct.cmd("RPUSH l x");
        assert_eq!(direct.cmd("LLEN l"), b":1\r\n", "nobody has taken it");
        eventually("they are not counted any more", || nearside.stat("upstream_links") == links);
    }

    #[test]
    fn client_unblock_finds_the_session() {
        let (redis, nearside) = start();
        let (mut waiting, mut other, mut direct) = (nearside.connect(), nearside.connect(), redis.connect());
        let id = waiting.text("CLIENT ID").trim_matches([':', '\r', '\n']).to_string();
        assert_eq!(other.text(&format!("CLIENT UNBLOCK {id}")), ":0\r\n", "it does not wait");
        let unblocked = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
        for (how, expected) in [("", "*-1\r\n"), (" TIMEOUT", "*-1\r\n"), (" ERROR", unblocked)] {
            waiting.send(&line("BLPOP l 0"));
            eventually("it waits", || blocked(&mut direct) == 1);
            eventually("it is found", || other.text(&format!("CLIENT UNBLOCK {id}{how}")) == ":1\r\n");
            assert_eq!(text(waiting.reply()), expected);
            assert_eq!(waiting.cmd("GET users/a"), b"$-1\r\n");
        }
        assert_eq!(other.text(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
        assert!(other.text(&format!("CLIENT UNBLOCK {id} MAYBE")).starts_with("-ERR"));
        assert!(other.text("CLIENT UNBLOCK x").starts_with("-ERR"));
        // No id of a session is one of the upstream's clients, and the upstream's are found by theirs.
        let upstream = direct.text("CLIENT ID").trim_matches([':', '\r', '\n']).to_string();
        direct.send(&line("BLPOP m 0"));
        let mut watcher = redis.connect();
        eventually("it waits", || blocked(&mut watcher) == 1);
        assert_eq!(other.text(&format!("CLIENT UNBLOCK {upstream}")), ":1\r\n");
        assert_eq!(text(direct.reply()), "*-1\r\n");
        // Those of nearside's own connections are nobody's.
        waiting.send(&line("BLPOP l 0"));
        eventually("it waits", || blocked(&mut watcher) == 1);
        let list = watcher.text("CLIENT LIST");
        let own = list.lines().find(|line| line.contains("cmd=blpop")).unwrap();
        let own = own.split(' ').find_map(|field| field.strip_prefix("id=")).unwrap();
        assert_eq!(other.text(&format!("CLIENT UNBLOCK {own}")), ":0\r\n");
        assert_eq!(blocked(&mut watcher), 1);
        eventually("it is found", || other.text(&format!("CLIENT UNBLOCK {id}")) == ":1\r\n");
    }

    #[test]
    fn wait_is_about_the_sessions_own_writes() {
        let (_redis, nearside) = start();
        let mut client = nearside.connect();
        client.cmd("SET users/a 1");
        assert_eq!(client.text("WAIT 0 10"), ":0\r\n");
        let begun = Instant::now();
        assert_eq!(client.text("WAIT 1 30"), ":0\r\n");
        assert!(begun.elapsed() >= Duration::from_millis(30));
        reads_are_cached(&nearside, &mut client);
    }
}

mod pubsub {
    use super::*;

    #[test]
    fn resp2_restricts_what_may_be_said() {
        let (redis, nearside) = start();
        let (mut client, mut straight) = (nearside.connect(), redis.connect());
        for command in [
            "SUBSCRIBE c",
            "GET users/a",
            "CLIENT ID",
            "CLIENT GETNAME",
            "PING",
            "PING hello",
            "HELLO 3",
            "SELECT 1",
            "PSUBSCRIBE p*",
            "SSUBSCRIBE s",
            "UNSUBSCRIBE c",
            "PUNSUBSCRIBE p*",
            "ECHO x",
            "SUNSUBSCRIBE s",
            "ECHO x",
            "PING",
            "CLIENT GETNAME",
            "UNSUBSCRIBE",
        ] {
            assert_eq!(client.text(command), straight.text(command), "{command}");
        }
        reads_are_cached(&nearside, &mut client);
    }

    /// What the last confirmation will allow is sent in one packet with the UNSUBSCRIBE.
    #[test]
    fn back_to_normal_in_one_packet() {
        let (redis, nearside) = start();
        let (mut client, mut direct) = (nearside.connect(), redis.connect());
        for db in 1..4 {
            client.cmd("SUBSCRIBE c");
            let lines = ["UNSUBSCRIBE c".into(), format!("SELECT {db}"), format!("CLIENT SETNAME n{db}")];
            let lines = lines.each_ref().map(String::as_str);
            assert!(packet(&mut client, &lines).ends_with(":0\r\n+OK\r\n+OK\r\n"));
            reads_are_cached(&nearside, &mut client);
            assert_eq!(client.text(&format!("SET users/a {db}")), "+OK\r\n");
            assert_eq!(client.text("CLIENT GETNAME"), format!("$2\r\nn{db}\r\n"));
            direct.cmd(&format!("SELECT {db}"));
            assert_eq!(direct.value("users/a"), Some(db.to_string()));
        }
    }

    #[test]
    fn messages_of_every_kind() {
        let (redis, nearside) = start();
        let (mut client, mut other, mut direct) = (nearside.connect(), nearside.connect(), redis.connect());
        let said = packet(&mut client, &["SUBSCRIBE c", "PSUBSCRIBE c*", "SSUBSCRIBE s"]);
        assert!(said.ends_with("*3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n"), "{said}");
        assert_eq!(other.text("PUBLISH c one"), ":2\r\n");
        assert_eq!(direct.text("SPUBLISH s two"), ":1\r\n");
        let expected = "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\none\r\n\
            *4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$3\r\none\r\n\
            *3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$3\r\ntwo\r\n";
        assert_eq!(frames(&mut client, 3), expected);
        drop(client);
        eventually("nobody listens", || other.text("PUBLISH c gone") == ":0\r\n");
    }

    /// Several channels: a confirmation each; UNSUBSCRIBE without arguments: one for each that is left.
    #[test]
    fn confirmations() {
        let (_redis, nearside) = start();
        let mut client = nearside.connect();
        client.send(
            &[line("SUBSCRIBE a b c a"), line("UNSUBSCRIBE"), line("UNSUBSCRIBE x y"), line("PING")].concat(),
        );
        let said = frames(&mut client, 4 + 3 + 2 + 1);
        assert!(
            said.contains("$9\r\nsubscribe\r\n$1\r\nc\r\n:3\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:3\r\n")
        );
        assert!(said.ends_with("unsubscribe\r\n$1\r\ny\r\n:0\r\n+PONG\r\n"), "{said}");
        reads_are_cached(&nearside, &mut client);
    }

    #[test]
    fn resp3_pushes_between_replies() {
        let (_redis, nearside) = start();
        let (mut client, mut other) = (nearside.connect_resp3(), nearside.connect());
        assert_eq!(client.text("SUBSCRIBE c"), ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
        client.cmd("SET users/big 0123456789");
        client.cmd("SETRANGE users/big 300000 x");
        const COUNT: usize = 300;
        let publisher = std::thread::spawn(move || {
            for i in 0..COUNT {
                assert_eq!(other.text(&format!("PUBLISH c {i}")), ":1\r\n");
            }
        });
        let (mut pushes, mut replies) = (0, 0);
        while pushes < COUNT || replies < 100 {
            if replies < 100 {
                client.send(&[line("GET users/big"), line("ECHO done")].concat());
                let mut want = ["$300001\r\n", "$4\r\ndone\r\n"].into_iter();
                let mut next = want.next();
                while let Some(expected) = next {
                    let frame = text(client.reply());
                    if frame.starts_with('>') {
                        assert!(frame.ends_with(&format!("\r\n{pushes}\r\n")), "{frame}");
                        pushes += 1;
                    } else {
                        assert!(frame.starts_with(expected), "{}", &frame[..frame.len().min(99)]);
                        next = want.next();
                    }
                }
                replies += 1;
            } else {
                let frame = text(client.reply());
                assert!(frame.starts_with('>') && frame.ends_with(&format!("\r\n{pushes}\r\n")), "{frame}");
                pushes += 1;
            }
        }
        publisher.join().unwrap();
        assert_eq!(client.text("UNSUBSCRIBE c"), ">3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n");
        reads_are_cached(&nearside, &mut client);
    }

    /// It is the server that subscribes then, and what follows must still be told apart.
    #[test]
    fn subscribing_in_a_transaction() {
        let (redis, nearside) = start();
        for hello in ["HELLO 2", "HELLO 3"] {
            let (mut client, mut straight) = (nearside.connect(), redis.connect());
            let mut direct = redis.connect();
            let mut both = |command: &str| {
                let said = (client.text(command), straight.text(command));
                assert!(command.starts_with("HELLO") || said.0 == said.1, "{command}: {said:?}");
            };
            [hello, "MULTI", "SUBSCRIBE c", "EXEC"].into_iter().for_each(&mut both);
            assert_eq!(direct.text("PUBLISH c m"), ":2\r\n");
            let message = straight.reply();
            assert_eq!(client.reply(), message);
            let mut both =
                |command: &str| assert_eq!(client.text(command), straight.text(command), "{command}");
            ["PING", "UNSUBSCRIBE c", "ECHO x", "GET users/a"].into_iter().for_each(&mut both);
        }
    }

    #[test]
    fn monitor_shows_what_is_said() {
        let (redis, nearside) = start();
        let (mut client, mut direct) = (nearside.connect(), redis.connect());
        assert_eq!(client.text("MONITOR"), "+OK\r\n");
        direct.cmd("SET seen 1");
        eventually("it is shown", || text(client.reply()).contains("\"SET\" \"seen\" \"1\""));
        client.send(&line("QUIT"));
        eventually("OK, and the end", || match client.try_reply() {
            Ok(frame) => frame == b"+OK\r\n",
            Err(_) => panic!("closed without a word"),
        });
        assert!(client.is_closed());
    }
}

mod connection {
    use super::*;

    #[test]
    fn tracking_of_its_own() {
        let (redis, nearside) = start();
        let (mut client, mut other, mut direct) =
            (nearside.connect_resp3(), nearside.connect(), redis.connect());
        assert_eq!(client.text("CLIENT TRACKING on"), "+OK\r\n");
        for i in 0..5 {
            client.cmd("GET users/a");
            if i % 2 == 0 { &mut other } else { &mut direct }.cmd("INCR users/a");
            assert_eq!(text(client.reply()), ">2\r\n$10\r\ninvalidate\r\n*1\r\n$7\r\nusers/a\r\n");
        }
        assert!(client.text("CLIENT TRACKINGINFO").contains("$2\r\non\r\n"));
        assert_eq!(client.text("CLIENT GETREDIR"), ":0\r\n");
        // Its own writes are reported as well, before or after the reply as the server likes.
        client.send(&[line("GET users/a"), line("SET users/a x"), line("PING")].concat());
        let said = frames(&mut client, 4);
        assert!(said.contains("invalidate") && said.contains("+OK\r\n"), "{said}");
        direct.cmd("GET users/a");
        direct.cmd("FLUSHALL");
        assert_eq!(text(client.reply()), ">2\r\n$10\r\ninvalidate\r\n_\r\n");
        assert_eq!(client.text("CLIENT TRACKING off"), "+OK\r\n");
    }

    #[test]
    fn replies_may_be_turned_off() {
        let (_redis, nearside) = start();
        let (mut client, mut other) = (nearside.connect(), nearside.connect());
        for i in 0..20 {
            other.value("users/a");
            let lines = [
                "CLIENT REPLY OFF".to_string(),
                "PING".into(),
                format!("SET users/a {i}"),
                "CLIENT ID".into(),
                "GET users/a".into(),
                "CLIENT REPLY ON".into(),
                "GET users/a".into(),
            ];
            client.send(&lines.map(|text| line(&text)).concat());
            assert_eq!(client.reply(), b"+OK\r\n");
            assert_eq!(
                other.value("users/a"),
                Some(i.to_string()),
                "ON was answered: what came before is done"
            );
            assert_eq!(text(client.reply()), format!("${}\r\n{i}\r\n", i.to_string().len()));
        }
        client.send(&["CLIENT REPLY SKIP", "SET users/a skipped", "GET users/a"].map(line).concat());
        assert_eq!(text(client.reply()), "$7\r\nskipped\r\n");
        client.send(&["CLIENT REPLY SKIP", "MULTI", "SET users/a multi", "EXEC", "PING"].map(line).concat());
        assert_eq!(frames(&mut client, 3), "+QUEUED\r\n*1\r\n+OK\r\n+PONG\r\n");
        assert_eq!(other.value("users/a").as_deref(), Some("multi"));
        client.send(&["CLIENT REPLY OFF", "MULTI x", "CLIENT REPLY ON", "PING"].map(line).concat());
        assert_eq!(frames(&mut client, 2), "+OK\r\n+PONG\r\n");
        assert_eq!(client.text("CLIENT REPLY MAYBE"), "-ERR syntax error\r\n");
        assert_eq!(client.text("RESET"), "+RESET\r\n");
        reads_are_cached(&nearside, &mut client);
    }

    /// Writes without replies are carried out even if the client leaves at once.
    #[test]
    fn what_was_written_without_replies_is_not_lost() {
        let (redis, nearside) = start();
        let mut direct = redis.connect();
        for i in 0..30 {
            let mut client = nearside.connect();
            let lines: Vec<_> = (0..100).map(|n| line(&format!("SET users/{n} {i}"))).collect();
            client.send(&[line("CLIENT REPLY OFF"), lines.concat()].concat());
            if i % 2 == 0 {
                client.send(&line("QUIT"));
                assert!(client.is_closed());
            }
            drop(client);
            eventually("all is written", || direct.value("users/99") == Some(i.to_string()));
            eventually("it is seen", || nearside.connect().value("users/99") == Some(i.to_string()));
        }
    }

    #[test]
    fn quit_and_reset() {
        let (redis, nearside) = start();
        let mut client = nearside.connect();
        client.send(&["SET users/a 1", "GET users/a", "QUIT", "SET users/a 2"].map(line).concat());
        assert_eq!(frames(&mut client, 3), "+OK\r\n$1\r\n1\r\n+OK\r\n");
        assert!(client.is_closed());
        assert_eq!(redis.connect().value("users/a").as_deref(), Some("1"), "nothing behind QUIT is done");

        for state in
            ["WATCH users/a", "MULTI", "SUBSCRIBE c", "CLIENT TRACKING on", "SELECT 3", "CLIENT NO-EVICT on"]
        {
            let mut client = nearside.connect_resp3();
            client.cmd("CLIENT SETNAME me");
            assert!(!client.text(state).starts_with('-'), "{state}");
            assert_eq!(client.text("RESET"), "+RESET\r\n", "{state}");
            // RESP2, database 0, no name.
            assert_eq!(client.text("GET nothing"), "$-1\r\n", "{state}");
            assert_eq!(client.text("CLIENT GETNAME"), "$-1\r\n", "{state}");
            assert_eq!(client.value("users/a").as_deref(), Some("1"), "{state}");
            reads_are_cached(&nearside, &mut client);
        }
        eventually("nobody listens", || redis.connect().text("PUBLISH c x") == ":0\r\n");
    }

    /// Whatever a session leaves behind, the next one is not touched by it.
    #[test]
    fn a_freed_connection_carries_nothing_over() {
        let (redis, nearside) = start();
        redis.connect().cmd("SELECT 5");
        for state in [
            "MULTI",
            "WATCH users/w",
            "SUBSCRIBE c",
            "PSUBSCRIBE c*",
            "SSUBSCRIBE c",
            "MONITOR",
            "CLIENT TRACKING on BCAST",
            "CLIENT REPLY OFF",
            "CLIENT REPLY SKIP",
            "CLIENT NO-EVICT on",
            "SELECT 5",
            "BLPOP l 0",
            "READONLY",
            "HELLO 3 SETNAME x",
            "EVAL return(redis.setresp(3)) 0",
        ] {
            for in_transaction in [false, true] {
                let mut client = nearside.connect();
                // Takes a dedicated connection first.
                packet(&mut client, &["MULTI", "PING", "EXEC"]);
                let before = if in_transaction { line("MULTI") } else { Vec::new() };
                let after = if in_transaction { line("EXEC") } else { Vec::new() };
                client.send(&[line("WATCH x"), before, line(state), after].concat());
                client.reply();
                drop(client);
                redis.connect().cmd("SET users/w changed");
                for _ in 0..3 {
                    let mut next = nearside.connect();
                    let said = packet(&mut next, &["MULTI", "CLIENT GETNAME", "GET nothing", "EXEC"]);
                    assert_eq!(said, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$-1\r\n$-1\r\n", "after {state}");
                    assert!(next.text("CLIENT INFO").contains(" db=0 sub=0 psub=0 "), "after {state}");
                    assert!(next.text("CLIENT TRACKINGINFO").contains("$3\r\noff\r\n"), "after {state}");
                }
            }
        }
    }

    /// A name is the session's: wherever the server tells of it, and never another's.
    #[test]
    fn names() {
        let (_redis, nearside) = start();
        let (mut client, mut other) = (nearside.connect(), nearside.connect());
        assert_eq!(client.text("CLIENT SETNAME me"), "+OK\r\n");
        let in_transaction = ["MULTI", "CLIENT GETNAME", "EXEC"];
        assert_eq!(packet(&mut client, &in_transaction), "+OK\r\n+QUEUED\r\n*1\r\n$2\r\nme\r\n");
        drop(client);
        for _ in 0..3 {
            assert_eq!(packet(&mut other, &in_transaction), "+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n");
        }
        packet(&mut other, &["MULTI", "CLIENT SETNAME you", "EXEC"]);
        assert_eq!(other.text("CLIENT GETNAME"), "$3\r\nyou\r\n");
        assert_eq!(packet(&mut other, &in_transaction), "+OK\r\n+QUEUED\r\n*1\r\n$3\r\nyou\r\n");
    }

    /// Unknown commands may be anything; refused, they leave what was set before them as it was.
    #[test]
    fn unknown_commands_change_nothing() {
        let (_redis, nearside) = start();
        let mut client = nearside.connect();
        let lines =
            ["WATCH x", "HELLO 3", "NOSUCH a b", "NOSUCH", "UNWATCH", "SMEMBERS nothing", "GET nothing"];
        let said = packet(&mut client, &lines);
        assert!(said.ends_with("~0\r\n_\r\n"), "{said}");
        let mut client = nearside.connect();
        assert!(client.text("NOSUCH").starts_with("-ERR unknown command"));
        reads_are_cached(&nearside, &mut client);
    }
}

/// A subscriber in RESP2 may not say CLIENT REPLY, nor may nearside say CLIENT SETNAME for it.
#[test]
fn a_name_that_could_not_be_told_is_told_later() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let (mut client, mut straight) = (nearside.connect(), redis.connect());
    for line in [
        "SUBSCRIBE c",
        "CLIENT REPLY ON",
        "UNSUBSCRIBE c",
        "CLIENT GETNAME",
        "CLIENT SETNAME me",
        "CLIENT GETNAME",
    ] {
        assert_eq!(client.text(line), straight.text(line), "{line}");
    }
}

/// What the client wants no reply to is carried out, and before what follows RESET, which goes another way.
#[test]
fn what_was_written_in_silence_comes_before_reset() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    for i in 1..=300 {
        let silent = match i % 3 {
            0 => &["CLIENT REPLY SKIP", "INCR users/n", "RESET"][..],
            1 => &["CLIENT REPLY OFF", "INCR users/n", "RESET"],
            _ => &["CLIENT REPLY OFF", "INCR users/n", "MULTI", "INCR users/n", "RESET"],
        };
        let lines = [silent, &["GET users/n"]].concat();
        client.send(&lines.iter().flat_map(|words| line(words)).collect::<Vec<_>>());
        assert_eq!(client.reply(), b"+RESET\r\n");
        let said = client.reply();
        assert_eq!(String::from_utf8_lossy(&said).lines().nth(1), Some(&*i.to_string()));
    }
}
