//! What the threads of the process share: settings, identities, clients, the upstream's nodes, and the workers' inboxes.
//!
//! Invariants: everything here may be used from any thread, and nothing here waits. What belongs to one thread (links,
//! sessions) is not here.

mod clients;
mod cluster;
pub mod errors;
#[cfg(test)]
pub mod fixture;
mod follow_cluster;
mod hot;
mod idents;
mod inbox;
mod info;
mod live;
mod names;
mod node;
mod node_id;
mod owned;
mod ownership;
mod password;
mod present;
mod proofs;
mod registrar;
mod reports;
mod role;
mod scans;
mod scripts;
mod sentinels;
mod settings;
mod shared;
mod topology;
mod traced;
mod traces;
mod voids;
mod watch;
mod why;

pub use crate::io::Failure as HandshakeFailure;
pub use clients::{Alone, Call, Client, NOBODY, Who};
pub use follow_cluster::{follow_cluster, see_cluster};
pub use idents::{Ident, Idents};
pub use inbox::{Inbox, Message, Registration, Ticket};
pub use info::{section, write_back};
pub use live::micros;
pub use names::refresh_name;
pub use node::{FeedUp, Node};
pub use node_id::NodeId;
pub use ownership::{hear_nothing_of_slots, hear_of_slots};
pub use password::Password;
pub use present::Present;
pub use proofs::{provable, prove};
pub use registrar::Registrar;
pub use reports::{Form, Reports};
pub use role::is_readonly;
pub use scans::{Behind, Look, Scanning};
pub use scripts::Digest;
pub use sentinels::follow_sentinels;
pub use settings::{ClusterSettings, Settings};
pub use shared::{Back, CachedTable, Process};
pub use topology::Topology;
pub use traced::Traced;
pub use traces::Trace;
pub use watch::watch_role;
pub use why::why;
