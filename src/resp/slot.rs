//! Which slot of a cluster a key is in.

/// How many slots keys are divided into.
pub const SLOTS: usize = 16_384;

/// The key's slot, of [`SLOTS`]: that of what stands in its first braces, if there is anything, else of all of it.
pub fn key_slot(key: &[u8]) -> u16 {
    redis_protocol::redis_keyslot(key)
}

#[cfg(test)]
mod tests {
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
}
