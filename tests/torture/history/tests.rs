//! What the checker finds, and what it lets pass.

use super::*;

const BOUNDS: Bounds = Bounds { max_staleness: 100, slack: 10 };

fn version(n: u64, invoke: Micros, complete: Micros, by: By) -> Version {
    Version { content: (n > 0).then_some(n), invoke, complete, by }
}

fn read(sidecar: u8, n: u64, invoke: Micros, complete: Micros) -> Read {
    let reply = Kind::Number.asks()[0].expect((n > 0).then_some(n), false).into();
    Read { sidecar, ask: 0, ident: 0, resp3: false, invoke, complete, behind: None, reply }
}

fn judge(versions: Vec<Version>, reads: Vec<Read>) -> Vec<Broken> {
    let key = KeyHistory { name: "k".into(), kind: Kind::Number, vanishes: false, versions, reads };
    check(&[key], BOUNDS, &|_, _| 0).violations.iter().map(|violation| violation.broken).collect()
}

fn written(by: By) -> Vec<Version> {
    vec![version(0, 0, 0, By::Foreign), version(1, 10, 20, By::Foreign), version(2, 1000, 1010, by)]
}

#[test]
fn what_is_promised_passes() {
    let good = judge(
        written(By::Sidecar(1)),
        vec![
            read(0, 1, 30, 40),
            // During the write, either.
            read(0, 1, 1001, 1009),
            read(0, 2, 1001, 1009),
            read(1, 1, 1001, 1020),
            // Another sidecar, within the bound, but it has not yet seen the newer one.
            read(2, 1, 1050, 1060),
            read(2, 2, 1070, 1080),
            read(1, 2, 1011, 1012),
        ],
    );
    assert_eq!(good, []);
}

#[test]
fn a_write_not_seen_by_its_own_sidecar_is_found() {
    let old = vec![read(1, 1, 1011, 1012)];
    assert_eq!(judge(written(By::Sidecar(1)), old.clone()), [Broken::ReadYourWrites]);
    assert_eq!(judge(written(By::Sidecar(0)), old), []);
}

#[test]
fn a_pipelined_read_sees_the_write_before_it() {
    let mut behind = read(1, 1, 1000, 1012);
    assert_eq!(judge(written(By::Sidecar(1)), vec![behind.clone()]), []);
    behind.behind = Some(2);
    assert_eq!(judge(written(By::Sidecar(1)), vec![behind.clone()]), [Broken::ReadYourWrites]);
    let mut unknown = written(By::Sidecar(1));
    unknown[2].complete = NEVER;
    assert_eq!(judge(unknown, vec![behind]), [], "a write that was not acknowledged may be missing");
}

#[test]
fn staleness_is_bounded_from_the_acknowledgement() {
    assert_eq!(judge(written(By::Foreign), vec![read(0, 1, 1110, 1111)]), []);
    assert_eq!(judge(written(By::Foreign), vec![read(0, 1, 1111, 1112)]), [Broken::Staleness]);
    let mut unknown = written(By::Foreign);
    unknown[2].complete = NEVER;
    assert_eq!(judge(unknown, vec![read(0, 1, 5000, 5001)]), []);
}

#[test]
fn a_reply_that_was_kept_too_long_is_found() {
    assert_eq!(judge(written(By::Foreign), vec![read(0, 1, 900, 1120)]), []);
    assert_eq!(judge(written(By::Foreign), vec![read(0, 1, 900, 1121)]), [Broken::Late]);
}

#[test]
fn going_back_is_found() {
    let back = vec![read(0, 2, 1001, 1003), read(0, 1, 1004, 1005)];
    assert_eq!(judge(written(By::Foreign), back), [Broken::Monotonic]);
    let overlapping = vec![read(0, 2, 1001, 1005), read(0, 1, 1004, 1008)];
    assert_eq!(judge(written(By::Foreign), overlapping), []);
    let elsewhere = vec![read(0, 2, 1001, 1003), read(1, 1, 1004, 1005)];
    assert_eq!(judge(written(By::Foreign), elsewhere), []);
}

#[test]
fn another_question_that_goes_back_is_counted() {
    let mut other = read(0, 1, 1004, 1005);
    other.ask = 1;
    other.reply = Kind::Number.asks()[1].expect(Some(1), false).into();
    let reads = vec![read(0, 2, 1001, 1003), other];
    let key = KeyHistory {
        name: "k".into(),
        kind: Kind::Number,
        vanishes: false,
        versions: written(By::Foreign),
        reads,
    };
    let verdict = check(&[key], BOUNDS, &|_, _| 0);
    assert_eq!((verdict.violations.len(), verdict.across_questions), (0, 1));
}

#[test]
fn a_value_from_nowhere_or_from_the_future_is_found() {
    assert_eq!(judge(written(By::Foreign), vec![read(0, 7, 500, 501)]), [Broken::Unexplained]);
    assert_eq!(judge(written(By::Foreign), vec![read(0, 2, 500, 501)]), [Broken::Unexplained]);
}

#[test]
fn what_says_little_is_judged_leniently() {
    // EXISTS: there, gone, there again. "There" is explained by the last, and by the first.
    let versions = vec![
        version(0, 0, 0, By::Foreign),
        version(1, 10, 20, By::Foreign),
        version(0, 30, 40, By::Foreign),
        version(2, 50, 60, By::Foreign),
    ];
    let exists = |n: u64, invoke, complete| Read {
        ask: 3,
        reply: Kind::Number.asks()[3].expect((n > 0).then_some(n), false).into(),
        ..read(0, 0, invoke, complete)
    };
    assert_eq!(judge(versions.clone(), vec![exists(1, 500, 501), exists(1, 502, 503)]), []);
    assert_eq!(judge(versions.clone(), vec![exists(0, 500, 501)]), [Broken::Staleness]);
    let back = vec![exists(1, 45, 55), exists(0, 56, 57), exists(1, 58, 59), exists(0, 61, 62)];
    assert_eq!(judge(versions, back), [Broken::Monotonic], "there, gone, there again, and gone once more");
}

#[test]
fn a_key_that_the_server_may_drop_may_be_absent() {
    let key = |reads| KeyHistory {
        name: "k".into(),
        kind: Kind::Number,
        vanishes: true,
        versions: written(By::Foreign),
        reads,
    };
    let broken = |reads| check(&[key(reads)], BOUNDS, &|_, _| 0).violations.len();
    assert_eq!(broken(vec![read(0, 0, 5000, 5001)]), 0);
    assert_eq!(broken(vec![read(0, 1, 5000, 5001)]), 1);
}

#[test]
fn percentiles() {
    assert_eq!(percentile(&[], 0.5), 0);
    assert_eq!(percentile(&[1, 2, 3, 4], 0.5), 3);
    assert_eq!(percentile(&[1, 2, 3, 4], 1.0), 4);
}
