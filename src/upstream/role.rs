//! What a server says that it is: a master, or a replica of one.

/// As `INFO` says, whole or its section on replication; `None` if it does not say.
pub(super) fn is_replica_by_info(reply: &[u8]) -> Option<bool> {
    const ROLE: &[u8] = b"role:";
    let role = memchr::memmem::find(reply, ROLE).map(|at| &reply[at + ROLE.len()..]);
    role.map(|role| !role.starts_with(b"master"))
}

/// As the reply to `ROLE` says; `None` if it does not say.
pub(super) fn is_replica_by_role(reply: &[u8]) -> Option<bool> {
    match crate::resp::pubsub::message_word(reply) {
        b"" => None,
        role => Some(role != b"master"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_from_either_reply() {
        let role = |role: &str| format!("*3\r\n${}\r\n{role}\r\n:0\r\n*0\r\n", role.len());
        assert_eq!(is_replica_by_role(role("master").as_bytes()), Some(false));
        assert_eq!(is_replica_by_role(role("slave").as_bytes()), Some(true));
        assert_eq!(is_replica_by_role(role("sentinel").as_bytes()), Some(true));
        assert_eq!(is_replica_by_role(b"-NOPERM this user has no permissions\r\n"), None);
        assert_eq!(is_replica_by_info(b"$9\r\nrole:slave\r\n"), Some(true));
        assert_eq!(is_replica_by_info(b"$9\r\nrole:master\r\n"), Some(false));
        assert_eq!(is_replica_by_info(b"-NOPERM\r\n"), None);
    }
}
