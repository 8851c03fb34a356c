//! Under what a reply that is read now would be kept.

use super::coverage::CoverageId;
use super::id::LinkId;

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover {
    pub coverage: CoverageId,
    /// The link on which it is read.
    pub link: LinkId,
    /// The upstream tells of changes of those keys only that were registered with the feed: of this one before it is read.
    pub registers: bool,
}
