//! An upstream that is away, dies, talks nonsense or refuses: clients get a clear error at once, nothing is
//! sent twice, and nearside goes on.

use crate::support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use support::relay::Relay;
use support::scripted::Scripted;
use support::{Conn, Nearside, Redis, eventually, free_port, line};

const EXECUTED: &str = "; the reply was lost; the command may have been executed\r\n";
const NOT_SENT: &str = "; the command was not sent\r\n";

/// How long an error may take when the upstream is known to be away: below every timeout.
const AT_ONCE: Duration = Duration::from_millis(1500);

#[track_caller]
fn text(client: &mut Conn) -> String {
    String::from_utf8(client.reply()).unwrap()
}

#[track_caller]
fn is_lost(said: &str, fate: &str) {
    assert!(said.starts_with("-ERR nearside: upstream 127.0.0.1:"), "{said}");
    assert!(said.ends_with(fate), "{said}");
}

#[test]
fn it_starts_without_an_upstream_and_recovers() {
    let mut redis = Redis::start();
    redis.kill();
    let nearside = Nearside::unready(redis.address(), |_| ());
    let mut client = nearside.connect();
    for _ in 0..20 {
        let began = Instant::now();
        let said = client.text("GET users/1");
        is_lost(&said, NOT_SENT);
        assert!(said.contains("refused"), "the cause is told: {said}");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
    assert_eq!(nearside.get("/livez").0, 200);
    assert_eq!(nearside.get("/readyz").0, 503);
    // What needs no upstream works.
    assert!(client.text("CLIENT ID").starts_with(':'));
    for command in
        ["SET users/1 v", "BLPOP list 0", "MULTI", "SUBSCRIBE news", "SELECT 1", "MGET a b", "HELLO 3"]
    {
        let began = Instant::now();
        is_lost(&nearside.connect().text(command), NOT_SENT);
        assert!(began.elapsed() < AT_ONCE, "{command}: {:?}", began.elapsed());
    }

    redis.restart();
    let since = Instant::now();
    nearside.wait_ready();
    eventually("a request is answered", || client.text("SET users/1 v") == "+OK\r\n");
    println!("recovered after {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert_eq!(nearside.get("/readyz").0, 200);
    client.value("users/1");
    assert_eq!(client.value("users/1").as_deref(), Some("v"));
    assert!(nearside.stat("hits") >= 1);
}

#[test]
fn requests_in_flight_are_told_what_may_have_become_of_them() {
    let upstream = Scripted::start();
    let nearside = Nearside::start(upstream.address);
    let mut client = nearside.connect();
    client.send(&[line("INCR a"), line("INCR b"), line("GET c"), line("INCR d")].concat());
    let answered = upstream.expect("INCR a");
    let cut = upstream.expect("INCR b");
    upstream.expect("GET c");
    upstream.expect("PTTL c");
    upstream.expect("INCR d");
    answered.reply(":1\r\n");
    assert_eq!(text(&mut client), ":1\r\n");
    upstream.close(cut.connection);
    for _ in ["INCR b", "GET c", "INCR d"] {
        is_lost(&text(&mut client), EXECUTED);
    }
    // The session goes on, and nothing was sent again.
    client.send(&line("INCR e"));
    upstream.expect("INCR e").reply(":1\r\n");
    assert_eq!(text(&mut client), ":1\r\n");
    assert_eq!(upstream.count("INCR"), 4);
    assert_eq!(upstream.count("GET"), 1);
    assert_eq!(nearside.stat("upstream_lost"), 3);
}

#[test]
fn no_command_is_sent_twice() {
    let upstream = Scripted::start();
    let nearside = Nearside::start(upstream.address);
    let mut clients: Vec<_> = (0..4).map(|_| nearside.connect()).collect();
    let (mut sent, mut lost) = (0, 0);
    for round in 0..20 {
        for client in &mut clients {
            client.send(
                &[format!("INCR {sent}"), format!("GET r{sent}")].map(|command| line(&command)).concat(),
            );
            client.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            sent += 1;
        }
        // The cut comes after some of the requests, at another one each time.
        let mut cut = upstream.next().connection;
        for _ in 0..round % 7 {
            cut = upstream.next().connection;
        }
        upstream.close(cut);
        // What comes on a new connection is answered.
        let mut open = [2; 4];
        eventually("every request is answered", || {
            for (client, open) in clients.iter_mut().zip(&mut open).filter(|(_, open)| **open > 0) {
                while let Ok(reply) = client.try_reply() {
                    let said = String::from_utf8(reply).unwrap();
                    assert!(
                        said == ":1\r\n" || said.ends_with(EXECUTED) || said.ends_with(NOT_SENT),
                        "{said}"
                    );
                    lost += usize::from(said.ends_with(EXECUTED));
                    *open -= 1;
                }
            }
            while upstream.waiting() > 0 {
                upstream.next().reply(":1\r\n");
            }
            open == [0; 4]
        });
    }
    assert!(lost >= 20, "each cut has met requests in flight: {lost}");
    let mut log = upstream.log();
    log.retain(|words| words[0] == "INCR" || words[0] == "GET");
    let all = log.len();
    log.sort();
    log.dedup();
    assert_eq!(log.len(), all, "something was sent twice");
}

#[test]
fn a_reply_cut_short_closes_the_connection_if_a_part_was_passed_on() {
    let upstream = Scripted::start();
    let nearside = Nearside::start(upstream.address);
    let (mut client, mut other) = (nearside.connect(), nearside.connect());
    client.send(&line("DUMP k"));
    let asked = upstream.expect("DUMP k");
    other.send(&line("ECHO x"));
    let echo = upstream.expect("ECHO x");
    // More than is gathered before it is passed on.
    upstream.push(asked.connection, &format!("$1000000\r\n{}", "x".repeat(400_000)));
    let mut begun = [0; 100];
    std::io::Read::read_exact(&mut client.stream, &mut begun).unwrap();
    assert!(begun.starts_with(b"$1000000\r\nxxx"));
    upstream.close(echo.connection);
    assert!(client.is_closed(), "the rest cannot be made up");
    is_lost(&text(&mut other), EXECUTED);
    // The others go on.
    other.send(&line("ECHO y"));
    upstream.expect("ECHO y").reply("$1\r\ny\r\n");
    assert_eq!(text(&mut other), "$1\r\ny\r\n");
}

#[test]
fn a_reply_cut_short_is_an_error_if_nothing_was_passed_on() {
    let upstream = Scripted::start();
    let nearside = Nearside::start(upstream.address);
    let mut client = nearside.connect();
    // A read that may be kept is gathered whole.
    client.send(&line("GET k"));
    let asked = upstream.expect("GET k");
    upstream.expect("PTTL k");
    upstream.push(asked.connection, &format!("$600000\r\n{}", "x".repeat(300_000)));
    upstream.close(asked.connection);
    is_lost(&text(&mut client), EXECUTED);
    for command in ["DUMP k", "SET k v"] {
        client.send(&line(command));
        let asked = upstream.expect(command);
        upstream.push(asked.connection, "$100\r\nxxx");
        upstream.close(asked.connection);
        is_lost(&text(&mut client), EXECUTED);
    }
}

#[test]
fn garbage_ends_the_link_and_nothing_else() {
    let upstream = Scripted::start();
    let nearside = Nearside::start(upstream.address);
    let mut client = nearside.connect();
    let garbage = [
        "garbage\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "$-2\r\n",
        "$abc\r\n",
        "$3\r\nabcde\r\n",
        "*99999999999999999999\r\n",
        "*?\r\n",
        "\0\0\0\0\0\0",
    ];
    for bytes in garbage {
        client.send(&line("SET k v"));
        let asked = upstream.expect("SET k v");
        upstream.push(asked.connection, bytes);
        let said = text(&mut client);
        is_lost(&said, EXECUTED);
        assert!(said.contains("not understood: ") && said.len() < 300, "{said}");
        client.send(&line("ECHO x"));
        upstream.expect("ECHO x").reply("$1\r\nx\r\n");
        assert_eq!(text(&mut client), "$1\r\nx\r\n");
    }
    // A reply that nobody has asked for is garbage as well: the link has lost its place.
    client.send(&line("ECHO x"));
    let asked = upstream.expect("ECHO x");
    asked.reply("+first\r\n+second\r\n");
    assert_eq!(text(&mut client), "+first\r\n");
    // It is made anew at once, so it is not seen to be away.
    let losses = format!("\nnearside_upstream_disconnects_total {}\n", garbage.len() + 1);
    eventually("the link is closed", || nearside.get("/metrics").1.contains(&losses));
    client.send(&line("ECHO y"));
    upstream.expect("ECHO y").reply("$1\r\ny\r\n");
    assert_eq!(text(&mut client), "$1\r\ny\r\n");
}

#[test]
fn a_reply_may_be_nested_as_deep_as_it_likes() {
    let upstream = Scripted::start();
    let nearside = Nearside::start(upstream.address);
    let mut client = nearside.connect();
    let deep = "*1\r\n".repeat(200_000) + ":1\r\n";
    for command in ["DUMP k", "GET k"] {
        client.send(&line(command));
        upstream.expect(command).reply(&deep);
        if command == "GET k" {
            upstream.expect("PTTL k").reply(":-1\r\n");
        }
        assert_eq!(text(&mut client), deep);
    }
    assert_eq!(client.text("GET k"), deep);
    assert_eq!(nearside.stat("hits"), 1);
}

#[test]
fn garbage_on_the_feed_is_a_loss_of_it() {
    let upstream = Scripted::start();
    let nearside = Nearside::start(upstream.address);
    let feed = upstream.feed();
    upstream.push(feed, "garbage\r\n");
    eventually("the coverage ends", || nearside.stat("feed_lapses") == 1);
    nearside.wait_ready();
    assert_ne!(upstream.feed(), feed);
    // What is well-formed and means nothing to it is let be.
    upstream.push(
        upstream.feed(),
        ">1\r\n+news\r\n>3\r\n+message\r\n:1\r\n:2\r\n>2\r\n+invalidate\r\n*1\r\n:5\r\n",
    );
    let mut client = nearside.connect();
    client.send(&line("ECHO x"));
    upstream.expect("ECHO x").reply("$1\r\nx\r\n");
    text(&mut client);
    assert_eq!(nearside.stat("feed_lapses"), 1);
}

#[test]
fn a_write_stands_though_its_announcement_is_refused() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER writer on >pw allkeys allcommands allchannels -publish");
    let nearside = Nearside::with(redis.address(), |config| {
        config.upstream =
            nearside::config::Upstream::parse(&format!("redis://writer:pw@{}", redis.address())).unwrap();
    });
    let mut client = nearside.connect();
    client.value("users/1");
    let before = nearside.stat("announcements_failed");
    for i in 0..3 {
        assert_eq!(client.text(&format!("SET users/1 {i}")), "+OK\r\n");
        assert_eq!(client.value("users/1"), Some(i.to_string()));
    }
    eventually("the failures are counted", || nearside.stat("announcements_failed") == before + 3);
    assert_eq!(client.text("SET elsewhere v"), "+OK\r\n");
    assert_eq!(client.text("PING"), "+PONG\r\n");
}

#[test]
fn nothing_is_cached_while_subscribing_is_refused() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER reader on >pw allkeys allcommands resetchannels &news");
    let nearside = Nearside::unready(redis.address(), |config| {
        config.upstream =
            nearside::config::Upstream::parse(&format!("redis://reader:pw@{}", redis.address())).unwrap();
    });
    let mut client = nearside.connect();
    direct.cmd("SET users/1 v");
    for i in 0..10 {
        direct.cmd(&format!("SET users/1 {i}"));
        assert_eq!(client.value("users/1"), Some(i.to_string()), "the newest value, always");
    }
    assert_eq!(nearside.stat("hits"), 0);
    assert!(nearside.stats().contains("nearside_feed:down"));
    assert_eq!(nearside.stat("feed_lapses"), 0, "it was never up");
    assert!(nearside.why("users/1").contains("feed or tracking not in place"), "{}", nearside.why("users/1"));
    assert_eq!(nearside.get("/readyz").0, 200, "it still serves");
}

#[test]
fn a_wrong_password_is_told_in_the_upstreams_words() {
    let redis = Redis::with(&["--requirepass", "secret"]);
    let nearside = Nearside::unready(redis.address(), |config| {
        config.upstream =
            nearside::config::Upstream::parse(&format!("redis://:wrong@{}", redis.address())).unwrap();
    });
    let said = nearside.connect().text("GET users/1");
    assert!(said.contains("WRONGPASS") && said.ends_with(NOT_SENT), "{said}");
    assert!(!said.contains("secret") && !said.contains(":wrong"), "{said}");
}

#[test]
fn it_fails_fast_while_the_upstream_is_away() {
    let mut redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    client.cmd("SET users/1 v");
    client.value("users/1");
    client.value("users/1");
    redis.kill();
    eventually("the loss is noticed", || nearside.stat("feed_lapses") == 1);
    eventually("the link's too", || nearside.stat("upstream_links") == 0);
    let since = Instant::now();
    let mut refused = 0;
    while since.elapsed() < Duration::from_millis(500) {
        for command in ["GET users/1", "SET users/1 w", "MGET users/1 users/2", "INCR n", "PING"] {
            let began = Instant::now();
            is_lost(&client.text(command), NOT_SENT);
            assert!(began.elapsed() < AT_ONCE, "{command}: {:?}", began.elapsed());
            refused += 1;
        }
    }
    assert!(refused > 30, "{refused} in half a second");
    assert_eq!(nearside.stat("upstream_refused") + nearside.stat("upstream_lost"), refused);
}

#[test]
fn an_upstream_that_never_answers_is_not_waited_for() {
    // Its backlog takes connections, and nobody ever reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nearside = Nearside::unready(silent.local_addr().unwrap(), |config| {
        config.connect_timeout = Duration::from_millis(200);
    });
    let mut client = nearside.connect();
    for _ in 0..3 {
        let began = Instant::now();
        let said = client.text("GET users/1");
        is_lost(&said, NOT_SENT);
        assert!(said.contains("no answer within 200ms (connect-timeout)"), "{said}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn a_name_that_cannot_be_found_is_told() {
    let nearside = Nearside::unready(([127, 0, 0, 1], free_port()).into(), |config| {
        config.upstream = nearside::config::Upstream::parse("redis://no-such-host.invalid:6379").unwrap();
    });
    let said = nearside.connect().text("GET users/1");
    assert!(said.starts_with("-ERR nearside: upstream no-such-host.invalid:6379: "), "{said}");
    assert!(said.ends_with(NOT_SENT), "{said}");
}

/// An upstream that says nothing more is not waited for longer than `upstream-timeout`, in a transaction
/// neither; only a blocking command may take its time.
#[test]
fn a_silent_upstream_is_given_up_in_a_transaction_too() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let nearside = Nearside::with(relay.address, |config| {
        config.upstream_timeout = Some(Duration::from_millis(300));
    });
    let (mut client, mut blocked) = (nearside.connect(), nearside.connect());
    blocked.send(&line("BLPOP users/queue 3"));
    assert_eq!(client.text("MULTI"), "+OK\r\n");
    eventually("the blocked one", || redis.connect().text("CLIENT LIST").contains("cmd=blpop"));
    relay.swallow_replies(true);
    let silent = Instant::now();
    let reply = client.text("GET users/1");
    assert!(reply.contains("upstream-timeout") && reply.contains("may have been executed"), "{reply}");
    assert!(client.is_closed(), "its transaction is gone");
    assert!(silent.elapsed() < Duration::from_secs(3));
    relay.swallow_replies(false);
    assert_eq!(String::from_utf8(blocked.reply()).unwrap(), "*-1\r\n", "it may take its time");
}

/// Every request would be answered with an error: nobody should send any here.
#[test]
fn it_is_not_ready_while_the_upstream_loads_its_data() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut direct = redis.connect();
    assert_eq!(nearside.get("/readyz").0, 200);
    for command in [
        "DEBUG POPULATE 3000",
        "CONFIG SET key-load-delay 1000",
        "CONFIG SET loading-process-events-interval-bytes 1024",
    ] {
        assert_eq!(direct.text(command), "+OK\r\n", "{command}");
    }
    direct.send(&line("DEBUG RELOAD"));
    let mut client = nearside.connect();
    let mut seen = String::new();
    eventually("it says that it is not ready", || {
        client.cmd("GET x");
        let (status, why) = nearside.get("/readyz");
        seen = why;
        status == 503
    });
    assert!(seen.contains("the upstream answers LOADING"), "{seen}");
    assert_eq!(direct.reply(), b"+OK\r\n");
    eventually("it is ready again", || {
        client.cmd("GET x");
        nearside.get("/readyz").0 == 200
    });
}
