//! `nearside dev`: a private redis-server or valkey-server as the upstream.
//!
//! The server listens on a Unix socket in a temporary folder and nowhere else, keeps nothing on disk, and
//! lives no longer than nearside, however that ends: between the two stands a shell that waits for the end of
//! its standard input, which the system brings about even after `kill -9`. The shell then ends the server and
//! removes the folder. Both are in a process group of their own, so that a Ctrl-C reaches nearside alone and
//! the server is there until the last client is served.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{SocketAddr, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tracing::{debug, error, info, warn};

use crate::config::Upstream;

/// In order of preference.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

const START_LIMIT: Duration = Duration::from_secs(10);
/// Above the grace that the shell gives the server.
const STOP_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Gets the folder, the server and its arguments. Once the server has the standard output, the shell lets go
/// of it, so that its end is the server's end.
const SUPERVISOR: &str = r#"
folder=$1
shift
"$@" </dev/null 2>&1 &
server=$!
exec >/dev/null 2>&1
cat
kill "$server"
(sleep 3; kill -9 "$server") &
late=$!
wait "$server"
kill "$late"
rm -rf "$folder"
"#;

#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error(
        "nearside dev needs redis-server or valkey-server, and neither is on PATH: install the package \
         redis-server (Debian, Ubuntu), redis or valkey (others), or run scripts/run, which does it"
    )]
    NoServer,
    #[error("cannot start {program}: {1}", program = .0.display())]
    Start(PathBuf, io::Error),
    #[error("{program} ended at its start; its last words: {1}", program = .0.display())]
    Ended(PathBuf, String),
    #[error("{program} gave no answer within {limit:?}", program = .0.display(), limit = START_LIMIT)]
    Silent(PathBuf),
}

/// The private server; it is stopped and its folder removed when this is dropped.
#[derive(Debug)]
pub struct DevServer {
    program: PathBuf,
    folder: TempDir,
    supervisor: Child,
    /// Whether an end of the server is nothing to report.
    ending: Arc<AtomicBool>,
}

impl DevServer {
    /// Starts the server and waits until it answers PING.
    pub fn start() -> Result<DevServer, DevError> {
        let program = find(&env::var_os("PATH").unwrap_or_default()).ok_or(DevError::NoServer)?;
        let failed = |error| DevError::Start(program.clone(), error);
        let folder = private_folder().map_err(failed)?;
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "nearside-dev"])
            .arg(folder.path())
            .arg(&program)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocketperm", "700"])
            .arg("--unixsocket")
            .arg(socket(folder.path()))
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let output = supervisor.stdout.take();
        let mut server = DevServer { program, folder, supervisor, ending: Arc::new(AtomicBool::new(true)) };
        let ended = server.watch(output).map_err(|error| DevError::Start(server.program.clone(), error))?;
        server.wait_for_answer(&ended)?;
        server.ending.store(false, Ordering::Relaxed);
        // It may have ended before the line above, when the watch was still silent.
        if let Ok(words) = ended.try_recv() {
            return Err(DevError::Ended(server.program.clone(), words));
        }
        info!(program = %server.program.display(), upstream = %server.upstream(), "private server started");
        Ok(server)
    }

    /// Where the server can be reached.
    pub fn upstream(&self) -> Upstream {
        Upstream::unix(socket(self.folder.path()))
    }

    /// Passes the server's log on, and sends its last line when the server has ended.
    fn watch(&mut self, output: Option<ChildStdout>) -> io::Result<Receiver<String>> {
        let (sender, receiver) = mpsc::channel();
        let (program, ending) = (self.program.display().to_string(), self.ending.clone());
        thread::Builder::new().name("dev-server".to_owned()).spawn(move || {
            let mut last = String::from("none");
            for line in
                output.into_iter().flat_map(|output| BufReader::new(output).lines().map_while(Result::ok))
            {
                debug!("{line}");
                if !line.trim().is_empty() {
                    last = line;
                }
            }
            if !ending.load(Ordering::Relaxed) {
                error!(%program, last_words = %last, "the private server has ended; start nearside dev anew");
            }
            // Nobody listens after the start.
            let _ = sender.send(last);
        })?;
        Ok(receiver)
    }

    fn wait_for_answer(&self, ended: &Receiver<String>) -> Result<(), DevError> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if answers(&socket(self.folder.path())) {
                return Ok(());
            }
            if let Ok(words) = ended.recv_timeout(POLL) {
                return Err(DevError::Ended(self.program.clone(), words));
            }
        }
        Err(DevError::Silent(self.program.clone()))
    }
}

impl Drop for DevServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        drop(self.supervisor.stdin.take());
        let deadline = Instant::now() + STOP_LIMIT;
        while matches!(self.supervisor.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                warn!(program = %self.program.display(), "the private server does not stop, and is ended by force: it keeps nothing");
                let _ = self.supervisor.kill();
                let _ = self.supervisor.wait();
                return;
            }
            thread::sleep(POLL);
        }
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}

fn find(path: &std::ffi::OsStr) -> Option<PathBuf> {
    let folders: Vec<_> = env::split_paths(path).collect();
    let programs = PROGRAMS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let runs = |file: &PathBuf| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    programs.into_iter().find(runs)
}

/// Readable by this user only. `/tmp` stands in where the usual path is too long for a socket.
fn private_folder() -> io::Result<TempDir> {
    let make = |parent: &Path| tempfile::Builder::new().prefix("nearside-dev-").tempdir_in(parent);
    let folder = make(&env::temp_dir())?;
    match SocketAddr::from_pathname(socket(folder.path())) {
        Ok(_) => Ok(folder),
        Err(_) => make(Path::new("/tmp")),
    }
}

fn answers(socket: &Path) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"+PONG\r\n")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn gone(path: &Path) -> bool {
        let deadline = Instant::now() + STOP_LIMIT;
        while path.exists() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        !path.exists()
    }

    #[test]
    fn the_server_answers_until_it_is_dropped() {
        let server = DevServer::start().expect("a server on PATH");
        let folder = server.folder.path().to_owned();
        assert!(answers(&socket(&folder)));
        drop(server);
        assert!(!answers(&socket(&folder)));
        assert!(!folder.exists());
    }

    #[test]
    fn the_server_does_not_outlive_a_killed_nearside() {
        let mut server = DevServer::start().expect("a server on PATH");
        let folder = server.folder.path().to_owned();
        // What the system does to a killed process.
        server.ending.store(true, Ordering::Relaxed);
        drop(server.supervisor.stdin.take());
        assert!(gone(&folder));
        assert!(!answers(&socket(&folder)));
    }

    #[test]
    fn only_programs_that_can_run_are_found_and_redis_is_preferred() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().as_os_str();
        assert_eq!(find(path), None);
        for (name, mode, found) in [
            ("redis-server", 0o644, None),
            ("valkey-server", 0o755, Some("valkey-server")),
            ("redis-server", 0o755, Some("redis-server")),
        ] {
            let file = File::create(folder.path().join(name)).expect("a file");
            file.set_permissions(PermissionsExt::from_mode(mode)).expect("its mode");
            assert_eq!(find(path), found.map(|name| folder.path().join(name)));
        }
    }
}
