//! What a node says of the cluster: `CLUSTER NODES`, read.

use std::ops::RangeInclusive;

/// A line of `CLUSTER NODES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub port: u16,
    pub flags: String,
    pub master: Option<String>,
    /// Of what it says of its slots.
    pub epoch: u64,
    pub is_linked: bool,
    pub slots: Vec<RangeInclusive<u16>>,
    /// Slots on the move, as it says: `[7->-id]`.
    pub moving: Vec<String>,
}

impl Member {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let id = words.next()?.to_owned();
        let port = words.next()?.split('@').next()?.rsplit(':').next()?.parse().ok()?;
        let flags = words.next()?.to_owned();
        let master = words.next().filter(|master| *master != "-").map(str::to_owned);
        let epoch = words.nth(2)?.parse().ok()?;
        let is_linked = words.next()? == "connected";
        let (moving, slots): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with('['));
        let range = |word: &&str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            Some(first.parse().ok()?..=last.parse().ok()?)
        };
        let slots = slots.iter().filter_map(range).collect();
        let moving = moving.into_iter().map(str::to_owned).collect();
        Some(Self { id, port, flags, master, epoch, is_linked, slots, moving })
    }

    pub fn has(&self, flag: &str) -> bool {
        self.flags.split(',').any(|of| of == flag)
    }

    pub fn is_me(&self) -> bool {
        self.has("myself")
    }

    pub fn is_well(&self) -> bool {
        let ill = ["fail", "fail?", "handshake", "noaddr"];
        (self.is_linked || self.is_me()) && !ill.iter().any(|flag| self.has(flag))
    }

    pub fn owns(&self, slot: u16) -> bool {
        self.slots.iter().any(|range| range.contains(&slot))
    }
}

/// All lines of a reply.
pub fn parse(reply: &str) -> Vec<Member> {
    reply.lines().filter_map(Member::parse).collect()
}
