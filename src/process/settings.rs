//! What the configuration tells the workers.

use parking_lot::Mutex;

use super::live::{Count, Span, Switch};
use super::password::Password;
use crate::io::Address;
use crate::namespace::{Tracking, TrackingForm};
use crate::resp::framer::Limits;
use crate::upstream;

/// What sessions are told by the configuration. What is a [`Count`], a [`Span`] or a [`Switch`] may change at any time.
pub struct Settings {
    pub upstream: upstream::Settings,
    pub cluster: ClusterSettings,
    /// The database of a session that has not changed it.
    pub db: u32,
    /// What clients have to give before anything else; `None` lets the upstream ask them.
    pub password: Option<Password>,
    pub limits: Limits,
    /// Of the requests of clients that connect from now on. It bounds nothing that was taken from a client already.
    pub max_request: Count,
    /// Of the replies of clients that connect from now on, in bytes.
    pub output_limit: Count,
    pub max_clients: Count,
    /// How many links sessions share, of one worker.
    pub max_links: Count,
    pub stall_timeout: Span,
    pub drain_timeout: Span,
    /// For keys outside all namespaces.
    pub max_staleness: Span,
    pub max_age: Span,
    /// Whether reads may be served for a while when the upstream is unreachable.
    pub stale_if_error: Switch,
    /// How the upstream tells of changes of keys outside all namespaces.
    pub tracking: Tracking,
    /// In which form it tells of those that were read.
    pub tracking_form: TrackingForm,
    /// The commands whose replies are cached; `None` is all that can be.
    pub cache_commands: Option<Vec<String>>,
    /// Whether the admin pages tell of keys.
    pub admin_keys: bool,
    /// Name and value of every setting, for `NEARSIDE CONFIG`.
    pub described: Mutex<Vec<(String, String)>>,
}

/// What the configuration says of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterSettings {
    /// Nodes that may be asked for the others; the upstream's address, if that is one server's.
    pub seeds: Vec<Address>,
    /// The upstream is a cluster, or nothing.
    pub is_named: bool,
    /// What nodes announce, and where they are reached instead.
    pub mapped: Vec<(Address, Address)>,
    /// Whether commands are divided that do to each of their keys what they would do to it alone.
    pub splits: bool,
    /// Whether clients are told of a cluster, of one node.
    pub is_shown: bool,
}

impl ClusterSettings {
    /// Where a node is reached that announces this.
    pub fn reached(&self, announced: Address) -> Address {
        let mapped = self.mapped.iter().find(|(from, _)| *from == announced);
        mapped.map_or(announced, |(_, to)| to.clone())
    }
}
