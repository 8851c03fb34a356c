//! The scripts that clients have loaded, or run, for nodes of a cluster that do not know them.
//!
//! Invariants: so many are kept, of so many bytes together; beyond that those go that were least lately used. What was flushed
//! is not known any more.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use sha1_smol::Sha1;

/// By what a script is called.
pub type Digest = [u8; 20];

/// Of one script, and of all.
const LARGEST: usize = 64 << 10;
const BYTES: usize = 4 << 20;
const MOST: usize = 1024;

/// See the [module](self).
pub struct Scripts {
    known: Mutex<Known>,
    /// Grows when all are flushed.
    era: AtomicU64,
}

struct Known {
    scripts: LruCache<Digest, Bytes>,
    bytes: usize,
}

impl Default for Scripts {
    fn default() -> Self {
        let known = Mutex::new(Known { scripts: LruCache::unbounded(), bytes: 0 });
        Self { known, era: AtomicU64::new(0) }
    }
}

impl Scripts {
    /// A client has this script.
    pub fn add(&self, script: &[u8]) {
        if script.len() > LARGEST {
            return;
        }
        let digest = Sha1::from(script).digest().bytes();
        let mut known = self.known.lock();
        if known.scripts.get(&digest).is_some() {
            return;
        }
        known.bytes += script.len();
        known.scripts.put(digest, Bytes::copy_from_slice(script));
        while known.bytes > BYTES || known.scripts.len() > MOST {
            let Some((_, least)) = known.scripts.pop_lru() else { break };
            known.bytes -= least.len();
        }
    }

    /// The script that is called so, as a client writes it.
    pub fn get(&self, name: &[u8]) -> Option<(Digest, Bytes)> {
        let digest = digest(name)?;
        let script = self.known.lock().scripts.get(&digest)?.clone();
        Some((digest, script))
    }

    /// All are flushed.
    pub fn flush(&self) {
        let mut known = self.known.lock();
        self.era.fetch_add(1, Ordering::SeqCst);
        known.scripts.clear();
        known.bytes = 0;
    }

    /// What a node was told in another era, it may have forgotten.
    pub fn era(&self) -> u64 {
        self.era.load(Ordering::SeqCst)
    }
}

/// From its hexadecimal form.
fn digest(name: &[u8]) -> Option<Digest> {
    let mut digest = Digest::default();
    if name.len() != digest.len() * 2 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(name.chunks(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_known_by_its_name_and_there_are_not_too_many() {
        let scripts = Scripts::default();
        scripts.add(b"return 1");
        let name = b"E0E1F9fabfc9d4800c877a703b823ac0578ff8db";
        assert_eq!(scripts.get(name).map(|(_, script)| script), Some(Bytes::from_static(b"return 1")));
        assert!(scripts.get(b"e0e1f9").is_none() && scripts.get(&[b'x'; 40]).is_none());
        scripts.add(&vec![b'x'; LARGEST + 1]);
        assert_eq!(scripts.known.lock().scripts.len(), 1, "too large");
        for i in 0..MOST {
            assert!(scripts.get(name).is_some());
            scripts.add(format!("{i}").as_bytes());
        }
        assert_eq!(scripts.known.lock().scripts.len(), MOST);
        for i in 0..100 {
            scripts.add(&vec![b'0' + i; LARGEST]);
        }
        assert!(scripts.known.lock().bytes <= BYTES && scripts.get(name).is_none());
        scripts.flush();
        assert_eq!((scripts.known.lock().bytes, scripts.era()), (0, 1));
    }
}
