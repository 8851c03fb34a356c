//! A login that was put to the upstream for a session.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

use crate::reply::ReplyQueue;
use crate::upstream::{ConnectError, Loss};

/// What the upstream says to a login that was put to it on a link of the same user.
pub enum Answer {
    Accepted,
    /// In its own words.
    Refused(Bytes),
    /// The link was lost, or something holds it up: another is to be asked.
    Lost,
}

/// A login that was put to the upstream, until it is answered.
pub struct Asked {
    answer: RefCell<Option<Answer>>,
    answered: Cell<bool>,
    /// The session that waits for it.
    queue: Rc<ReplyQueue>,
}

impl Asked {
    /// For the session with this queue, which is woken by the answer.
    pub fn new(queue: &Rc<ReplyQueue>) -> Rc<Self> {
        Rc::new(Self { answer: RefCell::default(), answered: Cell::default(), queue: queue.clone() })
    }

    pub fn take(&self) -> Option<Answer> {
        self.answer.take()
    }

    /// The first answer counts.
    pub fn answer(&self, answer: Answer) {
        if !self.answered.replace(true) {
            self.answer.replace(Some(answer));
            self.queue.wake();
        }
    }

    /// The link was lost, perhaps because its own login was refused, which is the same.
    pub fn lost(&self, loss: &Loss) {
        self.answer(match &loss.cause {
            ConnectError::Refused(said) => Answer::Refused(Bytes::copy_from_slice(said)),
            ConnectError::Io(_) | ConnectError::TurnedAway(_) => Answer::Lost,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_is_refused_with_its_link_is_refused_and_the_first_answer_counts() {
        let queue = Rc::new(ReplyQueue::new(1000));
        let lost = |cause| {
            let asked = Asked::new(&queue);
            asked.lost(&Loss { sent: true, cause });
            asked.answer(Answer::Accepted);
            asked.take()
        };
        let said: Rc<[u8]> = b"-WRONGPASS no\r\n"[..].into();
        assert!(
            matches!(lost(ConnectError::Refused(said)), Some(Answer::Refused(said)) if said.starts_with(b"-WRONG"))
        );
        assert!(matches!(lost(ConnectError::Io("gone".into())), Some(Answer::Lost)));
        assert!(Asked::new(&queue).take().is_none());
    }
}
