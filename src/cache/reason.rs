//! Why a read was not a hit, and why an entry went: one list, used as metric label, log field and in
//! `NEARSIDE WHY`.

/// The named reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Never seen.
    Unknown,
    // Why a read went past the cache.
    /// A write to the key (or to keys unknown) is under way.
    Fenced,
    /// No feed, or a link without tracking for a key outside all namespaces.
    NoCoverage,
    /// The coverage stands, but its watermark is older than `max-staleness`.
    Unproven,
    /// `max-staleness` is 0.
    NeverServed,
    /// It was said in a transaction.
    Transaction,
    /// The session watches keys for a transaction.
    Watching,
    /// The session is subscribed.
    Subscribed,
    /// The session's connection has other state of its own upstream (`CLIENT TRACKING`, `CLIENT NO-EVICT`, …).
    Dedicated,
    /// Replies of the command, or of this form of it, cannot be cached.
    Uncacheable,
    /// The configuration says that the command's replies are not to be cached.
    Unwanted,
    /// Another user's, and it would not be seen if that one's rights were changed, or its login is refused.
    User,
    /// The request is too long to be the name of an entry, or asks for too many keys.
    TooLong,
    /// One of several keys of the request is being fetched by another.
    InFlight,
    /// A script, or what else may write keys that it does not name, was under way, or has ended since it was read.
    Barrier,
    // Why a reply was not kept.
    /// The reply is larger than `max-value`.
    TooLarge,
    /// The upstream answered with an error.
    ErrorReply,
    /// The upstream did not say when the key expires, or the key changed between the two replies.
    TtlUnknown,
    /// The upstream does not allow `PTTL`, or does not know it.
    TtlRefused,
    /// A field of the hash may end before the key does, and the upstream did not say when.
    FieldTtl,
    /// An invalidation, a fence or the end of the coverage came between request and reply.
    Voided,
    /// Whoever fetched it gave up: the client left, or the link was lost.
    GivenUp,
    // Why an entry went.
    /// `<channel>/update` named the key.
    Update,
    /// `<channel>/delete` named the key.
    Delete,
    /// The upstream's `CLIENT TRACKING` named the key.
    Tracking,
    /// A write through this nearside.
    Write,
    /// A read past the cache was answered, so the older entry must not be served after it.
    Bypass,
    /// Its coverage ended, or everything was flushed.
    CoverageEnded,
    /// Its server-side time to live ran out.
    Expired,
    /// It became older than `max-age`.
    Aged,
    /// Memory was needed.
    Evicted,
    /// Users or their rules were changed upstream.
    Users,
    /// Its hash slot left the node from which it was read, or is on the move.
    SlotMoved,
    /// `NEARSIDE FLUSH`.
    Flushed,
    /// An audit found it stale.
    Audit,
    /// It was read from the upstream and kept.
    Filled,
}

/// What a reason is a reason for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A read went past the cache.
    Bypass,
    /// A reply was fetched and not kept.
    Unkept,
    /// An entry went, or came.
    Change,
}

impl Reason {
    pub fn class(self) -> Class {
        match self {
            reason if (reason as u8) < Reason::TooLarge as u8 => Class::Bypass,
            reason if (reason as u8) < Reason::Update as u8 => Class::Unkept,
            _ => Class::Change,
        }
    }

    /// Number of reasons.
    pub const COUNT: usize = Reason::Filled as usize + 1;

    /// All reasons, in the order of their discriminants.
    pub const ALL: [Reason; Reason::COUNT] = [
        Reason::Unknown,
        Reason::Fenced,
        Reason::NoCoverage,
        Reason::Unproven,
        Reason::NeverServed,
        Reason::Transaction,
        Reason::Watching,
        Reason::Subscribed,
        Reason::Dedicated,
        Reason::Uncacheable,
        Reason::Unwanted,
        Reason::User,
        Reason::TooLong,
        Reason::InFlight,
        Reason::Barrier,
        Reason::TooLarge,
        Reason::ErrorReply,
        Reason::TtlUnknown,
        Reason::TtlRefused,
        Reason::FieldTtl,
        Reason::Voided,
        Reason::GivenUp,
        Reason::Update,
        Reason::Delete,
        Reason::Tracking,
        Reason::Write,
        Reason::Bypass,
        Reason::CoverageEnded,
        Reason::Expired,
        Reason::Aged,
        Reason::Evicted,
        Reason::Users,
        Reason::SlotMoved,
        Reason::Flushed,
        Reason::Audit,
        Reason::Filled,
    ];

    /// The name by which the reason is counted and shown.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Unknown => "unknown",
            Reason::Fenced => "fenced",
            Reason::NoCoverage => "no_coverage",
            Reason::Unproven => "unproven",
            Reason::NeverServed => "never_served",
            Reason::Transaction => "transaction",
            Reason::Watching => "watching",
            Reason::Subscribed => "subscribed",
            Reason::Dedicated => "dedicated",
            Reason::Uncacheable => "uncacheable",
            Reason::Unwanted => "unwanted",
            Reason::User => "user",
            Reason::TooLong => "too_long",
            Reason::InFlight => "in_flight",
            Reason::Barrier => "barrier",
            Reason::TooLarge => "too_large",
            Reason::ErrorReply => "error_reply",
            Reason::TtlUnknown => "ttl_unknown",
            Reason::TtlRefused => "ttl_refused",
            Reason::FieldTtl => "field_ttl",
            Reason::Voided => "voided",
            Reason::GivenUp => "given_up",
            Reason::Update => "update",
            Reason::Delete => "delete",
            Reason::Tracking => "tracking",
            Reason::Write => "write",
            Reason::Bypass => "read_past",
            Reason::CoverageEnded => "coverage_ended",
            Reason::Expired => "expired",
            Reason::Aged => "aged",
            Reason::Evicted => "evicted",
            Reason::Users => "users",
            Reason::SlotMoved => "slot_moved",
            Reason::Flushed => "flushed",
            Reason::Audit => "audit",
            Reason::Filled => "filled",
        }
    }

    /// A sentence for a person.
    pub fn explain(self) -> &'static str {
        match self {
            Reason::Unknown => "nothing is known of this key",
            Reason::Fenced => "a write to it was under way",
            Reason::NoCoverage => "nothing would have told of its changes (feed or tracking not in place)",
            Reason::Unproven => "freshness was not proven within max-staleness",
            Reason::NeverServed => "max-staleness is 0",
            Reason::Transaction => "read in a transaction",
            Reason::Watching => "read by a session that watches keys",
            Reason::Subscribed => "read by a session that is subscribed",
            Reason::Uncacheable => "replies of the command cannot be cached",
            Reason::Dedicated => "read on a connection with state of its own",
            Reason::Unwanted => "the setting cache-commands leaves the command out",
            Reason::User => "another user's, whose rights cannot be vouched for",
            Reason::TooLong => "the request was too long to be kept under",
            Reason::InFlight => "another request was fetching it",
            Reason::Barrier => "a script or the like may have changed it, and the upstream had not yet told",
            Reason::TooLarge => "the reply was larger than max-value",
            Reason::ErrorReply => "the upstream answered with an error",
            Reason::TtlRefused => "the upstream does not allow PTTL, so its time to live is not known",
            Reason::TtlUnknown => "its time to live could not be learnt with the reply",
            Reason::FieldTtl => "a field of the hash may have a time to live of its own",
            Reason::Voided => "it changed while it was being read",
            Reason::GivenUp => "the read of it was given up",
            Reason::Update => "an update was announced",
            Reason::Delete => "a delete was announced",
            Reason::Tracking => "the upstream reported a change",
            Reason::Write => "it was written through this nearside",
            Reason::Bypass => "it was read past the cache",
            Reason::CoverageEnded => "its coverage ended",
            Reason::Expired => "its time to live ran out",
            Reason::Aged => "it became older than max-age",
            Reason::Evicted => "memory was needed",
            Reason::Users => "users or their rules were changed upstream",
            Reason::SlotMoved => "its hash slot moved to another node, or was about to",
            Reason::Flushed => "it was flushed by hand",
            Reason::Audit => "an audit found it stale",
            Reason::Filled => "it was read and kept",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_every_reason_in_order() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
    }
}
