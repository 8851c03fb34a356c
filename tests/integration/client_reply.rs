//! `CLIENT REPLY OFF|SKIP|ON`: what the client does not want is asked for all the same, and thrown away where replies are
//! delivered; so its writes are fenced and announced, its reads served from memory, and the upstream never hears of it.

use crate::support;

use std::time::Duration;

use support::relay::Relay;
use support::{Conn, Nearside, Redis, eventually, line, request};

fn start() -> (Redis, Nearside) {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    (redis, nearside)
}

fn packet<L: AsRef<str>>(lines: &[L]) -> Vec<u8> {
    lines.iter().flat_map(|text| line(text.as_ref())).collect()
}

/// All that comes until an `ECHO` of the end, and that.
fn said(conn: &mut Conn) -> String {
    let mut said = String::new();
    while !said.ends_with("the-end\r\n") {
        said += &String::from_utf8(conn.reply()).unwrap();
    }
    said
}

const END: &str = "ECHO the-end";

/// In one packet, and one after the other.
const DIALOGUES: &[&[&str]] = &[
    &["CLIENT REPLY OFF", "PING", "CLIENT REPLY ON", "PING"],
    &["CLIENT REPLY ON", "PING"],
    &["CLIENT REPLY SKIP", "PING", "ECHO a"],
    &["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING", "ECHO a"],
    &["CLIENT REPLY SKIP", "CLIENT REPLY ON", "PING"],
    &["CLIENT REPLY SKIP", "CLIENT REPLY OFF", "PING", "CLIENT REPLY ON"],
    &["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "PING", "ECHO a", "CLIENT REPLY ON", "ECHO b"],
    &["CLIENT REPLY SKIP", "CLIENT REPLY MAYBE", "ECHO a"],
    &["CLIENT REPLY SKIP", "CLIENT REPLY", "ECHO a"],
    &["CLIENT REPLY OFF", "CLIENT REPLY MAYBE", "CLIENT REPLY ON x", "NOSUCH", "CLIENT REPLY on"],
    &["CLIENT REPLY MAYBE", "CLIENT REPLY", "client reply skip", "PING", "CLIENT REPLY On x"],
    &["CLIENT REPLY SKIP", "RESET", "PING"],
    &["CLIENT REPLY OFF", "RESET", "PING"],
    &["CLIENT REPLY OFF", "SET users/1 a", "RESET", "GET users/1"],
    &["CLIENT REPLY SKIP", "HELLO 3", "GET none"],
    &["CLIENT REPLY SKIP", "SELECT 3", "GET none"],
    &["CLIENT REPLY SKIP", "AUTH nobody wrong", "PING"],
    &["CLIENT REPLY SKIP", "CLIENT SETNAME me", "CLIENT GETNAME"],
    &["CLIENT REPLY SKIP", "MULTI", "SET users/1 b", "EXEC"],
    &["MULTI", "SET users/1 c", "CLIENT REPLY ON", "CLIENT REPLY MAYBE", "EXEC"],
    &["CLIENT REPLY OFF", "MULTI", "INCR users/n", "EXEC", "CLIENT REPLY ON", "GET users/n"],
    &["CLIENT REPLY OFF", "WATCH users/1", "MULTI", "DISCARD", "CLIENT REPLY ON"],
    &["CLIENT REPLY OFF", "BLPOP none 0.01", "CLIENT REPLY ON"],
    &["CLIENT REPLY SKIP", "BLPOP none 0.01", "LPUSH l x", "BLPOP l 0", "LRANGE l 0 -1"],
    &["CLIENT NO-EVICT ON", "CLIENT REPLY OFF", "PING", "CLIENT REPLY ON", "CLIENT NO-EVICT OFF"],
    &["CLIENT REPLY SKIP", "MGET a b users/1", "MGET a b"],
    &["CLIENT REPLY SKIP", "NEARSIDE_NOSUCH", "PING"],
    &["CLIENT REPLY SKIP", "GET", "PING"],
    &["SUBSCRIBE c", "CLIENT REPLY OFF", "CLIENT REPLY ON", "PING", "UNSUBSCRIBE"],
    &["CLIENT REPLY OFF", "SUBSCRIBE a b", "PING", "UNSUBSCRIBE a", "UNSUBSCRIBE b", "CLIENT REPLY ON"],
    &["CLIENT REPLY SKIP", "SUBSCRIBE a b", "CLIENT REPLY ON", "UNSUBSCRIBE a b", "CLIENT REPLY ON"],
    &["CLIENT REPLY OFF", "MULTI", "SUBSCRIBE a", "PING", "EXEC", "UNSUBSCRIBE a", "CLIENT REPLY ON"],
    &["CLIENT REPLY SKIP", "SUBSCRIBE"],
];

#[test]
fn what_the_client_gets_is_what_redis_says() {
    let (redis, nearside) = start();
    for hello in ["HELLO 2", "HELLO 3"] {
        for lines in DIALOGUES {
            for at_once in [true, false] {
                let [through, straight] = [nearside.connect(), redis.connect()].map(|mut conn| {
                    conn.send(&packet(&[hello, "FLUSHALL", END]));
                    said(&mut conn);
                    let lines = [*lines, &[END]].concat();
                    match at_once {
                        true => conn.send(&packet(&lines)),
                        false => lines.iter().for_each(|text| {
                            conn.send(&line(text));
                            std::thread::sleep(Duration::from_millis(2));
                        }),
                    }
                    said(&mut conn)
                });
                assert_eq!(through, straight, "{hello} {lines:?}");
            }
        }
    }
}

#[test]
fn quit_is_not_answered_either() {
    let (_redis, nearside) = start();
    for lines in
        [&["CLIENT REPLY OFF", "SET users/1 v", "QUIT"], &["SET users/1 v", "CLIENT REPLY SKIP", "QUIT"]]
    {
        let mut client = nearside.connect();
        client.send(&packet(lines));
        if lines[0].starts_with("SET") {
            assert_eq!(client.reply(), b"+OK\r\n");
        }
        assert!(client.is_closed(), "{lines:?}");
        assert_eq!(nearside.connect().value("users/1").as_deref(), Some("v"));
    }
}

/// Hits, misses and writes in one packet, each third of them without its reply.
#[test]
fn the_others_come_in_order() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::start(relay.address);
    relay.delay(Duration::from_millis(1));
    let mut direct = redis.connect();
    (0..60).for_each(|i| drop(direct.cmd(&format!("SET users/{i} {i}"))));
    let mut client = nearside.connect();
    for round in 0..3 {
        let (mut lines, mut expected) = (Vec::new(), String::new());
        for i in 0..60 {
            let skipped = (i + round) % 3 == 0;
            if skipped {
                lines.push("CLIENT REPLY SKIP".to_string());
            }
            lines.push(match i % 5 {
                0 => format!("SET users/{i} {i}"),
                1 => format!("MGET users/{i} users/none"),
                _ => format!("GET users/{i}"),
            });
            let value = format!("${}\r\n{i}\r\n", i.to_string().len());
            expected += &match i % 5 {
                _ if skipped => String::new(),
                0 => "+OK\r\n".into(),
                1 => format!("*2\r\n{value}$-1\r\n"),
                _ => value,
            };
        }
        lines.push(END.into());
        client.send(&packet(&lines));
        assert_eq!(said(&mut client), expected + "$7\r\nthe-end\r\n", "{round}");
    }
    assert!(nearside.stat("hits") > 50, "{}", nearside.stats());
}

#[test]
fn reads_are_served_from_memory_on_the_shared_link() {
    let (redis, nearside) = start();
    let mut client = nearside.connect();
    for key in ["users/1", "users/2"] {
        client.cmd(&format!("SET {key} v"));
        eventually("it is cached", || client.value(key).is_some() && nearside.is_cached(key));
    }
    let (connects, hits) = (nearside.stat("upstream_connects"), nearside.stat("hits"));
    let (gets, mgets) = (redis.calls("get"), redis.calls("mget"));
    client.send(&packet(&["CLIENT REPLY OFF", "GET users/1", "MGET users/1 users/2", "GET users/1"]));
    client.send(&packet(&["CLIENT REPLY ON", END]));
    assert_eq!(said(&mut client), "+OK\r\n$7\r\nthe-end\r\n");
    assert_eq!((redis.calls("get"), redis.calls("mget")), (gets, mgets), "nothing was asked for");
    assert_eq!(nearside.stat("hits"), hits + 4);
    // What is fetched for it is there for all.
    client.send(&packet(&["CLIENT REPLY SKIP", "GET users/3", "GET users/3", END]));
    assert_eq!(said(&mut client), "$-1\r\n$7\r\nthe-end\r\n");
    assert!(nearside.is_cached("users/3"));
    assert_eq!(nearside.stat("upstream_connects"), connects, "no connection of its own");
}

/// The upstream is asked whether it may be said, and never told to be silent.
#[test]
fn the_upstream_answers_as_ever() {
    let (redis, nearside) = start();
    let mut client = nearside.connect();
    client.send(&packet(&["GET users/1", END]));
    said(&mut client);
    let mut monitor = redis.monitor();
    client.send(&packet(&["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "PING", "CLIENT REPLY ON", END]));
    said(&mut client);
    let seen = monitor.seen();
    let switches: Vec<_> = seen.iter().filter(|line| line.contains("REPLY")).collect();
    assert_eq!(switches, [r#""CLIENT" "REPLY" "ON""#; 3], "{seen:?}");
}

#[test]
fn a_write_is_fenced_and_no_reader_goes_back() {
    let (_redis, nearside) = start();
    let (mut writer, mut reader) = (nearside.connect(), nearside.connect());
    writer.send(&line("CLIENT REPLY OFF"));
    let mut last = 0;
    for i in 1..=200 {
        writer.send(&line(&format!("SET users/a {i}")));
        for _ in 0..5 {
            let seen = reader.value("users/a").map_or(0, |value| value.parse().unwrap());
            assert!((last..=i).contains(&seen), "{seen} after {last}");
            last = seen;
        }
    }
    writer.send(&line("CLIENT REPLY ON"));
    assert_eq!(writer.reply(), b"+OK\r\n");
    assert_eq!(reader.value("users/a").as_deref(), Some("200"), "ON was answered: what came before is done");
}

/// The fence stands until the reply that nobody wants has come.
#[test]
fn a_fence_stands_until_the_unwanted_reply_has_come() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::start(relay.address);
    let (mut writer, mut reader) = (nearside.connect(), nearside.connect());
    eventually("it is cached", || {
        reader.cmd("GET users/a");
        nearside.is_cached("users/a")
    });
    writer.send(&packet(&["CLIENT REPLY OFF"]));
    relay.hold(true);
    writer.send(&line("SET users/a new"));
    eventually("the entry is gone with the fence", || !nearside.is_cached("users/a"));
    reader.send(&line("GET users/a"));
    relay.hold(false);
    assert_eq!(reader.reply(), b"$3\r\nnew\r\n");
}

#[test]
fn announcements_are_told_by_the_real_reply() {
    let (redis, nearside) = start();
    let mut listener = redis.listen();
    let mut client = nearside.connect();
    let mut direct = redis.connect();
    direct.cmd("SET users/there v");
    direct.cmd("SADD users/set a b");
    let lines = [
        "CLIENT REPLY OFF",
        "SET users/there w NX",
        "DEL users/none",
        "SREM users/set a",
        "SET users/new v NX",
        "MULTI",
        "DEL users/there",
        "EXEC",
        "CLIENT REPLY ON",
    ];
    client.send(&packet(&lines));
    assert_eq!(client.reply(), b"+OK\r\n");
    let mut heard = listener.heard(&mut client);
    heard.sort();
    assert_eq!(heard, ["users/delete there", "users/update new", "users/update set"]);
    client.send(&packet(&["CLIENT REPLY SKIP", "DEL users/new", END]));
    said(&mut client);
    assert_eq!(listener.heard(&mut client), ["users/delete new"]);
}

#[test]
fn a_pop_that_waits_is_carried_out() {
    let (redis, nearside) = start();
    let (mut client, mut other) = (nearside.connect(), nearside.connect());
    other.text("LRANGE users/l 0 -1");
    client.send(&packet(&["CLIENT REPLY OFF", "BLMOVE users/l users/m LEFT RIGHT 0", "CLIENT REPLY ON"]));
    eventually("it waits", || redis.connect().text("INFO clients").contains("blocked_clients:1"));
    assert_eq!(other.text("RPUSH users/l x y"), ":2\r\n");
    assert_eq!(client.reply(), b"+OK\r\n");
    assert_eq!(other.text("LRANGE users/l 0 -1"), "*1\r\n$1\r\ny\r\n");
    assert_eq!(other.text("LRANGE users/m 0 -1"), "*1\r\n$1\r\nx\r\n");
    // One that leaves does not wait for ever.
    client.send(&packet(&["CLIENT REPLY OFF", "BLPOP users/none 0"]));
    drop(client);
    eventually("nobody waits", || redis.connect().text("INFO clients").contains("blocked_clients:0"));
}

#[test]
fn whether_the_user_may_say_it_is_for_the_upstream_to_tell() {
    let (redis, nearside) = start();
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER alice on >a ~* &* +@all -client|reply");
    let mut client = nearside.connect();
    assert_eq!(client.text("AUTH alice a"), "+OK\r\n");
    let refused = "-NOPERM this user has no permissions to run the 'client|reply' command\r\n";
    let about = redis.connect().text("INFO server");
    for word in ["OFF", "SKIP", "ON"] {
        client.send(&packet(&[&format!("CLIENT REPLY {word}"), "PING", END]));
        let got = said(&mut client);
        assert!(
            got.starts_with("-NOPERM") && got.ends_with("\r\n+PONG\r\n$7\r\nthe-end\r\n"),
            "{word}: {got}"
        );
        if about.contains("redis_version:7.0.") {
            assert!(got.to_lowercase().starts_with(&refused.to_lowercase()), "{got}");
        }
    }
    // Taken away while it holds: it cannot be ended but by RESET, as with Redis.
    direct.cmd("ACL SETUSER alice +client|reply");
    client.send(&packet(&["CLIENT REPLY OFF", "SET users/done 1"]));
    eventually("it holds", || direct.value("users/done").is_some());
    direct.cmd("ACL SETUSER alice -client|reply");
    client.send(&packet(&["CLIENT REPLY ON", "PING", "RESET", END]));
    assert_eq!(said(&mut client), "+RESET\r\n$7\r\nthe-end\r\n");
}

/// What is thrown away takes no room: the client is neither held up nor sent away for it.
#[test]
fn large_replies_that_nobody_wants_do_not_count() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| {
        config.client_output_limit = 200_000;
        config.client_stall_timeout = Duration::from_millis(200);
    });
    let mut direct = redis.connect();
    let large = vec![b'x'; 3 << 20];
    direct.args(&[b"SET", b"large", &large]);
    direct.args(&[b"SET", b"users/some", &large[..50_000]]);
    let mut client = nearside.connect();
    client.send(&line("CLIENT REPLY OFF"));
    for _ in 0..40 {
        client.send(&packet(&[
            "GETRANGE large 0 -1",
            "GET users/some",
            "LRANGE users/none 0 -1",
            "GET users/some",
        ]));
    }
    client.send(&packet(&["CLIENT REPLY ON", END]));
    assert_eq!(said(&mut client), "+OK\r\n$7\r\nthe-end\r\n");
    assert_eq!(nearside.stat("clients_stalled"), 0);
}

/// Messages come, whatever the client wants, and in RESP3 what it tracks.
#[test]
fn pushes_come() {
    let (redis, nearside) = start();
    let mut direct = redis.connect();
    let mut client = nearside.connect_resp3();
    client.send(&packet(&["CLIENT TRACKING ON", END]));
    said(&mut client);
    client.send(&packet(&["CLIENT REPLY OFF", "GET users/1", "SET users/done 1"]));
    eventually("it was read", || direct.value("users/done").is_some());
    direct.cmd("SET users/1 v");
    assert!(client.reply().ends_with(b"invalidate\r\n*1\r\n$7\r\nusers/1\r\n"));
    client.send(&packet(&["SUBSCRIBE c"]));
    assert!(client.reply().starts_with(b">3\r\n$9\r\nsubscribe"));
    assert_eq!(direct.text("PUBLISH c x"), ":1\r\n");
    assert!(client.reply().ends_with(b"$1\r\nc\r\n$1\r\nx\r\n"));
    client.send(&packet(&["PING", "CLIENT REPLY ON", END]));
    assert_eq!(said(&mut client), "+OK\r\n$7\r\nthe-end\r\n");
}

/// What others say is a reply to MONITOR.
#[test]
fn a_monitor_without_replies_hears_nothing() {
    let (redis, nearside) = start();
    let mut direct = redis.connect();
    let mut client = nearside.connect();
    client.send(&packet(&["CLIENT REPLY OFF", "MONITOR"]));
    eventually("it monitors", || direct.text("CLIENT LIST").contains("cmd=monitor"));
    direct.cmd("GET unheard");
    client.send(&packet(&["CLIENT REPLY ON", "ECHO x"]));
    let mut heard = String::new();
    while !heard.contains("$1\r\nx\r\n") {
        heard += &String::from_utf8_lossy(&client.reply());
    }
    assert!(heard.contains("+OK\r\n") && !heard.contains("unheard"), "{heard}");
}

/// Redis begins the reply to EXEC and leaves out the rest, so that its client never knows where it ends.
#[test]
fn off_and_skip_are_refused_in_a_transaction() {
    let (_redis, nearside) = start();
    for word in ["OFF", "SKIP"] {
        let mut client = nearside.connect();
        let switch = format!("CLIENT REPLY {word}");
        let said =
            client.pipeline(&["MULTI", &switch, "SET users/1 v", &switch, "GET users/1", "EXEC", "PING"]);
        assert!(said[1].starts_with("-ERR nearside: CLIENT REPLY OFF and SKIP"), "{said:?}");
        assert_eq!(said[1], said[3]);
        assert_eq!(said[5..], ["*2\r\n+OK\r\n$1\r\nv\r\n", "+PONG\r\n"]);
    }
}

#[test]
fn one_who_wants_no_replies_may_close_others() {
    let (_redis, nearside) = start();
    let (mut client, mut other) = (nearside.connect(), nearside.connect());
    let id = other.text("CLIENT ID");
    let kill = format!("CLIENT KILL ID {}", id.trim_end().trim_start_matches(':'));
    client.send(&packet(&["CLIENT REPLY OFF", &kill, "CLIENT REPLY ON", END]));
    assert_eq!(said(&mut client), "+OK\r\n$7\r\nthe-end\r\n");
    assert!(other.is_closed());
}

mod lost {
    use super::*;

    fn kill_all(direct: &mut Conn) {
        direct.cmd("CLIENT KILL TYPE normal SKIPME yes");
    }

    /// It is nearside's own to know, so nothing is lost with a link.
    #[test]
    fn it_outlives_the_link() {
        let (redis, nearside) = start();
        let mut direct = redis.connect();
        let mut client = nearside.connect();
        client.send(&packet(&["CLIENT REPLY OFF", "SET users/a 1"]));
        eventually("it is done", || direct.value("users/a").is_some());
        kill_all(&mut direct);
        eventually("others are served", || nearside.connect().text("ECHO x") == "$1\r\nx\r\n");
        client.send(&packet(&["PING", "SET users/a 2", "CLIENT REPLY ON", END]));
        assert_eq!(said(&mut client), "+OK\r\n$7\r\nthe-end\r\n");
        assert_eq!(direct.value("users/a").as_deref(), Some("2"));
    }

    /// It cannot be told by an error, so it is told as Redis' clients are: the connection ends.
    #[test]
    fn who_is_not_told_of_a_lost_reply_is_closed() {
        let redis = Redis::start();
        let relay = Relay::to(redis.address());
        let nearside = Nearside::start(relay.address);
        for switch in ["OFF", "SKIP"] {
            let mut client = nearside.connect();
            eventually("it is served", || client.text("SET users/a 1") == "+OK\r\n");
            relay.swallow_replies(true);
            client.send(&packet(&[&format!("CLIENT REPLY {switch}")]));
            client.send(&request(&[b"SET", b"users/a", b"2"]));
            std::thread::sleep(Duration::from_millis(20));
            relay.cut_swallowed();
            // That the upstream takes the switch was not said either: an error for each of the two.
            for _ in 0..2 {
                let reply = client.reply();
                assert!(reply.starts_with(b"-ERR nearside: upstream"), "{}", reply.escape_ascii());
            }
        }
        let mut client = nearside.connect();
        eventually("it is served", || client.text("SET users/a 1") == "+OK\r\n");
        client.send(&packet(&["CLIENT REPLY OFF", "SET users/a 3"]));
        // Another's read comes behind it on the same link: by then its replies have come.
        eventually("it is answered", || nearside.connect().value("users/a").as_deref() == Some("3"));
        let mut direct = redis.connect();
        relay.swallow_replies(true);
        client.send(&line("SET users/a 4"));
        eventually("it is done", || direct.value("users/a").as_deref() == Some("4"));
        relay.cut();
        assert!(client.is_closed());
    }
}
