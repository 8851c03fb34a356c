//! Who shares a link.

use std::sync::Arc;

use crate::process::{Ident, Node};
use crate::upstream::Login;

/// Those who speak to one node, as one identity, by one login.
#[derive(Clone)]
pub struct LinkKey {
    pub node: Arc<Node>,
    pub ident: Ident,
    /// What it logs in with; a user may have several passwords.
    pub login: Option<Login>,
}

impl LinkKey {
    /// Whether both are shared by the same.
    pub fn is(&self, other: &Self) -> bool {
        self.node.id == other.node.id && self.ident == other.ident && self.login == other.login
    }
}

#[cfg(test)]
mod tests;
