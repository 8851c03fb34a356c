//! The configuration is read anew, on SIGHUP and for `POST /reload`, and no connection is lost by it.

use crate::support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use support::program::Program;
use support::{Conn, Redis, SOON, eventually, free_port, line};

/// The program with its settings in a file.
struct Configured {
    program: Program,
    folder: tempfile::TempDir,
    /// What stands in the file whatever else does.
    always: String,
}

impl Configured {
    fn start(redis: &Redis, more: &str) -> Self {
        let (port, admin, folder) = (free_port(), free_port(), tempfile::tempdir().unwrap());
        let (file, socket) = (folder.path().join("n.toml"), folder.path().join("admin.sock"));
        let always = format!(
            "listen = {port}\nadmin = ['{admin}', 'unix:{}']\nupstream = 'redis://127.0.0.1:{}'\n",
            socket.display(),
            redis.port
        );
        std::fs::write(&file, format!("{always}{more}")).unwrap();
        let mut program = Program::run(&["--config", file.to_str().unwrap()], port, admin);
        program.wait_for("ready for clients");
        Self { program, folder, always }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("n.toml")
    }

    fn write(&self, more: &str) {
        std::fs::write(self.file(), format!("{}{more}", self.always)).unwrap();
    }

    /// Status and body of `POST /reload`, with this file.
    fn reload(&self, more: &str) -> (u16, String) {
        self.write(more);
        post(&self.folder.path().join("admin.sock"))
    }

    /// What is applied of this file, where all of it is.
    #[track_caller]
    fn applied(&self, more: &str) {
        let (status, said) = self.reload(more);
        assert!(status == 200 && said.contains(": applied\n") && !said.contains("restart"), "{said}");
    }

    fn setting(&self, name: &str) -> String {
        let all = self.program.connect().text("NEARSIDE CONFIG");
        let mut lines = all.lines().skip_while(|line| *line != name);
        lines.nth(2).unwrap_or_default().trim_matches('"').to_owned()
    }
}

fn post(socket: &Path) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"POST /reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn on_sighup_what_can_be_is_applied_the_rest_is_told_and_nobody_is_cut_off() {
    let redis = Redis::start();
    let mut near = Configured::start(&redis, "workers = 1\nmax-memory = '8mb'\n[namespace.users]\n");
    let mut client = near.program.connect();
    // It waits while all is read anew, and is there afterwards.
    client.send(&line("BLPOP users/list 0"));
    let mut other = near.program.connect();
    other.cmd("SET users/1 v");
    near.write("workers = 2\nmax-memory = '9mb'\n[namespace.users]\nmax-age = '5s'\n[namespace.items]\n");
    near.program.signal(Signal::HUP);
    near.program.wait_for("the configuration was read again");
    for told in [
        "reload: namespace.users.max-age = \"5s\": applied",
        "reload: namespace.items.prefix = \"items/\": needs a restart",
        "reload: max-memory = \"9mb\": applied",
        "reload: workers = 2: needs a restart",
    ] {
        assert!(near.program.seen.contains(told), "{told}: {}", near.program.seen);
    }
    assert_eq!((&*near.setting("max-memory"), &*near.setting("workers")), ("9mb", "1"));
    // What needs a restart is told each time.
    let (status, said) = near.reload("workers = 2\nmax-memory = '9mb'\n");
    assert!(
        status == 200 && said.contains("workers = 2: needs a restart\n") && !said.contains("memory"),
        "{said}"
    );
    assert!(said.contains("namespace.users.prefix is gone: needs a restart\n"), "{said}");
    other.cmd("RPUSH users/list x");
    assert_eq!(client.reply(), b"*2\r\n$10\r\nusers/list\r\n$1\r\nx\r\n");
    assert_eq!(other.value("users/1").as_deref(), Some("v"));
}

#[test]
fn if_anything_is_wrong_nothing_changes() {
    let redis = Redis::start();
    let mut near = Configured::start(&redis, "max-age = '7s'\n");
    for (wrong, says) in [
        ("max-age = '8s'\nmax-memory = 'much'\n", "n.toml:5: max-memory: \"much\" is not a size"),
        ("max-age = '8s'\nmax-memroy = '1mb'\n", "did you mean max-memory?"),
        ("max-age = '8s'\nadmin-token-file = '/nowhere/t'\n", "admin-token-file: /nowhere/t: No such file"),
    ] {
        let (status, said) = near.reload(wrong);
        assert!(status == 422 && said.contains("nothing has changed") && said.contains(says), "{said}");
        assert_eq!(near.setting("max-age"), "7s");
    }
    near.program.signal(Signal::HUP);
    eventually("it is refused too", || {
        near.program.page("/metrics").contains("\nnearside_reloads_total{outcome=\"refused\"} 4\n")
    });
    near.program.wait_for("the configuration is wrong, and nothing has changed: ");
    let (status, said) = near.reload("max-age = '7s'\n");
    assert!(status == 200 && said.starts_with("no setting has changed\n"), "{said}");
    let page = near.program.page("/metrics");
    assert!(page.contains("\nnearside_reloads_total{outcome=\"applied\"} 1\n"), "{page}");
}

#[test]
fn what_is_applied_counts_from_then_on() {
    let redis = Redis::start();
    let rest = "workers = 1\nauth = 'password'\nnamespace = ['users']\n";
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "sesame1").unwrap();
    let rest = format!("{rest}password-file = '{}'\n", password.path().display());
    let mut near = Configured::start(&redis, &format!("{rest}max-staleness = '60s'\nmax-memory = '16mb'\n"));
    let mut client = near.program.connect();
    let logged_in = |conn: &mut Conn, password: &str| conn.text(&format!("AUTH {password}")) == "+OK\r\n";
    assert!(logged_in(&mut client, "sesame1"));
    let info = |client: &mut Conn, name: &str| -> usize {
        let (all, prefix) = (client.text("NEARSIDE STATS"), format!("nearside_{name}:"));
        all.lines().find_map(|line| line.strip_prefix(&prefix)?.trim().parse().ok()).expect(name)
    };
    let hit = |client: &mut Conn| {
        let before = info(client, "hits");
        eventually("it is served from the cache", || {
            client.cmd("GET users/1");
            info(client, "hits") > before
        });
    };
    hit(&mut client);
    near.applied(&format!("{rest}max-staleness = 0\nmax-memory = '16mb'\n"));
    let before = info(&mut client, "hits");
    (0..10).for_each(|_| drop(client.cmd("GET users/1")));
    assert_eq!(info(&mut client, "hits"), before, "max-staleness = 0");
    near.applied(&format!("{rest}max-staleness = '200ms'\nmax-memory = '16mb'\n"));
    for _ in 0..3 {
        // What was proven is too old by then, and by the first pace it would be for 20 seconds.
        std::thread::sleep(Duration::from_millis(300));
        hit(&mut client);
    }
    // Less memory than is in use. By a bound that no busy machine exceeds, for what is proven too late is void.
    near.applied(&format!("{rest}max-staleness = '60s'\nmax-memory = '16mb'\n"));
    let value = "v".repeat(20_000);
    for i in 0..100 {
        client.cmd(&format!("SET users/{i} {value}"));
        eventually("it is cached", || {
            client.cmd(&format!("GET users/{i}"));
            info(&mut client, "bytes") > i * 20_000
        });
    }
    let shorter = format!("{rest}max-staleness = '60s'\nmax-memory = '1mb'\n");
    near.applied(&shorter);
    eventually("the cache has become smaller", || info(&mut client, "bytes") <= 1 << 20);
    // Passwords and clients.
    std::fs::write(password.path(), "sesame2").unwrap();
    let fewer = format!("{shorter}max-clients = 2\n");
    near.applied(&fewer);
    let mut second = near.program.connect();
    assert!(!logged_in(&mut second, "sesame1") && logged_in(&mut second, "sesame2"));
    // Without a word, behind which its close would be a reset.
    let said = near.program.connect().reply();
    assert!(said.starts_with(b"-ERR max number of clients"), "{}", said.escape_ascii());
    assert_eq!(client.text("PING"), "+PONG\r\n", "who was there stays");
    // The log.
    near.applied(&format!("{fewer}log-level = 'error'\n"));
    std::fs::write(password.path(), "").unwrap();
    let (status, said) = near.reload(&fewer);
    assert!(status == 422 && said.contains("the password is empty") && !said.contains("sesame"), "{said}");
    std::fs::write(password.path(), "sesame2").unwrap();
    near.applied(&fewer);
    near.program.wait_for("reload: log-level = \"info\": applied");
    let log = near.program.logged();
    assert!(!log.contains("the configuration is wrong") && !log.contains("sesame"), "{log}");
}
