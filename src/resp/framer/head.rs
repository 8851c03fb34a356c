//! The head of the last request: pipelines say the same before each key.
//!
//! Invariants: a request that begins with the kept head has the arguments of the one that it was kept of, at
//! the same places, if it also ends like it. So it need not be read byte by byte; nor its command looked up, if its
//! name alone tells the command. The second argument may be a subcommand.

use super::super::request::ArgRange;

/// The longest head that is kept, in bytes: a usual command's name, and the length of a key.
const ROOM: usize = 40;

/// What stood before the second and last argument, its length line included.
pub(super) struct Head {
    bytes: [u8; ROOM],
    /// 0 is none.
    len: u8,
}

impl Head {
    pub(super) const NONE: Self = Self { bytes: [0; ROOM], len: 0 };

    pub(super) fn forget(&mut self) {
        self.len = 0;
    }

    /// Keeps the head of the request in `buf` whose arguments lie there, if it has two; else none.
    #[inline]
    pub(super) fn keep(&mut self, buf: &[u8], args: &[ArgRange]) {
        self.len = 0;
        let [_, last] = args else { return };
        let len = last.start as usize;
        if let (Some(room), Some(head)) = (self.bytes.get_mut(..len), buf.get(..len)) {
            room.copy_from_slice(head);
            self.len = len as u8;
        }
    }

    /// Whether `buf` begins with it; never, if there is none.
    #[inline]
    pub(super) fn begins(&self, buf: &[u8]) -> bool {
        let len = usize::from(self.len);
        len > 0 && buf.get(..len) == self.bytes.get(..len)
    }
}
