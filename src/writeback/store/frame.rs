//! The bytes of the journal. All numbers are little-endian.
//!
//! ```text
//! file   "nearside journal", format u32, salt u32, 0 u32, checksum u32 of these; then frames, one after another
//! frame  its place u64, length of its body u64, synced u64, checksum u32 of the body, checksum u32 of these; then its body
//! body   items
//! item   kind u8, a u64, b u64, then its bytes:
//!        put 1       a = length of the key, b = length of the record; key, record
//!        remove 2    a = length of the key, b = 0; key
//!        conflict 3  a = id, b = length of the entry; entry
//!        cleared 4   a = id, b = 0
//! ```
//!
//! Checksums are CRC-32 (IEEE); a frame's begin from the salt, which each file draws anew: no client can store a value that would
//! be taken for a frame, and no stale block of another file is. `synced` is how much of the file was known to be on the disk when the
//! frame was written. A later format changes nothing of the file's head but the number.

use crc32fast::Hasher;

/// The newest format that is known here.
pub(super) const FORMAT: u32 = 1;

const NAME: &[u8; 16] = b"nearside journal";

/// Lengths in bytes.
pub(super) const FILE_HEAD: usize = 32;
pub(super) const FRAME_HEAD: usize = 32;
const ITEM_HEAD: usize = 17;

/// The head of a file of this format.
pub(super) fn file_head(salt: u32) -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    head[..16].copy_from_slice(NAME);
    head[16..20].copy_from_slice(&FORMAT.to_le_bytes());
    head[20..24].copy_from_slice(&salt.to_le_bytes());
    let sum = crc32fast::hash(&head[..28]);
    head[28..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// What a file's first bytes tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    Ours { salt: u32 },
    Newer { version: u32 },
    Foreign,
    Damaged,
}

/// Reads the first bytes of a file, all of them if it is shorter than a head.
pub(super) fn read_file_head(bytes: &[u8]) -> Head {
    let Some((name, rest)) = bytes.split_first_chunk::<16>() else {
        // No crash leaves a part of a head; but what is part of our name was ours.
        return if !bytes.is_empty() && NAME.starts_with(bytes) { Head::Damaged } else { Head::Foreign };
    };
    if name != NAME {
        return Head::Foreign;
    }
    let mut rest = Numbers(rest);
    let (version, salt, _, sum) = (rest.u32(), rest.u32(), rest.u32(), rest.u32());
    match (version, salt) {
        (Some(version), Some(salt)) if sum == Some(crc32fast::hash(&bytes[..28])) => {
            if version == FORMAT {
                Head::Ours { salt }
            } else {
                Head::Newer { version }
            }
        }
        _ => Head::Damaged,
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHead {
    pub length: u64,
    pub synced: u64,
    sum: u32,
}

impl FrameHead {
    /// Reads the head of a frame that stands at `at`; `None` if it is none.
    pub fn read(bytes: &[u8; FRAME_HEAD], salt: u32, at: u64) -> Option<Self> {
        let mut rest = Numbers(bytes);
        // First what costs least: this is asked for every byte behind damage.
        if rest.u64()? != at {
            return None;
        }
        let (length, synced, sum, head) = (rest.u64()?, rest.u64()?, rest.u32()?, rest.u32()?);
        (head == checksum(&bytes[..28], salt)).then_some(Self { length, synced, sum })
    }

    /// Whether this is its body, as it was written.
    pub fn is_of(&self, body: &[u8], salt: u32) -> bool {
        self.sum == checksum(body, salt)
    }
}

/// Completes a frame: `FRAME_HEAD` bytes of any kind, and its body.
pub(super) fn close_frame(frame: &mut [u8], salt: u32, at: u64, synced: u64) {
    let (head, body) = frame.split_at_mut(FRAME_HEAD);
    head[..8].copy_from_slice(&at.to_le_bytes());
    head[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
    head[16..24].copy_from_slice(&synced.to_le_bytes());
    head[24..28].copy_from_slice(&checksum(body, salt).to_le_bytes());
    let sum = checksum(&head[..28], salt);
    head[28..].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(bytes: &[u8], salt: u32) -> u32 {
    let mut sum = Hasher::new_with_initial(salt);
    sum.update(bytes);
    sum.finalize()
}

/// One change of what the journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Put { key: &'a [u8], record: &'a [u8] },
    Remove { key: &'a [u8] },
    Conflict { id: u64, entry: &'a [u8] },
    Cleared { id: u64 },
}

impl<'a> Item<'a> {
    /// Its length in a body.
    pub fn length(&self) -> u64 {
        let bytes = match self {
            Self::Put { key, record } => key.len() + record.len(),
            Self::Remove { key } => key.len(),
            Self::Conflict { entry, .. } => entry.len(),
            Self::Cleared { .. } => 0,
        };
        (ITEM_HEAD + bytes) as u64
    }

    pub fn write(&self, body: &mut Vec<u8>) {
        let (kind, a, b) = match self {
            Self::Put { key, record } => (1, key.len() as u64, record.len() as u64),
            Self::Remove { key } => (2, key.len() as u64, 0),
            Self::Conflict { id, entry } => (3, *id, entry.len() as u64),
            Self::Cleared { id } => (4, *id, 0),
        };
        body.push(kind);
        body.extend_from_slice(&a.to_le_bytes());
        body.extend_from_slice(&b.to_le_bytes());
        match self {
            Self::Put { key, record } => {
                body.extend_from_slice(key);
                body.extend_from_slice(record);
            }
            Self::Remove { key: bytes } | Self::Conflict { entry: bytes, .. } => {
                body.extend_from_slice(bytes)
            }
            Self::Cleared { .. } => {}
        }
    }

    /// Takes the next item off a body; `None` if there is none.
    pub fn read(body: &mut &'a [u8]) -> Option<Self> {
        let mut rest = Numbers(body);
        let (kind, a, b) = (rest.u8()?, rest.u64()?, rest.u64()?);
        let item = match kind {
            1 => Self::Put { key: rest.bytes(a)?, record: rest.bytes(b)? },
            2 => Self::Remove { key: rest.bytes(a)? },
            3 => Self::Conflict { id: a, entry: rest.bytes(b)? },
            4 => Self::Cleared { id: a },
            _ => return None,
        };
        *body = rest.0;
        Some(item)
    }
}

/// Numbers and bytes off the front of a slice.
struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn u8(&mut self) -> Option<u8> {
        self.chunk().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }
}
