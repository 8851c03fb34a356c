//! Users and databases without number: what the upstream refuses takes nothing, and what it takes is bounded by
//! closing the connection that was least lately used, never by leaving those who come later without a cache.

use crate::support;

use nearside::config::Config;
use support::{Conn, Nearside, Redis, eventually};

fn limited(redis: &Redis, max_links: usize) -> Nearside {
    Nearside::with(redis.address(), |config: &mut Config| config.max_links = max_links)
}

/// Connections that the upstream has, those of the test aside.
fn connections(redis: &Redis) -> usize {
    let list = redis.connect().text("CLIENT LIST");
    list.lines().filter(|line| line.contains("name=nearside")).count()
}

#[track_caller]
fn becomes_hit(nearside: &Nearside, client: &mut Conn, key: &str) {
    let before = nearside.stat("hits");
    eventually(&format!("{key} is served from the cache"), || {
        client.cmd(&format!("GET {key}"));
        nearside.stat("hits") > before
    });
}

#[track_caller]
fn hits(nearside: &Nearside, client: &mut Conn, key: &str, value: &str) {
    let before = nearside.stat("hits");
    assert_eq!(client.value(key).as_deref(), Some(value));
    assert_eq!(
        nearside.stat("hits"),
        before + 1,
        "{key} went upstream: {}\n{}",
        nearside.why(key),
        nearside.stats()
    );
}

fn logged_in(nearside: &Nearside, user: &str) -> Conn {
    let mut conn = nearside.connect();
    assert_eq!(conn.text(&format!("AUTH {user} pw")), "+OK\r\n");
    conn
}

#[test]
fn what_is_refused_takes_nothing() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER bob on >pw ~* &* +@all");
    direct.cmd("SET k v");
    direct.cmd("SELECT 3");
    direct.cmd("SET k three");
    let nearside = Nearside::start(redis.address());
    let (links, identities) = (nearside.stat("upstream_links"), nearside.stat("identities"));
    for resp3 in [false, true] {
        let mut client = if resp3 { nearside.connect_resp3() } else { nearside.connect() };
        for i in 0..1100 {
            let said = client.text(&format!("SELECT {}", 16 + i));
            assert!(said.starts_with("-ERR DB index is out of range"), "{said}");
        }
        for i in 0..300 {
            assert!(client.text(&format!("AUTH nobody{i} x")).starts_with("-WRONGPASS"));
        }
        assert_eq!(client.value("k").as_deref(), Some("v"), "the session is where it was");
    }
    // RESP3 as nearside itself.
    let (links, identities) = (links + 1, identities + 1);
    eventually("nothing is left of them", || nearside.stat("upstream_links") <= links);
    assert_eq!(nearside.stat("identities"), identities);
    assert!(connections(&redis) <= 1 + links as usize);

    let mut third = nearside.connect();
    assert_eq!(third.text("SELECT 3"), "+OK\r\n");
    becomes_hit(&nearside, &mut third, "k");
    hits(&nearside, &mut third, "k", "three");
    let mut bob = logged_in(&nearside, "bob");
    becomes_hit(&nearside, &mut bob, "k");
    hits(&nearside, &mut bob, "k", "v");
}

/// One that is refused again and again is not tried again each time.
#[test]
fn a_refused_database_that_is_asked_for_in_a_row_is_not_tried_each_time() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    let connected = || redis.connect().text("INFO stats");
    let count = |stats: String| -> u64 {
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_connections_received:").map(str::to_owned));
        line.unwrap().trim().parse().unwrap()
    };
    let before = count(connected());
    let packet: Vec<String> = (0..500).map(|_| "SELECT 99".to_owned()).collect();
    for said in client.pipeline(&packet) {
        assert!(said.starts_with("-ERR DB index is out of range"), "{said}");
    }
    let made = count(connected()) - before;
    assert!(made < 250, "{made} connections for one database that does not exist");
}

#[test]
fn a_walk_through_databases_leaves_the_others_cached() {
    let redis = Redis::with(&["--databases", "20000"]);
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER alice on >pw ~* &* +@all");
    direct.cmd("MSET k v a v");
    let nearside = limited(&redis, 16);
    let (mut plain, mut alice) = (nearside.connect(), logged_in(&nearside, "alice"));
    becomes_hit(&nearside, &mut plain, "k");
    becomes_hit(&nearside, &mut alice, "a");
    let mut walker = nearside.connect();
    for db in 1..1200 {
        let said =
            walker.pipeline(&[format!("SELECT {db}"), format!("SET walked {db}"), "GET walked".into()]);
        assert_eq!(said[0], "+OK\r\n");
        assert!(said[2].ends_with(&format!("\r\n{db}\r\n")), "{said:?}");
        if db % 100 == 0 {
            hits(&nearside, &mut plain, "k", "v");
            hits(&nearside, &mut alice, "a", "v");
            assert!(connections(&redis) <= 16 + 4, "{} connections", connections(&redis));
        }
    }
    assert!(
        nearside.get("/metrics").1.contains("\nnearside_closed_idle_links_total 11"),
        "closed and counted"
    );
    // Keys have one history in all databases, so each has its own here.
    // Who comes later is cached too, in a database that was visited and in one that was not.
    for db in [700, 15_000] {
        direct.cmd(&format!("SELECT {db}"));
        direct.cmd("SET late here");
        let mut late = nearside.connect();
        assert_eq!(late.text(&format!("SELECT {db}")), "+OK\r\n");
        becomes_hit(&nearside, &mut late, "late");
        hits(&nearside, &mut late, "late", "here");
        direct.cmd("SET late changed");
        eventually("a foreign change", || late.value("late").as_deref() == Some("changed"));
    }
    hits(&nearside, &mut plain, "k", "v");
    hits(&nearside, &mut alice, "a", "v");
}

#[test]
fn a_walk_through_users_leaves_the_others_cached_and_gives_nobody_anothers_replies() {
    const USERS: usize = 300;
    let redis = Redis::start();
    let mut direct = redis.connect();
    for i in 0..USERS {
        // Each may read its own key only.
        let said = direct.text(&format!("ACL SETUSER u{i} on >pw ~k{i} +@all"));
        assert_eq!(said, "+OK\r\n");
        direct.cmd(&format!("SET k{i} {i}"));
    }
    let nearside = limited(&redis, 16);
    let mut plain = nearside.connect();
    direct.cmd("SET elsewhere v");
    becomes_hit(&nearside, &mut plain, "elsewhere");
    let mut walker = nearside.connect();
    for i in 0..USERS {
        assert_eq!(walker.text(&format!("AUTH u{i} pw")), "+OK\r\n");
        for _ in 0..2 {
            assert_eq!(walker.value(&format!("k{i}")), Some(i.to_string()));
        }
        let other = walker.text(&format!("GET k{}", (i + 1) % USERS));
        assert!(other.starts_with("-NOPERM"), "{other}");
        if i % 50 == 0 {
            hits(&nearside, &mut plain, "elsewhere", "v");
        }
    }
    assert!(connections(&redis) <= 16 + 4, "{} connections", connections(&redis));
    let mut last = logged_in(&nearside, "u7");
    becomes_hit(&nearside, &mut last, "k7");
}

/// More sessions than links, each in a database of its own and all of them open.
#[test]
fn sessions_whose_idle_link_was_closed_go_on_and_are_cached_again() {
    let redis = Redis::with(&["--databases", "100"]);
    let nearside = limited(&redis, 8);
    let mut sessions: Vec<Conn> = (1..=40)
        .map(|db| {
            let mut session = nearside.connect();
            let said = session.pipeline(&[format!("SELECT {db}"), format!("SET k {db}")]);
            assert_eq!(said, ["+OK\r\n", "+OK\r\n"]);
            session
        })
        .collect();
    assert!(connections(&redis) <= 8 + 4, "{} connections", connections(&redis));
    for _ in 0..3 {
        for (i, session) in sessions.iter_mut().enumerate() {
            assert_eq!(session.value("k"), Some((i + 1).to_string()));
            let said = session.pipeline(&["INCR k", "GET k", "DECR k"]);
            assert_eq!(said[1], format!("${}\r\n{}\r\n", (i + 2).to_string().len(), i + 2), "its own write");
        }
    }
    for session in &mut sessions[..4] {
        becomes_hit(&nearside, session, "k");
    }
    assert!(connections(&redis) <= 8 + 4, "{} connections", connections(&redis));
}

/// Nothing may be closed on which a reply is awaited.
#[test]
fn links_that_are_in_use_are_not_closed() {
    let redis = Redis::with(&["--databases", "100"]);
    let nearside = limited(&redis, 4);
    let mut clients: Vec<Conn> = (1..=12)
        .map(|db| {
            let mut client = nearside.connect();
            assert_eq!(client.text(&format!("SELECT {db}")), "+OK\r\n");
            client
        })
        .collect();
    let mut direct = redis.connect();
    assert_eq!(direct.text("CLIENT PAUSE 400 WRITE"), "+OK\r\n");
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&support::line(&format!("SET k {i}")));
    }
    for client in &mut clients {
        assert_eq!(client.reply(), b"+OK\r\n", "no request is lost for the sake of the bound");
    }
    eventually("then they are closed", || connections(&redis) <= 4 + 4);
}
