//! The program itself, as a process with its log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use super::{Conn, SOON, eventually, free_port};

/// The program, and what it has logged so far.
pub struct Program {
    pub child: Child,
    pub port: u16,
    pub admin: u16,
    log: mpsc::Receiver<String>,
    pub seen: String,
}

impl Program {
    pub fn start(upstream: u16, more: &[&str]) -> Self {
        let (port, admin) = (free_port(), free_port());
        let upstream = format!("redis://127.0.0.1:{upstream}");
        let (listen, admin_at) = (port.to_string(), admin.to_string());
        let mut arguments = vec!["--listen", &listen, "--admin", &admin_at, "--upstream", &upstream];
        arguments.extend(["--workers", "2", "--namespace", "users"]);
        arguments.extend(more);
        let mut program = Self::run(&arguments, port, admin);
        program.wait_for("ready for clients");
        program
    }

    /// With at most so many file descriptors.
    pub fn start_with_files(files: usize, upstream: u16, more: &[&str]) -> Self {
        let (port, admin) = (free_port(), free_port());
        let script = format!("ulimit -n {files} && exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_nearside")]);
        command.args(["--listen", &port.to_string(), "--admin", &admin.to_string()]);
        command.args(["--upstream", &format!("redis://127.0.0.1:{upstream}")]).args(more);
        let mut program = Self::spawn(&mut command, port, admin);
        program.wait_for("ready for clients");
        program
    }

    /// With its standard error led elsewhere, as a shell is told to; nobody sees what is logged.
    pub fn start_with_errors_to(redirection: &str, upstream: u16) -> Self {
        let (port, admin) = (free_port(), free_port());
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec \"$@\" {redirection}"), "sh", env!("CARGO_BIN_EXE_nearside")]);
        command.args(["--listen", &port.to_string(), "--admin", &admin.to_string(), "--log-level", "trace"]);
        command.args(["--upstream", &format!("redis://127.0.0.1:{upstream}")]);
        let program = Self::spawn(&mut command, port, admin);
        eventually("it serves", || program.status("/livez") == Some(200));
        program
    }

    /// Where names are resolved by this file alone, in the place of `/etc/hosts`. It may be written anew at any time.
    pub fn start_with_hosts(hosts: &Path, upstream: &str, more: &[&str]) -> Self {
        let (port, admin) = (free_port(), free_port());
        let switch = hosts.with_extension("switch");
        std::fs::write(&switch, "hosts: files\n").unwrap();
        // In a name space for mounts of its own, which goes with it.
        let script = "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/nsswitch.conf && shift 2 && exec \"$@\"";
        let mut command = Command::new("unshare");
        // Who is not root becomes it in a name space for users.
        let flags = if rustix::process::getuid().is_root() { "-m" } else { "-rm" };
        command.args([flags, "sh", "-c", script, "sh"]).args([hosts, &switch]);
        command.arg(env!("CARGO_BIN_EXE_nearside"));
        command.args(["--listen", &port.to_string(), "--admin", &admin.to_string(), "--upstream", upstream]);
        let mut program = Self::spawn(command.args(more), port, admin);
        // If it may not, that is what is logged.
        program.wait_for("ready for clients");
        program
    }

    pub fn run(arguments: &[&str], port: u16, admin: u16) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_nearside")).args(arguments), port, admin)
    }

    pub fn spawn(command: &mut Command, port: u16, admin: u16) -> Self {
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("NEARSIDE_")) {
            command.env_remove(name);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program");
        let (sender, log) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, port, admin, log, seen: String::new() }
    }

    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + SOON;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => self.seen += &(line + "\n"),
                Err(_) => panic!("{text:?} is not logged: {}", self.seen),
            }
        }
    }

    /// All that is logged so far.
    pub fn logged(&mut self) -> &str {
        self.seen.extend(self.log.try_iter().map(|line| line + "\n"));
        &self.seen
    }

    /// One number of `NEARSIDE STATS`, 0 if it is not there.
    pub fn stat(&self, name: &str) -> i64 {
        let (stats, prefix) = (self.connect().text("NEARSIDE STATS"), format!("nearside_{name}:"));
        stats.lines().find_map(|line| line.strip_prefix(&prefix)?.trim().parse().ok()).unwrap_or(0)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Waits until it has ended, and reads the rest of its log.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.seen.extend(self.log.iter().map(|line| line + "\n"));
        status.unwrap()
    }

    pub fn connect(&self) -> Conn {
        Conn::to(([127, 0, 0, 1], self.port).into())
    }

    /// The status of an admin page; `None` if nobody answers.
    pub fn status(&self, path: &str) -> Option<u16> {
        self.response(path)?.split(' ').nth(1)?.parse().ok()
    }

    /// What stands on an admin page.
    pub fn page(&self, path: &str) -> String {
        let response = self.response(path).expect("the admin port answers");
        response.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    fn response(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
