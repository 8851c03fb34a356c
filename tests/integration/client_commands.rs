//! `CLIENT …` speaks of sessions: who is there, who is closed, who is waked.

use crate::support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use nearside::config::Listen;
use support::{Conn, Nearside, Redis, SOON, eventually, line};

fn start(workers: usize) -> (Redis, Nearside) {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| config.workers = workers);
    (redis, nearside)
}

/// A client of nearside with a name.
fn named(nearside: &Nearside, name: &str) -> Conn {
    let mut conn = nearside.connect();
    assert_eq!(conn.text(&format!("CLIENT SETNAME {name}")), "+OK\r\n");
    conn
}

fn id(conn: &mut Conn) -> i64 {
    conn.text("CLIENT ID").trim_matches([':', '\r', '\n']).parse().unwrap()
}

/// The lines of a list, in RESP2 or RESP3.
fn lines(reply: &str) -> Vec<String> {
    let (header, body) = reply.split_once("\r\n").unwrap();
    assert!(header.starts_with(['$', '=']), "{reply}");
    let body = if header.starts_with('=') { body.strip_prefix("txt:").unwrap() } else { body };
    body.lines().filter(|line| !line.is_empty()).map(ToString::to_string).collect()
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let found = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {line}"))
}

fn names(list: &[String]) -> Vec<&str> {
    list.iter().map(|line| field(line, "name")).collect()
}

fn list(conn: &mut Conn, filter: &str) -> Vec<String> {
    lines(&conn.text(&format!("CLIENT LIST{filter}")))
}

#[track_caller]
fn line_of(list: &[String], name: &str) -> String {
    let found: Vec<_> = list.iter().filter(|line| field(line, "name") == name).collect();
    assert_eq!(found.len(), 1, "{name} in {list:#?}");
    found[0].clone()
}

/// Whether it still answers; if not, it was closed.
fn is_open(conn: &mut Conn) -> bool {
    conn.try_reply_to("PING").is_ok()
}

mod list {
    use super::*;

    #[test]
    fn it_has_the_sessions_and_the_upstreams_other_clients() {
        let (redis, nearside) = start(2);
        let mut direct = redis.connect();
        direct.cmd("CLIENT SETNAME direct");
        let mut all: Vec<_> = (0..4).map(|i| named(&nearside, &format!("session-{i}"))).collect();
        all[1].cmd("SELECT 3");
        all[2].cmd("GET users/a");
        let found = list(&mut all[0], "");
        assert_eq!(found.len(), 5, "no connection of nearside's own is told of: {found:#?}");
        let mut seen = names(&found);
        seen.sort_unstable();
        assert_eq!(seen, ["direct", "session-0", "session-1", "session-2", "session-3"]);
        for (i, conn) in all.iter_mut().enumerate() {
            let line = line_of(&found, &format!("session-{i}"));
            assert_eq!(field(&line, "id"), id(conn).to_string());
            assert_eq!(field(&line, "addr"), conn.stream.local_addr().unwrap().to_string());
            assert_eq!(field(&line, "laddr"), nearside.address.to_string());
            assert_eq!(field(&line, "db"), if i == 1 { "3" } else { "0" });
            let command = ["client|list", "select", "get", "client|setname"][i];
            assert_eq!((field(&line, "cmd"), field(&line, "flags")), (command, "N"));
            assert_eq!(
                (field(&line, "user"), field(&line, "redir"), field(&line, "sub")),
                ("default", "-1", "0")
            );
        }
        // As the upstream writes it.
        let theirs = line_of(&found, "direct");
        let words = |line: &str| -> Vec<String> {
            line.split(' ').map(|field| field.split('=').next().unwrap().to_string()).collect()
        };
        assert!(found.iter().all(|line| words(line) == words(&theirs)), "{found:#?}");
        assert_eq!(line_of(&list(&mut direct, ""), "direct").split(' ').next(), theirs.split(' ').next());
        all.pop();
        eventually("who leaves is not told of", || list(&mut all[0], "").len() == 4);
    }

    #[test]
    fn resp3_gets_a_verbatim_string() {
        let (_redis, nearside) = start(1);
        let mut client = nearside.connect_resp3();
        client.cmd("CLIENT SETNAME three");
        for said in [client.text("CLIENT LIST"), client.text("CLIENT INFO")] {
            assert!(said.starts_with('='), "{said}");
            assert_eq!(field(&line_of(&lines(&said), "three"), "resp"), "3");
        }
    }

    #[test]
    fn a_session_with_a_connection_of_its_own_has_that_ones_state() {
        let (redis, nearside) = start(2);
        let mut plain = named(&nearside, "plain");
        let (mut subscriber, mut blocked, mut multi) =
            (named(&nearside, "subscriber"), named(&nearside, "blocked"), named(&nearside, "multi"));
        subscriber.cmd("SUBSCRIBE c");
        multi.cmd("MULTI");
        multi.cmd("PING");
        blocked.send(&line("BLPOP l 0"));
        let mut direct = redis.connect();
        eventually("it waits", || direct.text("INFO clients").contains("blocked_clients:1"));
        let found = list(&mut plain, "");
        assert_eq!(found.len(), 5, "{found:#?}");
        let told = |name: &str, what: &str| field(&line_of(&found, name), what).to_string();
        assert_eq!((told("subscriber", "flags"), told("subscriber", "sub")), ("P".into(), "1".into()));
        assert_eq!((told("multi", "flags"), told("multi", "multi")), ("x".into(), "1".into()));
        assert_eq!((told("blocked", "flags"), told("blocked", "cmd")), ("b".into(), "blpop".into()));
        let of = |kind: &str, plain: &mut Conn| {
            list(plain, &format!(" TYPE {kind}"))
                .iter()
                .map(|line| field(line, "name").to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("pubsub", &mut plain), ["subscriber"]);
        assert_eq!(of("NORMAL", &mut plain), ["", "plain", "blocked", "multi"]);
        assert!(of("master", &mut plain).is_empty() && of("replica", &mut plain).is_empty());
        assert_eq!(multi.text("DISCARD"), "+OK\r\n");
        assert_eq!(list(&mut multi, "").len(), 5);
    }

    #[test]
    fn ids_are_those_of_sessions_and_of_the_upstreams_clients() {
        let (redis, nearside) = start(1);
        let (mut a, mut b, mut direct) = (named(&nearside, "a"), named(&nearside, "b"), redis.connect());
        direct.cmd("CLIENT SETNAME direct");
        let (first, second, third) = (id(&mut a), id(&mut b), id(&mut direct));
        assert_eq!(names(&list(&mut a, &format!(" ID {second} {third}"))), ["direct", "b"]);
        assert_eq!(names(&list(&mut a, &format!(" ID {first}"))), ["a"]);
        let own: Vec<_> = list(&mut direct, "").iter().map(|line| field(line, "id").to_string()).collect();
        let found = list(&mut a, &format!(" ID {}", own.join(" ")));
        assert_eq!(names(&found), ["direct"], "nearside's own connections are no clients");
    }

    #[test]
    fn what_is_wrong_is_said_as_the_upstream_says_it() {
        let (redis, nearside) = start(1);
        let (mut client, mut direct) = (nearside.connect(), redis.connect());
        for wrong in ["TYPE", "TYPE nosuch", "ID", "ID x", "NOSUCH 1", "TYPE normal x"] {
            let command = format!("CLIENT LIST {wrong}");
            let (ours, theirs) = (client.text(&command), direct.text(&command));
            assert_eq!(ours, theirs, "{wrong}");
            assert!(ours.starts_with('-'), "{ours}");
        }
    }

    #[test]
    fn who_may_not_list_is_told_nothing() {
        let (redis, nearside) = start(1);
        redis.connect().cmd("ACL SETUSER bob on >b +@all ~* -client|list -client|kill");
        let (mut bob, mut other) = (nearside.connect(), named(&nearside, "other"));
        assert_eq!(bob.text("AUTH bob b"), "+OK\r\n");
        assert!(bob.text("CLIENT LIST").starts_with("-NOPERM"));
        let victim = id(&mut other);
        assert!(bob.text(&format!("CLIENT KILL ID {victim}")).starts_with("-NOPERM"));
        assert!(is_open(&mut other));
        assert_eq!(field(&lines(&bob.text("CLIENT INFO"))[0], "user"), "bob");
        let found = list(&mut other, "");
        assert_eq!(found.iter().filter(|line| field(line, "user") == "bob").count(), 1);
    }

    /// Whose user may not ask for its id: they are known by their address.
    #[test]
    fn connections_that_do_not_know_their_id_are_not_told_of_either() {
        let (redis, nearside) = start(1);
        redis.connect().cmd("ACL SETUSER bob on >b +@all ~* -client|id");
        let (mut bob, mut client) = (named(&nearside, "bob"), named(&nearside, "client"));
        assert_eq!(bob.text("AUTH bob b"), "+OK\r\n");
        bob.cmd("GET users/a");
        let there =
            |conn: &mut Conn| list(conn, "").iter().filter(|line| field(line, "user") == "bob").count();
        assert_eq!((there(&mut client), there(&mut redis.connect())), (1, 1));
        assert_eq!(client.text("CLIENT KILL USER bob"), ":1\r\n");
        assert!(!is_open(&mut bob));
        assert_eq!(there(&mut redis.connect()), 1, "the connection is not the client");
    }

    #[test]
    fn a_client_of_a_unix_socket_is_told_by_its_path() {
        let redis = Redis::start();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("near.sock");
        let nearside =
            Nearside::with(redis.address(), |config| config.listen.push(Listen::Unix(path.clone())));
        let mut client = nearside.connect();
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&line("CLIENT SETNAME unix")).unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).unwrap();
        let found = line_of(&list(&mut client, ""), "unix");
        let address = format!("{}:0", path.display());
        assert_eq!((field(&found, "addr"), field(&found, "laddr")), (&*address, &*address));
        assert_eq!(field(&found, "flags"), "U");
        assert_eq!(client.text(&format!("CLIENT KILL {address}")), "+OK\r\n");
        assert_eq!(stream.read(&mut said).unwrap_or(0), 0, "it is closed");
    }

    #[test]
    fn age_and_idle_time_are_the_sessions() {
        let (_redis, nearside) = start(1);
        let (mut idle, mut busy) = (named(&nearside, "idle"), named(&nearside, "busy"));
        idle.cmd("GET users/a");
        eventually("time goes by", || {
            busy.cmd("GET users/a");
            let found = list(&mut busy, "");
            let number = |name: &str, what: &str| field(&line_of(&found, name), what).parse::<u64>().unwrap();
            assert_eq!(number("busy", "idle"), 0);
            number("idle", "idle") >= 1 && number("busy", "age") >= 1
        });
    }
}

mod info {
    use super::*;

    #[test]
    fn it_is_the_sessions_own_line() {
        let (_redis, nearside) = start(2);
        for resp3 in [false, true] {
            let mut client = if resp3 { nearside.connect_resp3() } else { nearside.connect() };
            let mine = id(&mut client);
            client.cmd("CLIENT SETNAME me");
            client.cmd("SELECT 2");
            for state in ["PING", "WATCH users/a", "CLIENT TRACKING on", "CLIENT TRACKING off"] {
                client.cmd(state);
                let found = lines(&client.text("CLIENT INFO"));
                assert_eq!(found.len(), 1);
                assert_eq!(field(&found[0], "id"), mine.to_string(), "after {state}");
                assert_eq!(field(&found[0], "addr"), client.stream.local_addr().unwrap().to_string());
                assert_eq!((field(&found[0], "name"), field(&found[0], "db")), ("me", "2"));
                assert_eq!(field(&found[0], "flags").contains('t'), state.ends_with(" on"), "after {state}");
                assert_eq!(field(&found[0], "cmd"), "client|info");
            }
            client.cmd("RESET");
            assert_eq!(field(&lines(&client.text("CLIENT INFO"))[0], "name"), "");
        }
    }

    /// It needs no connection of its own upstream.
    #[test]
    fn asking_takes_no_connection() {
        let (_redis, nearside) = start(1);
        let mut client = nearside.connect();
        client.cmd("GET users/a");
        let links = nearside.stat("upstream_links");
        for command in ["CLIENT INFO", "CLIENT LIST", "CLIENT KILL ID 1", "CLIENT KILL 127.0.0.1:1"] {
            client.cmd(command);
        }
        assert_eq!(nearside.stat("upstream_links"), links);
    }
}

/// An upstream that knows more than the server that the tests run against.
mod newer {
    use super::*;
    use support::scripted::Scripted;

    const LINE: &str = "id=9 addr=127.0.0.1:1 laddr=127.0.0.1:2 fd=8 name=nearside age=7 idle=3 flags=t db=0 sub=0 \
                        resp=2 lib-name=other lib-ver=0 io-thread=1 tot-cmds=55\n";

    fn bulk(text: &str) -> String {
        format!("${}\r\n{text}\r\n", text.len())
    }

    #[test]
    fn the_library_is_what_the_session_has_said_of_it() {
        let upstream = Scripted::start();
        let nearside = Nearside::start(upstream.address);
        let (mut client, mut other) = (nearside.connect(), nearside.connect());
        for (said, reply) in [
            ("CLIENT SETINFO lib-name redis-py", "+OK\r\n"),
            ("CLIENT SETINFO LIB-VER 5.0.8", "+OK\r\n"),
            ("CLIENT SETINFO lib-name refused", "-ERR lib-name cannot contain refused\r\n"),
        ] {
            client.send(&line(said));
            upstream.expect(said).reply(reply);
            assert_eq!(client.reply(), reply.as_bytes());
        }
        client.send(&line("CLIENT INFO"));
        upstream.expect("CLIENT INFO").reply(&bulk(LINE));
        let found = lines(&String::from_utf8(client.reply()).unwrap()).remove(0);
        assert_eq!((field(&found, "lib-name"), field(&found, "lib-ver")), ("redis-py", "5.0.8"));
        assert_eq!((field(&found, "tot-cmds"), field(&found, "flags")), ("55", "N"));
        assert_eq!(field(&found, "id"), id(&mut client).to_string());
        other.send(&line("CLIENT LIST"));
        let foreign = LINE.replace("id=9", "id=1000").replace("=nearside", "=direct");
        upstream.expect("CLIENT LIST").reply(&bulk(&foreign));
        let found = lines(&String::from_utf8(other.reply()).unwrap());
        assert_eq!(found[0], foreign.trim_end());
        let libraries: Vec<_> = found.iter().map(|line| field(line, "lib-name")).collect();
        assert_eq!(libraries, ["other", "redis-py", ""]);
        assert!(found[1].ends_with("lib-name=redis-py lib-ver=5.0.8 io-thread=0 tot-cmds=0"), "{}", found[1]);
    }

    /// Nobody is closed by an option that would have spared them.
    #[test]
    fn an_option_that_is_not_known_closes_nobody() {
        let upstream = Scripted::start();
        let nearside = Nearside::start(upstream.address);
        let (mut client, mut other) = (nearside.connect(), nearside.connect());
        client.send(&line("CLIENT KILL TYPE normal NOT-ADDR 127.0.0.1:1"));
        upstream.expect("CLIENT KILL ADDR nobody:0 TYPE normal NOT-ADDR 127.0.0.1:1").reply(":0\r\n");
        upstream.expect("CLIENT LIST").reply(&bulk(LINE));
        assert!(client.reply().starts_with(b"-ERR nearside: CLIENT KILL has an option"));
        assert!(id(&mut other) > 0);
    }
}

mod kill {
    use super::*;

    #[test]
    fn by_id_closes_that_session_and_nobody_elses_link() {
        for workers in [1, 2] {
            let (redis, nearside) = start(workers);
            let (mut killer, mut victim, mut other) =
                (nearside.connect(), nearside.connect(), nearside.connect());
            other.cmd("GET users/a");
            let before = nearside.stat("tracked_links");
            let number = id(&mut victim);
            assert_eq!(killer.text(&format!("CLIENT KILL ID {number}")), ":1\r\n");
            assert!(!is_open(&mut victim));
            assert!(is_open(&mut killer) && is_open(&mut other));
            assert_eq!(killer.text(&format!("CLIENT KILL ID {number}")), ":0\r\n", "it is gone");
            assert_eq!(nearside.stat("tracked_links"), before);
            let hits = nearside.stat("hits");
            other.cmd("GET users/a");
            assert_eq!(nearside.stat("hits"), hits + 1, "what was cached still is");
            assert!(redis.connect().text("INFO clients").contains("blocked_clients:0"));
            assert!(
                nearside.get("/metrics").1.contains("nearside_closed_clients_total{reason=\"killed\"} 1")
            );
        }
    }

    #[test]
    fn a_killed_session_carries_out_nothing_more() {
        let (redis, nearside) = start(2);
        let (mut killer, mut direct) = (nearside.connect(), redis.connect());
        for i in 0..50 {
            let mut victim = nearside.connect();
            let number = id(&mut victim);
            assert_eq!(killer.text(&format!("CLIENT KILL ID {number}")), ":1\r\n");
            let _ = victim.stream.write_all(&line("INCR executed"));
            assert!(victim.try_reply().is_err(), "round {i}");
        }
        assert_eq!(direct.value("executed"), None);
    }

    #[test]
    fn one_with_a_connection_of_its_own_is_closed_with_it() {
        let (redis, nearside) = start(2);
        let (mut killer, mut blocked, mut subscriber) =
            (nearside.connect(), nearside.connect(), nearside.connect());
        let (first, second) = (id(&mut blocked), id(&mut subscriber));
        subscriber.cmd("SUBSCRIBE c");
        blocked.send(&line("BLPOP l 0"));
        let mut direct = redis.connect();
        eventually("it waits", || direct.text("INFO clients").contains("blocked_clients:1"));
        assert_eq!(killer.text(&format!("CLIENT KILL ID {first}")), ":1\r\n");
        assert_eq!(killer.text("CLIENT KILL TYPE pubsub"), ":1\r\n", "of {second}");
        assert!(blocked.is_closed() && subscriber.is_closed());
        eventually("nobody waits upstream", || direct.text("INFO clients").contains("blocked_clients:0"));
        assert_eq!(direct.cmd("RPUSH l x"), b":1\r\n");
        assert_eq!(direct.cmd("LLEN l"), b":1\r\n");
        nearside.wait_ready();
        assert_eq!(nearside.stat("feed_lapses"), 0, "the feed is no client");
    }

    #[test]
    fn by_address_in_both_forms() {
        let (redis, nearside) = start(2);
        let mut killer = nearside.connect();
        for direct in [false, true] {
            for form in ["", "ADDR "] {
                let mut victim = if direct { redis.connect() } else { nearside.connect() };
                assert!(is_open(&mut victim));
                let command = format!("CLIENT KILL {form}{}", victim.stream.local_addr().unwrap());
                let done = if form.is_empty() { "+OK\r\n" } else { ":1\r\n" };
                assert_eq!(killer.text(&command), done);
                assert!(!is_open(&mut victim));
                let nobody = if form.is_empty() { "-ERR No such client\r\n" } else { ":0\r\n" };
                assert_eq!(killer.text(&command), nobody);
            }
        }
    }

    /// By what a client cannot know, and by what it can see at the upstream.
    #[test]
    fn nearsides_own_connections_are_no_clients() {
        let (redis, nearside) = start(2);
        let (mut killer, mut direct) = (nearside.connect(), redis.connect());
        killer.cmd("GET users/a");
        let own = list(&mut direct, "");
        let own: Vec<_> = own.iter().filter(|line| field(line, "name") == "nearside").collect();
        assert!(own.len() >= 3, "{own:#?}");
        for line in &own {
            assert_eq!(killer.text(&format!("CLIENT KILL ID {}", field(line, "id"))), ":0\r\n");
            assert_eq!(killer.text(&format!("CLIENT KILL ADDR {}", field(line, "addr"))), ":0\r\n");
            let said = killer.text(&format!("CLIENT KILL {}", field(line, "addr")));
            assert_eq!(said, "-ERR No such client\r\n");
        }
        assert!(is_open(&mut direct));
        // Everybody else.
        assert_eq!(killer.text("CLIENT KILL TYPE normal"), ":1\r\n");
        assert!(!is_open(&mut direct) && is_open(&mut killer));
        let mut direct = redis.connect();
        let after = list(&mut direct, "");
        for line in own {
            assert!(after.iter().any(|other| field(other, "id") == field(line, "id")), "{line} is gone");
        }
        assert_eq!(nearside.stat("feed_lapses"), 0);
    }

    #[test]
    fn filters_are_all_to_match() {
        let (redis, nearside) = start(2);
        let mut direct = redis.connect();
        direct.cmd("ACL SETUSER bob on >b +@all ~*");
        let mut killer = nearside.connect();
        let mut bobs: Vec<_> = (0..3).map(|_| nearside.connect()).collect();
        bobs.iter_mut().for_each(|bob| assert_eq!(bob.text("AUTH bob b"), "+OK\r\n"));
        let mut there = redis.connect();
        assert_eq!(there.text("AUTH bob b"), "+OK\r\n");
        let (first, laddr) = (id(&mut bobs[0]), nearside.address);
        assert_eq!(killer.text(&format!("CLIENT KILL ID {first} USER default")), ":0\r\n");
        assert_eq!(killer.text(&format!("CLIENT KILL USER default ID {first}")), ":0\r\n");
        assert_eq!(killer.text(&format!("CLIENT KILL ID {first} USER bob LADDR {laddr}")), ":1\r\n");
        assert!(!is_open(&mut bobs[0]) && is_open(&mut bobs[1]));
        assert_eq!(killer.text(&format!("CLIENT KILL USER bob TYPE normal LADDR {laddr}")), ":2\r\n");
        assert!(is_open(&mut there));
        assert_eq!(killer.text("CLIENT KILL USER bob"), ":1\r\n");
        assert!(!is_open(&mut there) && is_open(&mut direct));
        assert_eq!(killer.text("CLIENT KILL USER bob"), ":0\r\n");
    }

    #[test]
    fn oneself_after_the_reply_and_only_if_asked() {
        let (_redis, nearside) = start(1);
        for form in ["ID", "addr"] {
            let mut client = nearside.connect();
            let (number, address) = (id(&mut client), client.stream.local_addr().unwrap());
            assert_eq!(client.text(&format!("CLIENT KILL ID {number}")), ":0\r\n");
            assert_eq!(client.text("CLIENT KILL TYPE normal SKIPME yes"), ":0\r\n");
            let (command, done) = match form {
                "ID" => (format!("CLIENT KILL ID {number} SKIPME no"), ":1\r\n"),
                _ => (format!("CLIENT KILL {address}"), "+OK\r\n"),
            };
            client.send(&[line(&command), line("SET users/after 1")].concat());
            assert_eq!(String::from_utf8(client.reply()).unwrap(), done);
            assert!(client.is_closed());
            assert_eq!(nearside.connect().value("users/after"), None, "what came behind it is not done");
        }
    }

    /// Where its reply cannot be waited for it closes nobody, rather than the connections that clients share.
    #[test]
    fn in_a_transaction_or_without_replies_nobody_is_closed() {
        let (redis, nearside) = start(1);
        let (mut client, mut other) = (nearside.connect(), nearside.connect());
        other.cmd("GET users/a");
        let own = |redis: &Redis| -> Vec<String> {
            let found = list(&mut redis.connect(), "");
            let own = found.iter().filter(|line| field(line, "name") == "nearside");
            own.map(|line| field(line, "id").to_string()).collect()
        };
        let before = own(&redis);
        let lines =
            ["MULTI", "CLIENT KILL TYPE normal", "CLIENT KILL USER default ADDR x", "CLIENT KILL x", "EXEC"];
        let said = client.pipeline(&lines).pop().unwrap();
        assert_eq!(said, "*3\r\n:0\r\n:0\r\n-ERR No such client\r\n");
        let id = before.last().unwrap();
        let lines = ["CLIENT REPLY SKIP".to_string(), format!("CLIENT KILL ID {id}"), "PING".into()];
        client.send(&lines.iter().map(|text| line(text)).collect::<Vec<_>>().concat());
        assert_eq!(client.reply(), b"+PONG\r\n");
        let after = own(&redis);
        assert!(before.iter().all(|id| after.contains(id)), "{before:?} {after:?}");
        assert!(is_open(&mut other));
    }

    #[test]
    fn what_is_wrong_is_said_as_the_upstream_says_it() {
        let (redis, nearside) = start(1);
        let (mut client, mut direct, mut other) = (nearside.connect(), redis.connect(), nearside.connect());
        for wrong in [
            "CLIENT KILL",
            "CLIENT KILL nobody",
            "CLIENT KILL ID",
            "CLIENT KILL ID 0",
            "CLIENT KILL ID -1",
            "CLIENT KILL ID x",
            "CLIENT KILL ID 1 TYPE",
            "CLIENT KILL TYPE nosuch",
            "CLIENT KILL USER nosuch",
            "CLIENT KILL SKIPME maybe",
            "CLIENT KILL SKIPME no NOSUCH x",
            "CLIENT KILL ADDR",
            "CLIENT KILL ADDR x TYPE",
            "CLIENT KILL ADDR x LADDR y SKIPME",
        ] {
            let (ours, theirs) = (client.text(wrong), direct.text(wrong));
            assert_eq!(ours, theirs, "{wrong}");
            assert!(ours.starts_with('-'), "{ours}");
        }
        assert!(is_open(&mut other));
    }
}

/// `CLIENT TRACKING … REDIRECT id`: a client that caches by itself.
mod redirect {
    use super::*;

    fn info(conn: &mut Conn, name: &str) -> String {
        field(&lines(&conn.text("CLIENT INFO"))[0], name).to_string()
    }

    #[test]
    fn the_session_that_is_meant_hears_of_changes() {
        for workers in [1, 3] {
            let (redis, nearside) = start(workers);
            let mut direct = redis.connect();
            for resp3 in [false, true] {
                let mut target = if resp3 { nearside.connect_resp3() } else { nearside.connect() };
                if !resp3 {
                    target.cmd("SUBSCRIBE __redis__:invalidate");
                }
                // A RESP2 subscriber may not ask for its id.
                let number = match resp3 {
                    true => id(&mut target),
                    false => {
                        let mut asking = nearside.connect();
                        let address = target.stream.local_addr().unwrap().to_string();
                        let found = list(&mut asking, "");
                        let line = found.iter().find(|line| field(line, "addr") == address).unwrap();
                        field(line, "id").parse().unwrap()
                    }
                };
                let mut caching = nearside.connect();
                direct.cmd("SET users/a 1");
                assert_eq!(caching.text(&format!("CLIENT TRACKING on REDIRECT {number}")), "+OK\r\n");
                assert_eq!(caching.value("users/a").as_deref(), Some("1"));
                direct.cmd("SET users/a 2");
                let said = String::from_utf8(target.reply()).unwrap();
                assert!(said.contains("invalidate") && said.contains("users/a"), "{said}");
                assert_eq!(caching.text("CLIENT GETREDIR"), format!(":{number}\r\n"));
                assert!(caching.text("CLIENT TRACKINGINFO").contains(&format!(":{number}\r\n")));
                assert_eq!(info(&mut caching, "redir"), number.to_string());
                assert_eq!(info(&mut caching, "flags"), "t");
                assert_eq!(nearside.stat("feed_lapses"), 0);
            }
        }
    }

    /// As redis-py's own test says it.
    #[test]
    fn to_oneself_and_off_again() {
        let (_redis, nearside) = start(2);
        let (mut a, mut b) = (nearside.connect(), nearside.connect());
        let (first, second) = (id(&mut a), id(&mut b));
        for number in [first, second] {
            assert_eq!(a.text(&format!("CLIENT TRACKING on REDIRECT {number}")), "+OK\r\n");
            assert_eq!(a.text("CLIENT GETREDIR"), format!(":{number}\r\n"));
            assert_eq!(a.text(&format!("CLIENT TRACKING off REDIRECT {number}")), "+OK\r\n");
        }
        assert_eq!(b.text(&format!("CLIENT TRACKING off REDIRECT {first}")), "+OK\r\n");
    }

    #[test]
    fn both_keep_their_connections_as_long_as_needed() {
        let (_redis, nearside) = start(1);
        let (mut target, mut caching) = (nearside.connect_resp3(), nearside.connect());
        let number = id(&mut target);
        assert_eq!(caching.text(&format!("CLIENT TRACKING on REDIRECT {number}")), "+OK\r\n");
        let hits = nearside.stat("hits");
        for _ in 0..3 {
            target.cmd("GET users/b");
            caching.cmd("GET users/b");
        }
        assert_eq!(nearside.stat("hits"), hits);
        assert_eq!(caching.text("CLIENT TRACKING off"), "+OK\r\n");
        for conn in [&mut caching, &mut target] {
            let hits = nearside.stat("hits");
            eventually("it shares the cache again", || {
                conn.cmd("GET users/b");
                nearside.stat("hits") > hits
            });
        }
    }

    #[test]
    fn a_target_that_leaves_is_told_of_as_by_the_upstream() {
        let (redis, nearside) = start(2);
        let (mut target, mut caching) = (nearside.connect_resp3(), nearside.connect_resp3());
        let number = id(&mut target);
        assert_eq!(caching.text(&format!("CLIENT TRACKING on REDIRECT {number}")), "+OK\r\n");
        caching.cmd("GET users/a");
        assert_eq!(nearside.connect().text(&format!("CLIENT KILL ID {number}")), ":1\r\n");
        assert!(target.is_closed());
        let mut direct = redis.connect();
        let target_there = |direct: &mut Conn| {
            let found = list(direct, "");
            let ids: Vec<_> = found.iter().map(|line| field(line, "id")).collect();
            // Nobody else's redirection leads to a connection that speaks RESP3 but the feed's.
            found.iter().any(|line| {
                let to = field(line, "redir");
                let feed =
                    found.iter().any(|line| field(line, "id") == to && field(line, "flags").contains('P'));
                to != "-1" && !feed && ids.contains(&to)
            })
        };
        eventually("its connection is gone upstream", || !target_there(&mut direct));
        caching.cmd("GET users/a");
        direct.cmd("SET users/a 2");
        let said = String::from_utf8(caching.reply()).unwrap();
        assert_eq!(said, format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{number}\r\n"));
        assert!(info(&mut caching, "flags").contains('R'));
        assert_eq!(caching.text("CLIENT GETREDIR"), format!(":{number}\r\n"));
    }

    #[test]
    fn who_is_not_there_is_not_found() {
        let (redis, nearside) = start(2);
        let (mut client, mut gone, mut direct) = (nearside.connect(), nearside.connect(), redis.connect());
        let number = id(&mut gone);
        drop(gone);
        eventually("it is gone", || list(&mut client, &format!(" ID {number}")).is_empty());
        let unknown = "-ERR The client ID you want redirect to does not exist\r\n";
        assert_eq!(client.text(&format!("CLIENT TRACKING on REDIRECT {number}")), unknown);
        let own = list(&mut direct, "");
        for line in own.iter().filter(|line| field(line, "name") == "nearside") {
            assert_eq!(client.text(&format!("CLIENT TRACKING on REDIRECT {}", field(line, "id"))), unknown);
        }
        // A client of the upstream's is one.
        direct.cmd("HELLO 3");
        let number = id(&mut direct);
        assert_eq!(client.text(&format!("CLIENT TRACKING on REDIRECT {number}")), "+OK\r\n");
        client.cmd("GET users/a");
        redis.connect().cmd("SET users/a 2");
        assert!(direct.reply().starts_with(b">2\r\n$10\r\ninvalidate"));
        for wrong in ["on REDIRECT", "on REDIRECT x", "on REDIRECT 0 REDIRECT 0", "maybe REDIRECT 1"] {
            let command = format!("CLIENT TRACKING {wrong}");
            assert_eq!(nearside.connect().text(&command), redis.connect().text(&command), "{wrong}");
        }
    }

    #[test]
    fn in_a_transaction_and_in_one_packet() {
        let (_redis, nearside) = start(2);
        let (mut target, mut client) = (nearside.connect(), nearside.connect());
        let number = id(&mut target);
        let tracking = format!("CLIENT TRACKING on REDIRECT {number}");
        let replies = client.pipeline(&["MULTI", &tracking, "PING", "EXEC", "CLIENT GETREDIR"]);
        let expected =
            ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n+OK\r\n+PONG\r\n", &format!(":{number}\r\n")];
        assert_eq!(replies, expected);
        // Who closes its side gets its replies all the same.
        let mut client = nearside.connect();
        client.send(&[line("GET users/a"), line(&tracking), line("PING")].concat());
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!([client.reply(), client.reply(), client.reply()].concat(), b"$-1\r\n+OK\r\n+PONG\r\n");
    }
}
