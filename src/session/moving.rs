//! Shard channels whose hash slot was taken from the node where a session heard them.

use bytes::Bytes;

use super::errand::{Tries, Way};
use crate::pending::Link;

/// Shard channels of one slot that are to be heard at another node.
pub struct Moving {
    pub slot: u16,
    pub channels: Vec<Bytes>,
    pub tries: Tries,
    pub waiting: Option<Way>,
    /// Where it is asked for, and how many shard channels were heard there before.
    pub asked: Option<(Link, i64)>,
}
