//! Memory: the cache keeps to its limit, drops what was not used for longest, and large values pass through.

use crate::support;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{Conn, Nearside, Redis, eventually, free_port, line};

const LIMIT: usize = 2 << 20;

/// In front of a server that has ten times what the cache may keep: 10,000 values of 1 to 3 kB.
fn churned() -> (Redis, Nearside, Vec<String>) {
    let redis = Redis::start();
    let mut direct = redis.connect();
    let keys: Vec<_> = (0..10_000).map(|i| format!("users/{i}")).collect();
    for batch in keys.chunks(500) {
        let lines =
            batch.iter().enumerate().map(|(i, key)| line(&format!("SET {key} {}", "v".repeat(1000 + 4 * i))));
        direct.send(&lines.collect::<Vec<_>>().concat());
        batch.iter().for_each(|_| assert_eq!(direct.reply(), b"+OK\r\n"));
    }
    let nearside = Nearside::with(redis.address(), |config| config.max_memory = LIMIT);
    (redis, nearside, keys)
}

/// Reads all keys through `client`, fifty in one packet.
fn read_all(client: &mut Conn, keys: &[String], mut between: impl FnMut(&mut Conn)) {
    for batch in keys.chunks(50) {
        let gets: Vec<_> = batch.iter().map(|key| format!("GET {key}")).collect();
        assert!(client.pipeline(&gets).iter().all(|reply| reply.len() > 1000));
        between(client);
    }
}

#[test]
fn the_limit_is_held() {
    let (_redis, nearside, keys) = churned();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut most, mut looks) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                most = most.max(nearside.stat("bytes"));
                looks += 1;
            }
            (most, looks)
        });
        let readers = [0, 5000].map(|start| {
            let (mut client, keys) = (nearside.connect(), &keys);
            scope.spawn(move || {
                read_all(&mut client, &keys[start..], |_| ());
                read_all(&mut client, &keys[..start], |_| ());
            })
        });
        let ended = readers.map(|reader| reader.join());
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.expect("a reader"));
        let (most, looks) = watcher.join().unwrap();
        // The one entry that is being added may be over it.
        assert!(most <= LIMIT as i64 + 4096, "{most} bytes in {looks} looks");
    });
    let (bytes, entries) = (nearside.stat("bytes"), nearside.stat("entries"));
    assert!((LIMIT as i64 * 9 / 10..=LIMIT as i64).contains(&bytes), "{bytes}: it is held and used");
    // What is counted is at least what the values take.
    assert!(entries > 300 && bytes > entries * 1000, "{entries} entries in {bytes} bytes");
    assert!(nearside.stat("reason_evicted") > 9_000, "{}", nearside.stats());
}

#[test]
fn what_is_used_stays() {
    let (redis, nearside, keys) = churned();
    let mut client = nearside.connect();
    let hot: Vec<_> = (0..20).map(|i| format!("items/{i}")).collect();
    hot.iter().for_each(|key| drop(redis.connect().cmd(&format!("SET {key} v"))));
    let gets: Vec<_> = hot.iter().map(|key| format!("GET {key}")).collect();
    client.pipeline(&gets);
    let mut monitor = redis.monitor();
    read_all(&mut client, &keys, |client| assert_eq!(client.pipeline(&gets), ["$1\r\nv\r\n"; 20]));
    let again = monitor.seen().iter().filter(|seen| seen.starts_with("\"GET\" \"items/")).count();
    assert_eq!(again, 0, "never evicted, though 10,000 others came by");
    // And of the others, the ones that came last are there.
    assert!(nearside.is_cached(&keys[9_999]) && nearside.is_cached(&keys[9_950]));
    assert!(!nearside.is_cached(&keys[0]) && !nearside.is_cached(&keys[5_000]));
    assert!(nearside.why(&keys[0]).contains("cached: no"));
}

#[test]
fn what_is_dropped_gives_its_memory_back() {
    let (_redis, nearside, keys) = churned();
    let mut client = nearside.connect();
    read_all(&mut client, &keys[..300], |_| ());
    let full = nearside.stat("bytes");
    assert!(full > 300 * 1000);
    for key in &keys[..300] {
        client.cmd(&format!("DEL {key}"));
    }
    assert_eq!((nearside.stat("bytes"), nearside.stat("entries")), (0, 0));
}

#[test]
fn values_above_max_value_are_passed_on_and_not_kept() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| config.max_value = 1000);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    // The reply is 8 bytes longer than the value.
    for (len, kept) in [(900, true), (992, true), (993, false), (5_000, false), (300_000, false)] {
        let (key, value) = (format!("users/{len}"), "v".repeat(len));
        direct.args(&[b"SET", key.as_bytes(), value.as_bytes()]);
        for _ in 0..3 {
            assert_eq!(client.value(&key).as_deref(), Some(&*value));
            assert_eq!(
                client.text(&format!("MGET {key} {key}")).len(),
                4 + 2 * (value.len() + len.to_string().len() + 5)
            );
        }
        assert_eq!(nearside.is_cached(&key), kept, "{len}");
        assert_eq!(client.text(&format!("STRLEN {key}")), format!(":{len}\r\n"));
    }
    assert!(nearside.stat("reason_too_large") >= 9, "{}", nearside.stats());
    assert!(nearside.stat("bytes") < 6_000);
}

/// What had come of it, and was held to be kept, is passed on before the rest.
#[test]
fn a_value_that_proves_too_large_on_the_way_is_whole() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| config.max_value = 200_000);
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    for i in 0..10 {
        let (key, value) = (format!("users/{i}"), format!("{i:07}").repeat(100_000));
        direct.args(&[b"SET", key.as_bytes(), value.as_bytes()]);
        assert!(client.value(&key).as_deref() == Some(&*value), "{i}");
        assert!(!nearside.is_cached(&key));
    }
    assert_eq!(nearside.stat("bytes"), 0);
}

/// The binary, whose memory is its own.
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    fn start(redis: &Redis) -> Self {
        let port = free_port();
        let child = Command::new(env!("CARGO_BIN_EXE_nearside"))
            .args([
                "serve",
                "--listen",
                &port.to_string(),
                "--upstream",
                &format!("redis://{}", redis.address()),
            ])
            .args(["--admin", "off", "--workers", "1", "--namespace", "users", "--log-level", "error"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { child, port };
        eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        process
    }

    /// The most memory that it ever had, in bytes.
    fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn half_a_gigabyte_passes_through() {
    const LEN: usize = 512 << 20;
    const CHUNK: usize = 1 << 20;
    let redis = Redis::start();
    let nearside = Process::start(&redis);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", nearside.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let small = nearside.peak();
    // Each chunk begins with its number.
    let mut chunk = vec![b'x'; CHUNK];
    let mut nth = |i: usize| {
        chunk[..8].copy_from_slice(&i.to_le_bytes());
        chunk.clone()
    };
    stream.write_all(format!("*3\r\n$3\r\nSET\r\n$9\r\nusers/big\r\n${LEN}\r\n").as_bytes()).unwrap();
    (0..LEN / CHUNK).for_each(|i| stream.write_all(&nth(i)).unwrap());
    stream.write_all(b"\r\n").unwrap();
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+OK\r\n");
    let after_set = nearside.peak();
    stream.write_all(&line("GET users/big")).unwrap();
    let mut header = vec![0; format!("${LEN}\r\n").len()];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header, format!("${LEN}\r\n").as_bytes());
    let mut held = vec![0; CHUNK];
    for i in 0..LEN / CHUNK {
        stream.read_exact(&mut held).unwrap();
        assert!(held == nth(i), "chunk {i} differs");
    }
    stream.write_all(&line("PING")).unwrap();
    let mut end = [0; 9];
    stream.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"\r\n+PONG\r\n");
    let after_get = nearside.peak();
    // The request is held until it is known to be whole, in a buffer that doubles up to an eighth and then
    // takes its full size; the reply is not held at all.
    assert!(after_set - small < LEN + LEN / 2, "{} MB for a request of 512 MB", (after_set - small) >> 20);
    assert!(after_get <= after_set + (64 << 20), "{} MB more for the reply", (after_get - after_set) >> 20);
}
