use std::sync::Arc;

use super::*;
use crate::session::clients::Clients;
use crate::upstream::Ends;

#[test]
fn which_keys_are_waited_for_is_known_until_the_last_of_them_is_answered() {
    let queue = ReplyQueue::new(1 << 20, Clients::default().enter(Ends::default(), Arc::default(), 1));
    let slots: Vec<_> =
        (0..4).map(|i| queue.open_joined(b"request", if i < 3 { b"a" } else { b"b" })).collect();
    queue.served(slots[0], Bytes::from_static(b"x"));
    queue.release(slots[1]);
    assert!(queue.has_joined_for(b"a") && queue.has_joined_for(b"b") && !queue.has_joined_for(b"c"));
    assert_eq!(queue.next_released(), Some((slots[1], b"request"[..].into())));
    queue.join(slots[1], b"request"[..].into(), b"a");
    queue.served(slots[1], Bytes::from_static(b"x"));
    assert!(queue.has_joined_for(b"a"));
    queue.served(slots[2], Bytes::from_static(b"x"));
    assert!(!queue.has_joined_for(b"a") && queue.has_joined());
    queue.served(slots[3], Bytes::from_static(b"x"));
    queue.served(slots[3], Bytes::from_static(b"x"));
    assert!(!queue.has_joined() && queue.waiting() == 0);
}
