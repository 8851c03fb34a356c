use super::*;
use crate::cache::Cache;
use crate::process::{NodeId, Ticket, fixture};
use crate::resp::Protocol;

#[test]
fn a_link_is_shared_by_one_identity_with_one_login_at_one_node() {
    let cache = Cache::<Ticket>::new(1 << 20, 1 << 20, 0);
    let node = |id| Arc::new(Node::new(NodeId(id), fixture::nowhere(), &cache).unwrap());
    let ident = Ident { db: 0, protocol: Protocol::Resp2, user: Some(b"u".to_vec()) };
    let login = |password: &[u8]| Some(Login { user: Some(b"u".to_vec()), password: password.to_vec() });
    let key = LinkKey { node: node(0), ident, login: login(b"p") };
    assert!(key.is(&key.clone()));
    for (other, what) in [
        (LinkKey { node: node(1), ..key.clone() }, "node"),
        (LinkKey { ident: Ident { db: 1, ..key.ident.clone() }, ..key.clone() }, "database"),
        (LinkKey { ident: Ident { user: None, ..key.ident.clone() }, ..key.clone() }, "user"),
        (LinkKey { login: login(b"other"), ..key.clone() }, "password"),
        (LinkKey { login: None, ..key.clone() }, "nearside's own login"),
    ] {
        assert!(!key.is(&other) && !other.is(&key), "another {what}");
    }
}
