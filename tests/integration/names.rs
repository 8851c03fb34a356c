//! An upstream by a name: that does not resolve yet, that has several addresses, that leads to another server. The program runs
//! where a file of the test's own stands in the place of `/etc/hosts`, so that names are the system's affair, as ever.

use crate::support;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::program::Program;
use support::{Conn, Redis, SOON, eventually};

/// What names lead to.
struct Hosts {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Hosts {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosts = Self { path: dir.path().join("hosts"), _dir: dir };
        hosts.lead(&[]);
        hosts
    }

    /// The name leads to these.
    fn lead(&self, to: &[&str]) {
        let lines: String = to.iter().map(|address| format!("{address} redis.test\n")).collect();
        std::fs::write(&self.path, lines).unwrap();
    }

    fn nearside(&self, port: u16, more: &[&str]) -> Program {
        let more = [&["--workers", "1"], more].concat();
        Program::start_with_hosts(&self.path, &format!("redis://redis.test:{port}"), &more)
    }
}

/// A server on another address of this host.
struct Other {
    address: SocketAddr,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Other {
    fn start(ip: &str, port: u16) -> Self {
        let (dir, address) =
            (tempfile::tempdir().unwrap(), SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port));
        let program = std::env::var("NEARSIDE_TEST_SERVER").unwrap_or_else(|_| "redis-server".into());
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", ip, "--save", "", "--dir"])
            .arg(dir.path())
            .args(["--repl-diskless-sync-delay", "0"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let other = Self { address, child, _dir: dir };
        let pid = format!("process_id:{}\r\n", other.child.id());
        eventually("another server", || {
            Conn::try_to(address).is_ok_and(|mut conn| conn.text("INFO server").contains(&pid))
        });
        other
    }

    fn connect(&self) -> Conn {
        Conn::to(self.address)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads until a hit has given this.
#[track_caller]
fn until_hit(program: &Program, value: &str) {
    let mut client = program.connect();
    let deadline = Instant::now() + SOON;
    loop {
        let before = program.stat("hits");
        let said = client.text("GET k");
        if said.ends_with(&format!("\r\n{value}\r\n")) && program.stat("hits") > before {
            return;
        }
        assert!(Instant::now() < deadline, "{said}, and no hit with {value}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn it_starts_before_its_name_is_there_says_so_once_and_is_ready_within_a_second() {
    let redis = Redis::start();
    let mut took = Vec::new();
    // A busy machine may hold up one of them, not each.
    while took.len() < 3 && took.iter().all(|time| *time > Duration::from_secs(1)) {
        let hosts = Hosts::new();
        let mut program = hosts.nearside(redis.port, &[]);
        let why = "the name redis.test does not resolve";
        eventually("it says why it is not ready", || {
            program.status("/readyz") == Some(503) && program.page("/readyz").contains(why)
        });
        let mut client = program.connect();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1500) {
            let said = client.text("GET k");
            assert!(said.starts_with("-ERR nearside: upstream redis.test") && said.contains(why), "{said}");
        }
        let told = program.logged().matches(why).count();
        assert!((1..=2).contains(&told), "of the feed and of the link, once each: {}", program.logged());
        // The server listens on one of both only.
        hosts.lead(&["::1", "127.0.0.1"]);
        let began = Instant::now();
        eventually("it is ready", || program.status("/readyz") == Some(200));
        eventually("it serves", || client.text("SET k v") == "+OK\r\n");
        took.push(began.elapsed());
        until_hit(&program, "v");
    }
    assert!(took.last().unwrap() <= &Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_new_connection_goes_where_the_name_leads_now() {
    let redis = Redis::start();
    let other = Other::start("127.0.0.2", redis.port);
    let hosts = Hosts::new();
    hosts.lead(&["127.0.0.1"]);
    let program = hosts.nearside(redis.port, &[]);
    redis.connect().cmd("SET k first");
    other.connect().cmd("SET k second");
    until_hit(&program, "first");
    hosts.lead(&["127.0.0.2"]);
    until_hit(&program, "first");
    let mut direct = redis.connect();
    direct.cmd("CLIENT KILL TYPE normal");
    direct.cmd("CLIENT KILL TYPE pubsub");
    until_hit(&program, "second");
    assert_eq!(program.stat("servers_left"), 0);
}

#[test]
fn with_dns_refresh_a_name_that_has_moved_is_followed_though_the_old_server_lives() {
    let redis = Redis::start();
    let other = Other::start("127.0.0.2", redis.port);
    let hosts = Hosts::new();
    hosts.lead(&["127.0.0.1"]);
    let mut program = hosts.nearside(redis.port, &["--dns-refresh", "100ms"]);
    redis.connect().cmd("SET k first");
    until_hit(&program, "first");
    // To one that is a replica still, and to nobody: it stays.
    assert_eq!(other.connect().text(&format!("REPLICAOF 127.0.0.1 {}", redis.port)), "+OK\r\n");
    eventually("it replicates", || {
        other.connect().text("INFO replication").contains("master_link_status:up")
    });
    hosts.lead(&["127.0.0.2"]);
    program.wait_for("what is there is a replica");
    until_hit(&program, "first");
    hosts.lead(&[]);
    until_hit(&program, "first");
    hosts.lead(&["127.0.0.2"]);
    assert_eq!(other.connect().text("REPLICAOF NO ONE"), "+OK\r\n");
    other.connect().cmd("SET k second");
    until_hit(&program, "second");
    assert_eq!(program.stat("servers_left"), 1);
    other.connect().cmd("SET k third");
    until_hit(&program, "third");
    assert_eq!(program.connect().text("SET k fourth"), "+OK\r\n");
    assert_eq!(other.connect().value("k").as_deref(), Some("fourth"));
    eventually("nothing stays behind", || !redis.connect().text("CLIENT LIST").contains("name=nearside"));
    let told = program.logged().matches("nearside stays").count();
    assert_eq!(told, 1, "{}", program.logged());
}
