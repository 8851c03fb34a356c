//! File descriptors: how many clients there can be with those that the system grants, and what is done without any.

use std::cell::RefCell;
use std::fs::File;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use super::error::ServerError;

/// File descriptors beyond the clients': connections upstream, listeners, admin pages, log.
const SPARE_FILES: usize = 256;

/// Those of them that are always needed: of the process, and of each worker.
const NEEDED: (usize, usize) = (20, 7);

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Room {
    /// Clients, at the start.
    pub(super) clients: usize,
    /// File descriptors, before those that are kept for the shared connections and the admin pages.
    pub(super) files: usize,
    /// Connections to the admin pages.
    pub(super) admin: usize,
}

/// Asks the system for as many file descriptors as the clients may need, and says what there is room for with those
/// that it grants. Errors: not even for one client.
pub(super) fn make_room(max_clients: usize, workers: usize) -> Result<Room, ServerError> {
    let wanted = (max_clients + SPARE_FILES) as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|now| now < wanted) {
        let granted = limit.maximum.map_or(wanted, |most| most.min(wanted));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(granted), maximum: limit.maximum });
    }
    let have = getrlimit(Resource::Nofile).current.and_then(|have| usize::try_from(have).ok());
    let have = have.unwrap_or(usize::MAX);
    let room = divide(have, max_clients, workers).ok_or(ServerError::Files { have })?;
    if room.clients < max_clients {
        let (clients, wanted) = (room.clients, max_clients);
        warn!(
            have,
            clients, "too few file descriptors for max-clients = {wanted}: raise the limit (ulimit -n)"
        );
    }
    Ok(room)
}

/// So many clients, or as many as there is room for with the file descriptors that were granted at the start.
pub(super) fn fitting(max_clients: usize, workers: usize) -> usize {
    let have = getrlimit(Resource::Nofile).current.and_then(|have| usize::try_from(have).ok());
    divide(have.unwrap_or(usize::MAX), max_clients, workers).map_or(max_clients, |room| room.clients)
}

fn divide(have: usize, max_clients: usize, workers: usize) -> Option<Room> {
    let (process, worker) = NEEDED;
    let needed = process + worker * workers;
    // Some clients need a connection upstream of their own.
    let kept = (needed + have / 8).min(needed.max(SPARE_FILES));
    let clients = have.checked_sub(kept)?.min(max_clients);
    let admin = (have / 16).clamp(4, 64);
    let room = Room { clients, files: have.checked_sub(admin + 4 + 2 * workers)?, admin };
    (clients > 0).then_some(room)
}

pub(super) fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let of = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    of(Errno::MFILE) || of(Errno::NFILE)
}

/// A file descriptor that is kept for when there is no other.
pub(super) struct Spare(RefCell<Option<File>>);

impl Spare {
    pub(super) fn new() -> Self {
        Self(RefCell::new(open()))
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Frees it until what this gives is dropped.
    pub(super) fn free(&self) -> Freed<'_> {
        self.0.borrow_mut().take();
        Freed(self)
    }
}

/// See [`Spare::free`].
pub(super) struct Freed<'a>(&'a Spare);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        *self.0.0.borrow_mut() = open();
    }
}

fn open() -> Option<File> {
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nearside_itself_needs_is_never_a_clients() {
        assert_eq!(divide(1 << 20, 10_000, 4).map(|room| room.clients), Some(10_000));
        for workers in 1..=4 {
            for have in [64, 65, 80, 100, 128, 256, 500, 1024, 4096, 20_000] {
                let Some(room) = divide(have, 10_000, workers) else { panic!("{have} for {workers}") };
                assert!(room.clients >= 1 && room.clients + 20 + 7 * workers <= have, "{room:?} of {have}");
                assert!(room.files + room.admin + workers < have, "{room:?} of {have}");
                assert!(room.clients + 10 + 5 * workers < room.files, "{room:?} of {have}");
            }
        }
        assert_eq!(divide(64, 10_000, 2).map(|room| room.clients), Some(22));
        assert_eq!(divide(1024, 10_000, 2).map(|room| room.clients), Some(862));
        assert_eq!(divide(38, 10_000, 2), None);
        assert_eq!(divide(5, 10_000, 2), None);
    }
}
