use std::sync::Arc;

use super::*;
use crate::session::clients::Clients;
use crate::upstream::Ends;

#[test]
fn which_keys_are_waited_for_is_known_until_the_last_of_them_is_answered() {
    let outbox = Outbox::new(1 << 20, Clients::default().enter(Ends::default(), Arc::default(), 1));
    let slots: Vec<_> =
        (0..4).map(|i| outbox.open_joined(b"request", if i < 3 { b"a" } else { b"b" })).collect();
    outbox.served(slots[0], Bytes::from_static(b"x"));
    outbox.release(slots[1]);
    assert!(outbox.has_joined_for(b"a") && outbox.has_joined_for(b"b") && !outbox.has_joined_for(b"c"));
    assert_eq!(outbox.next_released(), Some((slots[1], b"request"[..].into())));
    outbox.join(slots[1], b"request"[..].into(), b"a");
    outbox.served(slots[1], Bytes::from_static(b"x"));
    assert!(outbox.has_joined_for(b"a"));
    outbox.served(slots[2], Bytes::from_static(b"x"));
    assert!(!outbox.has_joined_for(b"a") && outbox.has_joined());
    outbox.served(slots[3], Bytes::from_static(b"x"));
    outbox.served(slots[3], Bytes::from_static(b"x"));
    assert!(!outbox.has_joined() && outbox.waiting() == 0);
}
