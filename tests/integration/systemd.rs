//! What systemd is told of the program, and the sockets that it passes; a socket of the test stands for systemd.

use crate::support;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::program::Program;
use support::{Conn, Redis, eventually, free_port, line};

/// How long a word may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the program says how it is.
struct Systemd {
    socket: UnixDatagram,
    heard: String,
    folder: tempfile::TempDir,
}

impl Systemd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { socket, heard: String::new(), folder }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nearside"));
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify")).env("WATCHDOG_USEC", "400000");
        command
    }

    /// Waits for these words, and gives what was said before and with them.
    #[track_caller]
    fn wait_for(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.heard.find(words) {
                let rest = self.heard.split_off(at + words.len());
                return std::mem::replace(&mut self.heard, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut said = [0; 4096];
            match self.socket.recv(&mut said) {
                Ok(len) => self.heard += &String::from_utf8_lossy(&said[..len]),
                Err(error) => panic!("{words:?} is not said: {error}: {}", self.heard),
            }
        }
    }
}

#[test]
fn systemd_is_told_how_it_stands_from_the_start_to_the_stop() {
    let (mut redis, mut systemd) = (Redis::start(), Systemd::start());
    let (port, admin) = (free_port(), free_port());
    let mut command = systemd.command();
    command.args(["--listen", &port.to_string(), "--admin", &admin.to_string()]);
    let mut program = Program::spawn(
        command.args(["--upstream", &format!("redis://127.0.0.1:{}", redis.port)]),
        port,
        admin,
    );
    systemd.wait_for("READY=1\n");
    assert_eq!(program.connect().text("PING"), "+PONG\r\n");
    systemd.wait_for("STATUS=serving clients\n");
    systemd.wait_for("WATCHDOG=1\n");

    program.signal(rustix::process::Signal::HUP);
    systemd.wait_for("RELOADING=1\nMONOTONIC_USEC=");
    let told = systemd.wait_for("READY=1\n");
    let at: i64 = told.lines().next().unwrap().parse().expect("microseconds");
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec * 1_000_000 + 1_000_000;
    assert!(at > 0 && at <= now, "{at} {now}");

    redis.kill();
    systemd.wait_for("STATUS=serving clients, but the upstream is not reachable");
    // It is not ended for that.
    systemd.wait_for("WATCHDOG=1\n");
    program.terminate();
    systemd.wait_for("STOPPING=1\n");
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
}

/// The program with these sockets as its file descriptors 3 and 4, as systemd starts it.
fn activated(sockets: [OwnedFd; 2], names: &str, arguments: &[&str]) -> Command {
    let [first, second] = sockets;
    let script = "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$ exec \"$@\"";
    let mut command = Command::new("sh");
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
    command.stdin(Stdio::from(first)).stdout(Stdio::from(second));
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_nearside")]).args(arguments);
    command
}

#[test]
fn clients_that_come_while_nobody_runs_are_served_on_the_sockets_that_systemd_holds() {
    let redis = Redis::start();
    let (clients, admin) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (at, unused) = (clients.local_addr().unwrap(), free_port().to_string());
    let upstream = format!("redis://127.0.0.1:{}", redis.port);
    let arguments = ["--listen", &unused, "--admin", "off", "--upstream", &upstream];
    for round in 0..2 {
        let mut early = Conn::to(at);
        early.send(&line("PING"));
        let sockets = [clients.try_clone().unwrap().into(), admin.try_clone().unwrap().into()];
        let mut command = activated(sockets, "clients:nearside-admin.socket", &arguments);
        let mut program = Program::spawn(&mut command, at.port(), admin.local_addr().unwrap().port());
        assert_eq!(early.reply(), b"+PONG\r\n", "round {round}: {}", program.logged());
        eventually("the pages are there", || program.status("/livez") == Some(200));
        assert!(
            Conn::try_to(([127, 0, 0, 1], unused.parse().unwrap()).into()).is_err(),
            "listen is not used"
        );
        program.terminate();
        assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
    }
}

#[test]
fn a_socket_on_a_path_is_systemds_and_stays() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (clients, other) = (UnixListener::bind(&path).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let upstream = format!("redis://127.0.0.1:{}", redis.port);
    let sockets = [clients.try_clone().unwrap().into(), other.try_clone().unwrap().into()];
    let mut command = activated(sockets, "one:two", &["--admin", "off", "--upstream", &upstream]);
    let mut program = Program::spawn(&mut command, other.local_addr().unwrap().port(), 0);
    let mut client = Conn::over(UnixStream::connect(&path).unwrap());
    assert_eq!(client.text("PING"), "+PONG\r\n");
    assert_eq!(program.connect().text("PING"), "+PONG\r\n", "each is for clients");
    program.terminate();
    assert_eq!(program.ended().code(), Some(0), "{}", program.seen);
    UnixStream::connect(&path).expect("systemd goes on to listen");
}

#[test]
fn what_cannot_be_used_is_said() {
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let clients = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    for (sockets, names, says) in [
        (
            [null(), null()],
            "clients:admin",
            "file descriptor 3 (\"clients\"), which systemd passes, is no stream socket",
        ),
        ([clients(), clients()], "tls:admin", "name it in listen = \"tls://HOST:PORT\""),
    ] {
        let mut program = Program::spawn(&mut activated(sockets, names, &["--admin", "off"]), 0, 0);
        assert_eq!(program.ended().code(), Some(1), "{}", program.seen);
        assert!(program.seen.contains(says), "{}", program.seen);
    }
}
