//! Whether a link that gives no answer, with a write at its front, is dark or is only kept waiting.
//!
//! A read that is not answered though the server answers others was never heard there. A write may be paused (`CLIENT
//! PAUSE`, a failover): it is answered when the pause is over, and whoever gave it up would fail what the server carries
//! out. So the server is asked over another link: `CLIENT LIST ID` shows a connection that it keeps waiting as blocked.
//!
//! Invariants: a link is given up only when the server has said twice, a heartbeat apart, that it keeps nothing of
//! it waiting, or does not know it, and nothing came on the link in between: what the server answered just before the
//! first question would have come by the second. Where it does not answer the question, `upstream-timeout` decides.

use std::rc::Rc;

use super::expect::{InFlight, Pending};
use super::peer::LinkHandler;
use super::worker::Worker;
use crate::cache::LinkId;
use crate::resp::scanner::Kind;
use crate::resp::{Protocol, encode};
use crate::upstream::Link;

/// How it stands with a connection, as the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The server keeps it waiting, or has read a part of a request.
    Kept,
    /// The server waits for what it says, or does not know it.
    Unheard,
}

impl Standing {
    /// From a reply to `CLIENT LIST ID` with one id; `None` if that was refused.
    pub(super) fn of(kind: Kind, reply: &[u8]) -> Option<Self> {
        if kind == Kind::Error {
            return None;
        }
        let text = String::from_utf8_lossy(reply);
        let field = |name: &str| text.split_ascii_whitespace().find_map(|field| field.strip_prefix(name));
        let blocked = field("flags=").is_some_and(|flags| flags.contains('b'));
        let read = field("qbuf=").is_some_and(|bytes| bytes != "0");
        Some(if blocked || read { Standing::Kept } else { Standing::Unheard })
    }
}

impl Worker {
    /// Asks the server about the links that give no answer to a write.
    pub(super) fn ask_about_silent(self: &Rc<Self>) {
        let mut links = self.links_that_stand();
        links.retain(|link| {
            let peer = link.client();
            peer.is_silent() && peer.front.is_write() && link.is_up() && link.in_flight() > 0
        });
        if links.is_empty() {
            return;
        }
        let own = self.link(&self.default_ident(Protocol::Resp2), &self.shared.settings.login);
        for link in links.iter().filter(|link| own.is_up() && !link.is(&own)) {
            let Some(id) = link.client().id() else { continue };
            let (id, pending) = (id.to_string(), Pending::Standing(link.client().number));
            let command: [&[u8]; 4] = [b"CLIENT", b"LIST", b"ID", id.as_bytes()];
            let expect = InFlight { since: self.shared.now(), pending };
            let _ = own.send(|out| out.with(|tail| encode::command(tail, &command)), expect);
        }
    }

    /// The server has said how it stands with a link.
    pub(super) fn stands(&self, number: LinkId, standing: Standing) {
        let Some(link) = self.links_that_stand().into_iter().find(|link| link.client().number == number)
        else {
            return;
        };
        if link.client().is_doubted(standing, self.shared.now()) {
            self.give_up_dark(&link);
        }
    }

    /// Closes a link that is known to be dark: what is in flight on it fails.
    pub(super) fn give_up_dark(&self, link: &Link<LinkHandler>) {
        self.shared.metrics.dark_links.inc();
        link.close("the link gives no answer, though the upstream lives");
    }

    /// The shared links, and those that were replaced and still have something in flight.
    fn links_that_stand(&self) -> Vec<Link<LinkHandler>> {
        let shared = self.shared_links();
        self.replaced.borrow().iter().chain(&shared).map(|(_, link)| link.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_kept_waiting_is_told_from_who_was_not_heard() {
        let of = |flags: &str, qbuf: u32| {
            let line =
                format!("$9\r\nid=7 addr=a flags={flags} db=0 qbuf={qbuf} qbuf-free=20474 cmd=set\n\r\n");
            Standing::of(Kind::Bulk, line.as_bytes())
        };
        assert_eq!(of("N", 0), Some(Standing::Unheard));
        assert_eq!(of("b", 0), Some(Standing::Kept));
        assert_eq!(of("xb", 0), Some(Standing::Kept));
        assert_eq!(of("N", 100), Some(Standing::Kept));
        assert_eq!(Standing::of(Kind::Bulk, b"$0\r\n\r\n"), Some(Standing::Unheard), "it is not known");
        assert_eq!(Standing::of(Kind::Error, b"-NOPERM\r\n"), None);
    }
}
