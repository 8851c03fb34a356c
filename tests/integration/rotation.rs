//! Credentials that change: a file or a program has the upstream's password, and no client notices that it is another.

use crate::support;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nearside::config::{Config, Upstream};
use support::program::Program;
use support::relay::Relay;
use support::{Conn, Nearside, Redis, eventually};

/// A server where nobody may do anything but `app`, whose password is `one`, and the test.
struct Guarded {
    redis: Redis,
    root: Conn,
}

impl Guarded {
    fn start() -> Self {
        let redis = Redis::start();
        let mut root = redis.connect();
        for rule in ["root on >root ~* &* +@all", "app on >one ~* &* +@all"] {
            assert_eq!(root.text(&format!("ACL SETUSER {rule}")), "+OK\r\n");
        }
        assert_eq!(root.text("AUTH root root"), "+OK\r\n");
        assert_eq!(root.text("ACL SETUSER default off"), "+OK\r\n");
        Self { redis, root }
    }

    #[track_caller]
    fn set(&mut self, rule: &str) {
        assert_eq!(self.root.text(&format!("ACL SETUSER app {rule}")), "+OK\r\n");
    }

    /// The numbers of nearside's connections.
    fn connections(&mut self) -> BTreeSet<u64> {
        let list = self.root.text("CLIENT LIST");
        let of_app = list.lines().filter(|line| line.contains(" user=app "));
        of_app.filter_map(|line| line.split(' ').next()?.strip_prefix("id=")?.parse().ok()).collect()
    }

    /// How often a login was refused.
    fn refused(&mut self) -> u64 {
        let log = self.root.text("ACL LOG");
        log.matches("\r\nauth\r\n").count() as u64
    }

    /// How often `AUTH` was said.
    fn logins(&mut self) -> u64 {
        let stats = self.root.text("INFO commandstats");
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_auth:calls="));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    }
}

fn upstream(guarded: &Guarded) -> Upstream {
    Upstream::parse(&format!("redis://app@127.0.0.1:{}", guarded.redis.port)).unwrap()
}

fn with_file(guarded: &Guarded, file: &Path, change: impl FnOnce(&mut Config)) -> Nearside {
    Nearside::with(guarded.redis.address(), |config| {
        config.upstream = upstream(guarded);
        config.upstream_password_file = Some(file.into());
        change(config);
    })
}

/// The number of a metric.
#[track_caller]
fn metric(nearside: &Nearside, name: &str) -> u64 {
    let page = nearside.get("/metrics").1;
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("nearside_{name} ")));
    line.unwrap_or_else(|| panic!("{name} in {page}")).trim().parse().unwrap()
}

fn renewed(nearside: &Nearside) -> u64 {
    metric(nearside, "renewed_logins_total{outcome=\"taken\"}")
}

/// Clients that are at work all the time: none may see an error, nor be closed.
struct Clients {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn at(nearside: &Nearside) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let kinds: [fn(&mut Conn, u64); 5] = [
            |conn, _| {
                conn.cmd("HELLO 3");
                read(conn);
            },
            |conn, _| read(conn),
            |conn, turn| {
                assert_eq!(conn.text(&format!("SET items/{} x", turn % 10)), "+OK\r\n");
                read(conn);
            },
            |conn, _| {
                let said = conn.pipeline(&["WATCH w", "MULTI", "INCR n", "GET k", "EXEC"]);
                assert!(said[4].starts_with("*2\r\n:"), "{said:?}");
            },
            |conn, _| {
                assert_eq!(conn.text("BLPOP nothing 0.02"), "*-1\r\n");
            },
        ];
        let threads = kinds.into_iter().map(|work| {
            let (stop, done, address) = (stop.clone(), done.clone(), nearside.address);
            std::thread::spawn(move || {
                let mut conn = Conn::to(address);
                while !stop.load(Ordering::Relaxed) {
                    work(&mut conn, done.fetch_add(1, Ordering::Relaxed));
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        });
        Self { threads: threads.collect(), stop, done }
    }

    /// Waits until they have done something more.
    #[track_caller]
    fn go_on(&self) {
        let wanted = self.done.load(Ordering::Relaxed) + 100;
        eventually("the clients go on", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client has seen an error");
            self.done.load(Ordering::Relaxed) >= wanted
        });
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client has seen no error"));
    }
}

fn read(conn: &mut Conn) {
    let said = conn.text("GET users/1");
    assert!(said.starts_with("$3\r\nada"), "{said}");
}

#[track_caller]
fn hits_go_on(nearside: &Nearside) {
    let (mut conn, before) = (nearside.connect(), nearside.stat("hits"));
    eventually("hits", || {
        read(&mut conn);
        nearside.stat("hits") > before + 3
    });
}

/// Has a file hold something else.
type Way = fn(&mut File, &str);

/// Ways in which a file comes to hold something else.
struct File {
    folder: tempfile::TempDir,
    turns: usize,
}

impl File {
    /// As kubelet has it: `password` leads to `..data/password`, and `..data` to a folder.
    fn new(text: &str) -> Self {
        let mut file = Self { folder: tempfile::tempdir().unwrap(), turns: 0 };
        file.swap(text);
        symlink("..data/password", file.path()).unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    fn swap(&mut self, text: &str) {
        self.turns += 1;
        let (of, new) = (self.folder.path(), format!("..{}", self.turns));
        std::fs::create_dir(of.join(&new)).unwrap();
        std::fs::write(of.join(&new).join("password"), text).unwrap();
        symlink(&new, of.join("..data_tmp")).unwrap();
        std::fs::rename(of.join("..data_tmp"), of.join("..data")).unwrap();
    }

    fn rename(&mut self, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    fn write(&mut self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

/// One more connection than the clients need: of a subscriber in RESP3, who is idle.
fn subscriber(nearside: &Nearside) -> Conn {
    let mut conn = nearside.connect_resp3();
    assert!(conn.text("SUBSCRIBE news").starts_with(">3\r\n"));
    conn
}

#[track_caller]
fn still_hears(guarded: &mut Guarded, subscriber: &mut Conn) {
    assert_eq!(guarded.root.text("PUBLISH news x"), ":1\r\n");
    assert!(subscriber.reply().ends_with(b"news\r\n$1\r\nx\r\n"));
}

#[test]
fn a_file_is_read_anew_however_it_changes_and_connections_that_stand_say_it_again() {
    let mut guarded = Guarded::start();
    let mut file = File::new("one\n");
    let nearside = with_file(&guarded, &file.path(), |config| config.workers = 2);
    guarded.root.cmd("SET users/1 ada");
    let mut idle = subscriber(&nearside);
    let mut open = nearside.connect();
    assert_eq!(open.pipeline(&["MULTI", "INCR open"]), ["+OK\r\n", "+QUEUED\r\n"]);
    let clients = Clients::at(&nearside);
    clients.go_on();
    let ways: [(Way, &str); 3] = [
        (File::swap, "a link is swapped"),
        (File::rename, "another takes its name"),
        (|file, text| file.write(text), "it is written over"),
    ];
    let mut before = "one".to_owned();
    for (turn, (change, what)) in ways.into_iter().enumerate() {
        let (new, connections) = (format!("p{turn}"), guarded.connections());
        assert!(connections.len() >= 6, "{connections:?}");
        guarded.set(&format!(">{new}"));
        let (logins, taken) = (guarded.logins(), renewed(&nearside));
        change(&mut file, &format!("{new}\n"));
        eventually(what, || renewed(&nearside) >= taken + 5);
        clients.go_on();
        // All have said it, but the one with an open transaction: from now on the old one is wrong.
        let wanted = connections.len() as u64 - 1;
        eventually(what, || guarded.logins() - logins >= wanted);
        guarded.set(&format!("<{before}"));
        clients.go_on();
        still_hears(&mut guarded, &mut idle);
        hits_go_on(&nearside);
        let kept = guarded.connections();
        assert!(connections.is_subset(&kept), "{what}: {connections:?} {kept:?}");
        before = new;
    }
    // It says it as soon as it may.
    let taken = renewed(&nearside);
    assert_eq!(open.text("EXEC"), "*1\r\n:1\r\n");
    eventually("the transaction is over", || renewed(&nearside) > taken);
    clients.end();
    assert_eq!((guarded.refused(), nearside.stat("feed_lapses"), nearside.stat("upstream_lost")), (0, 0, 0));
}

#[test]
fn a_file_that_is_empty_or_gone_for_a_moment_changes_nothing() {
    let mut guarded = Guarded::start();
    let mut file = File::new("one");
    let nearside = with_file(&guarded, &file.path(), |_| ());
    guarded.root.cmd("SET users/1 ada");
    let clients = Clients::at(&nearside);
    let connections = guarded.connections();
    for what in ["empty", "gone", "a folder", "too long"] {
        let failed = metric(&nearside, "failed_passwords_total");
        match what {
            "empty" => file.rename(""),
            "gone" => std::fs::remove_file(file.path()).unwrap(),
            "a folder" => std::fs::create_dir(file.path()).unwrap(),
            _ => {
                std::fs::remove_dir(file.path()).unwrap();
                file.write(&"x".repeat(100_000));
            }
        }
        eventually(what, || metric(&nearside, "failed_passwords_total") > failed);
        clients.go_on();
        hits_go_on(&nearside);
        assert_eq!(nearside.get("/readyz").0, 200, "{what}");
        // New connections say the one before.
        let mut aside = nearside.connect();
        assert_eq!(aside.text("SELECT 3"), "+OK\r\n");
        assert!(aside.text("GET users/1").starts_with("$-1"), "{what}");
    }
    file.write("one");
    clients.end();
    assert!(connections.is_subset(&guarded.connections()));
    assert_eq!((guarded.refused(), renewed(&nearside), metric(&nearside, "passwords_total")), (0, 0, 1));
}

#[test]
fn without_a_file_it_starts_is_not_ready_says_why_and_takes_it_when_it_comes() {
    let mut guarded = Guarded::start();
    guarded.root.cmd("SET users/1 ada");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let nearside = Nearside::unready(guarded.redis.address(), |config| {
        config.upstream = upstream(&guarded);
        config.upstream_password_file = Some(path.clone());
    });
    let why = format!("upstream-password-file: {}: No such file", path.display());
    eventually("it is tried", || metric(&nearside, "failed_passwords_total") > 0);
    let (status, said) = nearside.get("/readyz");
    assert!(
        status == 503 && said.starts_with("there is no password for the upstream") && said.contains(&why),
        "{said}"
    );
    assert_eq!(nearside.get("/livez").0, 200);
    let said = nearside.connect().text("GET users/1");
    assert!(said.starts_with("-ERR nearside: ") && said.contains(&why), "{said}");
    assert!(said.ends_with("the command was not sent\r\n"), "{said}");
    assert_eq!(guarded.refused(), 0);
    std::fs::write(&path, "one\n").unwrap();
    nearside.wait_ready();
    eventually("it is ready", || nearside.get("/readyz").0 == 200);
    hits_go_on(&nearside);
}

#[test]
fn whichever_is_told_first_of_a_new_password_no_client_notices() {
    let mut guarded = Guarded::start();
    guarded.root.cmd("SET users/1 ada");
    let mut file = File::new("one");
    let nearside = with_file(&guarded, &file.path(), |_| ());
    let clients = Clients::at(&nearside);
    clients.go_on();
    let connections = guarded.connections();
    // First nearside: what it says is refused, and what stands goes on, and new connections say the old one.
    file.rename("two");
    let refused = "renewed_logins_total{outcome=\"refused\"}";
    eventually("it is refused", || metric(&nearside, refused) >= 2);
    for db in 1..4 {
        let mut aside = nearside.connect();
        assert_eq!(aside.text(&format!("SELECT {db}")), "+OK\r\n");
        assert_eq!(aside.text("GET users/1"), "$-1\r\n");
    }
    clients.go_on();
    hits_go_on(&nearside);
    guarded.set(">two <one");
    let wanted = guarded.connections().len() as u64;
    eventually("it is taken", || renewed(&nearside) >= wanted - 1);
    clients.go_on();
    // First the server, where the old one is wrong at once: what stands goes on, and a connection that is refused has the
    // file read at once.
    guarded.set(">three <two");
    file.rename("three");
    let mut aside = nearside.connect();
    eventually("a new connection", || aside.text("SELECT 5") == "+OK\r\n");
    assert_eq!(aside.text("GET users/1"), "$-1\r\n");
    clients.go_on();
    hits_go_on(&nearside);
    clients.end();
    assert!(connections.is_subset(&guarded.connections()));
    assert_eq!((nearside.stat("feed_lapses"), nearside.stat("upstream_lost")), (0, 0));
}

#[test]
fn a_session_that_has_logged_in_itself_stays_whom_it_is() {
    let mut guarded = Guarded::start();
    guarded.root.cmd("ACL SETUSER bob on >bob ~* &* +@all");
    let mut file = File::new("one");
    let nearside = with_file(&guarded, &file.path(), |_| ());
    let (mut shared, mut own) = (nearside.connect(), nearside.connect());
    assert_eq!(shared.text("AUTH bob bob"), "+OK\r\n");
    assert_eq!(own.pipeline(&["WATCH w", "AUTH bob bob"]), ["+OK\r\n"; 2]);
    // The very same as nearside's own.
    let mut same = nearside.connect();
    assert_eq!(same.text("AUTH app one"), "+OK\r\n");
    guarded.set(">two");
    file.rename("two");
    eventually("it is said again", || renewed(&nearside) >= 2);
    for (conn, user) in [(&mut shared, "bob"), (&mut own, "bob"), (&mut same, "app")] {
        assert_eq!(conn.text("ACL WHOAMI"), format!("$3\r\n{user}\r\n"));
    }
    assert_eq!(own.pipeline(&["MULTI", "ACL WHOAMI", "EXEC"])[2], "*1\r\n$3\r\nbob\r\n");
    guarded.set("<one");
    assert!(nearside.connect().text("AUTH app one").starts_with("-WRONGPASS"));
    assert_eq!(nearside.connect().text("AUTH app two"), "+OK\r\n");
}

#[test]
fn state_on_a_connection_outlives_a_new_password() {
    let mut guarded = Guarded::start();
    let mut file = File::new("one");
    let nearside = with_file(&guarded, &file.path(), |_| ());
    let mut watcher = nearside.connect();
    assert_eq!(watcher.text("WATCH w"), "+OK\r\n");
    let mut tracked = nearside.connect_resp3();
    assert_eq!(tracked.text("CLIENT TRACKING ON OPTIN"), "+OK\r\n");
    assert_eq!(tracked.text("CLIENT CACHING YES"), "+OK\r\n");
    let mut restricted = nearside.connect();
    restricted.cmd("SUBSCRIBE news");
    let mut monitor = nearside.connect();
    assert_eq!(monitor.text("MONITOR"), "+OK\r\n");
    let mut blocked = nearside.connect();
    blocked.send(&support::line("BLPOP list 0"));
    eventually("it waits", || guarded.root.text("INFO clients").contains("blocked_clients:1"));
    guarded.set(">two");
    file.swap("two");
    // The watcher's, the feed's, the shared one; the one that waits says it when it has its reply.
    eventually("it is said again", || renewed(&nearside) >= 3);
    // What was to hold for the next request does: nothing has come in between.
    tracked.cmd("GET t");
    guarded.root.cmd("SET t 1");
    assert!(tracked.reply().starts_with(b">2\r\n$10\r\ninvalidate\r\n"));
    assert_eq!(guarded.root.text("PUBLISH news x"), ":1\r\n");
    assert_eq!(restricted.reply(), b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n");
    guarded.root.cmd("RPUSH list a");
    assert_eq!(blocked.reply(), b"*2\r\n$4\r\nlist\r\n$1\r\na\r\n");
    let taken = renewed(&nearside);
    restricted.cmd("UNSUBSCRIBE news");
    assert_eq!(restricted.text("PING"), "+PONG\r\n");
    eventually("it is said there", || renewed(&nearside) > taken);
    guarded.root.cmd("SET w changed");
    assert_eq!(watcher.pipeline(&["MULTI", "SET w mine", "EXEC"])[2], "*-1\r\n", "WATCH is not forgotten");
    let seen = String::from_utf8(monitor.reply()).unwrap();
    assert!(seen.starts_with('+') && seen.contains('['), "{seen}");
    assert_eq!(guarded.refused(), 0);
}

#[test]
fn a_feed_that_may_not_say_it_again_is_left_alone_and_connects_with_the_new_one() {
    let mut guarded = Guarded::start();
    guarded.set("-hello");
    guarded.root.cmd("SET users/1 ada");
    let mut file = File::new("one");
    let nearside = with_file(&guarded, &file.path(), |_| ());
    hits_go_on(&nearside);
    let (connections, lapses) = (guarded.connections(), nearside.stat("feed_lapses"));
    guarded.set(">two");
    file.rename("two");
    eventually("it is said again", || renewed(&nearside) >= 1);
    guarded.set("<one");
    hits_go_on(&nearside);
    assert_eq!(nearside.stat("feed_lapses"), lapses, "what is cached is not given up for it");
    assert!(connections.is_subset(&guarded.connections()));
    // One day the service closes it because of its age.
    let mut reader = nearside.connect();
    guarded.root.cmd("CLIENT KILL TYPE pubsub");
    eventually("it is made anew", || {
        read(&mut reader);
        nearside.stat("feed_lapses") > lapses && nearside.stats().contains("nearside_feed:up")
    });
    hits_go_on(&nearside);
    assert_eq!(guarded.refused(), 0);
}

/// A program that prints what a file holds, or does what the file says.
fn program(folder: &Path) -> Vec<String> {
    let path = folder.join("token");
    let script = format!(
        "#!/bin/sh\necho run >> {0}/runs\ncase $(cat {0}/says) in\n  fail) echo 'no rights' >&2; exit 3;;\n  \
         hang) exec sleep 60;;\n  *) cat {0}/says;;\nesac\n",
        folder.display()
    );
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(script.as_bytes()).unwrap();
    drop(file);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    vec!["sh".into(), path.to_str().unwrap().into()]
}

#[test]
fn a_program_is_run_again_and_again_and_its_failures_change_nothing() {
    let mut guarded = Guarded::start();
    guarded.root.cmd("SET users/1 ada");
    let folder = tempfile::tempdir().unwrap();
    let says = |text: &str| {
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), folder.path().join("says")).unwrap();
    };
    says("one\n");
    let nearside = Nearside::with(guarded.redis.address(), |config| {
        config.upstream = upstream(&guarded);
        config.upstream_password_command = Some(program(folder.path()));
        config.upstream_password_refresh = Duration::from_millis(300);
    });
    let clients = Clients::at(&nearside);
    let connections = guarded.connections();
    for what in ["fail", "", "hang", "\n\n"] {
        let failed = metric(&nearside, "failed_passwords_total");
        says(what);
        eventually(what, || metric(&nearside, "failed_passwords_total") > failed + 1);
        clients.go_on();
    }
    guarded.set(">two");
    let taken = renewed(&nearside);
    says("two\n");
    eventually("the new one is said", || renewed(&nearside) >= taken + 2);
    guarded.set("<one");
    clients.go_on();
    hits_go_on(&nearside);
    clients.end();
    assert!(connections.is_subset(&guarded.connections()));
    assert_eq!((guarded.refused(), metric(&nearside, "passwords_total")), (0, 2));
}

#[test]
fn a_program_that_is_slow_at_the_start_is_waited_for_and_run_at_once_when_its_token_is_refused() {
    let mut guarded = Guarded::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("says"), "one").unwrap();
    let mut words = program(folder.path());
    let nearside = Nearside::unready(guarded.redis.address(), |config| {
        config.upstream = upstream(&guarded);
        words = vec!["sh".into(), "-c".into(), format!("sleep 0.3; exec {}", words.join(" "))];
        config.upstream_password_command = Some(words);
    });
    assert_eq!(nearside.connect().text("SET k v"), "+OK\r\n", "whoever comes waits for it");
    nearside.wait_ready();
    let runs = || std::fs::read_to_string(folder.path().join("runs")).unwrap().lines().count();
    assert_eq!(runs(), 1);
    // It would be run again in ten minutes.
    std::fs::write(folder.path().join("says"), "two").unwrap();
    guarded.set(">two <one");
    let mut aside = nearside.connect();
    eventually("a new connection", || aside.text("SELECT 5") == "+OK\r\n");
    assert!(runs() <= 3, "{} runs", runs());
}

#[test]
fn sighup_has_it_read_anew_and_it_is_in_no_log() {
    let mut guarded = Guarded::start();
    guarded.set(">s3cret-one >s3cret-two");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "s3cret-one").unwrap();
    let (port, admin) = (support::free_port(), support::free_port());
    let url = format!("redis://app@127.0.0.1:{}", guarded.redis.port);
    let command = format!("cat {}", path.display());
    let (listen, admin_at) = (port.to_string(), admin.to_string());
    let arguments = ["--listen", &listen, "--admin", &admin_at, "--upstream", &url, "--workers", "1"];
    let more = ["--upstream-password-command", &command, "--log-level", "trace"];
    let mut program = Program::run(&[&arguments[..], &more].concat(), port, admin);
    program.wait_for("the feed is subscribed");
    assert_eq!(program.connect().text("SET k v"), "+OK\r\n");
    let described = program.connect().text("NEARSIDE CONFIG");
    assert!(described.contains("***") && !described.contains("cat "), "{described}");
    std::fs::write(&path, "s3cret-two").unwrap();
    program.signal(rustix::process::Signal::HUP);
    eventually("it is said again", || {
        program.page("/metrics").contains("nearside_renewed_logins_total{outcome=\"taken\"} 2")
    });
    program.terminate();
    assert!(program.ended().success());
    assert!(program.seen.contains("SIGHUP") && !program.seen.contains("s3cret"), "{}", program.seen);
    assert_eq!(guarded.refused(), 0);
}

#[test]
fn a_service_that_closes_connections_when_their_token_has_ended_is_served_by_newer_ones() {
    let mut guarded = Guarded::start();
    guarded.root.cmd("SET users/1 ada");
    let relay = Relay::to(guarded.redis.address());
    // A connection that has not logged in for so long is closed.
    relay.close_without("AUTH", Duration::from_millis(1500));
    let folder = tempfile::tempdir().unwrap();
    let script = "n=$(cat n 2>/dev/null || echo 0); echo $((n+1)) > n; echo token$n";
    for turn in 0..200 {
        guarded.set(&format!(">token{turn}"));
    }
    let nearside = Nearside::with(relay.address, |config| {
        config.upstream = Upstream::parse(&format!("redis://app@{}", relay.address)).unwrap();
        let script = format!("cd {} && {script}", folder.path().display());
        config.upstream_password_command = Some(["sh", "-c", &script].map(str::to_owned).into());
        config.upstream_password_refresh = Duration::from_millis(400);
    });
    let mut idle = subscriber(&nearside);
    let clients = Clients::at(&nearside);
    let connections = guarded.connections();
    eventually("many tokens", || metric(&nearside, "passwords_total") >= 10);
    clients.go_on();
    hits_go_on(&nearside);
    still_hears(&mut guarded, &mut idle);
    clients.end();
    assert_eq!((relay.closed(), guarded.refused(), nearside.stat("feed_lapses")), (0, 0, 0));
    assert!(connections.is_subset(&guarded.connections()));
}
