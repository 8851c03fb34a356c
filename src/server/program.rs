//! A program that is run for what it prints.
//!
//! Invariants: it is given so much time and so much to say as stated, and nothing to read; when it has said more, or the
//! time is over, or nobody waits any more, it is ended.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// What is looked at of its errors, in bytes.
const ERRORS: usize = 4096;

/// How much of that is told.
const TOLD: usize = 200;

/// Runs a program, its first word, with the others as arguments; gives what it prints, up to `most` bytes. Errors: why
/// there is nothing of use, with the first line of what it says on its standard error.
pub(super) async fn run(words: &[String], most: usize, within: Duration) -> Result<Vec<u8>, String> {
    let Some((program, arguments)) = words.split_first() else { return Err("there is no program".into()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).spawn().map_err(|error| format!("cannot be run: {error}"))?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("cannot be listened to".into());
    };
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    let running = async {
        let (printed, ()) = tokio::join!(printed(out, &mut said, most), complained(err, &mut complaint));
        printed?;
        child.wait().await.map_err(|error| error.to_string())
    };
    let ended = tokio::time::timeout(within, running).await;
    let why = match ended {
        Ok(Ok(status)) => {
            group.let_be();
            if status.success() {
                return Ok(said);
            }
            format!("ended with {status}")
        }
        Ok(Err(why)) => why,
        Err(_) => format!("was ended: it took more than {}", humantime::format_duration(within)),
    };
    Err(match first_line(&complaint) {
        line if line.is_empty() => why,
        line => format!("{why}: {line}"),
    })
}

/// The program and all that it has started: ended together, unless it has come to its end itself.
struct Group(Option<Pid>);

impl Group {
    fn let_be(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads all that is printed. Errors: it is too much.
async fn printed(out: impl AsyncRead + Unpin, said: &mut Vec<u8>, most: usize) -> Result<(), String> {
    let read = out.take(most as u64).read_to_end(said).await;
    read.map_err(|error| error.to_string())?;
    if said.len() >= most {
        return Err(format!("was ended: it printed {most} bytes and more"));
    }
    Ok(())
}

/// Reads the beginning of what it complains of, and throws away the rest.
async fn complained(mut err: impl AsyncRead + Unpin, complaint: &mut Vec<u8>) {
    let mut piece = [0; ERRORS];
    while let Ok(n @ 1..) = err.read(&mut piece).await {
        let room = ERRORS - complaint.len().min(ERRORS);
        complaint.extend_from_slice(&piece[..n.min(room)]);
    }
}

fn first_line(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ran(script: &str) -> Result<String, String> {
        let words = ["sh", "-c", script].map(str::to_owned);
        let said = run(&words, 100, Duration::from_millis(500)).await;
        said.map(|said| String::from_utf8(said).unwrap())
    }

    #[tokio::test]
    async fn what_it_prints_is_given_and_why_it_is_of_no_use() {
        assert_eq!(ran("echo token; echo more >&2").await, Ok("token\n".into()));
        assert_eq!(ran("cat").await, Ok(String::new()), "there is nothing to read");
        for (script, says) in [
            ("echo token; echo 'no rights\nat all' >&2; exit 3", "ended with exit status: 3: no rights"),
            ("kill -9 $$", "ended with signal: 9 (SIGKILL)"),
            ("echo slow >&2; exec sleep 60", "was ended: it took more than 500ms: slow"),
            ("exec yes", "was ended: it printed 100 bytes and more"),
            ("(exec sleep 60) & yes >&2 & exec sleep 60", "was ended: it took more than 500ms: y"),
        ] {
            assert_eq!(ran(script).await, Err(says.into()), "{script}");
        }
        let nowhere = run(&["/nowhere/token".into()], 100, Duration::from_secs(1)).await.unwrap_err();
        assert!(nowhere.starts_with("cannot be run: No such file"), "{nowhere}");
    }
}
