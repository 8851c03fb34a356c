//! An upstream that takes connections and makes nothing of them is not hammered, is told of once, and its words reach
//! the clients.

use crate::support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use support::{Conn, Nearside, Redis, eventually, free_port};

/// Takes connections and says something, then closes; or hands them on.
struct Door {
    address: SocketAddr,
    connects: Arc<AtomicUsize>,
    open: Arc<AtomicBool>,
}

impl Door {
    /// Says `words` and closes; if there are none, answers so many requests with `+OK` before.
    fn closed(words: &'static str, answers: usize) -> Self {
        Self::to(None, words, answers)
    }

    fn to(upstream: Option<SocketAddr>, words: &'static str, answers: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connects, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, is_open) = (connects.clone(), open.clone());
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Relaxed);
                if let (true, Some(upstream)) = (is_open.load(Relaxed), upstream) {
                    let server = TcpStream::connect(upstream).unwrap();
                    pass(&client, &server);
                    pass(&server, &client);
                    continue;
                }
                std::thread::spawn(move || {
                    let _ = client.write_all(words.as_bytes());
                    let mut left = answers;
                    let mut chunk = [0; 4096];
                    while left > 0 {
                        let Ok(n @ 1..) = client.read(&mut chunk) else { return };
                        let asked = chunk[..n].iter().filter(|byte| **byte == b'*').count().min(left);
                        let _ = client.write_all("+OK\r\n".repeat(asked).as_bytes());
                        left -= asked;
                    }
                });
            }
        });
        Self { address, connects, open }
    }

    fn connects(&self) -> usize {
        self.connects.load(Relaxed)
    }
}

fn pass(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

const MAX_CLIENTS: &str = "-ERR max number of clients reached\r\n";
const DENIED: &str = "-DENIED Redis is running in protected mode because protected mode is enabled\r\n";

/// Connects of one link and the feed in this time, at most: what the longest delay allows, and some for the first.
const TIME: Duration = Duration::from_millis(700);
const MOST: usize = 60;

#[test]
fn an_upstream_that_closes_each_connection_is_not_hammered() {
    for (words, answers) in [("", 0), (MAX_CLIENTS, 0), ("", 2), ("", 4), ("", 9)] {
        let door = Door::closed(words, answers);
        let nearside = Nearside::unready(door.address, |_| ());
        let mut client = nearside.connect();
        let began = Instant::now();
        while began.elapsed() < TIME {
            let said = client.text("GET users/1");
            assert!(said.starts_with('-') || said == "+OK\r\n", "{said}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let connects = door.connects();
        println!("{words:?}, {answers} answers: {connects} connects");
        assert!((2..MOST).contains(&connects), "{words:?}, {answers} answers: {connects} connects");
        let counted = nearside.get("/metrics").1;
        let attempts = counted.lines().filter(|line| line.starts_with("nearside_connect_attempts_total{"));
        let sum: usize =
            attempts.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum();
        assert!(sum >= connects, "{sum} counted of {connects}");
    }
}

#[test]
fn the_upstreams_words_reach_the_client() {
    for words in [MAX_CLIENTS, DENIED] {
        let door = Door::closed(words, 0);
        let nearside = Nearside::unready(door.address, |_| ());
        for command in
            ["GET users/1", "SET users/1 v", "MULTI", "SELECT 3", "AUTH alice pw", "HELLO 3 AUTH alice pw"]
        {
            let mut client = nearside.connect();
            let said = client.text(command);
            assert!(said.contains(words.trim_end().trim_start_matches('-')), "{command}: {said}");
        }
    }
}

#[test]
fn it_serves_again_soon_after_the_door_is_open() {
    let redis = Redis::start();
    let door = Door::to(Some(redis.address()), MAX_CLIENTS, 0);
    let nearside = Nearside::unready(door.address, |_| ());
    let mut client = nearside.connect();
    eventually("it was turned away", || {
        client.cmd("GET users/1");
        door.connects() > 10
    });
    door.open.store(true, Relaxed);
    let since = Instant::now();
    nearside.wait_ready();
    eventually("a write", || client.text("SET users/1 v") == "+OK\r\n");
    client.value("users/1");
    eventually("a hit", || {
        client.value("users/1");
        nearside.stat("hits") > 0
    });
    println!("serves again after {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}

#[test]
fn it_is_told_once_and_not_with_each_attempt() {
    for (words, answers) in [(MAX_CLIENTS, 0), ("", 0), ("", 5)] {
        let door = Door::closed(words, answers);
        let (port, admin) = (free_port(), free_port());
        let upstream = format!("redis://{}", door.address);
        let mut child = Command::new(env!("CARGO_BIN_EXE_nearside"))
            .args(["--listen", &port.to_string(), "--admin", &admin.to_string(), "--upstream", &upstream])
            .args(["--workers", "2", "--namespace", "users"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        let address = ([127, 0, 0, 1], port).into();
        eventually("it listens", || TcpStream::connect(address).is_ok());
        let mut client = Conn::to(address);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1500) {
            client.cmd("GET users/1");
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        let log = log.join().unwrap();
        assert!(door.connects() > 10);
        assert!(log.len() < 15, "{} lines for {} connects:\n{}", log.len(), door.connects(), log.join("\n"));
        let told = |what: &str| log.iter().filter(|line| line.contains(what)).count();
        assert!(told(" WARN ") >= 1, "{}", log.join("\n"));
        if !words.is_empty() {
            assert!(told("max number of clients") >= 1, "{}", log.join("\n"));
        }
    }
}
