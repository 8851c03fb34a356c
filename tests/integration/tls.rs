//! TLS to the upstream and with clients: everything works over it as it does without.

use crate::support;

use std::io::Read;
use std::net::Shutdown;
use std::process::Command;
use std::time::Duration;

use support::program::Program;
use support::python::python;
use support::tls::{Authority, Client, TlsConn, TlsRedis, listen};
use support::{Nearside, eventually, free_port, line, request};
use tokio_rustls::rustls::SupportedProtocolVersion;
use tokio_rustls::rustls::version::{TLS12, TLS13};

const LOCAL: &[&str] = &["127.0.0.1"];

/// A CA, a Redis with TLS, and nearside in front of it that its clients reach by TLS.
struct World {
    authority: Authority,
    redis: TlsRedis,
    nearside: Nearside,
}

impl World {
    fn new() -> Self {
        Self::with("TLSv1.2 TLSv1.3", |_| ())
    }

    fn with(versions: &str, change: impl FnOnce(&mut nearside::config::Config)) -> Self {
        let authority = Authority::new();
        let (server, ours) = (authority.issue("server", LOCAL), authority.issue("nearside", LOCAL));
        let redis = TlsRedis::start(&authority, &server, false, &["--tls-protocols", versions]);
        let nearside = Nearside::tls(&redis, &authority, |config| {
            listen(config, &ours);
            change(config);
        });
        Self { authority, redis, nearside }
    }

    #[track_caller]
    fn connect(&self) -> TlsConn {
        Client::of(&self.authority.ca()).connect(self.nearside.address).unwrap()
    }

    fn hits(&self) -> u64 {
        let page = self.nearside.get("/metrics").1;
        page.lines().find_map(|line| line.strip_prefix("nearside_hits_total ")).unwrap().parse().unwrap()
    }
}

#[test]
fn hits_come_over_tls_on_both_sides_and_follow_a_foreign_writer() {
    let world = World::new();
    let mut client = world.connect();
    assert_eq!(client.cmd("SET k v"), b"+OK\r\n");
    assert_eq!(client.value("k").as_deref(), Some("v"));
    assert_eq!(client.value("k").as_deref(), Some("v"));
    assert_eq!(world.hits(), 1);
    assert_eq!(world.redis.redis.connect().cmd("SET k foreign"), b"+OK\r\n");
    eventually("the change is seen", || client.value("k").as_deref() == Some("foreign"));
    // The connections are known as nearside's own, and the client as what it is.
    let seen = world.redis.redis.connect().text("CLIENT LIST");
    assert!(seen.contains("name=nearside"), "{seen}");
    let listed = client.text("CLIENT LIST");
    let port = client.stream.sock.local_addr().unwrap().port();
    assert!(
        listed.contains(&format!("addr=127.0.0.1:{port} ")) && !listed.contains("name=nearside"),
        "{listed}"
    );
}

#[test]
fn each_version_alone_will_do_on_either_side() {
    const EACH: [(&str, &[&SupportedProtocolVersion]); 2] = [("TLSv1.2", &[&TLS12]), ("TLSv1.3", &[&TLS13])];
    for (name, versions) in EACH {
        let world = World::with(name, |_| ());
        let ca = world.authority.ca();
        let client = Client { versions, ..Client::of(&ca) };
        let mut client = client.connect(world.nearside.address).unwrap();
        assert_eq!(client.stream.conn.protocol_version(), Some(versions[0].version));
        assert_eq!(client.cmd("SET k v"), b"+OK\r\n");
        assert_eq!((client.value("k"), client.value("k")), (Some("v".into()), Some("v".into())));
        assert_eq!(world.hits(), 1, "{name}");
    }
}

#[test]
fn large_values_and_deep_pipelines_pass_both_ways() {
    let world = World::with("TLSv1.2 TLSv1.3", |config| {
        config.max_value = 32 << 20;
        config.max_memory = 128 << 20;
    });
    let mut client = world.connect();
    let large: Vec<u8> = (0..10usize << 20).map(|i| (i * 7 % 251) as u8).collect();
    assert_eq!(client.args(&[b"SET", b"large", &large]), b"+OK\r\n");
    let expected = [format!("${}\r\n", large.len()).as_bytes(), &large, b"\r\n"].concat();
    // From the upstream, then from memory, then several in one packet.
    assert!(client.cmd("GET large") == expected);
    assert!(client.cmd("GET large") == expected);
    client.send(&line("GET large").repeat(5));
    (0..5).for_each(|_| assert!(client.reply() == expected));
    assert!(world.hits() >= 6);

    let lines: Vec<String> = (0..5000).map(|i| format!("SET key:{i} value:{i}")).collect();
    assert!(client.pipeline(&lines).iter().all(|reply| reply == "+OK\r\n"));
    let lines: Vec<String> = (0..5000).map(|i| format!("GET key:{i}")).collect();
    for round in 0..2 {
        let replies = client.pipeline(&lines);
        for (i, reply) in replies.iter().enumerate() {
            assert!(reply.ends_with(&format!("value:{i}\r\n")), "{round}: {i}: {reply}");
        }
    }
    assert!(world.hits() >= 5000);
}

#[test]
fn certificates_are_shown_and_demanded_on_both_sides() {
    let authority = Authority::new();
    let (server, ours) = (authority.issue("server", LOCAL), authority.issue("nearside", LOCAL));
    let theirs = authority.issue("client", &["client"]);
    let redis = TlsRedis::start(&authority, &server, true, &[]);
    let nearside = Nearside::tls(&redis, &authority, |config| {
        listen(config, &ours);
        config.tls_client_ca = Some(authority.ca());
        config.upstream_tls_cert = Some(ours.cert.clone());
        config.upstream_tls_key = Some(ours.key.clone());
    });
    let ca = authority.ca();
    let with = Client { identity: Some(&theirs), ..Client::of(&ca) };
    let mut client = with.connect(nearside.address).unwrap();
    assert_eq!(client.cmd("SET k v"), b"+OK\r\n");
    assert_eq!(client.value("k").as_deref(), Some("v"));
    // In TLS 1.3 a client hears of it at its first read.
    let without = Client::of(&ca).connect(nearside.address).and_then(|mut client| client.try_reply());
    assert!(without.is_err(), "a client without a certificate: {without:?}");
}

#[test]
fn whatever_has_a_connection_of_its_own_goes_over_tls() {
    let world = World::new();
    let (mut client, mut other) = (world.connect(), world.connect());
    client.send(&[line("MULTI"), line("INCR n"), line("EXEC")].concat());
    assert_eq!((client.reply(), client.reply()), (b"+OK\r\n".into(), b"+QUEUED\r\n".into()));
    assert_eq!(client.reply(), b"*1\r\n:1\r\n");
    client.send(&line("BLPOP list 10"));
    assert_eq!(other.cmd("RPUSH list x"), b":1\r\n");
    assert_eq!(client.reply(), request(&[b"list", b"x"]));
    assert!(client.text("SUBSCRIBE news").contains("subscribe"));
    assert_eq!(other.cmd("PUBLISH news hello"), b":1\r\n");
    assert_eq!(client.reply(), request(&[b"message", b"news", b"hello"]));
    let mut monitor = world.connect();
    assert_eq!(monitor.text("MONITOR"), "+OK\r\n");
    assert_eq!(other.cmd("SET seen 1"), b"+OK\r\n");
    while !String::from_utf8(monitor.reply()).unwrap().contains("\"SET\" \"seen\"") {}
}

#[test]
fn a_killed_upstream_comes_back() {
    let mut world = World::new();
    let mut client = world.connect();
    assert_eq!(client.cmd("SET k v"), b"+OK\r\n");
    world.redis.redis.restart();
    eventually("it is served again", || client.cmd("GET k") == b"$-1\r\n");
    assert_eq!(client.cmd("SET k again"), b"+OK\r\n");
    let before = world.hits();
    eventually("hits come again", || {
        assert_eq!(client.value("k").as_deref(), Some("again"));
        world.hits() > before
    });
}

#[test]
fn a_client_that_has_said_all_gets_all_replies() {
    let world = World::new();
    for goodbye in [true, false] {
        let mut client = world.connect();
        client.send(&[line("SET k v"), line("GET k"), line("BLPOP nothing 0.2"), line("PING")].concat());
        if goodbye {
            client.stream.conn.send_close_notify();
            while client.stream.conn.wants_write() {
                client.stream.conn.write_tls(&mut client.stream.sock).unwrap();
            }
        }
        client.stream.sock.shutdown(Shutdown::Write).unwrap();
        let mut said = Vec::new();
        client.stream.read_to_end(&mut said).expect("it ends by a goodbye");
        assert_eq!(String::from_utf8_lossy(&said), "+OK\r\n$1\r\nv\r\n*-1\r\n+PONG\r\n", "{goodbye}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_sent_away_and_one_that_is_slow_is_not() {
    let world = World::with("TLSv1.2 TLSv1.3", |config| {
        config.client_output_limit = 256 << 10;
        config.client_stall_timeout = Duration::from_millis(400);
    });
    let value = vec![b'x'; 512 << 10];
    let (mut slow, mut stuck) = (world.connect(), world.connect());
    assert_eq!(slow.args(&[b"SET", b"k", &value]), b"+OK\r\n");
    let stalled = || world.nearside.get("/metrics").1.contains("closed_clients_total{reason=\"stalled\"} 1");
    stuck.send(&line("GET k").repeat(200));
    eventually("the stuck one is sent away", stalled);
    slow.send(&line("GET k").repeat(20));
    let (mut left, mut chunk) = (20 * (value.len() + b"$524288\r\n\r\n".len()), vec![0; 256 << 10]);
    while left > 0 {
        std::thread::sleep(Duration::from_millis(20));
        let piece = left.min(chunk.len());
        slow.stream.read_exact(&mut chunk[..piece]).expect("it is served on");
        left -= piece;
    }
    assert!(stalled(), "and nobody else");
    assert_eq!(slow.cmd("PING"), b"+PONG\r\n");
}

#[test]
fn a_name_may_be_set_and_a_host_is_a_name() {
    let authority = Authority::new();
    let server = authority.issue("server", &["db.example", "localhost"]);
    let redis = TlsRedis::start(&authority, &server, false, &[]);
    for (host, name) in [("localhost", None), ("127.0.0.1", Some("db.example"))] {
        let url = format!("rediss://{host}:{}", redis.port);
        let nearside = Nearside::tls(&redis, &authority, |config| {
            config.upstream = nearside::config::Upstream::parse(&url).unwrap();
            config.upstream_tls_sni = name.map(str::to_owned);
        });
        assert_eq!(nearside.connect().cmd("PING"), b"+PONG\r\n");
    }
}

#[test]
fn redis_cli_and_redis_py_are_served_and_a_dump_is_taken() {
    let world = World::new();
    let (ca, port) = (world.authority.ca(), world.nearside.address.port().to_string());
    let cli = |args: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &port, "--tls", "--cacert", ca.to_str().unwrap()]).args(args);
        let ended = command.output().unwrap();
        assert!(ended.status.success(), "{args:?}: {ended:?}");
        String::from_utf8_lossy(&ended.stdout).trim().to_owned()
    };
    assert_eq!(cli(&["SET", "k", "v"]), "OK");
    assert_eq!((cli(&["GET", "k"]), cli(&["GET", "k"])), ("v".into(), "v".into()));
    assert_eq!(world.hits(), 1);
    // By SYNC, so in a tunnel.
    let dump = world.authority.folder().join("dump.rdb");
    cli(&["--rdb", dump.to_str().unwrap()]);
    assert!(std::fs::read(&dump).unwrap().starts_with(b"REDIS"));
    let script = "import redis, sys\n\
                  r = redis.Redis(port=int(sys.argv[1]), ssl=True, ssl_ca_certs=sys.argv[2], ssl_cert_reqs='required')\n\
                  r.set('py', 'x' * 100000); print(len(r.get('py')), len(r.get('py')))";
    let ended = Command::new(python()).args(["-c", script, &port]).arg(&ca).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "100000 100000\n", "{ended:?}");
}

#[test]
fn dev_leaves_tls_to_the_upstream_aside_and_serves_clients_by_it() {
    let authority = Authority::new();
    let ours = authority.issue("nearside", LOCAL);
    let (port, admin, file) = (free_port(), free_port(), authority.folder().join("nearside.toml"));
    let text = format!(
        "upstream = \"rediss://nobody.example\"\nupstream-tls-ca = {:?}\nlisten = \"tls://127.0.0.1:{port}\"\n\
         tls-cert = {:?}\ntls-key = {:?}\nadmin = \"127.0.0.1:{admin}\"\n",
        authority.ca(),
        ours.cert,
        ours.key
    );
    std::fs::write(&file, text).unwrap();
    let mut program = Program::run(&["dev", "--config", file.to_str().unwrap()], port, admin);
    program.wait_for("ready for clients");
    let mut client = Client::of(&authority.ca()).connect(([127, 0, 0, 1], port).into()).unwrap();
    assert_eq!(client.cmd("SET k v"), b"+OK\r\n");
    assert_eq!(client.value("k").as_deref(), Some("v"));
    program.terminate();
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
}
