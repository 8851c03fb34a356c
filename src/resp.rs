//! RESP framing: requests from clients, replies from the upstream.
//!
//! `resp` finds where a request or a reply ends and hands over raw bytes; it never re-encodes what the
//! upstream sent.

pub mod request;
