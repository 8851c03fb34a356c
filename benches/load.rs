//! The load of `scripts/bench` where redis-benchmark cannot make it: keys in order or by Zipf's law, a mix of
//! reads and writes, exact latencies, and a relay that is far away. Prints one line of JSON.
//!
//!     load drive ADDRESS [--conns C] [--depth D] [--requests N | --seconds S] [--keys K]
//!                        [--order seq|random|zipf] [--writes PERCENT] [--size BYTES] [--prefix P]
//!                        [--pause MICROSECONDS-BETWEEN-BATCHES] [--mget KEYS-OF-EACH-READ]
//!     load relay LISTEN TARGET MICROSECONDS-EACH-WAY
//!     load bare LISTEN BYTES
//!
//! Keys are 24 bytes long, prefix included. In order, the connections share one counter, so no key is asked for
//! twice before all were.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use nearside::resp::encode;
use nearside::resp::framer::{Frame, Limits, RequestFramer};
use nearside::resp::scanner::{Kind, ReplyScanner, Scan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, LocalOptions};

/// Length of the keys, in bytes.
const KEY: usize = 24;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["drive", address, ref options @ ..] => drive(address, options),
        ["relay", listen, target, delay] => relay(listen, target, Duration::from_micros(number(delay))),
        ["bare", listen, bytes] => bare(listen, number(bytes) as usize),
        _ => panic!(
            "load drive ADDRESS [OPTIONS] | load relay LISTEN TARGET MICROSECONDS | load bare LISTEN BYTES"
        ),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

/// What all connections do together.
struct Load {
    depth: u64,
    requests: u64,
    until: Option<Duration>,
    keys: u64,
    zipf: Option<Vec<f64>>,
    random: bool,
    writes: u64,
    pause: Duration,
    mget: u64,
    value: Vec<u8>,
    prefix: String,
    /// Requests that were begun.
    begun: Cell<u64>,
}

#[derive(Default)]
struct Seen {
    requests: u64,
    errors: u64,
    /// Of each batch.
    nanos: Vec<u64>,
}

fn drive(address: &str, options: &[&str]) -> io::Result<()> {
    let options: HashMap<&str, &str> = options.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let get = |name: &str, default: u64| options.get(name).map_or(default, |text| number(text));
    let order = options.get("--order").copied().unwrap_or("seq");
    let keys = get("--keys", 10_000);
    let until = options.get("--seconds").map(|text| Duration::from_millis(1000 * number(text)));
    let load = Rc::new(Load {
        depth: get("--depth", 1),
        requests: if until.is_some() { u64::MAX } else { get("--requests", keys) },
        until,
        keys,
        zipf: (order == "zipf").then(|| zipf(keys)),
        random: order == "random",
        writes: get("--writes", 0),
        pause: Duration::from_micros(get("--pause", 0)),
        mget: get("--mget", 0),
        value: vec![b'x'; get("--size", 64) as usize],
        prefix: options.get("--prefix").copied().unwrap_or("key:").into(),
        begun: Cell::new(0),
    });
    let mut sockets = Vec::new();
    for _ in 0..get("--conns", 1) {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    let start = Instant::now();
    let runtime = Builder::new_current_thread().enable_io().build_local(LocalOptions::default())?;
    let all = runtime.block_on(async {
        let mut tasks = Vec::new();
        for (i, socket) in sockets.into_iter().enumerate() {
            let (load, socket) = (load.clone(), tokio::net::TcpStream::from_std(socket)?);
            tasks.push(tokio::task::spawn_local(async move { load.run(socket, i as u64, start).await }));
        }
        let mut all = Seen::default();
        for task in tasks {
            let seen = task.await.expect("a connection's task")?;
            all.requests += seen.requests;
            all.errors += seen.errors;
            all.nanos.extend(seen.nanos);
        }
        Ok::<_, io::Error>(all)
    });
    let mut all = all?;
    let seconds = start.elapsed().as_secs_f64();
    all.nanos.sort_unstable();
    let at = |share: f64| match all.nanos.len() {
        0 => 0.0,
        len => all.nanos[((len as f64 * share) as usize).min(len - 1)] as f64 / 1000.0,
    };
    println!(
        r#"{{"requests":{},"errors":{},"seconds":{seconds},"rps":{},"p50":{},"p99":{},"p999":{},"max":{}}}"#,
        all.requests,
        all.errors,
        all.requests as f64 / seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    Ok(())
}

/// Shares of the keys' ranks, added up: the n-th is asked for 1/n^0.99 as often as the first.
fn zipf(keys: u64) -> Vec<f64> {
    let mut sum = 0.0;
    let sums = (1..=keys).map(|rank| {
        sum += (rank as f64).powf(-0.99);
        sum
    });
    sums.collect()
}

impl Load {
    async fn run(&self, mut socket: tokio::net::TcpStream, seed: u64, start: Instant) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed + 1);
        let (mut out, mut replies, mut scanner) = (Vec::new(), vec![0; 256 << 10], ReplyScanner::new());
        loop {
            let first = self.begun.get();
            self.begun.set(first + self.depth);
            if first >= self.requests || self.until.is_some_and(|until| start.elapsed() >= until) {
                return Ok(seen);
            }
            let batch = self.depth.min(self.requests - first);
            if !self.pause.is_zero() {
                // All connections pause together.
                thread::sleep(self.pause);
            }
            out.clear();
            for i in 0..batch {
                self.request(&mut out, first + i, &mut random);
            }
            let sent = Instant::now();
            socket.write_all(&out).await?;
            let mut missing = batch;
            while missing > 0 {
                let read = socket.read(&mut replies).await?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let mut rest = &replies[..read];
                while !rest.is_empty() {
                    match scanner.scan(rest).map_err(|_| io::ErrorKind::InvalidData)? {
                        Scan::Done { used, kind } => {
                            seen.errors += u64::from(kind == Kind::Error);
                            missing -= 1;
                            rest = &rest[used..];
                        }
                        Scan::More => break,
                    }
                }
            }
            seen.nanos.push(sent.elapsed().as_nanos() as u64);
            seen.requests += batch;
        }
    }

    fn request(&self, out: &mut Vec<u8>, i: u64, random: &mut u64) {
        if self.mget > 0 {
            let keys: Vec<_> = (0..self.mget).map(|j| name(&self.prefix, (i + j) % self.keys)).collect();
            let words = [b"MGET".as_slice()].into_iter().chain(keys.iter().map(|key| key.as_slice()));
            return encode::command(out, &words.collect::<Vec<_>>());
        }
        let key = match &self.zipf {
            Some(sums) => {
                let share = next(random) as f64 / u64::MAX as f64 * sums[sums.len() - 1];
                sums.partition_point(|sum| *sum < share) as u64
            }
            None if self.random => next(random) % self.keys,
            None => i % self.keys,
        };
        let key = name(&self.prefix, key);
        match self.writes > next(random) % 100 {
            true => encode::command(out, &[b"SET", &key, &self.value]),
            false => encode::command(out, &[b"GET", &key]),
        }
    }
}

/// The prefix, and the number with leading zeros. By hand, for at depth 64 the load costs more than its server.
fn name(prefix: &str, mut number: u64) -> [u8; KEY] {
    let mut key = [b'0'; KEY];
    let (head, digits) = key.split_at_mut(prefix.len());
    head.copy_from_slice(prefix.as_bytes());
    for digit in digits.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    key
}

/// xorshift64*
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// Passes everything on, later by `delay`, in both directions. Runs until it is killed.
fn relay(listen: &str, target: &str, delay: Duration) -> io::Result<()> {
    for client in TcpListener::bind(listen)?.incoming() {
        let (client, server) = (client?, TcpStream::connect(target)?);
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        pump(client.try_clone()?, server.try_clone()?, delay);
        pump(server, client, delay);
    }
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buf = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buf) {
            if sender.send((Instant::now() + delay, buf[..read].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// The floor: frames requests on one thread, and answers each with the same value of so many bytes; `PING` too, so that
/// it can be waited for.
fn bare(listen: &str, bytes: usize) -> io::Result<()> {
    let mut reply = Vec::new();
    encode::bulk(&mut reply, &vec![b'x'; bytes]);
    let reply: Rc<[u8]> = reply.into();
    let runtime = Builder::new_current_thread().enable_io().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await?;
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            tokio::task::spawn_local(answer(socket, reply.clone()));
        }
    })
}

async fn answer(mut socket: tokio::net::TcpStream, reply: Rc<[u8]>) -> io::Result<()> {
    let (mut buf, mut out) = (BytesMut::with_capacity(64 << 10), Vec::new());
    let mut framer = RequestFramer::new(Limits::default());
    while socket.read_buf(&mut buf).await? > 0 {
        while let Ok(Frame::Request(used)) = framer.next(&buf) {
            let ping = framer.request(&buf).arg(0).eq_ignore_ascii_case(b"PING");
            out.extend_from_slice(if ping { b"+PONG\r\n" } else { &reply });
            buf.advance(used);
        }
        buf.reserve(64 << 10);
        socket.write_all(&out).await?;
        out.clear();
    }
    Ok(())
}
