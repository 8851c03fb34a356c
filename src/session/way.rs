//! Where a request goes of a session that has connections of its own, in front of a cluster.

use crate::cache::Reason;

/// See the [module](self).
pub enum Own {
    Alone,
    /// On a link that others share; a read goes past the cache, for this reason.
    Shared(Reason),
}
