//! A primary that is demoted while its connections live, and whose address leads to the new one from then on: nearside
//! goes there, too. And a replica that is used on purpose is left alone.

use crate::support;

use nearside::config::Tracking;
use support::relay::Relay;
use support::{Conn, Nearside, Redis, eventually};

const READONLY: &str = "-READONLY";

/// Two servers of which the second replicates the first, and an address that leads to the first.
struct Pair {
    first: Redis,
    second: Redis,
    relay: Relay,
}

impl Pair {
    fn start() -> Self {
        let [first, second] = [server(), server()];
        let relay = Relay::to(first.address());
        replicate(&second, &first);
        Self { first, second, relay }
    }

    /// The second is the primary, with all that the first had, and the address does not lead there yet.
    fn demote(&self) {
        assert_eq!(self.first.connect().pipeline(&["SET replicated yes", "WAIT 1 0"])[1], ":1\r\n");
        assert_eq!(self.second.connect().text("REPLICAOF NO ONE"), "+OK\r\n");
        replicate(&self.first, &self.second);
    }

    fn lead_to_second(&self) {
        self.relay.lead_to(self.second.address());
    }
}

/// One that does not wait for other replicas when the first one comes.
fn server() -> Redis {
    Redis::with(&["--repl-diskless-sync-delay", "0"])
}

fn replicate(replica: &Redis, of: &Redis) {
    let mut conn = replica.connect();
    assert_eq!(conn.text(&format!("REPLICAOF 127.0.0.1 {}", of.port)), "+OK\r\n");
    eventually("it replicates", || conn.text("INFO replication").contains("master_link_status:up"));
}

/// Writes until that succeeds.
#[track_caller]
fn until_written(client: &mut Conn, command: &str) {
    eventually("writes succeed", || {
        let said = client.text(command);
        assert!(said.starts_with("+OK") || said.starts_with(READONLY), "{said}");
        std::thread::sleep(std::time::Duration::from_millis(5));
        said.starts_with("+OK")
    });
}

/// Reads until a hit has given this.
#[track_caller]
fn until_hit(nearside: &Nearside, client: &mut Conn, key: &str, value: &str) {
    eventually("hits go on", || {
        let before = nearside.stat("hits");
        client.value(key).as_deref() == Some(value) && nearside.stat("hits") > before
    });
}

#[test]
fn writes_of_everybody_go_to_the_new_primary_and_hits_are_of_it() {
    for tracking in [Tracking::Keys, Tracking::Prefix, Tracking::Off] {
        let pair = Pair::start();
        for server in [&pair.first, &pair.second] {
            server.connect().cmd("ACL SETUSER bob on >b ~* &* +@all");
        }
        let nearside = Nearside::with(pair.relay.address, |config| {
            config.workers = 2;
            config.tracking = tracking;
        });
        // Of both workers, both protocols, two users and two databases.
        let mut clients: Vec<_> = (0..8).map(|_| nearside.connect()).collect();
        for (i, client) in clients.iter_mut().enumerate() {
            match i / 2 {
                0 => {}
                1 => assert!(client.cmd("HELLO 3").starts_with(b"%")),
                2 => assert_eq!(client.text("AUTH bob b"), "+OK\r\n"),
                _ => assert_eq!(client.text("SELECT 3"), "+OK\r\n"),
            }
            assert_eq!(client.text("SET users/1 old"), "+OK\r\n");
            until_hit(&nearside, client, "users/1", "old");
        }
        pair.demote();
        pair.lead_to_second();
        for (i, client) in clients.iter_mut().enumerate() {
            until_written(client, &format!("SET users/1 {i}"));
        }
        assert_eq!(pair.second.connect().value("users/1").as_deref(), Some("5"), "{tracking:?}");
        let mut direct = pair.second.connect();
        for (i, client) in clients.iter_mut().enumerate() {
            direct.cmd(if i < 6 { "SELECT 0" } else { "SELECT 3" });
            for value in ["a", "b"] {
                direct.cmd(&format!("SET users/1 {value}"));
                if tracking == Tracking::Off {
                    direct.cmd("PUBLISH users/update 1");
                }
                eventually(&format!("{tracking:?}: what is changed there is seen by {i}"), || {
                    client.value("users/1").as_deref() == Some(value)
                });
                until_hit(&nearside, client, "users/1", value);
            }
        }
        eventually("and nothing stays behind but connections of the replication", || {
            !pair.first.connect().text("CLIENT LIST").contains("name=nearside")
        });
        assert_eq!(nearside.stat("servers_left"), 1, "{tracking:?}");
    }
}

#[test]
fn connections_of_a_sessions_own_lead_there_too() {
    let pair = Pair::start();
    let nearside = Nearside::start(pair.relay.address);
    let (mut waiting, mut other, mut watching) = (nearside.connect(), nearside.connect(), nearside.connect());
    // Two connections, kept ready for others.
    assert_eq!(other.pipeline(&["MULTI", "SET a 1", "EXEC"])[0], "+OK\r\n");
    assert_eq!(waiting.text("BLPOP list 0.01"), "*-1\r\n");
    assert_eq!(watching.text("WATCH a"), "+OK\r\n");
    pair.demote();
    pair.lead_to_second();
    eventually("transactions succeed", || {
        let said = other.pipeline(&["MULTI", "SET a 2", "EXEC"]);
        said[1] == "+QUEUED\r\n" && said[2] == "*1\r\n+OK\r\n"
    });
    assert_eq!(pair.second.connect().value("a").as_deref(), Some("2"));
    waiting.send(&support::line("BLPOP list 0"));
    eventually("it waits there", || pair.second.connect().text("INFO clients").contains("blocked_clients:1"));
    pair.second.connect().cmd("RPUSH list x");
    assert_eq!(waiting.reply(), b"*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
    // What has state keeps it, and goes when that is gone.
    assert!(watching.text("SET a 3").starts_with(READONLY));
    assert_eq!(watching.text("UNWATCH"), "+OK\r\n");
    until_written(&mut watching, "SET a 3");
    assert_eq!(pair.second.connect().value("a").as_deref(), Some("3"));
}

#[test]
fn a_connection_that_was_kept_ready_there_is_left_when_all_else_has_gone() {
    let pair = Pair::start();
    let nearside = Nearside::start(pair.relay.address);
    let mut client = nearside.connect();
    assert_eq!(client.pipeline(&["MULTI", "SET a 1", "EXEC"])[2], "*1\r\n+OK\r\n");
    pair.demote();
    pair.lead_to_second();
    let mut direct = pair.first.connect();
    for line in direct.text("CLIENT LIST").lines().filter(|line| line.contains("name=nearside")) {
        let id = line.split(' ').find_map(|field| field.strip_prefix("id=")).unwrap();
        if !line.contains("cmd=exec") {
            direct.cmd(&format!("CLIENT KILL ID {id}"));
        }
    }
    eventually("the rest has gone there", || pair.second.calls("subscribe") > 0);
    nearside.wait_ready();
    eventually("transactions succeed", || {
        client.pipeline(&["MULTI", "SET a 2", "EXEC"])[2] == "*1\r\n+OK\r\n"
    });
    assert_eq!(pair.second.connect().value("a").as_deref(), Some("2"));
    assert_eq!(nearside.stat("servers_left"), 0);
}

#[test]
fn an_address_that_is_given_to_the_new_primary_later_and_scripts() {
    let pair = Pair::start();
    let nearside = Nearside::start(pair.relay.address);
    let mut client = nearside.connect();
    assert_eq!(client.text("SET users/1 old"), "+OK\r\n");
    pair.demote();
    let script: [&[u8]; 4] = [b"EVAL", b"return redis.call('SET', KEYS[1], 'new')", b"1", b"users/1"];
    let said = String::from_utf8(client.args(&script)).unwrap();
    assert!(said.contains(READONLY), "{said}");
    until_hit(&nearside, &mut client, "users/1", "old");
    pair.lead_to_second();
    // Nobody has to write once more.
    eventually("it has gone there", || nearside.stat("servers_left") == 1);
    eventually("scripts write there", || client.args(&script) == b"+OK\r\n");
    until_hit(&nearside, &mut client, "users/1", "new");
}

#[test]
fn that_the_role_has_changed_is_seen_though_nobody_writes() {
    let pair = Pair::start();
    let nearside = Nearside::start(pair.relay.address);
    let mut client = nearside.connect();
    pair.first.connect().cmd("SET users/1 v");
    until_hit(&nearside, &mut client, "users/1", "v");
    pair.demote();
    pair.lead_to_second();
    eventually("it has gone there", || {
        client.value("users/1");
        nearside.stat("servers_left") == 1
    });
    pair.second.connect().cmd("SET users/1 w");
    until_hit(&nearside, &mut client, "users/1", "w");
}

#[test]
fn when_only_the_feed_has_gone_there_the_links_follow() {
    let pair = Pair::start();
    let nearside = Nearside::start(pair.relay.address);
    let mut client = nearside.connect();
    assert_eq!(client.text("SET users/1 v"), "+OK\r\n");
    until_hit(&nearside, &mut client, "users/1", "v");
    // There is a spare link, too.
    pair.first.connect().cmd("CLIENT PAUSE 20000 WRITE");
    let mut writer = nearside.connect();
    writer.send(&support::line("SET other x"));
    // Who asks before it is known that the write is stuck waits behind it, so each time it is somebody else.
    let mut others = Vec::new();
    eventually("a spare link", || {
        let mut other = nearside.connect();
        other.send(&support::line("HGETALL none"));
        others.push(other);
        nearside.stat("spare_links") == 1
    });
    pair.first.connect().cmd("CLIENT UNPAUSE");
    assert_eq!(writer.reply(), b"+OK\r\n");
    pair.demote();
    pair.lead_to_second();
    pair.relay.cut_feed();
    pair.second.connect().cmd("SET users/1 w");
    until_hit(&nearside, &mut client, "users/1", "w");
    assert_eq!(client.text("SET users/1 x"), "+OK\r\n", "at once");
    assert!(pair.relay.feeds() <= 4, "{}", pair.relay.feeds());
}

#[test]
fn a_replica_that_is_used_on_purpose_keeps_its_links_and_what_is_cached() {
    let [primary, replica] = [server(), server()];
    replicate(&replica, &primary);
    primary.connect().cmd("SET users/1 v");
    let relay = Relay::to(replica.address());
    let nearside = Nearside::start(relay.address);
    let (mut client, mut own) = (nearside.connect(), nearside.connect());
    until_hit(&nearside, &mut client, "users/1", "v");
    own.pipeline(&["MULTI", "GET users/1", "EXEC"]);
    let (connections, lapses) = (relay.accepted(), nearside.stat("feed_lapses"));
    for _ in 0..200 {
        assert!(client.text("SET users/1 w").starts_with(READONLY));
        let said = own.pipeline(&["MULTI", "SET users/1 w", "EXEC"]);
        assert!(said[1].starts_with(READONLY) && said[2].starts_with("-EXECABORT"), "{said:?}");
    }
    let made = relay.accepted() - connections;
    assert!((1..=8).contains(&made), "{made} connections");
    assert_eq!((nearside.stat("servers_left"), nearside.stat("feed_lapses")), (0, lapses));
    until_hit(&nearside, &mut client, "users/1", "v");
}
