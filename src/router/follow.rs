//! How the links follow what becomes of the upstream: of the feeds, of the server's role, and of the links themselves.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::arm::arm;
use super::links::Router;
use super::ping::ping;
use crate::cache::LinkId;
use crate::pending::LinkEvent;
use crate::process::Node;

impl Router {
    /// What has become of a link.
    pub fn told(self: &Rc<Self>, id: LinkId, event: LinkEvent) {
        match event {
            LinkEvent::Up => self.link_up(id),
            LinkEvent::Lost => {
                // It is made anew without waiting for somebody to ask.
                if let Some(link) = self.link_of(id) {
                    tokio::task::spawn_local(async move { link.reconnect() });
                }
            }
            LinkEvent::Changed => self.wake_undecided(),
            LinkEvent::BehindBarrier => self.link_behind_barrier(id),
            LinkEvent::AskLater(delay) => self.arm_later(id, delay),
            LinkEvent::LeadsAstray => self.leave_link(id),
            LinkEvent::Stands(standing) => self.stands(id, standing),
        }
    }

    fn link_up(&self, id: LinkId) {
        let Some(link) = self.link_of(id) else { return };
        arm(&link);
        if link.client().front.is_passing() && !link.client().front.is_ready() {
            // Behind what was just asked: its answer says that the link may be used.
            ping(&link, self.process.now());
        }
    }

    /// Asks anew for the tracking of a link, if it is still wanted then.
    fn arm_later(self: &Rc<Self>, id: LinkId, delay: Duration) {
        let router = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            let link = router.upgrade().and_then(|router| router.link_of(id));
            if let Some(link) = link.filter(|link| link.client().is_due() && link.is_up()) {
                arm(&link);
            }
        });
    }

    /// Arms all links of a node anew whenever its feed comes up, and those that lack it whenever rights have changed. Runs
    /// until it is dropped.
    pub async fn follow_feed(&self, node: Arc<Node>) {
        let mut feed = node.feed_up.subscribe();
        let mut last = None;
        loop {
            let up = *feed.borrow_and_update();
            let is_new = std::mem::replace(&mut last, up) != up;
            if up.is_some() {
                for (_, _, link) in self.shared_links().into_iter().filter(|(to, ..)| *to == node.id) {
                    match link.is_up() {
                        true if is_new || link.client().lacks_tracking() => arm(&link),
                        true => {}
                        // The upstream is there again: do not wait for somebody to ask.
                        false => link.reconnect_now(),
                    }
                }
            }
            if feed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Leaves all connections but those that hold state of a session, whenever the node's server is left. Runs until it is
    /// dropped.
    pub async fn follow_role(&self, node: Arc<Node>) {
        let mut left = node.role.left();
        while left.changed().await.is_ok() {
            let unused = std::mem::take(&mut *self.pool.borrow_mut());
            drop(unused);
            self.trying.borrow_mut().be_replaced();
            self.fresh.borrow_mut().be_replaced();
            for (_, _, link) in self.shared_links().into_iter().filter(|(to, ..)| *to == node.id) {
                match link.is_down() {
                    // It connects anew as it is, and now, for there is somewhere to go.
                    true => link.reconnect_now(),
                    false if link.client().is_of_old() => self.leave_link(link.client().id),
                    false => {}
                }
            }
        }
    }
}
