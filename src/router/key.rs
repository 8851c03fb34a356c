//! Who shares a link.

use std::sync::Arc;

use crate::process::{Ident, Node};
use crate::upstream::{Credentials, Identity, Login, Who};

/// Those who speak to one node, as one identity, by one login.
#[derive(Clone)]
pub struct LinkKey {
    pub node: Arc<Node>,
    pub ident: Ident,
    /// What it logs in with; a user may have several passwords. `None` is nearside's own login, whatever its password is.
    pub login: Option<Login>,
}

impl LinkKey {
    /// What a connection of theirs is told; `own` is nearside's own login.
    pub fn identity(&self, own: &Credentials) -> Identity {
        let who = self.login.clone().map_or_else(|| Who::Own(own.clone()), Who::Client);
        Identity { who, db: self.ident.db, protocol: self.ident.protocol }
    }

    /// Whether both are shared by the same.
    pub fn is(&self, other: &Self) -> bool {
        self.node.id == other.node.id && self.ident == other.ident && self.login == other.login
    }
}

#[cfg(test)]
mod tests;
