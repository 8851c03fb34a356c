//! A short command name as two machine words, so that looking it up copies and compares no bytes.
//!
//! Invariants: two short names are equal as [`Short`] exactly if they are equal but for ASCII case.

/// A name of up to 16 bytes in lower case: its first and its last bytes, which may overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Short {
    first: u64,
    last: u64,
    len: u8,
}

impl Short {
    /// `None` for longer names.
    #[inline]
    pub fn new(name: &[u8]) -> Option<Self> {
        // Whole words, because a copy of variable length is a call, and reading it back at once stalls.
        let (first, last) = if let Some((first, last)) = ends::<8>(name) {
            (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
        } else if let Some((first, last)) = ends::<4>(name) {
            (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into())
        } else if let Some((first, last)) = ends::<2>(name) {
            (u16::from_le_bytes(*first).into(), u16::from_le_bytes(*last).into())
        } else {
            (name.first().copied().unwrap_or_default().into(), 0)
        };
        (name.len() <= 16).then(|| Self { first: lower(first), last: lower(last), len: name.len() as u8 })
    }

    /// Multiplied and folded. Not against hostile names: a client can only look them up, never add one.
    #[inline]
    pub fn hash(&self) -> usize {
        let word = self.first ^ self.last.rotate_left(27) ^ u64::from(self.len);
        let product = u128::from(word) * 0x9e37_79b9_7f4a_7c15;
        ((product as u64) ^ ((product >> 64) as u64)) as usize
    }
}

#[inline]
fn ends<const N: usize>(name: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
    Some((name.first_chunk()?, name.last_chunk()?))
}

/// ASCII lower case of eight bytes at once.
#[inline]
fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // In each byte, bit 7 of these sums tells whether its low seven bits are at least A, and beyond Z.
    let seven = word & (ONES * 0x7f);
    let at_least_a = seven + ONES * (0x80 - b'A' as u64);
    let beyond_z = seven + ONES * (0x7f - b'Z' as u64);
    let upper = (at_least_a ^ beyond_z) & !word & (ONES * 0x80);
    word | (upper >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_byte_is_lowered_as_ascii_is() {
        for byte in 0..=u8::MAX {
            let word = u64::from_le_bytes([byte, b'A', 0xff, byte, 0, b'Z', byte, 0x80]);
            let expected = word.to_le_bytes().map(|b| b.to_ascii_lowercase());
            assert_eq!(lower(word).to_le_bytes(), expected);
        }
    }

    proptest! {
        #[test]
        fn equal_exactly_but_for_case(a in "[aAbB@`\0]{0,18}", b in "[aAbB@`\0]{0,18}") {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            prop_assert_eq!(Short::new(a).is_some(), a.len() <= 16);
            if let (Some(short_a), Some(short_b)) = (Short::new(a), Short::new(b)) {
                prop_assert_eq!(short_a == short_b, a.eq_ignore_ascii_case(b));
            }
            prop_assert_eq!(Short::new(a), Short::new(&a.to_ascii_uppercase()));
        }
    }
}
