//! The bytes of a request, as they came.

use bytes::Bytes;

use crate::io::Outgoing;

/// A request's raw bytes.
pub enum Raw<'a> {
    Copy(&'a [u8]),
    /// Large: passed on without a copy.
    Own(Bytes),
}

impl Raw<'_> {
    /// To be kept.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Raw::Copy(bytes) => Bytes::copy_from_slice(bytes),
            Raw::Own(bytes) => bytes.clone(),
        }
    }

    pub fn write(self, out: &mut Outgoing) {
        match self {
            Raw::Copy(bytes) => out.copy(bytes),
            Raw::Own(bytes) => out.append(bytes),
        }
    }
}
