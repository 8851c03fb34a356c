//! `audit`: compares cached replies, taken at random, with the upstream's.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use crate::io::Outgoing;
use crate::pending::{Audit, Pending, send};
use crate::request::{Outbound, write_request};

/// Takes a sample each `pause`, until the task is dropped.
pub async fn run(outbound: Rc<Outbound>, pause: Duration) {
    let process = outbound.process.clone();
    let mut tick = tokio::time::interval(pause);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let random = std::hash::RandomState::new();
    for turn in 0u64.. {
        tick.tick().await;
        let seed = std::hash::BuildHasher::hash_one(&random, turn);
        let Some(sample) = process.cache.sample(seed, process.now()) else { continue };
        let name = sample.name.borrow();
        let Some(link) = outbound.router.known_link(process.topology().owner(name.key).id, name.ident) else {
            continue;
        };
        let mut request = BytesMut::new();
        if write_request(&mut request, &process.table(), &name) {
            let audit = Audit { sample, reply: BytesMut::new() };
            let pending = Pending::Audit(Box::new(audit));
            let _ = send(&link, process.now(), |out: &mut Outgoing| out.append(request.freeze()), pending);
        }
    }
}
