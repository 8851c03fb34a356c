//! What the tests share: real servers on free ports, nearside in-process, and a client that sees raw bytes.
#![allow(dead_code)]

pub mod alone;
pub mod bus;
pub mod chaos;
pub mod cluster;
pub mod collector;
pub mod faults;
pub mod filter;
pub mod program;
pub mod python;
pub mod relay;
pub mod scripted;
pub mod sentinel;
pub mod tls;
pub mod witness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nearside::config::{Config, HostPort, Listen, Tracking, Upstream};
use nearside::io::Address;
use nearside::resp::encode;
use nearside::resp::scanner::{Kind, ReplyScanner, Scan};
use nearside::server::{Server, ServerError, Shutdown, Stop};
use tokio::sync::watch;

/// How long anything may take that should happen soon.
pub const SOON: Duration = Duration::from_secs(10);

/// Polls until `done`, and fails the test if that takes too long.
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A real redis-server (or `$NEARSIDE_TEST_SERVER`) of its own, without persistence.
pub struct Redis {
    pub port: u16,
    args: Vec<String>,
    child: Option<Child>,
    /// Its own: a replica leaves a dump behind, which any server that starts there would load.
    dir: Option<tempfile::TempDir>,
}

impl Redis {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With more settings, as on the command line: `["--maxmemory", "10mb"]`.
    pub fn with(args: &[&str]) -> Self {
        let args: Vec<_> = args.iter().map(ToString::to_string).collect();
        // Between finding a port free and using it, another may take it.
        (0..20).find_map(|_| Self::try_with(&args)).expect("redis-server can be started")
    }

    /// `None` if another has its port, or one that is among the settings.
    pub fn try_with(args: &[String]) -> Option<Self> {
        let mut redis = Self { port: free_port(), args: args.to_vec(), child: None, dir: None };
        redis.launch().then_some(redis)
    }

    /// Starts it again, empty, on the same port.
    pub fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + SOON;
        while !self.launch() {
            assert!(Instant::now() < deadline, "redis-server does not start again");
        }
    }

    /// Starts another one, with these settings, on the same port.
    pub fn become_another(&mut self, args: &[&str]) {
        self.args = args.iter().map(ToString::to_string).collect();
        self.restart();
    }

    fn launch(&mut self) -> bool {
        let program = std::env::var("NEARSIDE_TEST_SERVER").unwrap_or_else(|_| "redis-server".into());
        let mut command = Command::new(program);
        let dir = self.dir.insert(tempfile::tempdir().unwrap()).path().to_str().unwrap().to_string();
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir", &dir]);
        command.args(["--appendonly", "no", "--enable-debug-command", "yes"]).args(&self.args);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server is installed");
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            // The port may be another server's, and this one about to find that out.
            if self.is_answered_by(child.id()) {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    fn is_answered_by(&self, pid: u32) -> bool {
        let Ok(mut conn) = Conn::try_to(self.address()) else { return false };
        let asked = conn.stream.write_all(&request(&[b"INFO", b"server"]));
        let said = asked.and_then(|()| conn.try_reply()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        // One that asks for a password does not say who it is, nor one that knows no INFO.
        said.starts_with("-NOAUTH")
            || said.starts_with("-ERR unknown command")
            || said.contains(&format!("process_id:{pid}\r\n"))
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn connect(&self) -> Conn {
        Conn::to(self.address())
    }

    /// How often the server has executed a command, by its own account: `calls("get")`.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.connect().text("INFO commandstats");
        let prefix = format!("cmdstat_{command}:calls=");
        let calls = stats.lines().find_map(|line| line.strip_prefix(&prefix)?.split(',').next());
        calls.map_or(0, |calls| calls.parse().unwrap())
    }

    /// From now on, sees what the server is asked to do.
    pub fn monitor(&self) -> Monitor {
        let mut conn = self.connect();
        assert_eq!(conn.text("MONITOR"), "+OK\r\n");
        Monitor { conn, direct: self.connect() }
    }

    /// From now on, hears what is published on any channel.
    pub fn listen(&self) -> Listener {
        let mut conn = self.connect();
        assert!(conn.text("PSUBSCRIBE *").contains("psubscribe"));
        Listener { conn }
    }
}

/// Rules that take this right from a user who has all: `info`, `client|id`. Before 7.0 a subcommand can be given and not
/// taken, so of `CLIENT` what the tests need is given again.
pub fn without(right: &str) -> String {
    const OTHERS: [&str; 7] = ["tracking", "id", "setname", "getname", "info", "list", "reply"];
    let Some(taken) = right.strip_prefix("client|") else { return format!("-{right}") };
    let others = OTHERS.iter().filter(|other| **other != taken);
    others.fold("-client".to_owned(), |rules, other| format!("{rules} +client|{other}"))
}

/// See [`Redis::monitor`].
pub struct Monitor {
    conn: Conn,
    direct: Conn,
}

impl Monitor {
    /// The commands since the last call, as `"GET" "users/1"`, heartbeats left out.
    pub fn seen(&mut self) -> Vec<String> {
        self.direct.cmd("ECHO end-of-what-was-seen");
        let mut seen = Vec::new();
        loop {
            let line = String::from_utf8(self.conn.reply()).unwrap();
            let (_, command) = line.trim_end().split_once("] ").expect("a line of MONITOR");
            match command {
                "\"ECHO\" \"end-of-what-was-seen\"" => return seen,
                // Behind each PING of the feed it looks for SWAPDB.
                "\"PING\"" | "\"INFO\" \"commandstats\"" => {}
                _ => seen.push(command.to_string()),
            }
        }
    }
}

/// See [`Redis::listen`].
pub struct Listener {
    conn: Conn,
}

impl Listener {
    /// The next message: channel and payload.
    #[track_caller]
    pub fn next(&mut self) -> (Vec<u8>, Vec<u8>) {
        let frame = self.conn.reply();
        let mut parts = Vec::new();
        let mut rest = frame.strip_prefix(b"*4\r\n").expect("a message");
        while let Some(header) = rest.iter().position(|byte| *byte == b'\n') {
            let len: usize = std::str::from_utf8(&rest[1..header - 1]).unwrap().parse().unwrap();
            parts.push(rest[header + 1..][..len].to_vec());
            rest = &rest[header + 1 + len + 2..];
        }
        let payload = parts.pop().unwrap();
        (parts.pop().unwrap(), payload)
    }

    /// Everything that was published before a mark that is published by `conn` now, as `channel payload`.
    #[track_caller]
    pub fn heard(&mut self, conn: &mut Conn) -> Vec<String> {
        conn.send(&line("PUBLISH mark end"));
        assert!(conn.reply().starts_with(b":"), "PUBLISH");
        let mut heard = Vec::new();
        loop {
            let (channel, payload) = self.next();
            if channel == b"mark" {
                return heard;
            }
            heard.push(format!("{} {}", channel.escape_ascii(), payload.escape_ascii()));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port below those that the system gives out by itself: nobody else gets it before it is used, nor while
/// a server that had it is down.
pub fn free_port() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    loop {
        let port = 10_000 + (RandomState::new().hash_one(std::process::id()) % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// nearside in this process, on ports of its own.
pub struct Nearside {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    workers: usize,
    stop: watch::Sender<Stop>,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

impl Nearside {
    /// In front of `upstream`, with the namespaces `users` and `items` and one worker. Ready: its feed is
    /// subscribed and its link is tracked.
    pub fn start(upstream: SocketAddr) -> Self {
        Self::with(upstream, |_| ())
    }

    pub fn with(upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> Self {
        let nearside = Self::unready(upstream, change);
        nearside.wait_ready();
        nearside
    }

    /// In front of several servers, of which `owner` tells for each slot of keys whose it is.
    pub fn sharded(nodes: &[&Redis], owner: impl Fn(u16) -> u16) -> Self {
        let address = |node: &&Redis| {
            let address = node.address();
            Address::Tcp { host: address.ip().to_string(), port: address.port() }
        };
        let addresses: Vec<_> = nodes.iter().map(address).collect();
        Self::bound(config(nodes[0].address()), |config| Server::bind_sharded(config, &addresses, owner))
    }

    /// Behind TLS, in front of a server with TLS. Ready.
    pub fn tls(
        upstream: &tls::TlsRedis,
        authority: &tls::Authority,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let nearside = Self::unready(upstream.redis.address(), |config| {
            upstream.behind(authority)(config);
            change(config);
        });
        eventually("nearside is ready", || {
            nearside.get("/readyz").0 == 200 && nearside.tracked() >= nearside.workers
        });
        nearside
    }

    /// The links that are tracked, as the metrics have it.
    pub fn tracked(&self) -> usize {
        let page = self.get("/metrics").1;
        let line = page.lines().find_map(|line| line.strip_prefix("nearside_tracked_links "));
        line.map_or(0, |number| number.parse::<f64>().unwrap() as usize)
    }

    /// Does not wait until it is ready.
    pub fn unready(upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(upstream);
        change(&mut config);
        // As from a file: what a namespace does not say comes from the general setting.
        for namespace in &mut config.namespaces {
            if namespace.tracking == Tracking::Keys {
                namespace.tracking = config.tracking;
            }
        }
        Self::bound(config, Server::bind)
    }

    fn bound(config: Config, bind: impl FnOnce(Config) -> Result<Server, ServerError>) -> Self {
        let workers = config.workers;
        let server = bind(config).expect("free ports");
        let address = server.addresses().first().copied().unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        let admin = server.admin_address().expect("an admin port");
        let (stop, shutdown) = Shutdown::by_hand();
        let thread = Some(std::thread::spawn(move || server.run(shutdown)));
        Self { address, admin, workers, stop, thread }
    }

    /// Waits until the feed is subscribed and, if the upstream tracks, every worker's link is tracked.
    pub fn wait_ready(&self) {
        eventually("nearside is ready", || {
            let info = self.stats();
            let form = info.lines().find_map(|line| line.strip_prefix("nearside_tracking_form:")).unwrap();
            // Without these, what is read first fills nothing.
            let links: &[&str] = match form {
                "redirect" => &["feed_links", "tracked_links"],
                "channels" | "none" => &[],
                _ => &["feed_links"],
            };
            info.contains("nearside_feed:up")
                && links.iter().all(|links| self.stat(links) >= self.workers as i64)
        });
    }

    pub fn connect(&self) -> Conn {
        Conn::to(self.address)
    }

    pub fn connect_resp3(&self) -> Conn {
        let mut conn = self.connect();
        assert!(conn.cmd("HELLO 3").starts_with(b"%"), "HELLO 3");
        conn
    }

    /// The text of `NEARSIDE STATS`.
    pub fn stats(&self) -> String {
        String::from_utf8(self.connect().cmd("NEARSIDE STATS")).unwrap()
    }

    /// One number of `NEARSIDE STATS`, 0 if it is not there: `stat("hits")` is of `nearside_hits`.
    pub fn stat(&self, name: &str) -> i64 {
        let stats = self.stats();
        let prefix = format!("nearside_{name}:");
        stats.lines().find_map(|line| line.strip_prefix(&prefix)?.trim().parse().ok()).unwrap_or(0)
    }

    /// The lines of `NEARSIDE WHY key`.
    pub fn why(&self, key: &str) -> String {
        String::from_utf8(self.connect().args(&[b"NEARSIDE", b"WHY", key.as_bytes()])).unwrap()
    }

    pub fn is_cached(&self, key: &str) -> bool {
        self.why(key).contains("cached: yes")
    }

    /// Status and body of an admin page.
    pub fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.page(path);
        (status, body)
    }

    /// Status, head and body of an admin page.
    pub fn page(&self, path: &str) -> (u16, String, String) {
        self.page_as(path, "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    }

    /// Of the kind that is accepted.
    pub fn page_as(&self, path: &str, accept: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_string(), body.to_string())
    }

    /// Tells it to stop, without waiting.
    pub fn begin_stop(&self, stop: Stop) {
        self.stop.send_replace(stop);
    }

    /// Waits until it has stopped; gives what `run` gave.
    pub fn wait_stopped(&mut self) -> Result<(), ServerError> {
        self.thread.take().expect("running").join().expect("no panic")
    }
}

impl Drop for Nearside {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Drain);
        self.stop.send_replace(Stop::Now);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                let _ = ended.expect("the server has not panicked");
            }
        }
    }
}

/// What the tests' nearside is configured with.
pub fn config(upstream: SocketAddr) -> Config {
    let mut config = Config {
        listen: vec![Listen::Tcp(HostPort { host: "127.0.0.1".into(), port: 0 })],
        admin: vec![Listen::Tcp(HostPort { host: "127.0.0.1".into(), port: 0 })],
        upstream: Upstream::parse(&format!("redis://{upstream}")).unwrap(),
        workers: 1,
        drain_timeout: Duration::from_secs(2),
        ..Config::default()
    };
    config.namespaces = ["users", "items"].map(|name| namespace(&config, name)).into();
    config
}

/// A namespace with the defaults of `config`.
pub fn namespace(config: &Config, name: &str) -> nearside::config::Namespace {
    nearside::config::Namespace {
        name: name.into(),
        prefix: format!("{name}/"),
        channel: name.into(),
        on_update: config.on_update,
        refill_on_write: config.refill_on_write,
        tracking: config.tracking,
        max_age: config.max_age,
        max_staleness: config.max_staleness,
        writing: None,
    }
}

/// A client that sends and sees raw bytes.
pub struct Conn<S = TcpStream> {
    pub stream: S,
    buf: Vec<u8>,
}

impl Conn {
    pub fn to(address: SocketAddr) -> Self {
        Self::try_to(address).expect("a listener")
    }

    pub fn try_to(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Closes the connection at once, with a reset: nobody is there to read what is still to come.
    pub fn abort(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl<S: Read + Write> Conn<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, buf: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("a connection");
    }

    /// One reply or push, raw. Fails the test if none comes.
    #[track_caller]
    pub fn reply(&mut self) -> Vec<u8> {
        self.try_reply().expect("a reply")
    }

    /// `Err` if the connection is closed, or nothing comes in time.
    pub fn try_reply(&mut self) -> std::io::Result<Vec<u8>> {
        self.frame().map(|(frame, _)| frame)
    }

    /// Sends a command to who may have closed the connection already.
    pub fn try_reply_to(&mut self, command: &str) -> std::io::Result<Vec<u8>> {
        self.stream.write_all(&line(command))?;
        self.try_reply()
    }

    /// One reply or push, raw, and its kind.
    pub fn frame(&mut self) -> std::io::Result<(Vec<u8>, Kind)> {
        let mut scanner = ReplyScanner::new();
        let mut seen = 0;
        loop {
            match scanner.scan(&self.buf[seen..]).map_err(std::io::Error::other)? {
                Scan::Done { used, kind } => {
                    let rest = self.buf.split_off(seen + used);
                    return Ok((std::mem::replace(&mut self.buf, rest), kind));
                }
                Scan::More => seen = self.buf.len(),
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => self.buf.extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// Sends the words of `line` as a command and gives the raw reply.
    #[track_caller]
    pub fn cmd(&mut self, line: &str) -> Vec<u8> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.args(&words)
    }

    /// Like [`Conn::cmd`], as text.
    #[track_caller]
    pub fn text(&mut self, line: &str) -> String {
        String::from_utf8_lossy(&self.cmd(line)).into_owned()
    }

    #[track_caller]
    pub fn args(&mut self, args: &[&[u8]]) -> Vec<u8> {
        self.send(&request(args));
        self.reply()
    }

    /// Sends all lines in one packet, and gives their replies as text.
    #[track_caller]
    pub fn pipeline<L: AsRef<str>>(&mut self, lines: &[L]) -> Vec<String> {
        let packet: Vec<u8> = lines.iter().flat_map(|words| line(words.as_ref())).collect();
        self.send(&packet);
        lines.iter().map(|_| String::from_utf8_lossy(&self.reply()).into_owned()).collect()
    }

    /// `GET`, decoded: `None` is nil.
    #[track_caller]
    pub fn value(&mut self, key: &str) -> Option<String> {
        let reply = self.args(&[b"GET", key.as_bytes()]);
        let text = String::from_utf8(reply).unwrap();
        match text.as_str() {
            "$-1\r\n" | "_\r\n" => None,
            _ => {
                let (_, body) = text.strip_prefix('$').expect("a bulk string").split_once("\r\n").unwrap();
                Some(body.strip_suffix("\r\n").unwrap().to_string())
            }
        }
    }

    /// Whether the other side has closed the connection, or does so soon.
    pub fn is_closed(&mut self) -> bool {
        let mut chunk = [0; 65536];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    );
                }
            }
        }
    }
}

/// A request as clients send it.
pub fn request(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::command(&mut out, args);
    out
}

/// The words of `line` as a request.
pub fn line(line: &str) -> Vec<u8> {
    request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}
