//! Logging in: the upstream is asked each time, on a link that is that user's already if there is one.
//!
//! Invariants: `AUTH` of a user on a link of that user changes nothing there, whatever it says: accepted it is
//! who it was, and refused as well. So the other sessions on it are not touched. And a link that has just logged in is
//! the one that those with this login use from then on, unless the one that they have stands: a link that was refused
//! once (the user was deleted, say, and made anew) is no reason to refuse those whom the upstream lets in. Sessions
//! that gave another password of the same user keep links of their own: one of these may be the only right one soon.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::core::send_on;
use super::expect::Pending;
use super::idents::Ident;
use super::peer::LinkHandler;
use super::queue::ReplyQueue;
use super::shared::Shared;
use super::worker::Worker;
use crate::cache::Micros;
use crate::resp::encode;
use crate::upstream::{ConnectError, Link, Login, Loss};

/// How long a link is given to say whether a login is right, before another is opened that nothing stands in the way of:
/// a paused write, say.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the upstream says to a login that was put to it on a link of the same user.
pub(super) enum Answer {
    Accepted,
    /// In its own words.
    Refused(Bytes),
    /// The link was lost, or something holds it up: another is to be asked.
    Lost,
}

/// A login that was put to the upstream, until it is answered.
pub(super) struct Asked {
    answer: RefCell<Option<Answer>>,
    answered: Cell<bool>,
    /// The session that waits for it.
    queue: Rc<ReplyQueue>,
}

impl Asked {
    pub(super) fn take(&self) -> Option<Answer> {
        self.answer.take()
    }

    /// The first answer counts.
    pub(super) fn answer(&self, answer: Answer) {
        if !self.answered.replace(true) {
            self.answer.replace(Some(answer));
            self.queue.wake();
        }
    }

    /// The link was lost, perhaps because its own login was refused, which is the same.
    pub(super) fn lost(&self, loss: &Loss) {
        self.answer(match &loss.cause {
            ConnectError::Refused(said) => Answer::Refused(Bytes::copy_from_slice(said)),
            ConnectError::Io(_) | ConnectError::TurnedAway(_) => Answer::Lost,
        });
    }
}

/// Asks on `link`, which is of the same user, whether this login is right.
pub(super) fn ask(link: &Link<LinkHandler>, login: &Login, queue: &Rc<ReplyQueue>, now: Micros) -> Rc<Asked> {
    let asked =
        Rc::new(Asked { answer: RefCell::default(), answered: Cell::default(), queue: queue.clone() });
    let mut command: Vec<&[u8]> = vec![b"AUTH"];
    command.extend(login.user.as_deref());
    command.push(&login.password);
    let waits = asked.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(PATIENCE).await;
        waits.answer(Answer::Lost);
    });
    if !send_on(
        link,
        now,
        |out| out.with(|tail| encode::command(tail, &command)),
        Pending::Login(asked.clone()),
    ) {
        asked.answer(Answer::Lost);
    }
    asked
}

/// As the upstream calls it.
fn name(login: Option<&Login>) -> &[u8] {
    login.and_then(|login| login.user.as_deref()).unwrap_or(b"default")
}

/// The user of a login for an identity, and the login with which its links log in.
pub(super) fn user_of(shared: &Shared, login: Login) -> (Option<Vec<u8>>, Option<Login>) {
    // Nearside's own login is nearside's own identity, however it is written.
    match &shared.settings.login {
        Some(own) if name(Some(own)) == name(Some(&login)) && own.password == login.password => {
            (None, Some(own.clone()))
        }
        _ => (Some(name(Some(&login)).to_vec()), Some(login)),
    }
}

/// A link that logs in, for those who have given this login.
pub(super) struct Fresh {
    ident: Ident,
    login: Option<Login>,
    link: Link<LinkHandler>,
}

impl Fresh {
    pub(super) fn is(&self, link: &Link<LinkHandler>) -> bool {
        self.link.is(link)
    }

    /// Whoever waits for it is to go to another link then.
    pub(super) fn be_replaced(&self) {
        self.link.client().be_replaced();
    }
}

impl Worker {
    /// A link on which this login can be asked for: one of the same user that stands, or one that is logging in with
    /// the very same.
    pub(super) fn link_to_ask(&self, ident: &Ident, login: &Option<Login>) -> Option<Link<LinkHandler>> {
        let links = self.links.borrow();
        let mut known = links.iter().filter(|known| {
            // One without a login may not be logged in at all.
            known.login.is_some()
                && name(known.login.as_ref()) == name(login.as_ref())
                && known.link.is_up()
                && !known.link.client().is_silent()
        });
        let found = known.next().map(|known| known.link.clone());
        found.or_else(|| {
            let mut fresh = self.fresh.borrow_mut();
            // Nobody waits any more for one that nobody else holds.
            fresh.retain(|fresh| fresh.link.is_shared());
            let same =
                |fresh: &&Fresh| fresh.ident == *ident && fresh.login == *login && !fresh.link.is_down();
            fresh.iter().find(same).map(|fresh| fresh.link.clone())
        })
    }

    /// For a login that was accepted: the identity's link if it stands and has it; else one that logs in with it now.
    pub(super) fn link_of_login(self: &Rc<Self>, ident: &Ident, login: &Option<Login>) -> Link<LinkHandler> {
        let number = self.shared.idents.known(ident);
        match number.is_some_and(|number| self.has_link(number, login)) {
            true => self.link(ident, login),
            false => self.fresh_link(ident, login),
        }
    }

    /// A link that logs in with this login now.
    pub(super) fn fresh_link(self: &Rc<Self>, ident: &Ident, login: &Option<Login>) -> Link<LinkHandler> {
        let mut fresh = self.fresh.borrow_mut();
        fresh.retain(|fresh| fresh.link.is_shared());
        let same = |fresh: &&Fresh| fresh.ident == *ident && fresh.login == *login && !fresh.link.is_down();
        if let Some(known) = fresh.iter().find(same) {
            return known.link.clone();
        }
        let link = self.new_link(ident, login);
        fresh.push(Fresh { ident: ident.clone(), login: login.clone(), link: link.clone() });
        link
    }
}
