//! Replies that a session itself wants, of requests that no client has made.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::process::errors;
use crate::reply::ReplyQueue;
use crate::upstream::At;

/// Replies that a session waits for.
pub struct Answers {
    /// Those that have come whole, and the beginning of the next.
    replies: RefCell<(Vec<Bytes>, BytesMut)>,
    wanted: usize,
    queue: Rc<ReplyQueue>,
}

impl Answers {
    pub fn new(wanted: usize, queue: &Rc<ReplyQueue>) -> Rc<Self> {
        Rc::new(Self { replies: RefCell::default(), wanted, queue: queue.clone() })
    }

    pub fn is_complete(&self) -> bool {
        self.replies.borrow().0.len() >= self.wanted
    }

    /// Those that have come.
    pub fn whole(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.replies.borrow_mut().0)
    }

    /// Takes a piece of a reply; says whether it was the last of all.
    pub fn take(&self, chunk: &[u8], at: At) -> bool {
        let mut replies = self.replies.borrow_mut();
        let (whole, piece) = &mut *replies;
        piece.extend_from_slice(chunk);
        if at.last {
            whole.push(std::mem::take(piece).freeze());
        }
        drop(replies);
        let complete = self.is_complete();
        if complete {
            self.queue.wake();
        }
        complete
    }

    /// What has not come will not: this error stands for it.
    pub fn lose(&self, text: &str) {
        let error = Bytes::from(errors::line(text));
        let (whole, piece) = &mut *self.replies.borrow_mut();
        piece.clear();
        whole.resize(self.wanted, error);
        self.queue.wake();
    }
}
