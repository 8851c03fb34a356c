//! Which links are left, and what is kept of those that were.

use std::sync::Arc;

use super::*;
use crate::process::{Node, NodeId};
use crate::router::adopt::MAX_REPLACED;
use crate::router::links::SharedLink;
use crate::router::ping::ping;
use crate::upstream::{Login, ReplyHandler};

/// Those of a database that were replaced.
fn replaced(router: &Router, db: u32) -> Vec<LinkId> {
    let replaced = router.replaced.borrow();
    let db_of = |left: &&SharedLink| router.process.idents.get(left.ident).unwrap().db;
    replaced.iter().filter(|left| db_of(left) == db).map(|left| left.link.client().id).collect()
}

#[test]
fn of_an_identity_that_is_replaced_again_and_again_so_many_links_stay_and_those_of_others_all() {
    with_mute(async |router| {
        let keys = [0, 1].map(|db| of_db(&router, db));
        let another = router.link(&keys[1]);
        up(&another).await;
        router.leave_link(another.client().id);
        let mut left = Vec::new();
        for turn in 1..=MAX_REPLACED + 3 {
            let link = router.link(&keys[0]);
            up(&link).await;
            router.leave_link(link.client().id);
            assert!(link.client().is_replaced() && !router.link(&keys[0]).is(&link));
            left.push(link);
            assert_eq!(replaced(&router, 0).len(), turn.min(MAX_REPLACED));
        }
        assert!(left[..3].iter().all(|link| !link.is_up()), "the oldest are closed");
        assert!(left[3..].iter().all(|link| link.is_up()));
        assert_eq!(replaced(&router, 0), left[3..].iter().map(|link| link.client().id).collect::<Vec<_>>());
        assert!(another.is_up() && replaced(&router, 1) == [another.client().id]);
    });
}

#[test]
fn two_links_are_shared_by_the_same_if_node_identity_and_login_are() {
    let router = router();
    router.link(&of_db(&router, 0));
    let of = |node, ident, password: Option<&[u8]>| {
        let links = router.links.borrow();
        let login = password.map(|password| Login { user: None, password: password.into() });
        let (link, used) = (links[0].link.clone(), links[0].used.clone());
        SharedLink { node: NodeId(node), ident, login, link, used }
    };
    let [a, b] = [3, 4].map(|db| router.process.idents.number(&of_db(&router, db).ident));
    let this = of(0, a, Some(b"p"));
    assert!(this.is_as(&of(0, a, Some(b"p"))));
    for other in
        [of(1, a, Some(b"p")), of(0, b, Some(b"p")), of(0, a, Some(b"q")), of(0, a, None), of(1, b, None)]
    {
        assert!(!this.is_as(&other) && !other.is_as(&this));
    }
}

#[test]
fn when_a_server_is_left_all_are_left_but_those_that_are_newer_or_connect_anew_anyway() {
    with_mute(async |router| {
        let [old, newer] = [0, 1].map(|db| router.link(&of_db(&router, db)));
        for link in [&old, &newer] {
            up(link).await;
        }
        let nowhere = Arc::new(Node::new(NodeId(0), fixture::nowhere(), &router.process.cache).unwrap());
        let down = router.link(&LinkKey { node: nowhere.clone(), ..of_db(&router, 2) });
        assert!(poll_fn(|cx| down.poll_ready(cx)).await.is_err());
        let tried = router.candidate(&of_db(&router, 7));
        let fresh = router.fresh_link(&of_db(&router, 8));
        let node = router.process.first_node();
        let mut following = Box::pin(router.follow_role(node.clone()));
        // Until it waits for that.
        tokio::select! { biased; () = &mut following => {}, () = tokio::task::yield_now() => {} }
        fixture::leave(&node);
        newer.client().attempt();
        fixture::leave(&nowhere);
        assert!(down.client().is_of_old() && down.is_down() && !newer.client().is_of_old());
        tokio::select! { biased; () = &mut following => {}, () = tokio::task::yield_now() => {} }
        let is_left = |link: &Link| link.client().is_replaced();
        assert_eq!([&old, &newer, &down, &tried, &fresh].map(is_left), [true, false, false, true, true]);
        assert!(!router.candidate(&of_db(&router, 7)).is(&tried));
        assert!(!router.fresh_link(&of_db(&router, 8)).is(&fresh));
    });
}

#[test]
fn whoever_logs_in_with_the_same_shares_the_attempt_until_it_is_settled() {
    let router = router();
    let key = of_db(&router, 5);
    let link = router.fresh_link(&key);
    assert!(router.fresh_link(&key).is(&link));
    assert!(!router.fresh_link(&of_db(&router, 6)).is(&link));
    assert!(router.link_to_ask(&key).is_some_and(|found| found.is(&link)));
    router.settle(&key, &link);
    assert!(router.fresh.borrow_mut().get(&key).is_none() && router.link(&key).is(&link));
    // One that nobody holds any more is nobody's.
    drop(router.fresh_link(&of_db(&router, 7)));
    assert!(router.fresh.borrow_mut().get(&of_db(&router, 7)).is_none());
}

#[test]
fn a_router_that_is_cleared_holds_no_link() {
    with_mute(async |router| {
        let key = of_db(&router, 0);
        let shared = router.link(&key);
        up(&shared).await;
        shared.client().front.is(Some(true), 1);
        let spare = router.route(&key, false, u64::MAX / 2);
        assert!(spare.is_none() && router.spares.borrow().len() == 1);
        router.leave_link(shared.client().id);
        let (tried, fresh) = (router.candidate(&of_db(&router, 3)), router.fresh_link(&of_db(&router, 4)));
        let pooled = router.new_link(&key);
        up(&pooled).await;
        router.give_back(&key, pooled.clone());
        let all = [shared, tried, fresh, pooled];
        assert!(all.iter().all(Link::is_shared));
        router.clear();
        assert!(all.iter().all(|link| !link.is_shared()));
        assert!(router.links.borrow().is_empty() && router.spares.borrow().is_empty());
    });
}

#[test]
fn a_spare_link_that_is_left_is_made_anew_only_when_it_is_wanted() {
    with_mute(async |router| {
        let keys = [0, 1].map(|db| of_db(&router, db));
        for key in &keys {
            let first = router.link(key);
            up(&first).await;
            ask(&first, false);
            assert!(router.route(key, false, u64::MAX / 2).is_none());
        }
        let spares: Vec<Link> = router.spares.borrow().iter().map(|spare| spare.link.clone()).collect();
        router.leave_link(spares[0].client().id);
        assert!(spares[0].client().is_replaced() && !spares[1].client().is_replaced());
        let left: Vec<Link> = router.spares.borrow().iter().map(|spare| spare.link.clone()).collect();
        assert!(left.len() == 1 && left[0].is(&spares[1]));
        assert_eq!(replaced(&router, 0), [spares[0].client().id]);
    });
}

#[test]
fn a_link_that_nobody_holds_stays_while_a_reply_is_awaited_on_it() {
    with_mute(async |router| {
        router.link(&of_db(&router, 0));
        let link = router.link(&of_db(&router, 1));
        up(&link).await;
        ask(&link, false);
        drop(link);
        tokio::time::pause();
        for _ in 0..3 {
            tokio::time::advance(UNUSED + Duration::from_millis(1)).await;
            router.drop_unused();
            assert_eq!(dbs(&router), [0, 1]);
        }
    });
}

#[test]
fn for_a_new_link_beyond_the_bound_none_is_closed_on_which_a_client_s_reply_is_awaited() {
    with_mute(async |router| {
        let links: Vec<Link> = (1..=MAX_LINKS as u32).map(|db| router.link(&of_db(&router, db))).collect();
        for link in &links {
            up(link).await;
        }
        links[1..].iter().for_each(|link| ask(link, false));
        ping(&links[0], 1);
        let newest = router.link(&of_db(&router, 9));
        assert_eq!(dbs(&router), [2, 3, 4, 9], "whether the link lives concerns nobody");
        ask(&newest, false);
        router.link(&of_db(&router, 10));
        assert_eq!(dbs(&router), [2, 3, 4, 9, 10], "all are in use");
    });
}
