//! A master, two replicas, and three sentinels that watch them: all real, on free ports.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nearside::config::{Config, Upstream};
use rustix::process::{Pid, Signal, kill_process};

use super::tls::{Authority, Identity};
use super::{Conn, Nearside, Redis, eventually, free_port, line};

/// What the sentinels call the servers.
pub const SERVICE: &str = "main";

/// How long a failover may take, on a machine that has much else to do.
pub const FAILOVER: Duration = Duration::from_secs(30);

/// Polls until `done`, for as long as a failover may take.
#[track_caller]
pub fn in_time(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + FAILOVER;
    while !done() {
        assert!(Instant::now() < deadline, "not within {FAILOVER:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a server.
pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).expect("a process"), signal).expect("it runs");
}

/// A sentinel; it is ended with this.
pub struct Sentinel {
    pub port: u16,
    /// By TLS, if it speaks that.
    secure_port: Option<u16>,
    child: Option<Child>,
    _dir: tempfile::TempDir,
}

impl Sentinel {
    /// With a file of these lines, besides its port.
    pub fn start(lines: &str) -> Self {
        Self::with(lines, None)
    }

    /// Speaks TLS, too, and to others nothing else, if it has a certificate.
    fn with(lines: &str, secure: Option<&Certified>) -> Self {
        for _ in 0..20 {
            let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
            let secure_port = secure.map(|_| free_port());
            let file = dir.path().join("sentinel.conf");
            let mut text = format!("port {port}\nbind 127.0.0.1\ndir {}\n{lines}", dir.path().display());
            for (name, value) in secure.zip(secure_port).into_iter().flat_map(|(of, port)| of.settings(port))
            {
                text += &format!("{name} {value}\n");
            }
            std::fs::write(&file, text).unwrap();
            if let Some(child) = Self::launch(&file, port) {
                return Self { port, secure_port, child: Some(child), _dir: dir };
            }
        }
        panic!("no sentinel can be started");
    }

    /// `None` if another has the port.
    fn launch(file: &PathBuf, port: u16) -> Option<Child> {
        let program = std::env::var("NEARSIDE_TEST_SERVER").unwrap_or_else(|_| "redis-server".into());
        let mut command = Command::new(program);
        command.arg(file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("redis-server is installed");
        let pid = child.id();
        let is_up = || {
            let Ok(mut conn) = Conn::try_to(([127, 0, 0, 1], port).into()) else { return false };
            let asked = conn.stream.write_all(&line("INFO server"));
            let said = asked.and_then(|()| conn.try_reply()).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            said.starts_with("-NOAUTH") || said.contains(&format!("process_id:{pid}\r\n"))
        };
        let deadline = Instant::now() + FAILOVER;
        while !is_up() {
            if child.try_wait().unwrap().is_some() || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(child)
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Where nearside finds it.
    fn public(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.secure_port.unwrap_or(self.port)).into()
    }

    pub fn ask(&self, command: &str) -> String {
        Conn::to(self.address()).text(command)
    }

    /// The port of the master, as it says.
    pub fn master(&self) -> u16 {
        let said = self.ask(&format!("SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}"));
        said.trim_end().rsplit("\r\n").next().unwrap().parse().expect("a port")
    }

    pub fn signal(&self, what: Signal) {
        signal(self.child.as_ref().expect("running").id(), what);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A CA, and the certificate that it has given the servers and sentinels.
pub struct Certified {
    authority: Authority,
    identity: Identity,
}

impl Certified {
    pub fn new() -> Self {
        let authority = Authority::new();
        let identity = authority.issue("redis", &["127.0.0.1"]);
        Self { authority, identity }
    }

    /// The file with the CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.authority.ca()
    }

    /// The settings of a server, or of a sentinel, that speaks TLS at this port, and with others nothing else.
    pub fn settings(&self, port: u16) -> [(&'static str, String); 6] {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        [
            ("tls-port", port.to_string()),
            ("tls-cert-file", path(&self.identity.cert)),
            ("tls-key-file", path(&self.identity.key)),
            ("tls-ca-cert-file", path(&self.authority.ca())),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-replication", "yes".to_owned()),
        ]
    }

    /// A server, and its port for TLS.
    fn server(&self) -> (Redis, u16) {
        let port = free_port();
        let settings = self.settings(port);
        let settings = settings.iter().map(|(name, value)| (format!("--{name}"), value));
        let mut args = vec!["--repl-diskless-sync-delay".to_owned(), "0".to_owned()];
        args.extend(settings.flat_map(|(name, value)| [name, value.clone()]));
        (Redis::with(&args.iter().map(String::as_str).collect::<Vec<_>>()), port)
    }
}

/// See the module.
pub struct Watched {
    /// The first is the master at the beginning.
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
    /// By which ports the servers are known to the sentinels.
    ports: Vec<u16>,
    secure: Option<Certified>,
}

impl Watched {
    pub fn start() -> Self {
        let servers: Vec<_> = (0..3).map(|_| server()).collect();
        let ports = servers.iter().map(|server| server.port).collect();
        Self::of(servers, ports, None)
    }

    /// All speak TLS with one another, and with nearside.
    pub fn secure() -> Self {
        let certified = Certified::new();
        let (servers, ports) = (0..3).map(|_| certified.server()).unzip();
        Self::of(servers, ports, Some(certified))
    }

    fn of(servers: Vec<Redis>, ports: Vec<u16>, secure: Option<Certified>) -> Self {
        for replica in &servers[1..] {
            replicate_from(replica, ports[0]);
        }
        let lines = watch(ports[0], 2);
        let sentinels: Vec<_> = (0..3).map(|_| Sentinel::with(&lines, secure.as_ref())).collect();
        for sentinel in &sentinels {
            // What they do now and then is done often; servers before 7.0 do not know it. What they publish by less: in four
            // times as long they undo what they have not heard of.
            let period = "INFO-PERIOD 200 PING-PERIOD 100 ASK-PERIOD 100 PUBLISH-PERIOD 1000";
            sentinel.ask(&format!("SENTINEL DEBUG {period} ELECTION-TIMEOUT 500"));
        }
        in_time("the sentinels know each other and the replicas", || {
            sentinels.iter().all(|sentinel| {
                let listed = |what: &str| sentinel.ask(&format!("SENTINEL {what} {SERVICE}"));
                let master = listed("MASTER");
                let replicas = listed("REPLICAS");
                master.contains("num-other-sentinels\r\n$1\r\n2\r\n")
                    && replicas.matches("\r\nmaster-link-status\r\n$2\r\nok").count() == 2
                    && replicas.matches("slave-repl-offset").count() == 2
                    && listed("CKQUORUM").starts_with("+OK")
            })
        });
        Self { servers, sentinels, ports, secure }
    }

    /// A URL with these sentinels, in this order.
    pub fn url(&self, of: &[usize]) -> String {
        let hosts: Vec<_> = of.iter().map(|i| self.sentinels[*i].public().to_string()).collect();
        let s = if self.secure.is_some() { "s" } else { "" };
        format!("redis{s}+sentinel://{}/{SERVICE}", hosts.join(","))
    }

    /// nearside in front of what all sentinels name.
    pub fn nearside(&self, change: impl FnOnce(&mut Config)) -> Nearside {
        let nearside = behind(&self.url(&[0, 1, 2]), |config| {
            config.upstream_tls_ca = self.secure.as_ref().map(|certified| certified.authority.ca());
            change(config);
        });
        in_time("it is ready", || nearside.get("/readyz").0 == 200);
        nearside.wait_ready();
        nearside
    }

    /// The place of the server that this sentinel says is the master.
    pub fn master(&self, sentinel: usize) -> usize {
        let port = self.sentinels[sentinel].master();
        self.ports.iter().position(|of| *of == port).expect("one of them")
    }

    /// Fails over as an operator does, who asks this sentinel.
    pub fn fail_over(&self, sentinel: usize) {
        in_time("the failover begins", || {
            let said = self.sentinels[sentinel].ask(&format!("SENTINEL FAILOVER {SERVICE}"));
            assert!(
                said.starts_with("+OK") || said.starts_with("-NOGOODSLAVE") || said.starts_with("-INPROG"),
                "{said}"
            );
            said.starts_with("+OK") || said.starts_with("-INPROG")
        });
    }
}

/// nearside in front of what a URL leads to; does not wait.
pub fn behind(url: &str, change: impl FnOnce(&mut Config)) -> Nearside {
    Nearside::unready(([127, 0, 0, 1], 1).into(), |config| {
        config.upstream = Upstream::parse(url).expect("a URL");
        change(config);
    })
}

/// What a sentinel's file says of a master that listens there.
pub fn watch(port: u16, quorum: usize) -> String {
    format!(
        "sentinel monitor {SERVICE} 127.0.0.1 {port} {quorum}\nsentinel down-after-milliseconds {SERVICE} 500\n\
         sentinel failover-timeout {SERVICE} 2000\nsentinel parallel-syncs {SERVICE} 2\n"
    )
}

/// One that does not wait for other replicas when the first one comes.
pub fn server() -> Redis {
    Redis::with(&["--repl-diskless-sync-delay", "0"])
}

pub fn replicate(replica: &Redis, of: &Redis) {
    replicate_from(replica, of.port);
}

fn replicate_from(replica: &Redis, port: u16) {
    let mut conn = replica.connect();
    assert_eq!(conn.text(&format!("REPLICAOF 127.0.0.1 {port}")), "+OK\r\n");
    eventually("it replicates", || conn.text("INFO replication").contains("master_link_status:up"));
}

pub fn is_replica(server: &Redis) -> bool {
    // A sentinel that makes it one closes its connections.
    let said = server.connect().try_reply_to("ROLE").unwrap_or_default();
    String::from_utf8_lossy(&said).contains("slave")
}
