//! State that was lost with its connection upstream is never replaced silently: the session is told, or closed.

use crate::support;

use std::process::{Child, Command, Stdio};

use support::{Conn, Nearside, Redis, eventually, free_port, line};

/// What makes state, and what would be wrong to be answered as if it were there.
const STATES: &[&[&str]] = &[
    &["WATCH users/k"],
    &["MULTI"],
    &["MULTI", "SET users/k lost"],
    &["SUBSCRIBE c"],
    &["CLIENT TRACKING ON"],
    &["CLIENT NO-EVICT ON"],
    &["MONITOR"],
    &["SCRIPT DEBUG YES"],
    &["MULTI", "CLIENT NO-EVICT ON", "EXEC"],
];

/// Ends every connection upstream but the one that asks.
fn kill_all(direct: &mut Conn) {
    direct.cmd("CLIENT KILL TYPE normal SKIPME yes");
    direct.cmd("CLIENT KILL TYPE pubsub SKIPME yes");
}

fn say(conn: &mut Conn, lines: &[&str]) {
    lines.iter().for_each(|text| drop(conn.cmd(text)));
}

/// The transaction that must not succeed, and then something that nobody may answer as before.
fn goes_on(conn: &mut Conn) {
    use std::io::Write;
    let lines = ["MULTI", "SET users/k lost", "EXEC", "ECHO still-here"];
    // The connection may be closed already.
    let _ = conn.stream.write_all(&lines.map(line).concat());
}

/// Whatever comes until the connection is closed holds nothing but errors, and messages.
#[track_caller]
fn nothing_was_done(conn: &mut Conn, what: &str) {
    let mut said = String::new();
    while let Ok(frame) = conn.try_reply() {
        let frame = String::from_utf8_lossy(&frame).into_owned();
        // MONITOR shows what others say.
        let is_message = frame.starts_with('>') || frame.starts_with("+1") && frame.contains("] \"");
        assert!(frame.starts_with('-') || is_message, "{what}: {frame}");
        said += &frame;
    }
    assert!(conn.is_closed(), "{what}: {said}");
}

#[test]
fn a_transaction_never_succeeds_on_a_connection_that_does_not_watch() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut direct = redis.connect();
    for i in 0..40 {
        let state = STATES[i % STATES.len()];
        let mut client = nearside.connect();
        // The links that are killed each time come back with a delay.
        let mut said = String::new();
        eventually("it speaks RESP3", || {
            said = client.text("HELLO 3");
            assert!(said.starts_with('%') || said.contains("was not sent"), "{said}");
            said.starts_with('%')
        });
        say(&mut client, state);
        direct.cmd("SET users/k kept");
        // Whichever the thread of nearside sees first.
        if i % 3 == 0 {
            goes_on(&mut client);
            kill_all(&mut direct);
            drop(client);
        } else {
            kill_all(&mut direct);
            goes_on(&mut client);
            nothing_was_done(&mut client, &format!("{state:?}"));
            assert_eq!(direct.value("users/k").as_deref(), Some("kept"), "{state:?}");
        }
        eventually("others are served", || nearside.connect().text("ECHO x") == "$1\r\nx\r\n");
    }
}

/// A session without state goes on.
#[test]
fn who_has_no_state_is_served_on() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut direct = redis.connect();
    for lines in [&["WATCH users/k", "UNWATCH"][..], &["BLPOP l 0.01"], &["MULTI", "EXEC"], &["NOSUCH"]] {
        let mut client = nearside.connect();
        say(&mut client, lines);
        kill_all(&mut direct);
        eventually("it is served", || client.text("ECHO x") == "$1\r\nx\r\n");
        eventually("it may begin anew", || client.text("WATCH users/k") == "+OK\r\n");
    }
}

/// The program, held up by the system.
struct Program {
    child: Child,
    port: u16,
}

impl Program {
    fn start(redis: &Redis) -> Self {
        let (port, upstream) = (free_port(), format!("redis://127.0.0.1:{}", redis.port));
        let listen = port.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nearside"));
        command.args(["--listen", &listen, "--admin", "off", "--upstream", &upstream, "--workers", "1"]);
        let child = command.stderr(Stdio::null()).spawn().expect("the program");
        eventually("it serves", || Conn::try_to(([127, 0, 0, 1], port).into()).is_ok());
        Self { child, port }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// When it goes on, what the client said and what became of its connection upstream are found at once.
#[test]
fn what_was_lost_while_the_process_was_stopped_is_not_replaced() {
    let redis = Redis::start();
    let program = Program::start(&redis);
    let mut direct = redis.connect();
    for state in STATES.iter().cycle().take(2 * STATES.len()) {
        let mut client = Conn::to(([127, 0, 0, 1], program.port).into());
        eventually("it is served", || client.text("HELLO 3").starts_with('%'));
        say(&mut client, state);
        program.signal(rustix::process::Signal::STOP);
        kill_all(&mut direct);
        direct.cmd("SET users/k kept");
        goes_on(&mut client);
        program.signal(rustix::process::Signal::CONT);
        nothing_was_done(&mut client, &format!("{state:?}"));
        assert_eq!(direct.value("users/k").as_deref(), Some("kept"), "{state:?}");
    }
}
