//! What the upstream's count of its calls tells of changes that nothing else reports.
//!
//! - `SWAPDB` is what Redis' tracking does not report (7.0: `dbSwapDatabases` tells no tracking client).
//! - `REPLICAOF` and `FAILOVER` change what the server is, and connections live on.
//! - A change of users or their rules (`ACL SETUSER`, `DELUSER`, `LOAD`; `CONFIG SET requirepass`) decides who may be
//!   given what. The server ends a user's connections on `DELUSER` and `LOAD`, yet not on `SETUSER`, and tells nobody.
//!
//! `INFO commandstats` goes in front of each `PING` of the feed, so the proof that a `PING` brings covers these changes too: they
//! are seen within `max-staleness`, whoever made them. It needs no permission but `INFO`, and costs the same however
//! many users there are; `ACL LIST` would need the right to see all of them, and would send them each time. A change voids
//! all that is cached: it is rare, and a role that many users share changes for all of them.
//!
//! Servers before 7.0 count no subcommands. There any `ACL` command counts as a change; `CONFIG` is not looked at, for a
//! password that was set does not concern connections that have logged in.

use memchr::memmem;

/// Calls that change who may do what.
const USERS: [&[u8]; 5] = [
    b"cmdstat_acl|setuser:calls=",
    b"cmdstat_acl|deluser:calls=",
    b"cmdstat_acl|load:calls=",
    b"cmdstat_acl:calls=",
    b"cmdstat_config|set:calls=",
];

/// Calls that change whether the server is a primary.
const ROLE: [&[u8]; 5] = [
    b"cmdstat_replicaof:calls=",
    b"cmdstat_slaveof:calls=",
    b"cmdstat_failover:calls=",
    b"cmdstat_cluster|failover:calls=",
    b"cmdstat_cluster|replicate:calls=",
];

/// How often something was called, as a reply to `INFO commandstats` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    swapdb: u64,
    users: u64,
    role: u64,
    /// It was called for this very reply, so it grows; if not, the counts began anew.
    info: u64,
}

/// What has happened between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) swapped: bool,
    pub(super) users: bool,
    pub(super) role: bool,
}

impl Calls {
    pub(super) fn of(reply: &[u8]) -> Self {
        let sum =
            |fields: &[&[u8]]| fields.iter().map(|field| calls(reply, field)).fold(0, u64::wrapping_add);
        Self {
            swapdb: calls(reply, b"cmdstat_swapdb:calls="),
            users: sum(&USERS),
            role: sum(&ROLE),
            info: calls(reply, b"cmdstat_info:calls="),
        }
    }

    /// What may have happened since `before`.
    pub(super) fn since(&self, before: &Self) -> Changes {
        let reset = self.info < before.info;
        Changes {
            swapped: reset || self.swapdb != before.swapdb,
            users: reset || self.users != before.users,
            role: reset || self.role != before.role,
        }
    }
}

fn calls(reply: &[u8], field: &[u8]) -> u64 {
    let Some(at) = memmem::find(reply, field) else { return 0 };
    let digits = reply[at + field.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |calls: u64, digit| calls.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(before: &str, after: &str) -> (bool, bool) {
        let Changes { swapped, users, .. } = Calls::of(after.as_bytes()).since(&Calls::of(before.as_bytes()));
        (swapped, users)
    }

    #[test]
    fn changes_are_seen_by_their_calls() {
        let line = |name: &str, calls: u32| format!("cmdstat_{name}:calls={calls},usec=1\r\n");
        let none = line("info", 3);
        assert_eq!(changes(&none, &line("info", 4)), (false, false));
        assert_eq!(
            changes(&none, &(line("info", 4) + &line("get", 9) + &line("acl|list", 9))),
            (false, false)
        );
        assert_eq!(changes(&none, &(line("info", 4) + &line("swapdb", 1))), (true, false));
        for name in ["acl|setuser", "acl|deluser", "acl|load", "acl", "config|set"] {
            let [one, two] = [1, 2].map(|calls| line("info", 3 + calls) + &line(name, calls));
            assert_eq!([changes(&none, &one), changes(&one, &two)], [(false, true); 2], "{name}");
        }
        for name in ["replicaof", "slaveof", "failover", "cluster|failover"] {
            let [one, two] = [1, 2].map(|calls| Calls::of((line("info", 3) + &line(name, calls)).as_bytes()));
            assert!(two.since(&one).role && one.since(&Calls::of(none.as_bytes())).role, "{name}");
            assert!(!one.since(&one).role && !one.since(&one).swapped, "{name}");
        }
        assert_eq!(changes(&line("info", 9), &line("info", 1)), (true, true), "CONFIG RESETSTAT");
        assert_eq!(Calls::of(b"-NOPERM"), Calls::default());
    }
}
