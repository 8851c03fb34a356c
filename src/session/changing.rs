//! A session that is about to be somebody else, once that one's link stands.

use std::rc::Rc;
use std::time::Duration;

use crate::cache::Micros;
use crate::pending::{Answer, Asked, Link, Pending, send};
use crate::process::Process;
use crate::reply::{ReplyQueue, ReplySlot};
use crate::resp::encode;
use crate::router::LinkKey;
use crate::upstream::Login;

/// How long a link is given to say whether a login is right, before another is opened that nothing stands in the way of:
/// a paused write, say.
const PATIENCE: Duration = Duration::from_millis(200);

/// See the [module](self).
pub struct Changing {
    pub link: Link,
    /// The upstream is asked first whether the login is right.
    pub asked: Option<Rc<Asked>>,
    pub key: LinkKey,
    pub to: ReplySlot,
    pub then: Then,
}

/// What the client is told when it is done.
pub enum Then {
    Ok,
    /// Sends `HELLO` on the link, and takes this name.
    Hello(Option<Vec<u8>>),
}

/// Asks on `link`, which is of the same user, whether this login is right.
pub fn ask(link: &Link, login: &Login, queue: &Rc<ReplyQueue>, now: Micros) -> Rc<Asked> {
    let asked = Asked::new(queue);
    let mut command: Vec<&[u8]> = vec![b"AUTH"];
    command.extend(login.user.as_deref());
    command.push(&login.password);
    let waits = asked.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(PATIENCE).await;
        waits.answer(Answer::Lost);
    });
    let pending = Pending::Login(asked.clone());
    match send(link, now, |out| out.with(|tail| encode::command(tail, &command)), pending) {
        true => link.end_login(),
        false => asked.answer(Answer::Lost),
    }
    asked
}

/// The user of a login for an identity, and the login with which its links log in.
pub fn user_of(process: &Process, login: Login) -> (Option<Vec<u8>>, Option<Login>) {
    // Nearside's own login is nearside's own identity, however it is written.
    match process.settings.upstream.own.is(&login) {
        true => (None, None),
        false => (Some(login.user().to_vec()), Some(login)),
    }
}
