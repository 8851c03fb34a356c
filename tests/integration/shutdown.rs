//! Start and stop of the program: signals, the drain and its deadline, sockets, exit codes.

use crate::support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use support::program::Program;
use support::scripted::Scripted;
use support::{Conn, Redis, SOON, eventually, free_port, line};

#[test]
fn what_is_in_flight_is_finished_before_it_ends() {
    let upstream = Scripted::start();
    let mut program = Program::start(upstream.address.port(), &["--drain-timeout", "20s"]);
    eventually("it is ready", || program.status("/readyz") == Some(200));
    let (mut busy, mut idle) = (program.connect(), program.connect());
    assert!(idle.text("CLIENT ID").starts_with(':'));
    busy.send(&[line("INCR n"), line("ECHO x")].concat());
    let (first, second) = (upstream.expect("INCR n"), upstream.expect("ECHO x"));

    program.terminate();
    program.wait_for("stopping");
    assert_eq!(program.status("/readyz"), Some(503), "nobody should send it more");
    assert_eq!(program.status("/livez"), Some(200), "and nobody should restart it");
    assert!(idle.is_closed(), "who waits for nothing is sent away");
    eventually("it accepts nobody", || TcpStream::connect(("127.0.0.1", program.port)).is_err());
    assert!(program.child.try_wait().unwrap().is_none(), "it waits for what is in flight");
    first.reply(":1\r\n");
    second.reply("$1\r\nx\r\n");
    assert_eq!(busy.reply(), b":1\r\n");
    assert_eq!(busy.reply(), b"$1\r\nx\r\n");
    assert!(busy.is_closed());
    let answered = Instant::now();
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
    assert!(answered.elapsed() < Duration::from_secs(2), "{:?}", answered.elapsed());
    assert!(program.seen.contains("stopped"), "{}", program.seen);
}

/// As with a server that is shut down: who waits for something is told, and nobody takes anything afterwards.
#[test]
fn a_blocked_client_is_let_go_at_once() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    direct.cmd("XGROUP CREATE s g $ MKSTREAM");
    let mut program = Program::start(redis.port, &["--drain-timeout", "60s"]);
    let waits = [
        "BLPOP list 0",
        "BRPOPLPUSH list other 100",
        "BZMPOP 0 1 zset MIN",
        "XREAD BLOCK 0 STREAMS s $",
        "XREADGROUP GROUP g me BLOCK 0 STREAMS s >",
        "WAIT 1 0",
    ];
    let mut blocked: Vec<_> = waits.iter().map(|_| program.connect()).collect();
    for (client, wait) in blocked.iter_mut().zip(waits) {
        client.send(&[line("ECHO before"), line(wait)].concat());
        assert_eq!(client.reply(), b"$6\r\nbefore\r\n");
    }
    let all = format!("blocked_clients:{}\r\n", waits.len());
    eventually("they wait upstream", || direct.text("INFO clients").contains(&all));
    let began = Instant::now();
    program.terminate();
    for (client, wait) in blocked.iter_mut().zip(waits) {
        let said = client.reply();
        assert!(said.starts_with(b"-UNBLOCKED "), "{wait}: {}", said.escape_ascii());
        assert!(client.is_closed(), "{wait}");
    }
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(direct.text("RPUSH list v"), ":1\r\n");
    assert_eq!(direct.text("LPOP list"), "$1\r\nv\r\n", "nobody has taken it");
}

/// Where the server may not be asked to let it go, its connection is closed.
#[test]
fn a_blocked_client_is_let_go_without_rights_too() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER default -client|unblock");
    let mut program = Program::start(redis.port, &["--drain-timeout", "60s"]);
    let mut blocked = program.connect();
    blocked.send(&line("BLPOP list 0"));
    eventually("it waits upstream", || direct.text("INFO clients").contains("blocked_clients:1"));
    let began = Instant::now();
    program.terminate();
    assert!(blocked.reply().starts_with(b"-ERR nearside: "));
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// What holds a session upstream does not hold the stop.
#[test]
fn open_state_does_not_delay_a_stop() {
    let redis = Redis::start();
    for lines in [
        &["MULTI", "SET users/1 v"][..],
        &["WATCH users/1"],
        &["SUBSCRIBE c"],
        &["MONITOR"],
        &["CLIENT NO-EVICT ON"],
    ] {
        let mut program = Program::start(redis.port, &["--drain-timeout", "60s"]);
        let mut client = program.connect();
        lines.iter().for_each(|text| drop(client.cmd(text)));
        let began = Instant::now();
        program.terminate();
        assert!(client.is_closed(), "{lines:?}");
        assert_eq!(program.ended().code(), Some(0), "{lines:?}: {}", program.seen);
        assert!(began.elapsed() < Duration::from_secs(5), "{lines:?}: {:?}", began.elapsed());
    }
    assert_eq!(redis.connect().value("users/1"), None, "what was not carried out was not");
}

/// A command that takes its time upstream, and is not answered before somebody says so.
fn stuck(program: &Program, upstream: &Scripted) -> Conn {
    let mut client = program.connect();
    client.send(&line("INCR n"));
    let _ = upstream.expect("INCR n");
    client
}

#[test]
fn the_deadline_ends_what_does_not_end() {
    let upstream = Scripted::start();
    let mut program = Program::start(upstream.address.port(), &["--drain-timeout", "300ms"]);
    let mut stuck = stuck(&program, &upstream);
    let began = Instant::now();
    program.terminate();
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(3), "{took:?}");
    assert!(program.seen.contains("clients still connected"), "{}", program.seen);
    assert!(stuck.is_closed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for second in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let upstream = Scripted::start();
        let mut program = Program::start(upstream.address.port(), &["--drain-timeout", "60s"]);
        let mut stuck = stuck(&program, &upstream);
        program.terminate();
        program.wait_for("stopping");
        let began = Instant::now();
        program.signal(second);
        assert_eq!(program.ended().code(), Some(1), "{}", program.seen);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(program.seen.contains("second signal"), "{}", program.seen);
        assert!(stuck.is_closed());
    }
}

#[test]
fn an_interrupt_drains_as_well() {
    let redis = Redis::start();
    let mut program = Program::start(redis.port, &[]);
    assert_eq!(program.connect().text("SET users/1 v"), "+OK\r\n");
    program.signal(rustix::process::Signal::INT);
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
}

#[test]
fn a_client_that_does_not_read_does_not_keep_it() {
    let redis = Redis::start();
    redis.connect().args(&[b"SET", b"big", &vec![b'x'; 1_000_000]]);
    let mut program = Program::start(redis.port, &["--drain-timeout", "300ms"]);
    let mut greedy = program.connect();
    greedy.send(&line("GET big").repeat(100));
    let mut begun = [0; 10];
    greedy.stream.read_exact(&mut begun).unwrap();
    program.terminate();
    let began = Instant::now();
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// One request over a Unix socket.
fn ask(path: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(&line(command))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

#[test]
fn a_unix_socket_serves_and_is_gone_at_the_end() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nearside.sock");
    let listen = format!("unix:{}", path.display());
    for forced in [false, true] {
        let mut program = Program::start(redis.port, &["--listen", &listen]);
        assert_eq!(ask(&path, "SET users/1 v").unwrap(), "+OK\r\n");
        assert_eq!(ask(&path, "GET users/1").unwrap(), "$1\r\nv\r\n");
        assert_eq!(program.connect().value("users/1").as_deref(), Some("v"), "and the port beside it");
        // It is not taken from somebody who serves on it.
        let mut other =
            Program::run(&["--listen", &listen, "--admin", "off", "--upstream", "redis://127.0.0.1:1"], 0, 0);
        assert_eq!(other.ended().code(), Some(1));
        assert!(other.seen.contains("cannot listen on unix:"), "{}", other.seen);
        assert_eq!(ask(&path, "PING").unwrap(), "+PONG\r\n");
        if forced {
            // A file left by a process that was killed is no hindrance.
            program.child.kill().unwrap();
            program.ended();
            assert!(path.exists());
            program = Program::start(redis.port, &["--listen", &listen]);
            assert_eq!(ask(&path, "PING").unwrap(), "+PONG\r\n");
        }
        program.terminate();
        assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
        assert!(!path.exists(), "the file is removed");
    }
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let listen = format!("unix:{}", path.display());
    let mut program = Program::run(&["--listen", &listen, "--admin", "off"], 0, 0);
    assert_eq!(program.ended().code(), Some(1), "{}", program.seen);
    assert!(program.seen.contains("cannot listen on unix:"), "{}", program.seen);
    assert_eq!(std::fs::read(&path).expect("it is still there"), b"data");
}

#[test]
fn a_port_in_use_is_told_before_anything_runs() {
    let redis = Redis::start();
    let taken = redis.port.to_string();
    let (free, admin) = (free_port().to_string(), free_port().to_string());
    for (arguments, said) in [
        (["--listen", &*taken, "--admin", &admin], format!("cannot listen on 127.0.0.1:{taken}: ")),
        (
            ["--listen", &*free, "--admin", &taken],
            format!("cannot listen on 127.0.0.1:{taken} for the admin pages"),
        ),
    ] {
        let mut program = Program::run(&arguments, 0, 0);
        assert_eq!(program.ended().code(), Some(1), "{}", program.seen);
        assert!(program.seen.contains(&said), "{}", program.seen);
        assert!(!program.seen.contains("ready for"), "{}", program.seen);
        assert_eq!(program.seen.lines().count(), 1, "one clear line: {}", program.seen);
    }
}

#[test]
fn a_hangup_disturbs_nobody_and_is_told() {
    let redis = Redis::start();
    let mut program = Program::start(redis.port, &[]);
    let mut client = program.connect();
    assert_eq!(client.text("SET users/1 v"), "+OK\r\n");
    for _ in 0..3 {
        program.signal(rustix::process::Signal::HUP);
    }
    program.wait_for("SIGHUP: files are read again");
    assert_eq!(client.value("users/1").as_deref(), Some("v"), "the connection lives on");
    assert_eq!(program.connect().text("PING"), "+PONG\r\n");
    program.terminate();
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
}

/// The program, with the reader of its log in our hand.
fn with_log_pipe(redis: &Redis) -> (std::process::Child, u16) {
    let (port, upstream) = (free_port(), format!("redis://127.0.0.1:{}", redis.port));
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_nearside"))
        .args([
            "--listen",
            &port.to_string(),
            "--admin",
            "off",
            "--upstream",
            &upstream,
            "--log-level",
            "trace",
        ])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it serves", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    (child, port)
}

/// Clients that come and go, and one that is sent away with a warning: all of it is logged at this level.
fn goes_on(port: u16) {
    for i in 0..2000 {
        let mut client = support::Conn::to(([127, 0, 0, 1], port).into());
        match i % 2 {
            0 => assert_eq!(client.text("PING"), "+PONG\r\n"),
            _ => client.send(b"POST / HTTP/1.1\r\n\r\n"),
        }
    }
    let mut client = support::Conn::to(([127, 0, 0, 1], port).into());
    assert_eq!(client.text("SET users/1 v"), "+OK\r\n");
}

fn stops(mut child: std::process::Child) {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut status = None;
    eventually("it ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn a_log_whose_reader_is_gone_stops_nothing() {
    let redis = Redis::start();
    let (mut child, port) = with_log_pipe(&redis);
    drop(child.stderr.take());
    goes_on(port);
    stops(child);
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let redis = Redis::start();
    let (mut child, port) = with_log_pipe(&redis);
    let unread = child.stderr.take();
    goes_on(port);
    stops(child);
    drop(unread);
}

#[test]
fn why_an_address_cannot_be_had_is_said_of_each_cause() {
    let redis = Redis::start();
    let taken = redis.port.to_string();
    let (free, admin) = (free_port().to_string(), free_port().to_string());
    for (listen, admin, says, says_not) in [
        ("unix:/no/such/folder/n.sock", &*admin, "the folder of the socket is not there", "another nearside"),
        (&*taken, &*admin, "is another nearside or Redis using it? --listen", "folder"),
        ("192.0.2.1:6380", &*admin, "no interface of this host", "another nearside"),
        (&*free, &*taken, "each nearside on a host needs its own: --admin", "--listen"),
    ] {
        let mut program = Program::run(&["--listen", listen, "--admin", admin], 0, 0);
        assert_eq!(program.ended().code(), Some(1), "{}", program.seen);
        let said = program.seen.lines().find(|line| line.contains("cannot listen")).expect("the reason");
        assert!(said.contains(says) && !said.contains(says_not), "{said}");
    }
}

#[test]
fn an_open_address_is_warned_of_at_the_start() {
    let redis = Redis::start();
    let at = format!("0.0.0.0:{}", free_port());
    let program = Program::start(redis.port, &["--listen", &at]);
    assert!(program.seen.contains("can be reached from other hosts"), "{}", program.seen);
}

#[test]
fn a_unix_socket_has_the_rights_that_it_was_given() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let group = folder.path().metadata().unwrap().gid();
    for (more, mode) in [
        (&[][..], 0o700),
        (&["--unix-socket-mode", "770", "--unix-socket-group", &group.to_string()][..], 0o770),
    ] {
        let path = folder.path().join("n.sock");
        let listen = format!("unix:{}", path.display());
        let mut program = Program::start(redis.port, &[&["--listen", &listen], more].concat());
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (mode, group));
        assert_eq!(ask(&path, "PING").unwrap(), "+PONG\r\n");
        program.terminate();
        program.ended();
    }
    let listen = format!("unix:{}", folder.path().join("n.sock").display());
    let none = ["--listen", &listen, "--unix-socket-group", "no-such-group", "--admin", "off"];
    let mut program = Program::run(&none, 0, 0);
    assert_eq!(program.ended().code(), Some(1));
    assert!(program.seen.contains("/etc/group has no group"), "{}", program.seen);
    assert!(!folder.path().join("n.sock").exists(), "nothing is left");
}
