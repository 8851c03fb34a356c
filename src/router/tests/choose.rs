//! Which link is whose.

use std::sync::Arc;

use super::*;
use crate::pending::Owner;
use crate::process::{Node, NodeId, Topology};
use crate::reply::ReplyQueue;
use crate::router::{Keys, Target};
use crate::upstream::Login;

/// Of a user with this password.
fn of_user(router: &Router, user: &str, password: &str) -> LinkKey {
    let key = router.default_key(Protocol::Resp2);
    let login = Login { user: Some(user.into()), password: password.into() };
    LinkKey { ident: Ident { user: Some(user.into()), ..key.ident }, login: Some(login), ..key }
}

fn another_node(router: &Router) -> Arc<Node> {
    let settings = router.process.first_node().upstream.clone();
    Arc::new(Node::new(NodeId(1), settings, &router.process.cache).unwrap())
}

#[test]
fn of_an_identity_s_links_that_is_known_which_stands() {
    with_mute(async |router| {
        let [one, other] = ["p", "q"].map(|password| of_user(&router, "u", password));
        let ident = router.process.idents.number(&one.ident);
        let node = router.process.first_node().id;
        assert!(router.known_link(node, ident).is_none());
        let [first, second] = [&one, &other].map(|key| router.link(key));
        assert!(router.known_link(node, ident).is_some_and(|link| link.is(&first)));
        up(&second).await;
        assert!(router.known_link(node, ident).is_some_and(|link| link.is(&second)));
        assert!(router.known_link(NodeId(1), ident).is_none());
        let stranger = router.process.idents.number(&of_user(&router, "v", "p").ident);
        assert!(router.known_link(node, stranger).is_none());
        assert!(router.has_link(ident, &other) && !router.has_link(ident, &one));
        assert!(!router.has_link(stranger, &other));
    });
}

#[test]
fn nearside_s_own_link_to_a_node_leads_there() {
    let router = router();
    let node = another_node(&router);
    let [first, there] = [router.own_link_to(&router.process().first_node()), router.own_link_to(&node)];
    assert_eq!((first.client().node.id, there.client().node.id), (NodeId(0), NodeId(1)));
    assert!(router.own_link_to(&node).is(&there) && first.client().own && there.client().own);
}

#[test]
fn a_login_is_asked_for_on_a_link_of_its_user_that_stands_and_answers() {
    with_mute(async |router| {
        let key = of_user(&router, "u", "p");
        let asks = |user, password| router.link_to_ask(&of_user(&router, user, password));
        up(&router.own_link_to(&router.process().first_node())).await;
        let link = router.link(&key);
        assert!(asks("u", "q").is_none(), "it does not stand");
        up(&link).await;
        assert!(asks("u", "q").is_some_and(|found| found.is(&link)));
        assert!(asks("v", "p").is_none() && asks("default", "p").is_none());
        let elsewhere = LinkKey { node: another_node(&router), ..key.clone() };
        assert!(router.link_to_ask(&elsewhere).is_none());
        link.client().mark_unresponsive();
        assert!(asks("u", "q").is_none(), "it does not answer");
    });
}

#[test]
fn an_identity_keeps_the_link_that_stands_and_takes_none_that_was_replaced() {
    with_mute(async |router| {
        let key = of_user(&router, "u", "p");
        let shared = router.link(&key);
        up(&shared).await;
        let fresh = router.fresh_link(&key);
        router.settle(&key, &fresh);
        assert!(router.link(&key).is(&shared));
        let other = of_user(&router, "v", "p");
        let replaced = router.candidate(&other);
        replaced.client().be_replaced();
        router.settle(&other, &replaced);
        assert!(!router.link(&other).is(&replaced));
        assert!(router.trying.borrow_mut().get(&other).is_none(), "what is settled is not tried any more");
    });
}

#[test]
fn what_is_tried_ends_when_it_stands_and_nobody_waits_for_it() {
    with_mute(async |router| {
        let keys = ["waited for", "left", "down"].map(|user| of_user(&router, user, "p"));
        let [waited, left, down] = [&keys[0], &keys[1], &keys[2]].map(|key| router.candidate(key));
        up(&waited).await;
        up(&left).await;
        drop((left, down));
        router.drop_unused();
        let tried = [&keys[0], &keys[1], &keys[2]].map(|key| router.trying.borrow_mut().get(key).is_some());
        assert_eq!(tried, [true, false, true], "one that is refused is not tried again at once");
        assert!(waited.is_up());
    });
}

#[test]
fn a_dedicated_connection_is_used_again_unless_it_leads_where_no_new_one_would() {
    // It takes no writes, new ones lead to one that does, it is old, its server was left.
    for (readonly, leads, old, left, kept) in [
        (false, false, false, false, true),
        (false, true, true, false, true),
        (true, false, false, false, true),
        (true, true, false, false, false),
        (true, false, true, false, false),
        (false, false, false, true, false),
    ] {
        with_mute(async |router| {
            let key = of_db(&router, 0);
            let client = router.process.clients.enter(Default::default(), Arc::default(), 1);
            let owner = || Owner { queue: Rc::new(ReplyQueue::new(1000)), client: client.clone() };
            let link = router.dedicated(&key, owner());
            up(&link).await;
            let node = router.process.first_node();
            fixture::leads_to(&node, leads);
            tokio::time::pause();
            if old {
                tokio::time::advance(Duration::from_secs(10)).await;
            }
            if readonly {
                link.client().note_refusal(b"-READONLY You can't write against a read only replica.\r\n");
            }
            if left {
                fixture::leave(&node);
            }
            router.give_back(&key, link.clone());
            assert!(!router.dedicated(&of_db(&router, 1), owner()).is(&link));
            assert_eq!(router.dedicated(&key, owner()).is(&link), kept, "{readonly} {leads} {old} {left}");
        });
    }
}

#[test]
fn a_request_goes_to_the_node_of_its_keys() {
    let cache = crate::cache::Cache::<crate::process::Ticket>::new(1 << 20, 1 << 20, 0);
    let node = |id| Arc::new(Node::new(NodeId(id), fixture::nowhere(), &cache).unwrap());
    let nodes = Topology::sharded(vec![node(0), node(1)], |slot| Some(slot / 8192)).unwrap();
    let of = |splits, keys: &[&str]| {
        let mut known = Keys::new(&nodes, splits);
        keys.iter().for_each(|key| known.add(key.as_bytes()));
        match known.target() {
            None => "none".into(),
            Some(Target::Node(node)) => node.id.0.to_string(),
            Some(Target::Split) => "split".into(),
            Some(Target::CrossSlot) => "cross slot".into(),
            Some(Target::Any | Target::All | Target::Scan) => "keyless".into(),
        }
    };
    // The slots of `foo` and `bar` are 12182 and 5061.
    assert_eq!([of(false, &["foo"]), of(false, &["bar"])], ["1", "0"]);
    assert_eq!([of(true, &["{foo}a", "{foo}b"]), of(true, &["foo", "bar"])], ["1", "split"]);
    assert_eq!([of(false, &["{foo}a", "{foo}b"]), of(false, &["foo", "bar"])], ["1", "cross slot"]);
    assert_eq!(of(true, &[]), "none");
}
