//! Few file descriptors, many connections: who cannot be served is told so, and whoever asks whether nearside is well gets
//! an answer.

use crate::support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::program::Program;
use support::{Conn, Nearside, Redis, SOON, eventually, line};

const REFUSED: &[u8] = b"-ERR max number of clients reached\r\n";

#[test]
fn who_cannot_be_served_is_told_so_and_nobody_hangs() {
    let redis = Redis::start();
    let mut program = Program::start_with_files(64, redis.port, &["--workers", "2"]);
    eventually("it is ready", || program.status("/readyz") == Some(200));
    let mut clients: Vec<Conn> = (0..100).map(|_| program.connect()).collect();
    let mut served = Vec::new();
    for (i, mut client) in clients.drain(..).enumerate() {
        let _ = client.stream.write_all(&line("PING"));
        match client.try_reply().unwrap_or_else(|error| panic!("client {i} hears nothing: {error}")) {
            pong if pong == b"+PONG\r\n" => served.push(client),
            refused => assert_eq!(refused, REFUSED, "client {i}"),
        }
        if i % 10 == 0 {
            assert_eq!(program.status("/livez"), Some(200), "with {i} clients");
        }
    }
    assert!((15..60).contains(&served.len()), "{} are served", served.len());
    assert_eq!(served[0].text("SET k v"), "+OK\r\n");
    // Each of them now wants a connection upstream of its own.
    for client in &mut served {
        client.send(&line("BLPOP list 0"));
    }
    // While there is not one descriptor left, each probe is answered, and not only the first.
    for probe in 0..50 {
        let began = Instant::now();
        assert_eq!(program.status("/livez"), Some(200), "probe {probe}");
        assert_eq!(program.status("/readyz"), Some(200), "probe {probe}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    assert_eq!(program.connect().try_reply().expect("an answer"), REFUSED);
    // Those that got one are served, and the others were told that they got none.
    let (mut direct, mut popped, mut told) = (redis.connect(), 0, 0);
    let blocked = |direct: &mut Conn| {
        let info = direct.text("INFO clients");
        let count = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
        count.unwrap().trim().parse::<usize>().unwrap()
    };
    eventually("some wait", || blocked(&mut direct) > 0);
    direct.args(&[&b"RPUSH"[..], b"list"].into_iter().chain([&b"v"[..]; 200]).collect::<Vec<_>>());
    for client in &mut served {
        match client.try_reply().expect("an answer") {
            pop if pop.starts_with(b"*2") => popped += 1,
            error => {
                assert!(error.starts_with(b"-ERR"), "{}", error.escape_ascii());
                told += 1;
            }
        }
    }
    println!("{popped} popped, {told} told");
    assert!(popped > 0);
    assert!(program.connect().try_reply_to("PING").is_ok());
    drop(served);
    eventually("there is room again", || {
        program.connect().try_reply_to("PING").is_ok_and(|reply| reply == b"+PONG\r\n")
    });
    program.terminate();
    assert_eq!(program.ended().code(), Some(0));
    assert_eq!(
        program.seen.matches("too few file descriptors for max-clients").count(),
        1,
        "{}",
        program.seen
    );
    assert_eq!(program.seen.matches("a client was refused").count(), 1, "{}", program.seen);
}

#[test]
fn without_room_for_one_client_it_says_so_and_ends() {
    let port = support::free_port().to_string();
    let script = "ulimit -n 30 && exec \"$@\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_nearside"), "--listen", &port, "--admin", "off"])
        .args(["--workers", "2"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("ulimit -n"), "{told}");
}

#[test]
fn silent_connections_to_the_admin_port_keep_no_probe_waiting() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let silent: Vec<TcpStream> = (0..200)
        .map(|i| {
            let mut stream = TcpStream::connect(nearside.admin).unwrap();
            if i % 2 == 0 {
                let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost");
            }
            stream
        })
        .collect();
    for page in ["/livez", "/readyz", "/metrics"] {
        let began = Instant::now();
        assert_eq!(nearside.get(page).0, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "{page} took {:?}", began.elapsed());
    }
    // Nor do they stay.
    for (i, mut stream) in silent.into_iter().enumerate() {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let reset = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(ended.map_or_else(reset, |_| true), "silent connection {i} is still open");
    }
}

/// A scraper that keeps its connection is served on it again and again.
#[test]
fn a_connection_to_the_admin_port_may_ask_again() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut stream = TcpStream::connect(nearside.admin).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    for _ in 0..3 {
        write!(stream, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"ok\n") {
            let mut chunk = [0; 1024];
            let n = stream.read(&mut chunk).unwrap();
            assert!(n > 0, "it was closed");
            said.extend_from_slice(&chunk[..n]);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
