//! Who may connect to a Unix socket.
//!
//! Invariants: from its first moment on nobody may whom the settings do not let.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::umask;

/// The rights that a socket's file is given.
pub(super) struct Rights {
    pub(super) mode: u32,
    /// By name or number.
    pub(super) group: Option<String>,
}

impl Rights {
    /// Binds so that only the owner may connect, for now.
    pub(super) fn bind(&self, path: &Path) -> io::Result<UnixListener> {
        let before = umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        bound
    }

    /// Gives the rights, the group first.
    pub(super) fn give(&self, path: &Path) -> io::Result<()> {
        if let Some(group) = &self.group {
            chown(path, None, Some(number(group)?))?;
        }
        std::fs::set_permissions(path, Permissions::from_mode(self.mode))
    }
}

fn number(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group")?;
    find(&groups, group)
        .ok_or_else(|| io::Error::other(format!("unix-socket-group: /etc/group has no group {group:?}")))
}

fn find(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    let mut line = lines.find(|line| line.clone().next() == Some(name))?;
    line.nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_names() {
        let groups = "root:x:0:\nredis:x:112:app,web\nred:x:7:\nbroken\n";
        assert_eq!(find(groups, "redis"), Some(112));
        assert_eq!(find(groups, "red"), Some(7));
        assert_eq!((find(groups, "broken"), find(groups, "app")), (None, None));
        assert_eq!(number("12").unwrap(), 12);
    }
}
