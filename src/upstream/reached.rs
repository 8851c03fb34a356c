//! What a new connection reaches: a name, or a proxy, may lead it to another server than the one before.

use super::connect::{Identity, Settings};
use super::probe::Probe;
use super::role::is_replica_by_info;
use super::server_id::ServerId;

/// What is reached, as far as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub server: Option<ServerId>,
    pub is_replica: Option<bool>,
}

impl Reached {
    /// Makes a connection and asks; `None` if there is no connection, or no answer.
    pub async fn now(settings: &Settings, identity: &Identity) -> Option<Self> {
        let mut probe = Probe::open(settings, identity).await.ok()?;
        let (_, reply) = probe.ask(&[b"INFO"]).await.ok()?;
        Some(Self::of(&reply))
    }

    fn of(reply: &[u8]) -> Self {
        Self { server: ServerId::of(reply), is_replica: is_replica_by_info(reply) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_role_are_read_from_the_reply() {
        let reply = |role: &str| {
            let id = "0123456789012345678901234567890123456789";
            format!("$99\r\n# Server\r\nrun_id:{id}\r\n# Replication\r\nrole:{role}\r\n\r\n")
        };
        let (master, replica) =
            (Reached::of(reply("master").as_bytes()), Reached::of(reply("slave").as_bytes()));
        assert_eq!((master.is_replica, replica.is_replica), (Some(false), Some(true)));
        assert!(master.server.is_some() && master.server == replica.server);
        assert_eq!(Reached::of(b"-NOPERM\r\n"), Reached { server: None, is_replica: None });
    }
}
