//! Which slot of a cluster a key is in.

use memchr::memchr;

/// How many slots keys are divided into.
pub const SLOTS: usize = 16_384;

/// The remainders of all bytes by the polynomial x^16 + x^12 + x^5 + 1 (CRC-16/XMODEM), which Redis takes for slots.
const REMAINDERS: [u16; 256] = {
    let mut remainders = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut remainder, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            let carry = remainder & 0x8000 != 0;
            remainder = remainder << 1 ^ if carry { 0x1021 } else { 0 };
            bit += 1;
        }
        remainders[byte] = remainder;
        byte += 1;
    }
    remainders
};

/// The key's slot, of [`SLOTS`]: that of what stands in its first braces, if there is anything, else of all of it.
///
/// Each routed request asks for it: the `redis-protocol` crate, against which it is tested, takes five times the instructions.
pub fn key_slot(key: &[u8]) -> u16 {
    let by = |crc: u16, byte: &u8| crc << 8 ^ REMAINDERS[usize::from((crc >> 8) as u8 ^ byte)];
    tag(key).iter().fold(0, by) % SLOTS as u16
}

/// What of the key says its slot.
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr(b'{', key) else { return key };
    let behind = &key[open + 1..];
    match memchr(b'}', behind) {
        None | Some(0) => key,
        Some(close) => &behind[..close],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_where_redis_has_them() {
        // As `CLUSTER KEYSLOT` answers.
        for (key, slot) in [("", 0), ("foo", 12182), ("bar", 5061), ("123456789", 12739)] {
            assert_eq!(key_slot(key.as_bytes()), slot, "{key}");
        }
        for (key, tag) in [
            ("{user1000}.following", "user1000"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("a{b", "a{b"),
        ] {
            assert_eq!(key_slot(key.as_bytes()), key_slot(tag.as_bytes()), "{key}");
        }
        assert_ne!(key_slot(b"foo{}{bar}"), key_slot(b"bar"), "empty braces are no tag");
    }

    proptest! {
        #[test]
        fn any_key_is_where_others_have_it(key in "[{}a\x00-\x7f]{0,40}|.{0,40}|[{}ab]{0,8}") {
            prop_assert_eq!(key_slot(key.as_bytes()), redis_protocol::redis_keyslot(key.as_bytes()));
        }
    }
}
