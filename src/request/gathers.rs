//! The requests of a session that are under way in parts.
//!
//! Invariants: a part is answered into a queue of the gather's own, so whatever brings its reply knows nothing of parts. A
//! gather stands until its reply is handed over, and what is asked for it stays with it: a part that was not executed is
//! sent again alone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::combine::How;
use crate::pending::{Link, Window};
use crate::process::{Node, Scanning};
use crate::reply::{Refusal, ReplyQueue, ReplySlot};
use crate::router::LinkKey;

/// One request of a gather.
pub struct Part {
    pub node: Arc<Node>,
    /// As it is sent.
    pub request: Bytes,
}

/// What becomes of the parts' replies.
pub enum Plan {
    /// One reply. Parts that were cut by keys tell of those.
    Combine { how: How, by_keys: bool },
    /// Elements of an `MGET`: for each part the places of its keys among the missing.
    Window { window: Window, places: Vec<Vec<u32>> },
    /// A page of a `SCAN`, and what the node says of the cluster around it.
    Scan(Box<Scanning>),
}

/// See the [module](self).
pub struct Gather {
    /// Where the reply goes, of the session's own queue.
    pub slot: u64,
    /// The parts' replies.
    pub queue: Rc<ReplyQueue>,
    pub parts: Vec<Part>,
    pub plan: Plan,
    /// Connections that it has for itself.
    pub own: Vec<Own>,
    /// It may wait at the servers as long as it likes.
    pub waits: bool,
    /// It waits to be sent again.
    pub is_back: bool,
}

/// A connection that a gather has for itself; so many there are of one worker.
pub struct Own {
    pub key: LinkKey,
    pub link: Link,
    number: Rc<Cell<usize>>,
}

impl Own {
    pub fn new(key: LinkKey, link: Link, number: &Rc<Cell<usize>>) -> Self {
        number.set(number.get() + 1);
        Self { key, link, number: number.clone() }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.number.set(self.number.get() - 1);
    }
}

impl Gather {
    /// Where the reply to a part goes.
    pub fn to(&self, part: usize) -> ReplySlot {
        ReplySlot { queue: self.queue.clone(), slot: part as u64 }
    }

    fn is_over(&self) -> bool {
        !self.is_back && self.queue.parts_away() == 0 || self.queue.parts_failed()
    }

    /// The parts that are to be sent again, and why.
    pub fn back(&self) -> Vec<(usize, Refusal)> {
        let refusal = |part| Some((part, self.queue.refusal_of(part)?));
        (0..self.parts.len()).filter_map(refusal).collect()
    }
}

/// The session is gone: what still comes is thrown away.
impl Drop for Gathers {
    fn drop(&mut self) {
        self.0.borrow().iter().for_each(|gather| gather.queue.close());
    }
}

/// Those of one session.
#[derive(Default)]
pub struct Gathers(RefCell<Vec<Gather>>);

impl Gathers {
    pub fn add(&self, gather: Gather) {
        self.0.borrow_mut().push(gather);
    }

    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Whether any is under way on connections of its own.
    pub fn has_own(&self) -> bool {
        self.0.borrow().iter().any(|gather| !gather.own.is_empty())
    }

    /// Whether any may never be answered.
    pub fn may_never_end(&self) -> bool {
        self.0.borrow().iter().any(|gather| gather.waits)
    }

    /// Takes those of whose parts none is on a link, or will not all be there.
    pub fn take_over(&self) -> Vec<Gather> {
        self.0.borrow_mut().extract_if(.., |gather| gather.is_over()).collect()
    }

    /// Whether that can be said of the newest.
    pub fn newest_is_over(&self) -> bool {
        self.0.borrow().last().is_some_and(Gather::is_over)
    }

    /// Whether the one of this slot waits to be sent again, and can be as a whole: nothing of its reply was handed over.
    pub fn begins_anew(&self, slot: u64) -> bool {
        let can = |gather: &Gather| match &gather.plan {
            Plan::Combine { .. } => true,
            Plan::Window { window, .. } => window.elements.is_some() && window.last,
            Plan::Scan(_) => false,
        };
        let all = self.0.borrow();
        all.iter().any(|gather| gather.slot == slot && gather.is_back && gather.own.is_empty() && can(gather))
    }

    /// Takes the one of this slot, if it waits to be sent again.
    pub fn take_back(&self, slot: u64) -> Option<Gather> {
        let mut gathers = self.0.borrow_mut();
        let at = gathers.iter().position(|gather| gather.slot == slot && gather.is_back)?;
        Some(gathers.swap_remove(at))
    }
}
