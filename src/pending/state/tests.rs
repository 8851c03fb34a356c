use super::*;
use crate::reply::ReplyQueue;

const OK: At = At { kind: Kind::Simple, first: true, last: true };
const NO: At = At { kind: Kind::Error, first: true, last: true };

fn pushes() -> Pushes {
    Pushes::new(Protocol::Resp2)
}

/// The slot of a session's first reply.
fn to() -> ReplySlot {
    let queue = Rc::new(ReplyQueue::new(1 << 20));
    let slot = queue.open();
    ReplySlot { queue, slot }
}

fn one(state: &Rc<State>, effect: Effect, reply: &[u8], at: At) {
    Leaves::one(state, effect).reply(reply, at, &pushes(), &to());
}

fn become_(became: Became) -> Effect {
    Effect::Become(Box::new(became))
}

#[test]
fn a_request_counts_until_it_is_answered_and_for_good_if_it_is_accepted() {
    for (at, reply, stays) in
        [(OK, &b"+OK\r\n"[..], true), (NO, b"-ERR\r\n", false), (OK, b"+QUEUED\r\n", false)]
    {
        let state = Rc::<State>::default();
        assert!(!state.holds() && !state.may_have(TRACKING));
        let mut leaves = Leaves::one(&state, Effect::Set(TRACKING));
        assert!(state.holds() && state.may_have(TRACKING) && !state.may_have(WATCH));
        leaves.reply(reply, at, &pushes(), &to());
        assert_eq!([state.holds(), state.may_have(TRACKING), !state.is_clean()], [stays; 3]);
        one(&state, Effect::Clear(TRACKING), b"-ERR\r\n", NO);
        assert_eq!(state.holds(), stays, "it was not taken away");
        one(&state, Effect::Clear(TRACKING), b"+OK\r\n", OK);
        assert!(!state.holds() && !state.may_have(TRACKING));
        assert_eq!(state.is_clean(), !stays, "but not as it was made");
    }
}

#[test]
fn what_two_ask_for_is_asked_for_until_both_are_answered() {
    let state = Rc::<State>::default();
    let [mut first, mut second] = [NO_TOUCH, NO_EVICT].map(|flag| Leaves::one(&state, Effect::Set(flag)));
    first.reply(b"-ERR\r\n", NO, &pushes(), &to());
    assert!(state.holds() && state.may_have(NO_TOUCH) && state.may_have(NO_EVICT));
    second.reply(b"-ERR\r\n", NO, &pushes(), &to());
    assert!(!state.holds() && !state.may_have(NO_TOUCH));
    one(&state, Effect::Set(NO_TOUCH), b"+OK\r\n", OK);
    one(&state, Effect::Set(NO_TOUCH), b"+OK\r\n", OK);
    assert!(state.may_have(NO_TOUCH), "twice is not never");
    one(&state, Effect::Clear(NO_EVICT), b"+OK\r\n", OK);
    assert!(state.may_have(NO_TOUCH), "another's end is not its end");
}

#[test]
fn a_watch_does_not_wear_the_connection() {
    let state = Rc::<State>::default();
    one(&state, Effect::Set(WATCH), b"+OK\r\n", OK);
    assert!(state.holds() && state.is_clean());
    one(&state, Effect::Wear, b"+OK\r\n", OK);
    assert!(!state.is_clean());
}

#[test]
fn what_holds_for_the_next_request_ends_with_it() {
    let state = Rc::<State>::default();
    assert_eq!([state.count(), state.count()], [1, 2]);
    one(&state, Effect::Once(2), b"+OK\r\n", OK);
    assert!(state.holds());
    state.count();
    assert!(!state.holds());
}

#[test]
fn who_the_session_has_become_is_gathered() {
    let state = Rc::<State>::default();
    one(&state, become_(Became { db: Some(3), ..Became::default() }), b"+OK\r\n", OK);
    assert!(
        state.is_clean() && !state.holds() && !state.is_named(),
        "a database is set anew by whoever comes next"
    );
    let named = Became { name: Some(b"n".to_vec()), ..Became::default() };
    for (more, named) in
        [(Became { protocol: Some(Protocol::Resp3), ..Became::default() }, false), (named, true)]
    {
        let state = Rc::<State>::default();
        one(&state, become_(more), b"+OK\r\n", OK);
        assert_eq!((state.is_clean(), state.is_named()), (false, named));
    }
    one(
        &state,
        become_(Became { db: Some(4), protocol: Some(Protocol::Resp3), ..Became::default() }),
        b"+OK\r\n",
        OK,
    );
    one(&state, become_(Became { name: Some(b"n".to_vec()), ..Became::default() }), b"+OK\r\n", OK);
    let Became { db, protocol, name, login } = state.became();
    assert_eq!(
        (db, protocol, name, login.is_none()),
        (Some(4), Some(Protocol::Resp3), Some(b"n".to_vec()), true)
    );
}

#[test]
fn a_transaction_leaves_what_its_accepted_commands_leave() {
    let exec = |reply: &[u8], at: At| {
        let (state, pushes) = (Rc::<State>::default(), pushes());
        one(&state, Effect::Set(WATCH), b"+OK\r\n", OK);
        let effects = vec![(0, Effect::Set(TRACKING)), (1, Effect::Set(NO_EVICT)), (2, Effect::Confirm)];
        Leaves::exec(&state, effects).reply(reply, at, &pushes, &to());
        let has = [WATCH, TRACKING, NO_EVICT].map(|flag| state.may_have(flag));
        (has, pushes.is_subscribed(), state.open.get())
    };
    let whole = At { kind: Kind::Aggregate, ..OK };
    let reply = b"*3\r\n+OK\r\n-ERR\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
    assert_eq!(exec(reply, whole), ([false, true, false], true, 0));
    assert_eq!(exec(b"*-1\r\n", At { kind: Kind::Null, ..OK }), ([false; 3], false, 0));
    assert_eq!(exec(b"-EXECABORT\r\n", NO), ([false; 3], false, 0));
    assert_eq!(exec(b"-ERR EXEC without MULTI\r\n", NO), ([true, false, false], false, 0));
    // Of a reply that comes in pieces the rest is still to come.
    let (_, _, open) = exec(&reply[..12], At { kind: Kind::Aggregate, first: true, last: false });
    assert_eq!(open, 1);
}

#[test]
fn all_that_may_stand_on_a_connection_has_a_bit_of_its_own() {
    let all =
        [WATCH, TRACKING, NO_EVICT, NO_TOUCH, IMPORT, MAINTENANCE, READONLY, DEBUG, REPLICA, OTHER, WORN];
    assert!(all.iter().all(|flag| flag.count_ones() == 1));
    assert_eq!(all.iter().fold(0, |sum, flag| sum | flag).count_ones(), all.len() as u32);
}
