//! A Python with redis-pubsub-dict, for its processes are peers.

use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: [&str; 4] = ["redis-pubsub-dict==0.0.2", "redis==3.5.3", "msgpack", "pylru"];

/// A Python with the packages, in `target/python`; made by whoever comes first.
pub fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let (home, ready) = (target.join("python"), target.join("python/ready"));
    let lock = std::fs::File::create(target.join("python.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let wanted = PACKAGES.join(" ");
    if std::fs::read_to_string(&ready).is_ok_and(|made| made == wanted) {
        return home.join("bin/python");
    }
    let _ = std::fs::remove_dir_all(&home);
    let needs = "this test needs python3 with venv, and PyPI or a mirror of it";
    run(Command::new("python3").args(["-m", "venv"]).arg(&home), needs);
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(home.join("bin/python")).args(pip).args(PACKAGES), needs);
    std::fs::write(&ready, wanted).unwrap();
    home.join("bin/python")
}

fn run(command: &mut Command, needs: &str) {
    let ended = command.output().unwrap_or_else(|error| panic!("{needs}: {command:?}: {error}"));
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success(), "{needs}: {command:?}: {}", String::from_utf8_lossy(&said));
}
