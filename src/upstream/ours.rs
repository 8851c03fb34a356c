//! Which of the upstream's clients are this process's own connections.
//!
//! Invariants: a connection is known by its address before anything is said on it, and by its id, if the
//! upstream tells that, before it is used; it is forgotten when it is closed.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// The process's connections to the upstream. Clones are of the same set.
#[derive(Clone, Default)]
pub struct Ours(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    ids: HashSet<i64>,
    /// As the upstream writes them; one behind an address translation is known by its id alone.
    addresses: HashSet<String>,
}

impl Ours {
    pub fn has_id(&self, id: i64) -> bool {
        self.0.lock().ids.contains(&id)
    }

    pub fn has_address(&self, address: &str) -> bool {
        self.0.lock().addresses.contains(address)
    }

    /// Notes a connection for as long as what is given back stands.
    pub(super) fn note(&self, address: Option<String>) -> Own {
        self.0.lock().addresses.extend(address.clone());
        Own { ours: self.clone(), id: None, address }
    }
}

/// One connection of ours.
pub(super) struct Own {
    ours: Ours,
    id: Option<i64>,
    address: Option<String>,
}

impl Own {
    /// What the upstream calls it, if it told.
    pub(super) fn id(&self) -> Option<i64> {
        self.id
    }

    pub(super) fn is_called(&mut self, id: i64) {
        let mut known = self.ours.0.lock();
        self.id.replace(id).into_iter().for_each(|before| {
            known.ids.remove(&before);
        });
        known.ids.insert(id);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut known = self.ours.0.lock();
        if let Some(id) = self.id {
            known.ids.remove(&id);
        }
        if let Some(address) = &self.address {
            known.addresses.remove(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_while_it_stands() {
        let ours = Ours::default();
        let mut own = ours.note(Some("127.0.0.1:40000".into()));
        assert!(ours.has_address("127.0.0.1:40000") && !ours.has_id(7));
        own.is_called(7);
        assert!(ours.has_id(7) && ours.clone().has_id(7));
        drop(own);
        assert!(!ours.has_id(7) && !ours.has_address("127.0.0.1:40000"));
    }
}
