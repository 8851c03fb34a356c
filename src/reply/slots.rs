//! What a queue of replies holds, and how its slots move to the front.
//!
//! Invariants: whether the client wants a reply (`CLIENT REPLY`) is decided when its slot is at the front, where all that
//! was asked before is answered. What it does not want is thrown away there. Confirmations of subscriptions it gets all the
//! same, as from Redis, and messages, which have no slot.

use std::collections::{HashMap, VecDeque};
use std::task::Waker;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::kept::{KEPT, Kept};
use crate::io::Outgoing;

/// What a reply is taken to be before any has come, in bytes.
const UNKNOWN: usize = 16 << 10;

/// No slot has this number.
pub(super) const NOBODY: u64 = u64::MAX;

/// A fair piece is this part of the limit.
const PIECE: usize = 64;

/// A shared link waits: until when, and what the client had taken before.
pub(super) struct Hold {
    pub(super) until: Instant,
    pub(super) written: u64,
}

/// Who waits for the parts of a reply.
pub(super) trait Waits {
    fn wake(&self);
    /// A part may have been executed, and its reply is lost.
    fn is_in_doubt(&self);
}

/// Likewise, and for how many.
pub(super) struct Outer {
    pub(super) waits: Box<dyn Waits>,
    /// Parts that are not there.
    pub(super) left: usize,
}

/// Which replies a client wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Replies {
    On,
    Off,
    /// All but the next.
    Skip,
}

/// What a queue holds.
pub(super) struct Inner {
    pub(super) out: Outgoing,
    /// The number of the front slot.
    pub(super) first: u64,
    pub(super) slots: VecDeque<Slot>,
    /// Which replies the client wants from the front slot on.
    pub(super) replies: Replies,
    /// Messages that came in the middle of the front slot's reply, and go behind it.
    pub(super) late: Vec<Bytes>,
    pub(super) late_len: usize,
    /// Bytes held in slots.
    pub(super) held: usize,
    pub(super) limit: usize,
    /// Slots that wait for another's flight: how many, for each hash of a key.
    pub(super) joined: HashMap<u64, usize>,
    /// Joined slots whose flight came to nothing.
    pub(super) released: VecDeque<u64>,
    /// The session's task.
    pub(super) waker: Option<Waker>,
    /// Links that wait for room.
    pub(super) blocked_links: Vec<Waker>,
    /// How large this client's replies are lately, in bytes: the base of how many may be open.
    pub(super) usual: usize,
    /// While a shared link waits for room.
    pub(super) hold: Option<Hold>,
    /// So much was left untaken that the client is sent away.
    pub(super) overrun: bool,
    /// A reply was cut off in the middle, or the client is to be.
    pub(super) broken: bool,
    /// Nothing more is to be said.
    pub(super) ended: bool,
    /// The dedicated link was lost.
    pub(super) lost_link: bool,
    pub(super) written: u64,
    /// Bytes of requests that are kept, and how many slots are to be sent again.
    pub(super) kept: usize,
    pub(super) back: usize,
    /// A request was lost that may have been executed.
    pub(super) is_doubtful: bool,
    /// Who waits for this, if it holds parts.
    pub(super) outer: Option<Outer>,
}

/// One request that is not answered yet.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) pieces: SmallVec<[Bytes; 1]>,
    pub(super) size: usize,
    pub(super) begun: bool,
    pub(super) done: bool,
    /// What the client wants from then on, if the upstream takes that.
    pub(super) switch: Option<Replies>,
    /// It is a confirmation, which comes whatever the client wants.
    pub(super) confirms: bool,
    /// The reply is lost, and an error stands for it.
    pub(super) lost: bool,
    /// While it waits for another's flight: the request, and the hash of its key.
    pub(super) joined: Option<(Box<[u8]>, u64)>,
    /// In front of a cluster.
    pub(super) kept: Option<Box<Kept>>,
}

impl Slot {
    /// Whether its request is on a link.
    pub(super) fn is_sent(&self) -> bool {
        !self.done && self.joined.is_none() && !self.kept.as_ref().is_some_and(|kept| kept.is_back)
    }
}

impl Inner {
    /// One that asks for no more while it holds over `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            out: Outgoing::default(),
            first: 0,
            slots: VecDeque::new(),
            replies: Replies::On,
            late: Vec::new(),
            late_len: 0,
            held: 0,
            limit,
            joined: HashMap::new(),
            released: VecDeque::new(),
            waker: None,
            blocked_links: Vec::new(),
            usual: UNKNOWN,
            hold: None,
            overrun: false,
            broken: false,
            ended: false,
            lost_link: false,
            written: 0,
            kept: 0,
            back: 0,
            is_doubtful: false,
            outer: None,
        }
    }

    pub(super) fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let i = number.checked_sub(self.first)?;
        self.slots.get_mut(i as usize)
    }

    pub(super) fn begun(&mut self, number: u64) -> bool {
        self.slot(number).is_some_and(|slot| slot.begun)
    }

    /// Lets go of what is open, and of who waits for room.
    pub(super) fn forget(&mut self) {
        self.blocked_links.drain(..).for_each(Waker::wake);
        self.slots.clear();
        self.released.clear();
        self.joined.clear();
        (self.held, self.kept, self.back) = (0, 0, 0);
        self.late.clear();
        self.late_len = 0;
        self.limit = usize::MAX;
    }

    pub(super) fn note_size(&mut self, size: usize) {
        self.usual = if size > self.usual { size } else { (self.usual * 7 + size) / 8 };
    }

    /// Whether more than a few requests may be open at a time.
    pub(super) fn keeps_little(&self) -> bool {
        self.kept <= KEPT
    }

    pub(super) fn is_full(&self) -> bool {
        self.out.len() + self.held > self.limit
    }

    /// Whether what comes for the front slot goes to the client as it comes.
    pub(super) fn passes_on(&self) -> bool {
        let decides = |front: &Slot| front.switch.is_some();
        self.replies == Replies::On && !self.slots.front().is_some_and(decides)
    }

    /// Whether a part of the front slot's reply has gone to the client, and another is to come; not between confirmations.
    pub(super) fn is_amid_reply(&self) -> bool {
        self.slots.front().is_some_and(|front| front.begun && !front.done && !front.confirms)
    }

    /// A piece of the front slot's reply.
    pub(super) fn at_front(&mut self, piece: Bytes) {
        let Some(front) = self.slots.front() else { return };
        match self.replies == Replies::On || front.confirms {
            true => self.out.append(piece),
            // The client cannot be told but by this.
            false => self.broken |= front.lost,
        }
    }

    /// The front reply is complete: moves what was waiting behind it.
    pub(super) fn pop_front(&mut self) {
        self.leave_front(None);
        self.move_up();
    }

    /// Moves what has come for the slots up to the first that is not complete.
    pub(super) fn move_up(&mut self) {
        while let Some(front) = self.slots.front_mut() {
            // As a rule nothing has come for it yet.
            if !front.done && (front.pieces.is_empty() || front.switch.is_some()) {
                return;
            }
            let (done, switched) =
                (front.done, front.switch.filter(|_| front.pieces[..] == [&b"+OK\r\n"[..]]));
            if switched == Some(Replies::On) {
                self.replies = Replies::On;
            }
            for piece in std::mem::take(&mut front.pieces) {
                self.held -= piece.len();
                if switched.is_none_or(|replies| replies == Replies::On) {
                    self.at_front(piece);
                }
            }
            if !done {
                return;
            }
            self.leave_front(switched);
        }
    }

    /// The front slot is done with; by it the client has `switched` to other wishes, if it has.
    fn leave_front(&mut self, switched: Option<Replies>) {
        if let Some(kept) = self.slots.pop_front().and_then(|slot| slot.kept) {
            self.kept -= kept.request.len();
            self.back -= usize::from(kept.is_back);
        }
        self.first += 1;
        if !self.late.is_empty() {
            self.late_len = 0;
            self.late.drain(..).for_each(|message| self.out.append(message));
        }
        if switched.is_none() && self.replies == Replies::On {
            return;
        }
        self.replies = match (switched, self.replies) {
            (Some(Replies::Skip), Replies::Off) => Replies::Off,
            (Some(replies), _) => replies,
            (None, Replies::Skip) => Replies::On,
            (None, replies) => replies,
        };
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
        if let Some(outer) = &self.outer {
            outer.waits.wake();
        }
    }

    pub(super) fn fair_piece(&self) -> u64 {
        (self.limit / PIECE) as u64
    }

    /// Whether the client has to take something before a link may bring more.
    pub(super) fn is_crowded(&self) -> bool {
        self.out.len() + self.late_len > self.limit
    }
}

/// Of a queue of parts.
impl Inner {
    /// A piece of a part came.
    pub(super) fn part(&mut self, number: u64, bytes: Bytes, last: bool) {
        let Some(slot) = self.slot(number) else { return };
        let len = bytes.len();
        slot.pieces.push(bytes);
        self.held += len;
        let (crowded, back) = (self.is_full(), self.back);
        let Some(outer) = &mut self.outer else { return };
        outer.left -= usize::from(last);
        if outer.left == back || crowded {
            outer.waits.wake();
        }
    }

    /// What has come of a part will not go on: an error takes its place.
    pub(super) fn cut_part(&mut self, number: u64) {
        let Some(slot) = self.slot(number) else { return };
        slot.begun = false;
        let pieces = std::mem::take(&mut slot.pieces);
        self.held -= pieces.iter().map(Bytes::len).sum::<usize>();
    }
}
