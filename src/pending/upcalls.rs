//! What replies call upward: the one way by which this room reaches those above it.
//!
//! All of it is rare: a link that comes or goes, an announcement that only the reply decides, a refresh that was overtaken.
//! A reply that is just passed on calls nothing here.

use std::time::Duration;

use super::announcement::Key;
use super::standing::Standing;
use crate::cache::{LinkId, Wanted};
use crate::command::Say;

/// What has become of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It has connected, or answers again.
    Up,
    /// It is lost.
    Lost,
    /// Whoever waits to know which way to go had better look again.
    Changed,
    /// It has answered, and a barrier asks for more.
    BehindBarrier,
    /// Its tracking is to be asked for after so long.
    AskLater(Duration),
    /// It leads to a server that is to be left.
    LeadsAstray,
    /// How the server says that it stands with it.
    Stands(Standing),
}

/// Whoever makes links and announcements, on the link's own thread.
pub trait Upcalls {
    fn link(&self, link: LinkId, event: LinkEvent);

    /// This is to be said of these keys of database `db`: on the link `via` if that is a shared one, behind what was
    /// answered there.
    fn announce(&self, via: LinkId, db: u32, said: Vec<(Key, Say)>);

    /// These keys may have been written, and nothing was said of them.
    fn owe(&self, keys: Vec<Key>);

    /// A reply was fetched anew, and an update has overtaken it.
    fn refresh(&self, key: &[u8], wanted: &Wanted);
}
