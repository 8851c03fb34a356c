//! `nearside top` watches a running sidecar: on a terminal, and by one page for scripts.

use crate::support;

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use support::program::Program;
use support::{Redis, eventually, free_port};

fn top(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearside"));
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("NEARSIDE_")) {
        command.env_remove(name);
    }
    command.arg("top").args(arguments);
    command
}

#[test]
fn one_page_for_scripts() {
    let redis = Redis::start();
    let program = Program::start(redis.port, &[]);
    let admin = program.admin.to_string();
    let mut client = program.connect();
    client.cmd("SET users/1 v");
    eventually("it is cached", || {
        client.cmd("GET users/1");
        program.stat("hits") > 0
    });
    let output = top(&["--once", &admin]).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{page}");
    let value = |name: &str| {
        let found = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {name} in {page}")).to_owned()
    };
    assert_eq!(
        (value("state"), value("clients"), value("max_bytes")),
        ("ready".into(), "1".into(), "67108864".into())
    );
    assert!(value("entries").parse::<u64>().unwrap() >= 1, "{page}");
    assert!(value("hit_ratio_since_start").parse::<f64>().unwrap() > 0.0, "{page}");
    // Whoever answers there, a Redis say, is no sidecar.
    let output = top(&["--once", &redis.port.to_string()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("127.0.0.1:"), "{output:?}");
}

/// A terminal, and what was written to it.
struct Screen {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    fn of(arguments: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        tcsetwinsize(&ours, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let (input, output) = (theirs.try_clone().unwrap(), theirs);
        let child = top(arguments)
            .env("TERM", "xterm-256color")
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let keys = File::from(ours);
        let (mut screen, shown) = (keys.try_clone().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let all = shown.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut piece) {
                all.lock().unwrap().extend_from_slice(&piece[..n]);
            }
        });
        Self { child, keys, shown }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        eventually(text, || self.shown().contains(text));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_a_terminal_it_shows_a_sidecar_that_comes_and_goes() {
    let redis = Redis::start();
    let (port, admin) = (free_port(), free_port());
    let (listen, at) = (port.to_string(), admin.to_string());
    let mut screen = Screen::of(&[&at]);
    // Nobody is there yet.
    screen.wait_for("Connection refused");
    let upstream = format!("redis://127.0.0.1:{}", redis.port);
    let program = Program::run(&["--listen", &listen, "--admin", &at, "--upstream", &upstream], port, admin);
    // Only cells that differ are written: words stand whole where there was nothing before, or another colour.
    screen.wait_for("Upstream");
    screen.wait_for("Memory");
    drop(program);
    screen.wait_for("no answer for");
    screen.keys.write_all(b"q").unwrap();
    let mut status = None;
    eventually("q quits", || {
        status = screen.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    // The screen that was there before is there again.
    screen.wait_for("\x1b[?1049l");
}
