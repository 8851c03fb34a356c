//! A disk that fails when it is told to, for one process: faults.c, preloaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a disk fails at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Fsync,
    Write,
    Full,
}

/// The folder whose disk fails, and the word for it.
pub struct Faults {
    folder: PathBuf,
    control: PathBuf,
}

impl Faults {
    /// For files below `folder`; `control` is a file elsewhere, which is there while something fails.
    pub fn new(folder: &Path, control: &Path) -> Self {
        let folder = folder.canonicalize().expect("the folder is there");
        Self { folder, control: control.to_owned() }
    }

    /// The process that is started will meet them.
    pub fn within<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("LD_PRELOAD", shim());
        command.env("NEARSIDE_FAULT_DIR", &self.folder).env("NEARSIDE_FAULT_FILE", &self.control)
    }

    /// From the next call on.
    pub fn begin(&self, fault: Fault) {
        let told = match fault {
            Fault::Fsync => "fsync",
            Fault::Write => "write",
            Fault::Full => "enospc",
        };
        // In one step: the process reads it at any time.
        let next = self.control.with_extension("next");
        fs::write(&next, told).expect("written");
        fs::rename(&next, &self.control).expect("renamed");
    }

    pub fn end(&self) {
        fs::remove_file(&self.control).expect("removed");
    }
}

/// The shared object, which is built if it is not there; tests that build it at the same time put the same in its place.
fn shim() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/faults.c");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.so");
    let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    if modified(&built) < modified(&source) {
        let next = built.with_extension(format!("{}.so", std::process::id()));
        let mut command = Command::new("cc");
        command.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&next).arg(&source);
        assert!(command.status().expect("a C compiler").success(), "faults.c is built");
        fs::rename(&next, &built).expect("renamed");
    }
    built
}
