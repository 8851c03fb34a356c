//! What a client may send and leave unread: the error texts are Redis', what is held is bounded, and one
//! client's conduct is not another's trouble.

use crate::support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use support::{Conn, Nearside, Redis, eventually, line, request};

/// What the server says to these bytes until it closes the connection; `None` if it does not close it.
fn last_words(conn: &mut Conn, bytes: &[u8]) -> Option<String> {
    // It may close before it has read everything.
    let _ = conn.stream.write_all(bytes);
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match conn.stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => said.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(_) => return None,
        }
    }
    Some(String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn malformed_requests_get_redis_own_error_and_are_sent_away() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let long = "x".repeat(70_000);
    let malformed: Vec<Vec<u8>> = [
        // Counts.
        "*x\r\n",
        "*1x\r\n",
        "*+1\r\n",
        "*01\r\n",
        "* 1\r\n",
        "*1 \r\n",
        "*\r\n",
        "*1.0\r\n",
        "*-x\r\n",
        "*2147483648\r\n",
        "*9223372036854775808\r\n",
        "*99999999999999999999\r\n",
        "*0x1\r\n",
        // Lengths.
        "*1\r\n$x\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$+1\r\nx\r\n",
        "*1\r\n$01\r\nx\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$ 1\r\nx\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$9223372036854775808\r\n",
        "*1\r\n$4294967296\r\n",
        "*2\r\n$3\r\nGET\r\n$-5\r\n",
        // No bulk string.
        "*1\r\nPING\r\n",
        "*1\r\n+PING\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*1\r\n$4\r\nPING\r\n",
        "*1\r\n\r\n",
        "*1\r\n\n\r\n",
        "*1\r\n-1\r\n",
        "*2\r\n$3\r\nGET\r\nfoo\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n#\r\n",
        // An argument longer than it said: what follows is no header.
        "*2\r\n$3\r\nGETTT\r\n$1\r\nk\r\n",
        // Inline commands.
        "GET \"unbalanced\r\n",
        "GET 'unbalanced\r\n",
        "GET \"a\"b\r\n",
        "GET 'a'b\r\n",
        "\"\r\n",
        "GET \"\\x41\r\n",
        // Something good first.
        "PING\r\n*x\r\n",
        "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n*1\r\n?\r\n",
        "ECHO hello\r\n*2\r\n$4\r\nECHO\r\n!\r\nPING\r\n",
    ]
    .iter()
    .map(|bytes| bytes.as_bytes().to_vec())
    .chain([
        long.clone().into_bytes(),
        format!("GET {long}").into_bytes(),
        format!("*{long}").into_bytes(),
        format!("*1\r\n${long}").into_bytes(),
        b"*1\r\n\xff\r\n".to_vec(),
    ])
    .collect();
    assert!(malformed.len() > 40);
    for bytes in &malformed {
        let shown = bytes[..bytes.len().min(60)].escape_ascii().to_string();
        let theirs = last_words(&mut redis.connect(), bytes);
        let ours = last_words(&mut nearside.connect(), bytes);
        assert!(theirs.is_some(), "Redis goes on after {shown}");
        assert_eq!(ours, theirs, "{shown}");
    }
    assert_eq!(closed(&nearside, "malformed"), malformed.len() as u64);
    assert_eq!(nearside.connect().text("PING"), "+PONG\r\n");
}

/// Clients that were sent away for this reason.
fn closed(nearside: &Nearside, reason: &str) -> u64 {
    let (_, page) = nearside.get("/metrics");
    let name = format!("nearside_closed_clients_total{{reason=\"{reason}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)).expect("the metric").parse().unwrap()
}

#[test]
fn odd_requests_that_redis_takes_are_taken() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let odd = [
        "\r\nPING\r\n",
        "*0\r\nPING\r\n",
        "*-1\r\nPING\r\n",
        "   \r\nPING\r\n",
        "PING\n",
        "  PING  \r\n",
        "ECHO \"a\\x41\\n\"\r\n",
        "ECHO 'it\\'s'\r\n",
        "ECHO \"\"\r\n",
        "SET odd \"a b\"\r\n",
        "GET odd\r\n",
        "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
        "*1\r\n$4\r\nPINGxx",
        "NOSUCHCOMMAND a b\r\n",
        "GET\r\n",
        "*2\r\n$3\r\nGET\r\n$5\r\na\r\nbc\r\n",
    ];
    for bytes in odd {
        let [theirs, ours] = [redis.connect(), nearside.connect()].map(|mut conn| {
            conn.send(bytes.as_bytes());
            String::from_utf8(conn.reply()).unwrap()
        });
        assert_eq!(ours, theirs, "{}", bytes.escape_debug());
    }
}

#[test]
fn a_request_larger_than_allowed_is_refused_when_it_says_so() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| config.max_request = 100_000);
    let said = last_words(&mut nearside.connect(), b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n");
    assert_eq!(said.as_deref(), Some("-ERR Protocol error: request larger than max-request\r\n"));
    // No argument is shorter than 6 bytes.
    let said = last_words(&mut nearside.connect(), b"*16667\r\n");
    assert_eq!(said.as_deref(), Some("-ERR Protocol error: request larger than max-request\r\n"));
    let said = last_words(&mut nearside.connect(), b"*2147483648\r\n");
    assert_eq!(said.as_deref(), Some("-ERR Protocol error: invalid multibulk length\r\n"));
    let mut client = nearside.connect();
    assert_eq!(client.args(&[b"SET", b"k", &[b'x'; 90_000]]), b"+OK\r\n");
}

#[test]
fn bytes_may_come_one_by_one() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    let pipeline =
        [line("SET users/1 hello"), b"GET users/1\r\n".to_vec(), line("MGET users/1 none"), line("PING")];
    for _ in 0..2 {
        for byte in pipeline.concat() {
            client.send(&[byte]);
        }
        let expected = ["+OK\r\n", "$5\r\nhello\r\n", "*2\r\n$5\r\nhello\r\n$-1\r\n", "+PONG\r\n"];
        for reply in expected {
            assert_eq!(String::from_utf8(client.reply()).unwrap(), reply);
        }
    }
}

#[test]
fn what_was_asked_before_a_half_close_is_still_answered() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    redis.connect().args(&[b"SET", b"big", &vec![b'x'; 300_000]]);
    let pipeline = [line("SET users/1 v"), line("GET users/1"), line("GET big"), line("INCR n")].concat();
    let mut client = nearside.connect();
    client.send(&pipeline.repeat(20));
    client.stream.shutdown(Shutdown::Write).unwrap();
    for i in 1..=20 {
        assert_eq!(client.reply(), b"+OK\r\n");
        assert_eq!(client.reply(), b"$1\r\nv\r\n");
        assert_eq!(client.reply().len(), 300_000 + 11);
        assert_eq!(client.reply(), format!(":{i}\r\n").as_bytes());
    }
    assert!(client.is_closed());
    // What is not complete is not executed.
    let mut client = nearside.connect();
    client.send(&[line("INCR n"), b"*2\r\n$4\r\nINCR\r\n$1\r\n".to_vec()].concat());
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.reply(), b":21\r\n");
    assert!(client.is_closed());
    eventually("all clients are gone", || nearside.stat("clients") == 1);
}

/// Bytes that cannot be compressed, so that a `DUMP` of them is as long.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// This process' memory, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_client_that_never_reads_is_closed_and_the_others_are_served_meanwhile() {
    let redis = Redis::start();
    redis.connect().args(&[b"SET", b"big", &noise(500_000)]);
    let nearside = Nearside::with(redis.address(), |config| {
        config.client_output_limit = 1 << 20;
        config.client_stall_timeout = Duration::from_secs(1);
    });
    let mut other = nearside.connect();
    other.cmd("SET users/1 v");
    other.value("users/1");
    // One that the cache may keep and share, and one that is only passed on.
    for command in ["GET big", "DUMP big"] {
        let before = (closed(&nearside, "stalled"), resident());
        let mut greedy = nearside.connect();
        greedy.send(&line(command).repeat(400));
        let (mut slowest, mut most) = (Duration::ZERO, 0);
        eventually("the client that never reads is closed", || {
            for command in ["GET users/1", "INCR n"] {
                let began = Instant::now();
                other.cmd(command);
                slowest = slowest.max(began.elapsed());
            }
            most = most.max(resident().saturating_sub(before.1));
            closed(&nearside, "stalled") > before.0
        });
        println!("{command}: slowest request of another {slowest:?}, memory {} kB", most >> 10);
        assert!(slowest < Duration::from_secs(1), "{command}: another waited {slowest:?}");
        assert!(most < 50 << 20, "{command}: {most} bytes for one client that does not read");
        eventually("its session is gone", || nearside.stat("clients") == 2);
    }
}

#[test]
fn replies_that_wait_for_one_before_them_do_not_keep_it_away() {
    let redis = Redis::start();
    redis.connect().args(&[b"SET", b"users/big", &noise(50_000)]);
    let nearside = Nearside::with(redis.address(), |config| config.client_output_limit = 100_000);
    let mut client = nearside.connect();
    client.cmd("GET users/big");
    // The hits are there at once, and more than the limit; the link's reply has to come before them.
    for _ in 0..5 {
        client.send(&[line("ECHO first"), line("GET users/big").repeat(20), line("ECHO last")].concat());
        assert_eq!(client.reply(), b"$5\r\nfirst\r\n");
        for _ in 0..20 {
            assert_eq!(client.reply().len(), 50_000 + 10);
        }
        assert_eq!(client.reply(), b"$4\r\nlast\r\n");
    }
    assert!(nearside.stat("hits") >= 100);
}

#[test]
fn a_client_that_reads_slowly_gets_everything() {
    let redis = Redis::start();
    redis.connect().args(&[b"SET", b"big", &noise(100_000)]);
    let nearside = Nearside::with(redis.address(), |config| {
        config.client_output_limit = 200_000;
        config.client_stall_timeout = Duration::from_secs(5);
    });
    let mut slow = nearside.connect();
    let writer = slow.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        (&writer).write_all(&[line("GET big"), line("DUMP big")].concat().repeat(300)).unwrap();
    });
    for i in 0..300 {
        assert_eq!(slow.reply().len(), 100_000 + 11);
        assert!(slow.reply().len() > 100_000);
        if i % 50 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    sending.join().unwrap();
    assert_eq!(closed(&nearside, "stalled"), 0);
}

#[test]
fn more_clients_than_allowed_are_refused_as_redis_refuses_them() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| config.max_clients = 3);
    eventually("nobody is there", || nearside.get("/metrics").1.contains("\nnearside_clients 0"));
    let mut clients: Vec<_> = (0..3).map(|_| nearside.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.text("PING"), "+PONG\r\n"));
    for _ in 0..5 {
        let said = last_words(&mut nearside.connect(), b"");
        assert_eq!(said.as_deref(), Some("-ERR max number of clients reached\r\n"));
    }
    assert!(closed(&nearside, "max_clients") >= 5);
    assert_eq!(clients[0].text("PING"), "+PONG\r\n", "those who are there stay");
    drop(clients.pop());
    eventually("there is room again", || {
        nearside.connect().try_reply_to("PING").is_ok_and(|reply| reply == b"+PONG\r\n")
    });
}

/// As Redis has it, the number of arguments is bounded by what a request may take, and by nothing else.
#[test]
fn a_request_may_have_any_number_of_arguments() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    const MANY: usize = 1_200_000;
    let many = |first: &str| {
        let mut request = format!("*{}\r\n${}\r\n{first}\r\n", MANY + 1, first.len()).into_bytes();
        request.extend(b"$1\r\nk\r\n".repeat(MANY));
        request
    };
    client.cmd("SET k v");
    client.send(&many("EXISTS"));
    assert_eq!(client.reply(), format!(":{MANY}\r\n").into_bytes());
    client.send(&many("DEL"));
    assert_eq!(client.reply(), b":1\r\n");
    assert_eq!(client.text("GET k"), "$-1\r\n");
}

#[test]
fn what_is_only_declared_takes_no_memory() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    nearside.connect().cmd("PING");
    let before = resident();
    let declared: Vec<_> = (0..200)
        .map(|i| {
            let mut client = nearside.connect();
            client.send(if i % 2 == 0 { b"*170000000\r\n" } else { b"*2\r\n$3\r\nGET\r\n$536870912\r\nx" });
            client
        })
        .collect();
    eventually("they are all there", || nearside.stat("clients") == 201);
    nearside.connect().cmd("PING");
    let took = resident().saturating_sub(before);
    println!("{} kB for {} clients", took >> 10, declared.len());
    assert!(took < 20 << 20, "{took} bytes for {} clients", declared.len());
    assert_eq!(nearside.connect().text("PING"), "+PONG\r\n");
}

#[test]
fn a_hundred_thousand_requests_at_once_are_answered_in_order() {
    const MANY: usize = 100_000;
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    let mut all = Vec::new();
    for i in 0..MANY {
        all.extend(match i % 5 {
            0 => line(&format!("ECHO {i}")),
            1 => line(&format!("SET users/{} {i}", i % 100)),
            2 => line(&format!("GET users/{}", (i - 1) % 100)),
            3 => line("INCR n"),
            _ => line(&format!("MGET users/{} none", (i - 3) % 100)),
        });
    }
    let writer = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || (&writer).write_all(&all).unwrap());
    let bulk = |value: usize| format!("${}\r\n{value}\r\n", value.to_string().len());
    for i in 0..MANY {
        let expected = match i % 5 {
            0 => bulk(i),
            1 => "+OK\r\n".into(),
            2 => bulk(i - 1),
            3 => format!(":{}\r\n", i / 5 + 1),
            _ => format!("*2\r\n{}$-1\r\n", bulk(i - 3)),
        };
        assert_eq!(String::from_utf8(client.reply()).unwrap(), expected, "reply {i}");
    }
    sending.join().unwrap();
}

/// A client that only pushes is taken from no faster than the upstream takes.
#[test]
fn a_flood_of_writes_waits_for_the_upstream() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut client = nearside.connect();
    client.cmd("PING");
    redis.connect().cmd("CLIENT PAUSE 3000 ALL");
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let one = request(&[&b"SET"[..], b"k", &vec![b'x'; 10_000]]);
    let mut sent = 0;
    while let Ok(taken) = client.stream.write(&one[sent % one.len()..]) {
        sent += taken;
        assert!(sent < 64 << 20, "{sent} bytes were taken, and nobody has answered");
    }
    // When the pause is over, the session goes on.
    for _ in 0..sent / one.len() {
        assert_eq!(client.reply(), b"+OK\r\n");
    }
}

/// One worker serves both: whoever asks for hits without end must not keep it for itself.
#[test]
fn a_client_that_asks_without_end_lets_others_have_their_turn() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut other = nearside.connect();
    for key in ["users/1", "users/2"] {
        other.cmd(&format!("SET {key} v"));
        other.value(key);
    }
    let greedy = nearside.connect().stream;
    let (writer, mut reader) = (greedy.try_clone().unwrap(), greedy);
    let sending = std::thread::spawn(move || {
        let many = line("GET users/1").repeat(20_000);
        while (&writer).write_all(&many).is_ok() {}
    });
    let mut taken = vec![0; 1 << 20];
    reader.read_exact(&mut taken).unwrap();
    let answered = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let theirs = answered.clone();
    let mut taking = reader.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        while let Ok(n @ 1..) = taking.read(&mut taken) {
            theirs.fetch_add(n as u64 / 7, std::sync::atomic::Ordering::Relaxed);
        }
    });
    // How many of its requests are answered while another waits for one.
    let mut meanwhile: Vec<u64> = (0..31)
        .map(|_| {
            let before = answered.load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(other.value("users/2").as_deref(), Some("v"));
            answered.load(std::sync::atomic::Ordering::Relaxed) - before
        })
        .collect();
    meanwhile.sort_unstable();
    println!("{meanwhile:?}");
    reader.shutdown(Shutdown::Both).unwrap();
    sending.join().unwrap();
    reading.join().unwrap();
    assert!(meanwhile[15] < 20_000, "{} requests of one client before one of another", meanwhile[15]);
}

/// Many a client (redis-py's pipeline is one) writes everything before it reads the first reply.
#[test]
fn a_pipeline_that_is_written_whole_before_anything_is_read_is_answered() {
    const MANY: usize = 25_000;
    let redis = Redis::start();
    redis.connect().cmd(&format!("DEBUG POPULATE {MANY} users/a-key-of-some-length 1000"));
    let nearside = Nearside::with(redis.address(), |config| {
        config.client_output_limit = 2 << 20;
        config.client_stall_timeout = Duration::from_secs(5);
        config.max_memory = 256 << 20;
    });
    // Misses, then hits, then on a connection of the client's own.
    for (way, first) in [("misses", "PING"), ("hits", "PING"), ("dedicated", "WATCH x")] {
        let before = (resident(), nearside.stat("hits"));
        let mut client = nearside.connect();
        client.cmd(first);
        let pipeline: Vec<u8> =
            (0..MANY).flat_map(|i| line(&format!("GET users/a-key-of-some-length:{i}"))).collect();
        assert!(pipeline.len() > 1 << 20 && pipeline.len() < 2 << 20, "{} bytes", pipeline.len());
        client.stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        client.send(&pipeline);
        for i in 0..MANY {
            let reply = client.try_reply().unwrap_or_else(|error| panic!("{way}, reply {i}: {error}"));
            assert!(reply.starts_with(format!("$1000\r\nvalue:{i}").as_bytes()), "{way}, reply {i}");
        }
        let took = resident().saturating_sub(before.0);
        println!("{way}: {} kB", took >> 10);
        if way == "hits" {
            assert!(nearside.stat("hits") - before.1 > MANY as i64 / 2);
            assert!(took < 40 << 20, "{took} bytes for one client");
        }
    }
    assert_eq!(closed(&nearside, "stalled"), 0);
}

/// What is beyond the limits is not kept; but the client gets what was answered, and hears why there is no more.
#[test]
fn a_client_that_is_sent_away_for_what_it_left_hears_why() {
    let redis = Redis::start();
    let nearside = Nearside::with(redis.address(), |config| {
        config.client_output_limit = 1 << 20;
        config.client_stall_timeout = Duration::from_millis(500);
    });
    let mut client = nearside.connect();
    client.args(&[b"SET", b"users/1", &noise(10_000)]);
    client.cmd("GET users/1");
    client.stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    client.send(&line("GET users/1").repeat(500_000));
    let (mut replies, mut last) = (0, Vec::new());
    while let Ok(reply) = client.try_reply() {
        replies += 1;
        last = reply;
    }
    assert!(replies > 100, "{replies}");
    let last = String::from_utf8_lossy(&last);
    assert!(last.starts_with("-ERR nearside: closed, because more than 1048576 bytes"), "{last}");
    assert!(client.is_closed());
    assert_eq!(closed(&nearside, "stalled"), 1);
    eventually("its session is gone", || nearside.stat("clients") == 1);
}

/// However slowly: it is served as long as it takes anything.
#[test]
fn a_client_that_takes_little_at_a_time_is_not_sent_away() {
    let redis = Redis::start();
    redis.connect().args(&[b"SET", b"big", &noise(8 << 20)]);
    let nearside = Nearside::with(redis.address(), |config| {
        config.client_output_limit = 8 << 20;
        config.client_stall_timeout = Duration::from_millis(700);
    });
    let mut client = nearside.connect();
    client.send(&line("GET big").repeat(4));
    // A 64th of the limit would be 128 kB.
    let (mut chunk, mut taken) = (vec![0; 48 << 10], 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        taken += client.stream.read(&mut chunk).expect("it is still served");
        std::thread::sleep(Duration::from_millis(400));
    }
    println!("{taken} bytes");
    assert_eq!(closed(&nearside, "stalled"), 0);
}
