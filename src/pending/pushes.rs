//! Which frames of a session's own connection answer no request.
//!
//! Invariants: in RESP3 a push is told by its marker, and nothing else is one. In RESP2 messages are arrays as
//! replies are; they are told by the connection's state, as the stream itself tells it frame by frame: a subscriber
//! may say nothing that is answered by such an array, and to anybody else no message comes.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};

use crate::resp::decode::decode;
use crate::resp::pubsub::{self, confirmation, is_message, message_word};
use crate::resp::scanner::Kind;
use crate::resp::{Protocol, encode};

/// The confirmations that a (un)subscription awaits.
pub struct Awaited {
    /// The word that they begin with; `None` of a command that nobody knows.
    word: Option<&'static [u8]>,
    /// `None` as long as it is one for each channel that there is, and it is not known how many these are.
    left: Option<usize>,
}

impl Awaited {
    /// Of the command `name` with so many channels; none are all that there are.
    pub fn of(name: &str, channels: usize) -> Self {
        Self { word: confirmation(name.as_bytes()), left: Some(channels).filter(|n| *n > 0) }
    }

    fn is(&self, word: &[u8]) -> bool {
        match self.word {
            Some(mine) => mine == word,
            None => confirmation(word).is_some(),
        }
    }
}

/// What may come that answers no request.
#[derive(Clone, Copy, PartialEq)]
enum Hears {
    /// Nothing, or what RESP3 marks.
    Replies,
    /// Messages: there are subscriptions, or were, or are asked for.
    Messages,
    /// All that comes (`MONITOR`).
    Everything,
}

/// See the [module](self).
pub struct Pushes {
    protocol: Cell<Protocol>,
    hears: Cell<Hears>,
    /// Channels, patterns and shard channels.
    subscribed: Cell<[i64; 3]>,
    /// Shard channels of the same session on other connections.
    pub elsewhere: Cell<i64>,
}

impl Pushes {
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol: Cell::new(protocol),
            hears: Cell::new(Hears::Replies),
            subscribed: Cell::default(),
            elsewhere: Cell::default(),
        }
    }

    /// From now on the connection speaks this.
    pub fn speak(&self, protocol: Protocol) {
        self.protocol.set(protocol);
    }

    /// What `EXEC` answers here when a watched key has changed.
    pub fn null_array(&self) -> &'static [u8] {
        match self.protocol.get() {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        }
    }

    /// From now on arrays may be confirmations.
    pub fn listen(&self) {
        if self.hears.get() == Hears::Replies {
            self.hears.set(Hears::Messages);
        }
    }

    pub fn be_raw(&self) {
        self.hears.set(Hears::Everything);
    }

    pub fn is_raw(&self) -> bool {
        self.hears.get() == Hears::Everything
    }

    /// Whether there are, or were, subscriptions.
    pub fn has_listened(&self) -> bool {
        self.hears.get() == Hears::Messages
    }

    pub fn is_subscribed(&self) -> bool {
        self.subscribed.get() != [0; 3]
    }

    /// How many shard channels there are.
    pub fn shard_channels(&self) -> i64 {
        self.subscribed.get()[2]
    }

    /// Whether there are channels or patterns.
    pub fn has_channels(&self) -> bool {
        self.subscribed.get()[..2] != [0; 2]
    }

    /// A confirmation as the client is to have it: it counts the shard channels on all connections.
    pub(super) fn counted(&self, frame: Bytes) -> Bytes {
        let elsewhere = self.elsewhere.get();
        if elsewhere == 0 || place(message_word(&frame)) != 2 {
            return frame;
        }
        let (Some(count), Some(at)) = (pubsub::count(&frame), memchr::memrchr(b':', &frame)) else {
            return frame;
        };
        let mut counted = BytesMut::from(&frame[..at]);
        counted.extend_from_slice(format!(":{}\r\n", count + elsewhere).as_bytes());
        counted.freeze()
    }

    /// The message that the server has ended the subscription to a shard channel, of which so many are left.
    pub fn ended(&self, channel: &[u8], left: i64) -> Bytes {
        let mut out = BytesMut::new();
        out.extend_from_slice(if self.restricts() { b"*3\r\n" } else { b">3\r\n" });
        encode::bulk(&mut out, b"sunsubscribe");
        encode::bulk(&mut out, channel);
        encode::integer(&mut out, left);
        out.freeze()
    }

    /// Whether a subscriber may say little here: in RESP2.
    pub fn restricts(&self) -> bool {
        self.protocol.get() == Protocol::Resp2
    }

    /// Whether the client is a subscriber in RESP2, who may say little.
    pub fn is_restricted(&self) -> bool {
        self.restricts() && self.is_subscribed()
    }

    /// Whether nobody was ever subscribed here, nor saw what others say.
    pub fn is_clean(&self) -> bool {
        self.hears.get() == Hears::Replies
    }

    /// Whether the frame that begins with `start` answers no request; `awaited` if a subscription is the next that
    /// has no reply.
    pub fn is_push(&self, awaited: Option<&Awaited>, kind: Kind, start: &[u8]) -> bool {
        match kind {
            _ if self.is_raw() => true,
            Kind::Push => !awaited.is_some_and(|awaited| awaited.is(message_word(start))),
            Kind::Aggregate if self.has_listened() && self.protocol.get() == Protocol::Resp2 => {
                let word = message_word(start);
                if awaited.is_some_and(|awaited| awaited.is(word)) {
                    return false;
                }
                match confirmation(word) {
                    Some(_) => self.is_subscribed(),
                    None => self.is_subscribed() && is_message(word),
                }
            }
            _ => false,
        }
    }

    /// A confirmation that was awaited: says how many are left.
    pub fn confirmed(&self, awaited: Awaited, frame: &[u8]) -> Option<Awaited> {
        let there = awaited.word.map_or(0, |word| self.subscribed.get()[place(word)]);
        let left = awaited.left.unwrap_or(usize::try_from(there).unwrap_or(0).max(1)) - 1;
        self.note(frame);
        (left > 0).then_some(Awaited { word: awaited.word, left: Some(left) })
    }

    /// Takes in how many channels there are, if the frame is a confirmation.
    pub fn note(&self, frame: &[u8]) {
        let word = message_word(frame);
        let (Some(word), Some(count)) = (confirmation(word), pubsub::count(frame)) else { return };
        let mut subscribed = self.subscribed.get();
        let [channels, patterns, _] = subscribed;
        // Channels and patterns are counted together.
        subscribed[place(word)] = match place(word) {
            0 => count - patterns,
            1 => count - channels,
            _ => count,
        };
        self.subscribed.set(subscribed);
    }
}

/// Where in the counts the channels of such a confirmation are.
fn place(word: &[u8]) -> usize {
    match word[0] {
        b'p' => 1,
        b's' if word.starts_with(b"ss") || word.starts_with(b"sun") => 2,
        _ => 0,
    }
}

/// The channel of a message that ends the subscription to a shard channel.
pub(super) fn ended_channel(frame: &[u8]) -> Option<Bytes> {
    if message_word(frame) != b"sunsubscribe" {
        return None;
    }
    let message = decode(frame, 1).ok()?;
    message.as_array()?.get(1)?.as_bytes().map(Bytes::copy_from_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirm(word: &str, count: i64) -> Vec<u8> {
        format!("*3\r\n${}\r\n{word}\r\n$1\r\nc\r\n:{count}\r\n", word.len()).into_bytes()
    }

    #[test]
    fn channels_of_each_kind_are_counted() {
        let pushes = Pushes::new(Protocol::Resp2);
        for (word, count, expected) in [
            ("subscribe", 1, [1, 0, 0]),
            ("psubscribe", 2, [1, 1, 0]),
            ("ssubscribe", 1, [1, 1, 1]),
            ("psubscribe", 3, [1, 2, 1]),
            ("unsubscribe", 2, [0, 2, 1]),
            ("sunsubscribe", 0, [0, 2, 0]),
            ("punsubscribe", 1, [0, 1, 0]),
            ("punsubscribe", 0, [0, 0, 0]),
        ] {
            pushes.note(&confirm(word, count));
            assert_eq!(pushes.subscribed.get(), expected, "{word} {count}");
        }
    }

    #[test]
    fn whoever_monitors_hears_everything_for_good() {
        let pushes = Pushes::new(Protocol::Resp2);
        assert!(pushes.is_clean() && !pushes.has_listened());
        pushes.listen();
        assert!(!pushes.is_clean() && pushes.has_listened() && !pushes.is_raw());
        pushes.be_raw();
        pushes.listen();
        assert!(!pushes.is_clean() && pushes.is_raw() && pushes.is_push(None, Kind::Simple, b"+OK\r\n"));
    }

    #[test]
    fn an_array_is_a_message_only_for_a_subscriber_in_resp2() {
        let message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n";
        let pushes = Pushes::new(Protocol::Resp2);
        let is_push = |pushes: &Pushes| pushes.is_push(None, Kind::Aggregate, message);
        pushes.listen();
        assert!(!is_push(&pushes));
        pushes.note(&confirm("subscribe", 1));
        assert!(is_push(&pushes));
        pushes.speak(Protocol::Resp3);
        assert!(!is_push(&pushes));
        pushes.speak(Protocol::Resp2);
        pushes.note(&confirm("unsubscribe", 0));
        assert!(!is_push(&pushes));
        let awaited = Awaited::of("subscribe", 1);
        assert!(!pushes.is_push(Some(&awaited), Kind::Aggregate, &confirm("subscribe", 1)));
    }

    #[test]
    fn in_resp3_a_push_is_told_by_its_marker_and_a_confirmation_by_who_awaits_it() {
        let pushes = Pushes::new(Protocol::Resp3);
        let is_push = |awaited: Option<&Awaited>, word: &str| {
            let mut frame = confirm(word, 1);
            frame[0] = b'>';
            pushes.is_push(awaited, Kind::Push, &frame)
        };
        let (mine, nobody_s) = (Awaited::of("psubscribe", 1), Awaited::of("subscribe.renamed", 1));
        assert!(is_push(None, "subscribe") && is_push(None, "message"));
        assert!(is_push(Some(&mine), "subscribe") && !is_push(Some(&mine), "psubscribe"));
        // What an unknown command awaits may be a confirmation of any kind, and no message.
        assert!(!is_push(Some(&nobody_s), "subscribe") && is_push(Some(&nobody_s), "message"));
        pushes.listen();
        assert!(!pushes.is_push(None, Kind::Aggregate, &confirm("subscribe", 1)), "an array is a reply");
        pushes.be_raw();
        assert!(pushes.is_raw() && pushes.is_push(Some(&mine), Kind::Simple, b"+OK\r\n"));
    }

    #[test]
    fn a_confirmation_that_nobody_awaits_is_a_push_for_a_subscriber() {
        let pushes = Pushes::new(Protocol::Resp2);
        let unasked = |word| pushes.is_push(None, Kind::Aggregate, &confirm(word, 1));
        assert!(!unasked("subscribe") && !pushes.is_restricted() && pushes.is_clean());
        pushes.listen();
        assert!(!unasked("subscribe") && !pushes.is_restricted() && !pushes.is_clean());
        pushes.note(&confirm("subscribe", 1));
        assert!(unasked("subscribe") && unasked("message") && !unasked("other"));
        assert!(pushes.is_subscribed() && pushes.is_restricted());
        pushes.note(&confirm("unsubscribe", 0));
        assert!(!unasked("subscribe") && !pushes.is_subscribed() && !pushes.is_restricted());
        assert!(!pushes.is_clean(), "it once was subscribed");
        let raw = Pushes::new(Protocol::Resp2);
        raw.be_raw();
        assert!(!raw.is_clean());
    }

    #[test]
    fn as_many_confirmations_are_awaited_as_there_are_channels() {
        let pushes = Pushes::new(Protocol::Resp2);
        let two = Awaited::of("subscribe", 2);
        let one = pushes.confirmed(two, &confirm("subscribe", 1)).unwrap();
        assert!(pushes.confirmed(one, &confirm("subscribe", 2)).is_none());
        // Of all that there are, one each; and one if there is none.
        let all = Awaited::of("unsubscribe", 0);
        let last = pushes.confirmed(all, &confirm("unsubscribe", 1)).unwrap();
        assert!(pushes.confirmed(last, &confirm("unsubscribe", 0)).is_none());
        assert!(pushes.confirmed(Awaited::of("unsubscribe", 0), &confirm("unsubscribe", 0)).is_none());
    }
}
