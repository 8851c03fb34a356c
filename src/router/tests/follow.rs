//! What is asked on links that come up, and when the feed does.

use std::sync::Arc;

use super::*;
use crate::process::{FeedUp, Node, NodeId};

fn arms(link: &Link) -> usize {
    awaited(link, |pending| matches!(pending, Pending::Arm(_)))
}

/// The feed of the node comes up; what is read on its links may be tracked from now on.
fn feed_up(router: &Router, node: &Node) {
    let coverage = router.process.cache.coverages().arm(&node.feed, None, 1).unwrap();
    node.feed_up.send_replace(Some(FeedUp { coverage, client_id: Some(5), server: None, since: 1 }));
}

/// As the upstream's answer would.
fn track(router: &Router, link: &Link) {
    let coverages = router.process.cache.coverages();
    let feed = coverages.current(&link.client().node.feed);
    coverages.arm(link.client().coverage.borrow().as_ref().unwrap(), feed, 1).unwrap();
}

#[test]
fn a_link_that_comes_up_is_armed_and_a_spare_one_asked_whether_that_was_done() {
    with_mute(async |router| {
        let [usual, spare, ready] = [0, 1, 2].map(|db| router.link(&of_db(&router, db)));
        for link in [&usual, &spare, &ready] {
            up(link).await;
        }
        [&spare, &ready].iter().for_each(|link| link.client().front.pass());
        ready.client().front.become_ready(true);
        feed_up(&router, &router.process.first_node());
        let links = [&usual, &spare, &ready];
        links.iter().for_each(|link| router.told(link.client().id, LinkEvent::Up));
        assert_eq!((links.map(arms), links.map(pings)), ([1, 1, 1], [0, 1, 0]));
    });
}

#[test]
fn what_is_to_be_asked_later_is_asked_then_if_it_is_still_wanted() {
    with_mute(async |router| {
        let [lacking, tracked, down] = [0, 1, 2].map(|db| router.link(&of_db(&router, db)));
        for link in [&lacking, &tracked] {
            up(link).await;
        }
        feed_up(&router, &router.process.first_node());
        track(&router, &tracked);
        let links = [&lacking, &tracked, &down];
        tokio::time::pause();
        let delay = Duration::from_secs(1);
        links.iter().for_each(|link| router.told(link.client().id, LinkEvent::AskLater(delay)));
        tokio::time::sleep(delay / 2).await;
        assert_eq!(links.map(arms), [0, 0, 0]);
        tokio::time::sleep(delay).await;
        assert_eq!(links.map(arms), [1, 0, 0]);
    });
}

#[test]
fn when_a_feed_comes_up_its_node_s_links_are_armed_and_later_those_that_lack_it() {
    with_mute(async |router| {
        let node = router.process.first_node();
        let settings = node.upstream.clone();
        let another = Arc::new(Node::new(NodeId(1), settings, &router.process.cache).unwrap());
        let [tracked, lacking] = [0, 1].map(|db| router.link(&of_db(&router, db)));
        let elsewhere = router.link(&LinkKey { node: another.clone(), ..of_db(&router, 2) });
        let links = [&tracked, &lacking, &elsewhere];
        for link in links {
            up(link).await;
        }
        feed_up(&router, &another);
        let mut following = Box::pin(router.follow_feed(node.clone()));
        let mut follow = async || {
            tokio::select! { biased; () = &mut following => {}, () = tokio::task::yield_now() => {} }
            links.map(arms)
        };
        assert_eq!(follow().await, [0, 0, 0], "the feed is not there");
        feed_up(&router, &node);
        assert_eq!(follow().await, [1, 1, 0]);
        track(&router, &tracked);
        // Rights have changed.
        node.feed_up.send_modify(|_| ());
        assert_eq!(follow().await, [1, 2, 0]);
        feed_up(&router, &node);
        assert_eq!(follow().await, [2, 3, 0], "another feed");
        node.feed_up.send_replace(None);
        assert_eq!(follow().await, [2, 3, 0]);
    });
}

#[test]
fn a_session_that_waits_for_its_way_is_woken_once_when_a_link_has_changed() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let router = Rc::new(router());
    let link = router.link(&of_db(&router, 0));
    let queue = Rc::new(crate::reply::ReplyQueue::new(1000));
    let count = Arc::new(Count(Default::default()));
    let waker = std::task::Waker::from(count.clone());
    let woken = || {
        queue.set_waker(&std::task::Context::from_waker(&waker));
        router.told(link.client().id, LinkEvent::Changed);
        count.0.swap(0, std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(woken(), 0);
    router.wake_when_known(1, &queue);
    assert_eq!((woken(), woken()), (1, 0));
}
