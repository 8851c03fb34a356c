//! Records of the journal: a key's newest write with what a flush has to know, and an entry of the conflict log.
//!
//! Invariants: what is written here is read back the same; what was not written here is refused, never guessed. Values of a
//! base are kept as hashes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha1_smol::Sha1;

use super::op::{Base, Op, Stands, sha1};

/// A key's newest write, as the journal keeps it; without bases if it is not known what stands upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub version: u64,
    /// When the write came; see [`unix_ms`](super::op::unix_ms).
    pub arrived: u64,
    pub op: Op,
    pub bases: Vec<Base>,
}

/// A write that was not flushed because something else stood upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub id: u64,
    /// When that was found; when our write came; and when somebody told of the change, or `at` if nobody did.
    pub at: u64,
    pub written: u64,
    pub told: u64,
    pub key: Bytes,
    pub ours: Op,
    /// What was found, as the script says it.
    pub theirs: Bytes,
    /// Who had told of the change.
    pub told_by: Bytes,
}

impl Record {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.op.size());
        out.put_u64(self.version);
        out.put_u64(self.arrived);
        put_op(&mut out, &self.op);
        out.put_u32(self.bases.len() as u32);
        self.bases.iter().for_each(|base| put_base(&mut out, base));
        out.freeze()
    }

    pub fn decode(mut from: Bytes) -> Option<Self> {
        let from = &mut from;
        let (version, arrived, op) = (number(from)?, number(from)?, get_op(from)?);
        let bases = (0..from.try_get_u32().ok()?).map(|_| get_base(from)).collect::<Option<_>>()?;
        from.is_empty().then_some(Self { version, arrived, op, bases })
    }
}

impl Conflict {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.key.len() + self.ours.size());
        [self.id, self.at, self.written, self.told].into_iter().for_each(|number| out.put_u64(number));
        put_op(&mut out, &self.ours);
        [&self.key, &self.theirs, &self.told_by].into_iter().for_each(|bytes| put_bytes(&mut out, bytes));
        out.freeze()
    }

    pub fn decode(mut from: Bytes) -> Option<Self> {
        let from = &mut from;
        let (id, at, written, told, ours) =
            (number(from)?, number(from)?, number(from)?, number(from)?, get_op(from)?);
        let (key, theirs, told_by) = (bytes(from)?, bytes(from)?, bytes(from)?);
        from.is_empty().then_some(Self { id, at, written, told, key, ours, theirs, told_by })
    }

    /// The SHA-1 of our value, or `absent` if we had deleted the key.
    pub fn ours_sha1(&self) -> String {
        match &self.ours {
            Op::Set { value, .. } => sha1(value),
            Op::Delete => "absent".into(),
        }
    }

    /// What was found: the SHA-1 of a value, `absent`, or the type of what is no string.
    pub fn theirs_in_words(&self) -> String {
        let said = String::from_utf8_lossy(&self.theirs);
        match said.split_at_checked(1) {
            Some(("v", hash)) => hash.into(),
            Some(("t", kind)) => kind.into(),
            _ => "absent".into(),
        }
    }

    /// What it takes of the journal.
    pub fn size(&self) -> usize {
        64 + self.key.len() + self.ours.size()
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

fn put_time(out: &mut BytesMut, time: Option<u64>) {
    out.put_u64(time.unwrap_or(u64::MAX));
}

fn put_op(out: &mut BytesMut, op: &Op) {
    match op {
        Op::Delete => out.put_u8(b'd'),
        Op::Set { value, until } => {
            out.put_u8(b's');
            put_time(out, *until);
            put_bytes(out, value);
        }
    }
}

fn put_base(out: &mut BytesMut, base: &Base) {
    match &base.stands {
        Stands::Absent => out.put_u8(b'a'),
        Stands::Other => out.put_u8(b't'),
        Stands::Hashed(hash) => {
            out.put_u8(b'v');
            out.put_slice(hash);
        }
        Stands::Value(value) => {
            out.put_u8(b'v');
            out.put_slice(&Sha1::from(value).digest().bytes());
        }
    }
    put_time(out, base.until);
}

fn number(from: &mut Bytes) -> Option<u64> {
    from.try_get_u64().ok()
}

fn time(from: &mut Bytes) -> Option<Option<u64>> {
    number(from).map(|time| Some(time).filter(|time| *time != u64::MAX))
}

fn bytes(from: &mut Bytes) -> Option<Bytes> {
    let len = from.try_get_u32().ok()? as usize;
    (len <= from.len()).then(|| from.split_to(len))
}

fn get_op(from: &mut Bytes) -> Option<Op> {
    match from.try_get_u8().ok()? {
        b'd' => Some(Op::Delete),
        b's' => {
            let until = time(from)?;
            Some(Op::Set { until, value: bytes(from)? })
        }
        _ => None,
    }
}

fn get_base(from: &mut Bytes) -> Option<Base> {
    let stands = match from.try_get_u8().ok()? {
        b'a' => Stands::Absent,
        b't' => Stands::Other,
        b'v' => {
            let mut hash = [0; 20];
            from.try_copy_to_slice(&mut hash).ok()?;
            Stands::Hashed(hash)
        }
        _ => return None,
    };
    Some(Base { stands, until: time(from)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_half_of_it_is_not() {
        let value = Bytes::from_static(b"\r\n\0value");
        let hashed = Stands::Hashed(Sha1::from(&value).digest().bytes());
        for op in [Op::Delete, Op::Set { value: value.clone(), until: Some(7) }] {
            let all = [Stands::Absent, Stands::Other, hashed.clone()];
            let bases = all.map(|stands| Base { stands, until: Some(9) }).to_vec();
            let record = Record { version: 3, arrived: 5, op: op.clone(), bases };
            let encoded = record.encode();
            assert_eq!(Record::decode(encoded.clone()), Some(record));
            assert!((0..encoded.len()).all(|cut| Record::decode(encoded.slice(..cut)).is_none()));
            let conflict = Conflict {
                id: 1,
                at: 2,
                written: 3,
                told: 4,
                key: value.clone(),
                ours: op,
                theirs: "a".into(),
                told_by: "x".into(),
            };
            let encoded = conflict.encode();
            assert_eq!(Conflict::decode(encoded.clone()), Some(conflict));
            assert!((0..encoded.len()).all(|cut| Conflict::decode(encoded.slice(..cut)).is_none()));
        }
    }

    #[test]
    fn the_value_of_a_base_is_kept_as_its_hash() {
        let base = Base { stands: Stands::Value(Bytes::from_static(b"x")), until: None };
        let record = Record { version: 1, arrived: 1, op: Op::Delete, bases: vec![base.clone()] };
        let read = Record::decode(record.encode()).unwrap();
        assert_eq!(read.bases[0].words(0).collect::<Vec<_>>(), base.words(0).collect::<Vec<_>>());
        assert!(matches!(read.bases[0].stands, Stands::Hashed(_)));
    }
}
