//! What systemd, or whoever else starts nearside likewise, is told: the protocol of `sd_notify`.
//!
//! Invariants: without `NOTIFY_SOCKET` nothing is said. Nobody waits longer for the listener than [`PATIENCE`], and what
//! cannot be said stops nothing. Once it is said that the service stops, or that another process is the service,
//! nothing else is, but that this one lives.
//!
//! Ready is who lets clients in, whether or not the upstream is there: nearside may be started before it and outlive it,
//! and a unit that is not ready would be ended and started anew for that, with everything that is ordered after it.
//! `STATUS=` tells of the upstream, and `/readyz` is for who must know.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::metrics::Seldom;

/// How long the listener may take to take what is said.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a stop may take beyond the drain.
const STOP: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Default)]
pub(super) struct Notify {
    to: Option<SocketAddr>,
    watchdog: Option<Duration>,
    status: RefCell<String>,
    /// Nothing is said any more of how it is.
    is_over: Cell<bool>,
    /// Nothing at all is.
    is_left: Cell<bool>,
    untold: Seldom,
}

impl Notify {
    /// To whom the environment says.
    pub(super) fn of_environment() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        let to = variable("NOTIFY_SOCKET").and_then(|path| match address(path.as_bytes()) {
            Ok(to) => Some(to),
            Err(error) => {
                warn!(%error, "NOTIFY_SOCKET: {path:?} is no Unix socket: systemd is told nothing");
                None
            }
        });
        // Without WATCHDOG_PID it is for whoever reads it.
        let is_meant = text("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let period = text("WATCHDOG_USEC").filter(|_| is_meant).and_then(|period| period.parse().ok());
        let watchdog = period.filter(|period| *period > 0).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| to.is_some()), to, ..Self::default() }
    }

    /// Whether anybody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.to.is_some()
    }

    /// Within which time it wants to hear again and again that nearside lives.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Clients are let in; or what began with [`reloading`](Self::reloading) has come to its end, whichever.
    pub(super) fn ready(&self) {
        let status = self.status.borrow().clone();
        self.say_unless_over(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// The configuration is being read anew: [`ready`](Self::ready) follows.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now = now.tv_sec as i128 * 1_000_000 + now.tv_nsec as i128 / 1_000;
        self.say_unless_over(&format!(
            "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reading the configuration anew\n"
        ));
    }

    /// It stops, within `drain` and a little more, in words on how.
    pub(super) fn stopping(&self, drain: Duration, status: &str) {
        let within = (drain + STOP).as_micros();
        self.say_unless_over(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={within}\nSTATUS={status}\n"));
        self.is_over.set(true);
    }

    /// How it is, in one line; said if it is something new.
    pub(super) fn status(&self, status: &str) {
        if *self.status.borrow() != status {
            status.clone_into(&mut self.status.borrow_mut());
            self.say_unless_over(&format!("STATUS={}\n", status.replace('\n', " ")));
        }
    }

    /// It lives.
    pub(super) fn alive(&self) {
        self.say("WATCHDOG=1\n");
    }

    /// Another process takes this one's place. If both are of one service, that process is the service now, which does
    /// not stop with this one.
    pub(super) fn succeeded_by(&self, pid: i32) {
        if are_of_one_service(pid) {
            self.say_unless_over(&format!("MAINPID={pid}\n"));
            self.is_left.set(true);
        }
    }

    fn say_unless_over(&self, words: &str) {
        if !self.is_over.get() {
            self.say(words);
        }
    }

    fn say(&self, words: &str) {
        let Some(to) = self.to.as_ref().filter(|_| !self.is_left.get()) else { return };
        let said = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.send_to_addr(words.as_bytes(), to)
        });
        match said {
            Ok(_) => drop(self.untold.over()),
            Err(error) => {
                if let Some(untold) = self.untold.now() {
                    let what = words.lines().next().unwrap_or_default();
                    warn!(%error, untold, "systemd could not be told {what}, by the socket in NOTIFY_SOCKET");
                }
            }
        }
    }
}

/// A path, or behind an `@` the name of an abstract socket.
fn address(text: &[u8]) -> io::Result<SocketAddr> {
    match text {
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(text)),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => Err(io::Error::other("it begins neither with / nor with @")),
    }
}

/// systemd keeps the processes of each service in a control group of their own.
fn are_of_one_service(pid: i32) -> bool {
    let group = |pid: &str| std::fs::read(format!("/proc/{pid}/cgroup"));
    matches!((group("self"), group(&pid.to_string())), (Ok(ours), Ok(theirs)) if ours == theirs)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One that is heard by the socket that comes with it.
    pub(in super::super) fn heard(watchdog: Duration) -> (Notify, UnixDatagram, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let notify = Notify::of(|name| match name {
            "NOTIFY_SOCKET" => Some(path.clone().into()),
            "WATCHDOG_USEC" => Some(watchdog.as_micros().to_string().into()),
            _ => None,
        });
        (notify, socket, folder)
    }

    /// What was said since it was last asked.
    pub(in super::super) fn said(socket: &UnixDatagram) -> Vec<String> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(len) = socket.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
        }
        all
    }

    #[test]
    fn what_is_said_is_in_the_words_of_sd_notify() {
        let (notify, socket, _folder) = heard(Duration::from_secs(2));
        assert_eq!(notify.watchdog(), Some(Duration::from_secs(2)));
        notify.status("well");
        notify.status("well");
        notify.ready();
        notify.alive();
        assert_eq!(said(&socket), ["STATUS=well\n", "READY=1\nSTATUS=well\n", "WATCHDOG=1\n"]);
        notify.reloading();
        let reloading = said(&socket).concat();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        notify.stopping(Duration::from_secs(10), "2 clients");
        notify.status("ill");
        notify.ready();
        notify.alive();
        let stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000\nSTATUS=2 clients\n";
        assert_eq!(said(&socket), [stopping, "WATCHDOG=1\n"], "no more of how it is");
    }

    #[test]
    fn a_successor_in_the_same_service_speaks_from_then_on() {
        let (notify, socket, _folder) = heard(Duration::ZERO);
        assert_eq!(notify.watchdog(), None);
        notify.succeeded_by(i32::MAX);
        assert!(said(&socket).is_empty(), "no such process");
        let own = i32::try_from(std::process::id()).unwrap();
        notify.succeeded_by(own);
        notify.stopping(Duration::ZERO, "");
        notify.alive();
        assert_eq!(said(&socket), [format!("MAINPID={own}\n")]);
    }

    #[test]
    fn without_a_listener_nothing_is_said_and_nothing_stops() {
        let none = Notify::of(|_| None);
        assert!(!none.is_heard() && none.watchdog().is_none());
        none.ready();
        for path in ["relative", "vsock:2:1"] {
            assert!(!Notify::of(|name| (name == "NOTIFY_SOCKET").then(|| path.into())).is_heard(), "{path}");
        }
        let (notify, socket, folder) = heard(Duration::from_secs(1));
        drop((socket, folder));
        notify.ready();
    }

    #[test]
    fn an_abstract_socket_is_reached_and_another_process_is_not_meant() {
        let name = format!("nearside-test/{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let notify = Notify::of(|variable| match variable {
            "NOTIFY_SOCKET" => Some(format!("@{name}").into()),
            "WATCHDOG_USEC" => Some("1000".into()),
            "WATCHDOG_PID" => Some("1".into()),
            _ => None,
        });
        assert_eq!(notify.watchdog(), None);
        notify.ready();
        assert_eq!(said(&socket), ["READY=1\nSTATUS=\n"]);
    }
}
