//! What a login, and a wait, costs in connections upstream; and that what has just logged in is the link to use.

use crate::support;

use std::time::{Duration, Instant};

use support::filter::Filter;
use support::{Conn, Nearside, Redis, eventually, line};

/// Connections that the upstream has ever accepted.
fn accepted(direct: &mut Conn) -> i64 {
    let info = direct.text("INFO stats");
    let found =
        info.lines().find_map(|line| line.strip_prefix("total_connections_received:")?.trim().parse().ok());
    found.expect("INFO stats")
}

fn start() -> (Redis, Nearside, Conn) {
    let redis = Redis::start();
    let mut direct = redis.connect();
    for user in ["alice", "bob"] {
        assert_eq!(direct.text(&format!("ACL SETUSER {user} on >p ~* &* +@all")), "+OK\r\n");
    }
    let nearside = Nearside::start(redis.address());
    (redis, nearside, direct)
}

#[track_caller]
fn reads_are_cached(nearside: &Nearside, conn: &mut Conn) {
    let before = nearside.stat("hits");
    eventually("a hit", || {
        conn.cmd("GET users/probe");
        conn.cmd("GET users/probe");
        nearside.stat("hits") > before
    });
}

#[test]
fn logging_in_again_costs_no_connection() {
    let (_redis, nearside, mut direct) = start();
    // These stay, so their links do.
    let (mut alice, mut bob) = (nearside.connect(), nearside.connect());
    assert_eq!(alice.text("AUTH alice p"), "+OK\r\n");
    assert!(bob.text("HELLO 3 AUTH bob p SETNAME n").starts_with('%'));
    reads_are_cached(&nearside, &mut bob);
    let before = accepted(&mut direct);
    for _ in 0..40 {
        let mut client = nearside.connect();
        assert_eq!(client.text("AUTH alice p"), "+OK\r\n");
        assert_eq!(client.text("ACL WHOAMI"), "$5\r\nalice\r\n");
        let mut client = nearside.connect();
        assert!(client.text("HELLO 3 AUTH bob p SETNAME n").starts_with('%'));
        assert_eq!(client.text("CLIENT GETNAME"), "$1\r\nn\r\n");
        assert_eq!(client.text("ACL WHOAMI"), "$3\r\nbob\r\n");
        let mut client = nearside.connect();
        assert!(client.text("AUTH alice wrong").starts_with("-WRONGPASS"));
        assert!(client.text("HELLO 3 AUTH bob wrong").starts_with("-WRONGPASS"));
        assert_eq!(client.text("ACL WHOAMI"), "$7\r\ndefault\r\n");
    }
    assert_eq!(accepted(&mut direct), before);
    // The others were not touched by the wrong ones.
    assert_eq!(alice.text("ACL WHOAMI"), "$5\r\nalice\r\n");
    reads_are_cached(&nearside, &mut alice);
    reads_are_cached(&nearside, &mut bob);
}

#[test]
fn many_who_log_in_at_once_share_one_connection() {
    let (_redis, nearside, mut direct) = start();
    let before = accepted(&mut direct);
    let mut clients: Vec<_> = (0..60).map(|_| nearside.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&[line("AUTH alice p"), line("ACL WHOAMI")].concat()));
    for client in &mut clients {
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(client.reply(), b"$5\r\nalice\r\n");
    }
    let opened = accepted(&mut direct) - before;
    assert!(opened <= 2, "{opened} connections");
}

/// The upstream is asked each time, and what it says is passed on.
#[test]
fn a_login_is_what_the_upstream_makes_of_it_now() {
    let (_redis, nearside, mut direct) = start();
    let mut early = nearside.connect();
    assert_eq!(early.text("AUTH alice p"), "+OK\r\n");
    let says = |login: &str| nearside.connect().text(login);
    direct.cmd("ACL SETUSER alice off");
    assert!(says("AUTH alice p").starts_with("-WRONGPASS"));
    direct.cmd("ACL SETUSER alice on >q <p");
    assert!(says("AUTH alice p").starts_with("-WRONGPASS"));
    assert_eq!(early.text("ACL WHOAMI"), "$5\r\nalice\r\n", "it has logged in before");
    let mut late = nearside.connect();
    assert_eq!(late.text("AUTH alice q"), "+OK\r\n");
    for client in [&mut early, &mut late] {
        assert_eq!(client.text("ACL WHOAMI"), "$5\r\nalice\r\n");
        assert_eq!(client.text("SET users/a 1"), "+OK\r\n");
        reads_are_cached(&nearside, client);
    }
    // Two passwords at once, as while they are changed everywhere.
    direct.cmd("ACL SETUSER alice >p");
    assert_eq!(says("AUTH alice p"), "+OK\r\n");
    let before = accepted(&mut direct);
    for _ in 0..10 {
        assert_eq!(says("AUTH alice p"), "+OK\r\n");
        assert_eq!(says("AUTH alice q"), "+OK\r\n");
    }
    assert_eq!(accepted(&mut direct), before);
    direct.cmd("ACL SETUSER alice <p");
    let before = accepted(&mut direct);
    for _ in 0..10 {
        assert_eq!(early.text("PING"), "+PONG\r\n");
        assert_eq!(late.text("PING"), "+PONG\r\n");
        assert!(says("AUTH alice p").starts_with("-WRONGPASS"));
        assert_eq!(says("AUTH alice q"), "+OK\r\n");
    }
    assert_eq!(accepted(&mut direct), before);
}

#[test]
fn a_user_made_anew_is_served() {
    let (_redis, nearside, mut direct) = start();
    for (round, (old, new)) in [("p", "p"), ("p", "q"), ("q", "r")].into_iter().enumerate() {
        for hello in ["", "HELLO 3"] {
            direct.cmd(&format!("ACL SETUSER alice on resetpass >{old} ~* &* +@all"));
            let log_in = |client: &mut Conn, password: &str| match hello {
                "" => assert_eq!(client.text(&format!("AUTH alice {password}")), "+OK\r\n"),
                hello => assert!(client.text(&format!("{hello} AUTH alice {password}")).starts_with('%')),
            };
            let mut before = nearside.connect();
            log_in(&mut before, old);
            reads_are_cached(&nearside, &mut before);
            direct.cmd("ACL DELUSER alice");
            // Its link is refused from now on.
            eventually("the old one is told", || before.text("ECHO x").starts_with('-'));
            assert!(nearside.connect().text(&format!("AUTH alice {old}")).starts_with("-WRONGPASS"));
            direct.cmd(&format!("ACL SETUSER alice on >{new} ~* &* +@all"));
            for _ in 0..3 {
                let mut client = nearside.connect();
                log_in(&mut client, new);
                assert_eq!(client.text("ACL WHOAMI"), "$5\r\nalice\r\n", "round {round}");
                assert_eq!(client.text(&format!("SET users/a {round}")), "+OK\r\n");
                assert_eq!(
                    packet(&mut client, &["MULTI", "PING", "EXEC"]),
                    "+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n"
                );
                reads_are_cached(&nearside, &mut client);
            }
        }
    }
}

fn packet(conn: &mut Conn, lines: &[&str]) -> String {
    conn.pipeline(lines).concat()
}

/// A write that the upstream holds back does not hold up who logs in behind it.
#[test]
fn a_login_does_not_stand_behind_a_paused_write() {
    let (_redis, nearside, mut direct) = start();
    let mut early = nearside.connect();
    assert_eq!(early.text("AUTH alice p"), "+OK\r\n");
    direct.cmd("CLIENT PAUSE 60000 WRITE");
    early.send(&line("SET users/a 1"));
    for login in ["AUTH alice wrong", "AUTH alice p"] {
        let mut late = nearside.connect();
        let begun = Instant::now();
        let said = late.text(login);
        assert_eq!(said.starts_with('-'), login.ends_with("wrong"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{login}: {:?}", begun.elapsed());
    }
    direct.cmd("CLIENT UNPAUSE");
    assert_eq!(early.reply(), b"+OK\r\n");
}

/// Workers that wait for jobs use their connections again.
#[test]
fn many_workers_that_wait_open_one_connection_each() {
    let (_redis, nearside, mut direct) = start();
    const WORKERS: usize = 100;
    let before = accepted(&mut direct);
    let mut workers: Vec<_> = (0..WORKERS).map(|_| nearside.connect()).collect();
    for round in 0..6 {
        for worker in &mut workers {
            worker.send(&[line("BRPOP jobs 0.05"), line("GET users/a")].concat());
        }
        for worker in &mut workers {
            assert!(worker.reply().starts_with(b"*-1"), "round {round}");
            assert_eq!(worker.reply(), b"$-1\r\n");
        }
    }
    let opened = accepted(&mut direct) - before;
    assert!(opened <= WORKERS as i64 + 5, "{opened} connections");
    // And what they use again is clean.
    let begun = Instant::now();
    for worker in workers.iter_mut().take(20) {
        assert_eq!(packet(worker, &["MULTI", "CLIENT GETNAME", "EXEC"]), "+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// As Redis does from 7.2 on, and Valkey before 9, while the answer to something before it is to be sent.
fn unanswered(args: &[Vec<u8>]) -> Option<&'static str> {
    args.last().is_some_and(|last| last == b"wrong").then_some("")
}

#[test]
fn a_login_that_is_refused_without_an_answer_takes_nobody_elses() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    assert_eq!(direct.text("ACL SETUSER alice on >p ~* &* +@all"), "+OK\r\n");
    let filter = Filter::to(redis.address(), unanswered);
    let nearside = Nearside::start(filter.address);
    let (mut alice, mut other) = (nearside.connect(), nearside.connect());
    assert_eq!(alice.text("AUTH alice p"), "+OK\r\n");
    for turn in 0..20 {
        // By the link that is alice's.
        assert!(other.text("AUTH alice wrong").starts_with("-WRONGPASS"), "{turn}");
        assert_eq!(alice.text(&format!("ECHO {turn}")), format!("${}\r\n{turn}\r\n", turn.to_string().len()));
        assert_eq!(other.text("ACL WHOAMI"), "$7\r\ndefault\r\n");
        // On a connection of its own.
        let said = other.pipeline(&["WATCH w", "AUTH alice wrong", "ECHO behind", "ACL WHOAMI", "UNWATCH"]);
        assert_eq!(said[0], "+OK\r\n");
        assert!(said[1].starts_with("-WRONGPASS"), "{said:?}");
        assert_eq!(said[2..], ["$6\r\nbehind\r\n", "$7\r\ndefault\r\n", "+OK\r\n"]);
        let said = other.pipeline(&["WATCH w", "HELLO 2 AUTH alice wrong", "ECHO behind", "UNWATCH"]);
        assert!(said[1].starts_with("-WRONGPASS"), "{said:?}");
        assert_eq!(said[2..], ["$6\r\nbehind\r\n", "+OK\r\n"]);
    }
    assert_eq!(nearside.stat("upstream_lost"), 0);
}
