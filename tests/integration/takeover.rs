//! `--takeover`: the program is replaced while clients come and go, and none of them is refused.

use crate::support;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::program::Program;
use support::{Conn, Redis, eventually, free_port};

/// Who asks for nothing so long may be sent away: a little less than the program's own figure.
const QUIET: Duration = Duration::from_millis(200);

/// What the programs of a test have in common.
struct Place {
    port: u16,
    admin: u16,
    socket: String,
    upstream: String,
}

impl Place {
    fn before(redis: &Redis, folder: &Path) -> Self {
        Self {
            port: free_port(),
            admin: free_port(),
            socket: format!("unix:{}", folder.join("socket").display()),
            upstream: format!("redis://127.0.0.1:{}", redis.port),
        }
    }

    fn start(&self, more: &[&str]) -> Program {
        let (port, admin) = (self.port.to_string(), self.admin.to_string());
        let mut arguments = vec!["--listen", &port, "--listen", &self.socket, "--admin", &admin];
        arguments.extend(["--upstream", &self.upstream, "--workers", "2", "--namespace", "users"]);
        arguments.extend(["--drain-timeout", "1s"]);
        arguments.extend(more);
        Program::run(&arguments, self.port, self.admin)
    }

    fn take_over(&self) -> Program {
        let mut program = self.start(&["--takeover"]);
        program.wait_for("taken over: ready for clients");
        program
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }
}

/// How many takeovers a program counts as done, and as failed.
fn takeovers(program: &Program) -> [u64; 2] {
    let page = program.page("/metrics");
    ["done", "failed"].map(|outcome| {
        let named = format!("nearside_takeovers_total{{outcome=\"{outcome}\"}} ");
        let number = page.lines().find_map(|line| line.strip_prefix(&named));
        number.unwrap_or_else(|| panic!("no {named}in {page}")).parse().unwrap()
    })
}

/// Clients that run beside a test, and panic if anything is wrong.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// What each has done.
    done: Vec<Arc<AtomicUsize>>,
}

impl Clients {
    fn run(kinds: Vec<Box<dyn Fn() + Send>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done: Vec<_> = kinds.iter().map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let threads = kinds.into_iter().zip(&done).map(|(once, done)| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    once();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self { threads: threads.collect(), stop, done }
    }

    /// Waits until each has done something more.
    fn go_on(&self) {
        let done = || self.done.iter().map(|done| done.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = done();
        eventually("all clients are served", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client has failed");
            done().iter().zip(&before).all(|(now, before)| *now > before + 1)
        });
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no client fails"));
    }
}

/// Connects, and is answered; or it was slow, and is sent away then.
fn come_and_go<S: std::io::Read + Write>(connect: impl Fn() -> Conn<S>) {
    let began = Instant::now();
    let mut client = connect();
    match client.try_reply_to("PING") {
        Ok(pong) => assert_eq!(pong, b"+PONG\r\n"),
        Err(error) => {
            assert!(!is_silence(&error), "a client hears nothing");
            assert!(began.elapsed() > QUIET, "a client was cut off {:?} after it came", began.elapsed());
        }
    }
}

/// Nobody has closed it, and nobody answers.
fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// Writes and reads on one connection as long as it lasts: what it reads is what it has written.
fn stay(address: SocketAddr, key: &str) -> Box<dyn Fn() + Send> {
    let (key, number) = (format!("users/{key}"), AtomicUsize::new(0));
    Box::new(move || {
        let mut client = Conn::try_to(address).expect("nobody is refused");
        for _ in 0..50 {
            let before = number.load(Ordering::Relaxed);
            let read = match client.try_reply_to(&format!("GET {key}")) {
                Ok(read) => read,
                Err(error) => return assert!(!is_silence(&error), "a client hears nothing"),
            };
            let read = String::from_utf8_lossy(&read).lines().nth(1).unwrap_or("0").to_owned();
            // A write that was cut off may have been carried out.
            assert!(read == before.to_string() || read == (before + 1).to_string(), "{read} after {before}");
            let next = read.parse::<usize>().unwrap() + 1;
            number.store(next - 1, Ordering::Relaxed);
            match client.try_reply_to(&format!("SET {key} {next}")) {
                Ok(ok) => assert_eq!(ok, b"+OK\r\n"),
                Err(error) => return assert!(!is_silence(&error), "a client hears nothing"),
            }
            number.store(next, Ordering::Relaxed);
        }
    })
}

#[test]
fn nobody_is_refused_while_it_is_taken_over_three_times_in_a_row() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let place = Place::before(&redis, folder.path());
    let (address, path) = (place.address(), folder.path().join("socket"));
    let mut program = place.start(&[]);
    program.wait_for("ready for clients");
    let by_path = path.clone();
    let clients = Clients::run(vec![
        Box::new(move || come_and_go(|| Conn::try_to(address).expect("nobody is refused"))),
        Box::new(move || {
            come_and_go(|| Conn::over(UnixStream::connect(&by_path).expect("nobody is refused")));
        }),
        stay(address, "a"),
        stay(address, "b"),
    ]);
    // One that rests.
    let mut idle = program.connect();
    assert_eq!(idle.text("PING"), "+PONG\r\n");
    clients.go_on();
    for round in 0..3 {
        let mut next = place.take_over();
        clients.go_on();
        assert_eq!(program.ended().code(), Some(0), "round {round}: {}", program.seen);
        assert!(program.seen.contains("another process has taken over"), "{}", program.seen);
        assert!(idle.is_closed(), "who rests is sent to the new one");
        idle = next.connect();
        assert_eq!(idle.text("PING"), "+PONG\r\n");
        eventually("the new one's pages are there", || next.status("/readyz") == Some(200));
        assert_eq!(takeovers(&next), [1, 0], "{}", next.logged());
        next.wait_for("the process that was taken over has ended");
        program = next;
    }
    clients.stop();
    program.terminate();
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
    assert!(!path.exists(), "the last one has removed the socket's file");
}

#[test]
fn if_the_new_one_fails_the_old_one_goes_on() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let place = Place::before(&redis, folder.path());
    let mut program = place.start(&[]);
    program.wait_for("ready for clients");
    let mut client = program.connect();
    assert_eq!(client.text("PING"), "+PONG\r\n");
    eventually("it is ready", || program.status("/readyz") == Some(200));
    let taken = format!("127.0.0.1:{}", redis.port);
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    for (more, says) in [
        // A port that is another's: before it was ready for anything.
        (&["--listen", &taken][..], "cannot listen on"),
        // An upstream that is not there, unlike the old one's.
        (&["--upstream", &nobody, "--connect-timeout", "50ms"], "the upstream is not reachable"),
    ] {
        let mut failing = Place { upstream: place.upstream.clone(), socket: place.socket.clone(), ..place };
        let mut arguments = vec!["--takeover"];
        if let ["--upstream", upstream, rest @ ..] = more {
            failing.upstream = (*upstream).to_owned();
            arguments.extend(rest);
        } else {
            arguments.extend(more);
        }
        let mut new = failing.start(&arguments);
        assert_eq!(new.ended().code(), Some(1), "{}", new.seen);
        assert!(new.seen.contains(says), "{}", new.seen);
        assert_eq!(client.text("PING"), "+PONG\r\n", "it has noticed nothing");
        assert_eq!(program.connect().text("PING"), "+PONG\r\n");
        eventually("its pages are there", || program.status("/readyz") == Some(200));
        Conn::over(UnixStream::connect(folder.path().join("socket")).expect("its file is there"))
            .text("PING");
    }
    program.wait_for("a takeover came to nothing");
    eventually("both are counted", || takeovers(&program) == [0, 2]);
    // And it can still be taken over.
    let mut next = place.take_over();
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
    assert_eq!(next.connect().text("PING"), "+PONG\r\n", "{}", next.logged());
}

#[test]
fn with_nobody_to_take_over_it_starts_as_usual() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let mut program = Place::before(&redis, folder.path()).start(&["--takeover"]);
    program.wait_for("there is no nearside to take over");
    program.wait_for("ready for clients");
    assert_eq!(program.connect().text("PING"), "+PONG\r\n");
}

/// Only a process of the same user may.
#[test]
fn another_user_is_passed_nothing() {
    if !rustix::process::getuid().is_root() {
        eprintln!("not root, and so nobody else either");
        return;
    }
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let place = Place::before(&redis, folder.path());
    let mut program = place.start(&[]);
    program.wait_for("ready for clients");
    // As who is no root, by the very name that root's nearside has.
    let script = "import os, socket, sys\n\
         os.setuid(65534)\n\
         s = socket.socket(socket.AF_UNIX)\n\
         s.settimeout(20)\n\
         s.connect(b'\\0nearside/0/127.0.0.1:' + sys.argv[1].encode())\n\
         data, ancillary, _, _ = s.recvmsg(4096, 4096)\n\
         print(len(data), len(ancillary))\n";
    let output =
        std::process::Command::new("python3").args(["-c", script, &place.port.to_string()]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "0 0\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    program.wait_for("is of another user (65534)");
    assert_eq!(takeovers(&program), [0, 1]);
    assert_eq!(program.connect().text("PING"), "+PONG\r\n");
}
