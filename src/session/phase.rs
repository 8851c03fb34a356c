//! What a connection of a session's own is at the moment.

/// See the [module](self). What else stands there, as the server's replies tell, is in its
/// [`State`](crate::pending::State).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// For one command that a busy server takes, and nothing else.
    Aside,
    /// From a `MULTI` on, until it is refused or its `EXEC` or `DISCARD` is sent.
    Transaction,
    /// What comes cannot be told from replies.
    Monitor,
    /// In RESP2: who is subscribed may say little.
    Subscriber,
    /// In RESP3: who is subscribed may say what it likes.
    Listener,
    Plain,
}

impl Phase {
    /// Whether the session may say what it likes, and is answered at once.
    pub fn is_free(self) -> bool {
        matches!(self, Self::Plain | Self::Listener | Self::Aside)
    }
}
