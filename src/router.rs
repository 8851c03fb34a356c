//! Which node, which link, and is it covered: the links of one worker, and what keeps them alive.
//!
//! Invariants:
//! - A session has at most one link in use at a time on a node; what is sent on a link is answered in order.
//! - What is filled is filled under the coverage of the link that it was read on, which ends with that, with its tracking,
//!   and with its node's feed.
//! - Links are bounded (`max-links`), and so is whatever waits for one.

mod adopt;
mod arm;
mod choose;
mod dark;
mod follow;
mod fresh;
mod heart;
mod key;
mod links;
mod ping;
mod pool;
mod route;
mod target;
mod trying;

pub use key::LinkKey;
pub use links::Router;
pub use target::{Keys, Target};

#[cfg(test)]
mod tests;
