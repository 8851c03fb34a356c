//! The admin pages: where they are, and who is let in.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::task::JoinHandle;

use super::accept::{self, Listener, Ours, SocketFile};
use super::error::ServerError;
use super::passed::{Offered, Passed};
use super::rights::Rights;
use super::tls::Tls;
use crate::admin::{self, Admin, Door, Token};
use crate::config::{Config, TokenFor};

/// Their listeners, bound.
pub(super) struct Pages(Vec<Listener>);

impl Pages {
    /// On a socket, others than its owner and group may never ask: who may, may change something. Errors: where they cannot
    /// be, and why.
    pub(super) fn bind(
        config: &Config,
        (rights, ours): (&Rights, &Ours),
        tls: &Tls,
        passed: &mut Passed,
    ) -> Result<Self, ServerError> {
        let rights = Rights { mode: rights.mode & 0o770, group: rights.group.clone() };
        match accept::listeners(&config.admin, true, (&rights, ours), tls, passed) {
            Err(ServerError::Listen { at, cause }) => Err(ServerError::Admin { at, cause }),
            bound => bound.map(Self),
        }
    }

    /// Their sockets, for whoever takes over.
    pub(super) fn offered(&self) -> io::Result<Vec<Offered>> {
        self.0.iter().map(Listener::offered).collect()
    }

    /// Of the first port.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.0.iter().find_map(Listener::address)
    }

    /// Serves them, to so many connections at once, until the task is aborted; and the files of their sockets.
    pub(super) fn serve(self, admin: Admin, most: usize) -> io::Result<(JoinHandle<()>, Vec<SocketFile>)> {
        let (listeners, files): (Vec<_>, Vec<_>) = self.0.into_iter().map(Listener::into_admin).unzip();
        Ok((admin::serve(listeners, admin, most)?, files.into_iter().flatten().collect()))
    }
}

/// Who is let in.
pub(super) fn door(config: &Config) -> Door {
    let ports = config.admin.iter().filter_map(|listen| listen.port());
    let names = ports.map(|at| at.host.clone()).filter(|host| host.parse::<IpAddr>().is_err());
    let token = config.admin_token_file.clone().map(Token::of);
    Door::new(token, config.admin_token_for == TokenFor::All, config.admin_hosts.iter().cloned().chain(names))
}
