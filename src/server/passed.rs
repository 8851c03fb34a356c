//! Listening sockets that another process has opened: systemd, or the nearside that is taken over.
//!
//! Invariants: each is a listening stream socket, or nothing starts; each is ours alone from here on, closed with its owner and
//! in no program that is run. What systemd passes stands in the place of what the configuration says: of `listen`
//! altogether, of `admin` if one is for that. What a nearside passes that has opened it itself serves in the place of a
//! socket of the same address that the configuration asks for, and is closed if there is none.

use std::net::ToSocketAddrs;
use std::os::fd::AsFd;
use std::rc::Rc;

use listenfd::ListenFd;
use socket2::{Socket, Type};

use super::error::ServerError;
use crate::config::{Config, HostPort, Listen};

/// More descriptors than these go into no message.
pub(super) const MOST: usize = 250;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Clients,
    /// Clients with TLS.
    Secure,
    Admin,
    /// Whoever takes over.
    Takeover,
}

/// One of them.
pub(super) struct PassedSocket {
    pub(super) socket: Socket,
    pub(super) purpose: Purpose,
    /// systemd's: so is its file.
    pub(super) is_activated: bool,
}

/// One that is in use here, and can be passed on.
pub(super) struct Offered {
    pub(super) socket: Rc<dyn AsFd>,
    pub(super) purpose: Purpose,
    pub(super) is_activated: bool,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Passed(Vec<PassedSocket>);

impl Passed {
    /// What systemd passes to this process, by its names: `FileDescriptorName=` in the unit.
    pub(super) fn of_environment(config: &Config) -> Result<Self, ServerError> {
        let variable = |name| std::env::var(name).ok();
        let is_meant = variable("LISTEN_PID").is_some_and(|pid| pid.parse() == Ok(std::process::id()));
        let count = variable("LISTEN_FDS").and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
        if !is_meant || count == 0 {
            return Ok(Self::default());
        }
        if count > MOST {
            return Err(ServerError::Sockets(format!("systemd passes {count} sockets; {MOST} can be taken")));
        }
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for i in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            let refused = |error: std::io::Error| {
                ServerError::Sockets(format!(
                    "file descriptor {} ({name:?}), which systemd passes, is no stream socket that listens: {error}; \
                     the unit needs ListenStream= and Accept=no",
                    3 + i
                ))
            };
            let tcp = passed.take_tcp_listener(i).map(|tcp| tcp.map(Socket::from));
            let socket = tcp.or_else(|_| passed.take_unix_listener(i).map(|unix| unix.map(Socket::from)));
            let Some(socket) = socket.map_err(refused)? else { continue };
            let purpose = named(name).unwrap_or_else(|| purpose(&socket, config));
            sockets.push(PassedSocket::of(socket, purpose, true).map_err(refused)?);
        }
        Ok(Self(sockets))
    }

    /// What the nearside passes that is taken over.
    pub(super) fn of_nearside(sockets: Vec<PassedSocket>) -> Self {
        Self(sockets)
    }

    /// Those that are systemd's: for the admin pages, or for clients.
    pub(super) fn activated(&mut self, admin: bool) -> Vec<PassedSocket> {
        self.0.extract_if(.., |socket| socket.is_activated && socket.is_for(admin)).collect()
    }

    /// The one that stands for this address.
    pub(super) fn at(&mut self, listen: &Listen, admin: bool) -> Option<Socket> {
        Some(self.first(|socket| socket.is_for(admin) && is_at(&socket.socket, listen))?.socket)
    }

    /// The one with this name in the abstract name space.
    pub(super) fn named(&mut self, name: &[u8]) -> Option<Socket> {
        let is = |socket: &PassedSocket| {
            socket.purpose == Purpose::Takeover
                && socket.socket.local_addr().is_ok_and(|at| at.as_abstract_namespace() == Some(name))
        };
        Some(self.first(is)?.socket)
    }

    fn first(&mut self, is: impl Fn(&PassedSocket) -> bool) -> Option<PassedSocket> {
        let at = self.0.iter().position(is)?;
        Some(self.0.swap_remove(at))
    }
}

impl PassedSocket {
    /// Errors: it does not listen, or is no stream socket.
    pub(super) fn of(socket: Socket, purpose: Purpose, is_activated: bool) -> std::io::Result<Self> {
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(std::io::Error::other("it does not listen"));
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket, purpose, is_activated })
    }

    fn is_for(&self, admin: bool) -> bool {
        match self.purpose {
            Purpose::Clients | Purpose::Secure => !admin,
            Purpose::Admin => admin,
            Purpose::Takeover => false,
        }
    }

    pub(super) fn is_unix(&self) -> bool {
        self.socket.local_addr().is_ok_and(|at| at.is_unix())
    }
}

/// What a name says: the last word of it, for without one in the unit it is `nearside-admin.socket`, say.
fn named(name: &str) -> Option<Purpose> {
    match name.trim_end_matches(".socket").rsplit(['-', '_']).next() {
        Some("admin") => Some(Purpose::Admin),
        Some("tls") => Some(Purpose::Secure),
        _ => None,
    }
}

/// What a socket without a telling name is for: what the configuration has at its address.
fn purpose(socket: &Socket, config: &Config) -> Purpose {
    if config.admin.iter().any(|at| is_at(socket, at)) {
        return Purpose::Admin;
    }
    match config.listen.iter().find(|listen| is_at(socket, listen)) {
        Some(Listen::Tls(_)) => Purpose::Secure,
        _ => Purpose::Clients,
    }
}

fn is_at(socket: &Socket, listen: &Listen) -> bool {
    match listen {
        Listen::Tcp(at) | Listen::Tls(at) => is_at_port(socket, at),
        Listen::Unix(path) => socket.local_addr().is_ok_and(|at| at.as_pathname() == Some(path)),
    }
}

fn is_at_port(socket: &Socket, at: &HostPort) -> bool {
    let Some(own) = socket.local_addr().ok().and_then(|at| at.as_socket()) else { return false };
    own.port() == at.port
        && (at.host.as_str(), at.port).to_socket_addrs().is_ok_and(|mut all| all.any(|one| one == own))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn config(arguments: &str) -> Config {
        let words = std::iter::once("nearside").chain(arguments.split_whitespace());
        crate::config::Invocation::parse(words, |_| None).unwrap().config
    }

    #[test]
    fn names_of_units_say_what_a_socket_is_for() {
        for (name, said) in [
            ("admin", Some(Purpose::Admin)),
            ("nearside-admin.socket", Some(Purpose::Admin)),
            ("tls", Some(Purpose::Secure)),
            ("nearside-tls.socket", Some(Purpose::Secure)),
            ("nearside.socket", None),
            ("administration", None),
            ("", None),
        ] {
            assert_eq!(named(name), said, "{name}");
        }
    }

    #[test]
    fn a_socket_serves_where_the_configuration_has_its_address() {
        let open = || Socket::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let [clients, admin] = [open(), open()];
        let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
        let config = config(&format!(
            "--listen localhost:{} --listen unix:{} --admin {}",
            port(&clients),
            path.display(),
            port(&admin)
        ));
        assert_eq!(purpose(&admin, &config), Purpose::Admin);
        assert_eq!(purpose(&open(), &config), Purpose::Clients);
        let unix = Socket::from(UnixListener::bind(&path).unwrap());
        let of = |socket, purpose| PassedSocket::of(socket, purpose, false).unwrap();
        let sockets = vec![
            of(unix, Purpose::Clients),
            of(clients, Purpose::Clients),
            of(open(), Purpose::Clients),
            of(admin, Purpose::Admin),
        ];
        let mut passed = Passed(sockets);
        assert!(passed.activated(false).is_empty() && passed.activated(true).is_empty());
        assert!(passed.at(&config.admin[0], false).is_none(), "it is for the pages");
        assert!(config.listen.iter().all(|listen| passed.at(listen, false).is_some()));
        assert!(config.listen.iter().all(|listen| passed.at(listen, false).is_none()), "each once");
        assert!(passed.at(&config.admin[0], true).is_some());
        assert_eq!(passed.0.len(), 1, "what nobody asks for is left");
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(PassedSocket::of(Socket::from(one), Purpose::Clients, true).is_err());
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(PassedSocket::of(Socket::from(datagrams), Purpose::Clients, true).is_err());
    }
}
