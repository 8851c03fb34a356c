use proptest::prelude::*;

use super::splits::{framed, same_however_cut};
use super::*;

const MORE: fn() -> usize = || usize::MAX >> 1;

/// What `bytes` ask for, each request as its arguments; asserts that the cuts do not matter.
fn requests(bytes: &[u8]) -> Result<Vec<Vec<String>>, String> {
    let framed = same_however_cut(Limits::default(), bytes, 1);
    match framed.error {
        Some(error) => Err(error.to_string()),
        None => Ok(framed
            .frames
            .into_iter()
            .filter_map(|(_, request)| request)
            .map(|args| args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect())
            .collect()),
    }
}

#[test]
fn what_lies_at_the_start() {
    let mut framer = RequestFramer::new(Limits::default());
    let get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n";
    assert_eq!(framer.next(get), Ok(Frame::Request(20)));
    let request = framer.request(get);
    assert_eq!((request.raw(), request.arg(1), request.raw_after(0)), (&get[..20], &b"k"[..], &get[13..20]));
    assert_eq!(framer.next(&get[20..]), Ok(Frame::Inline(6)));
    assert_eq!(framer.request(&get[20..]).raw(), b"*1\r\n$4\r\nPING\r\n");
    for (bytes, used) in
        [("\r\nx", 2), ("\nx", 1), (" \t \r\nx", 5), ("*0\r\nx", 4), ("*-1\r\nx", 5), ("*-9\r\n", 5)]
    {
        assert_eq!(framer.next(bytes.as_bytes()), Ok(Frame::Skip(used)), "{bytes:?}");
    }
    assert_eq!(framer.next(b""), Ok(Frame::Incomplete { need: 1 }));
    assert_eq!(framer.next(b"*1\r\n$10\r\nabc"), Ok(Frame::Incomplete { need: 21 }));
}

#[test]
fn valid_requests() {
    let big = "x".repeat(70_000);
    let cases = [
        ("*1\r\n$4\r\nPING\r\n".to_string(), vec![vec!["PING"]]),
        ("*2\r\n$3\r\nGET\r\n$0\r\n\r\n*0\r\nPING a\n".into(), vec![vec!["GET", ""], vec!["PING", "a"]]),
        ("*1\r\n$4\r\na\r\nb\r\n".into(), vec![vec!["a\r\nb"]]),
        (format!("*2\r\n$4\r\nECHO\r\n$70000\r\n{big}\r\n"), vec![vec!["ECHO", &big]]),
        ("SET k \"a b\"\r\n\r\n  GET k  \n".into(), vec![vec!["SET", "k", "a b"], vec!["GET", "k"]]),
        ("\"\"\r\n".into(), vec![vec![""]]),
        // What Redis takes although no client should send it.
        ("\rPING\r\n".into(), vec![vec!["PING"]]),
        ("ECHO a\r\r\nECHO a\rb\n".into(), vec![vec!["ECHO", "a"], vec!["ECHO", "a", "b"]]),
        ("*1\rX$4\rYPINGab".into(), vec![vec!["PING"]]),
        ("*1\r\n$4\r\nPING\n\n*1\r\n$4\r\nPING\r\n".into(), vec![vec!["PING"], vec!["PING"]]),
    ];
    for (bytes, expected) in cases {
        let got = requests(bytes.as_bytes()).unwrap();
        assert_eq!(got, expected, "{bytes:.80?}");
    }
}

#[test]
fn error_texts_are_those_of_redis() {
    let long = "1".repeat(65_537);
    let cases = [
        ("*abc\r\n".to_string(), "invalid multibulk length"),
        ("*\r\n".into(), "invalid multibulk length"),
        ("*+1\r\n".into(), "invalid multibulk length"),
        ("*01\r\n".into(), "invalid multibulk length"),
        ("*1 \r\n".into(), "invalid multibulk length"),
        ("*3\n$3\r\n".into(), "invalid multibulk length"),
        ("*2147483648\r\n".into(), "invalid multibulk length"),
        ("*99999999999999999999\r\n".into(), "invalid multibulk length"),
        (format!("*{long}"), "too big mbulk count string"),
        (format!("*{long}\r\n"), "too big mbulk count string"),
        (format!("*1\r\n${long}"), "too big bulk count string"),
        ("*1\r\n:4\r\n".into(), "expected '$', got ':'"),
        ("*1\r\n\r\n".into(), "expected '$', got ' '"),
        ("*1\r\n\n\r\n".into(), "expected '$', got ' '"),
        ("*2\r\n$4\r\nPING\r\nPING\r\n".into(), "expected '$', got 'P'"),
        ("*1\r\n$-1\r\n".into(), "invalid bulk length"),
        ("*1\r\n$\r\n".into(), "invalid bulk length"),
        ("*1\r\n$01\r\n".into(), "invalid bulk length"),
        ("*1\r\n$536870913\r\n".into(), "invalid bulk length"),
        ("*3\r\n$536870912\r\n".into(), ""),
        ("GET \"a\r\n".into(), "unbalanced quotes in request"),
        ("GET 'a'b\r\n".into(), "unbalanced quotes in request"),
        (long.clone(), "too big inline request"),
        (format!("{long}\r\n"), "too big inline request"),
        ("GET\0\r\n".into(), ""),
        (format!("GET\0\r\n{long}"), "too big inline request"),
        (format!("*1\0\r\n{long}"), "too big mbulk count string"),
    ];
    for (bytes, error) in cases {
        let got = same_however_cut(Limits::default(), bytes.as_bytes(), 1).error;
        let expected = (!error.is_empty()).then(|| format!("ERR Protocol error: {error}"));
        assert_eq!(got.map(|error| error.to_string()), expected, "{bytes:.40?}");
    }
}

#[test]
fn what_came_before_an_error_is_still_a_request() {
    let framed = framed(Limits::default(), b"PING\r\n*1\r\n:\r\n", MORE);
    assert_eq!((framed.frames.len(), framed.error), (1, Some(ProtocolError::ExpectedBulk(b':'))));
}

#[test]
fn limits_are_inclusive() {
    let limits = Limits { max_bulk: 5, max_args: 2, max_inline: 10, max_request: 24 };
    let cases = [
        ("*2\r\n$5\r\nhello\r\n$0\r\n\r\n", None),
        ("*1\r\n$6\r\nhello!\r\n", Some(ProtocolError::InvalidLength)),
        ("*3\r\n", Some(ProtocolError::InvalidCount)),
        ("*2\r\n$5\r\nhello\r\n$4\r\nhell\r\n", Some(ProtocolError::RequestTooLarge)),
        ("*2\r\n$5\r\nhello\r\n$3\r\nhel\r\n", None),
        ("PING 56789\n", None),
        ("PING 567890\n", Some(ProtocolError::InlineTooBig)),
        ("PING 5678\r\n", None),
    ];
    for (bytes, error) in cases {
        // "*2\r\n$5\r\nhello\r\n" has 15 bytes, "$3\r\nhel\r\n" 9.
        let framed = same_however_cut(limits, bytes.as_bytes(), 1);
        assert_eq!(framed.error, error, "{bytes:?}");
        assert_eq!(framed.frames.len(), usize::from(error.is_none()), "{bytes:?}");
    }
}

#[test]
fn a_count_that_cannot_fit_is_refused_at_once() {
    let limits = Limits { max_bulk: 5, max_args: 5, max_inline: 10, max_request: 24 };
    for (bytes, error) in [
        // An empty argument has 6 bytes.
        ("*4\r\n", None),
        ("*5\r\n", Some(ProtocolError::RequestTooLarge)),
        ("*6\r\n$0\r\n\r\n$0\r\n\r\n", Some(ProtocolError::InvalidCount)),
    ] {
        assert_eq!(same_however_cut(limits, bytes.as_bytes(), 1).error, error, "{bytes:?}");
    }
    let limits = Limits { max_args: 2, ..Limits::default() };
    let whole = "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n";
    assert_eq!(same_however_cut(limits, whole.as_bytes(), 1).error, Some(ProtocolError::InvalidCount));
}

#[test]
fn who_has_yet_to_log_in_is_told_so_and_only_of_what_else_would_be_taken() {
    for (count, len, locked, error) in [
        (10, 1, true, None),
        (11, 1, true, Some(ProtocolError::LockedCount)),
        (11, 1, false, None),
        (21, 1, true, Some(ProtocolError::InvalidCount)),
        (1, 16_384, true, None),
        (1, 16_385, true, Some(ProtocolError::LockedLength)),
        (1, 16_385, false, None),
        (1, 20_001, true, Some(ProtocolError::InvalidLength)),
    ] {
        let mut framer = RequestFramer::new(Limits { max_args: 20, max_bulk: 20_000, ..Limits::default() });
        framer.lock(locked);
        let begun = format!("*{count}\r\n${len}\r\n");
        assert_eq!(framer.next(begun.as_bytes()).err(), error, "{begun:?} {locked}");
    }
}

#[test]
fn every_cut_of_a_pipeline() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nSET k 'a b'\r\n*0\r\n\r\n*1\rX$4\r\nPING\r\n*1\r\n$12\r\n0123456789ab\r\n";
    let whole = framed(Limits::default(), bytes, MORE);
    assert_eq!((whole.frames.len(), &whole.error), (6, &None));
    for first in 1..bytes.len() {
        for second in 1..bytes.len() - first {
            let mut cuts = [first, second].into_iter();
            let pieces = framed(Limits::default(), bytes, || cuts.next().unwrap_or(usize::MAX >> 1));
            assert_eq!(pieces, whole, "{first} + {second}");
        }
    }
}

#[test]
fn a_declared_count_or_length_costs_nothing() {
    let mut framer = RequestFramer::new(Limits::default());
    framer.next(b"*100000000\r\n$536870912\r\nabc").unwrap();
    assert_eq!((framer.args.capacity(), framer.rewritten.capacity()), (0, 0));
}

#[test]
fn the_memory_of_a_large_request_is_given_back() {
    let mut framer = RequestFramer::new(Limits::default());
    let many = ["*100000\r\n", &"$1\r\nx\r\n".repeat(100_000)].concat();
    assert_eq!(framer.next(many.as_bytes()), Ok(Frame::Request(many.len())));
    assert_eq!(framer.request(many.as_bytes()).len(), 100_000);
    let get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    assert_eq!(framer.next(get), Ok(Frame::Request(get.len())));
    assert!(framer.args.capacity() <= KEPT_ARGS, "usual requests have no need of it");
    framer.next(many.as_bytes()).unwrap();
    let wide = format!("ECHO {}\r\n", "x".repeat(50_000));
    assert_eq!(framer.next(wide.as_bytes()), Ok(Frame::Inline(wide.len())));
    assert!(framer.args.capacity() <= KEPT_ARGS);
    framer.next(b"").unwrap();
    assert!(framer.rewritten.capacity() <= KEPT_REWRITTEN);
}

#[test]
fn bytes_are_not_searched_again() {
    // Quadratic work over 64 MiB that come in packets of 16 KiB would take hours.
    let mut bytes = b"*2\r\n$3\r\nSET\r\n$67108864\r\n".to_vec();
    bytes.resize(bytes.len() + (64 << 20), b'x');
    bytes.extend_from_slice(b"\r\n");
    let mut framer = RequestFramer::new(Limits::default());
    let mut last = Ok(Frame::Incomplete { need: 1 });
    for end in (0..bytes.len()).step_by(16 << 10).chain([bytes.len()]) {
        last = framer.next(&bytes[..end]);
    }
    assert_eq!(last, Ok(Frame::Request(bytes.len())));
    // A line that never ends: the search goes on where it stopped.
    framer.next(&[b'a'; 1000]).unwrap();
    assert_eq!(framer.searched, 1000);
}

#[test]
fn a_request_repeats_what_differs_in_its_key_alone() {
    let mut framer = RequestFramer::new(Limits::default());
    let mut repeats = |bytes: &str| {
        let frame = framer.next(bytes.as_bytes()).unwrap();
        assert_eq!(frame, Frame::Request(bytes.len()), "{bytes:?}");
        assert_eq!(framer.request(bytes.as_bytes()).raw(), bytes.as_bytes());
        framer.repeats()
    };
    assert!(!repeats("*2\r\n$3\r\nGET\r\n$1\r\na\r\n"));
    assert!(repeats("*2\r\n$3\r\nGET\r\n$1\r\nb\r\n"));
    assert!(!repeats("*2\r\n$3\r\nGET\r\n$2\r\nbb\r\n"));
    assert!(repeats("*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n"));
    assert!(!repeats("*2\r\n$3\r\nDEL\r\n$2\r\nbb\r\n"));
    assert!(!repeats("*1\r\n$4\r\nPING\r\n"));
    assert!(!repeats("*2\r\n$3\r\nDEL\r\n$2\r\nbb\r\n"), "what was before the last one does not count");
    assert!(!repeats("*3\r\n$3\r\nDEL\r\n$1\r\na\r\n$1\r\nb\r\n"));
    assert!(!repeats("*3\r\n$3\r\nDEL\r\n$1\r\na\r\n$1\r\nb\r\n"));
    let long = "x".repeat(100);
    assert!(!repeats(&format!("*2\r\n$100\r\n{long}\r\n$1\r\na\r\n")));
    assert!(!repeats(&format!("*2\r\n$100\r\n{long}\r\n$1\r\na\r\n")), "too long to be kept");
}

#[test]
fn a_lower_limit_holds_for_what_repeats() {
    let mut framer = RequestFramer::new(Limits::default());
    let request = format!("*2\r\n$3\r\nGET\r\n$20000\r\n{}\r\n", "x".repeat(20_000));
    assert_eq!(framer.next(request.as_bytes()), Ok(Frame::Request(request.len())));
    framer.lock(true);
    assert_eq!(framer.next(request.as_bytes()), Err(ProtocolError::LockedLength));
}

proptest! {
    /// Heads that come again, with bodies that fit them or nearly do.
    #[test]
    fn what_came_before_does_not_count(
        parts in prop::collection::vec((0usize..4, "[k\r\n$*2]{0,3}", 0usize..4, 0usize..12), 0..20),
        seed in any::<u64>(),
    ) {
        let mut bytes = Vec::new();
        for (name, key, declared, end) in parts {
            let name = ["GET", "DEL", "get", "PING"][name];
            let len = if declared == 0 { key.len() } else { declared };
            let end = if end == 0 { "xx" } else { "\r\n" };
            bytes.extend_from_slice(format!("*2\r\n${}\r\n{name}\r\n${len}\r\n{key}{end}", name.len()).as_bytes());
        }
        same_however_cut(Limits::default(), &bytes, seed);
    }

    #[test]
    fn encoded_requests_come_back(
        requests in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6), 1..6),
        seed: u64,
    ) {
        let mut bytes = Vec::new();
        for request in &requests {
            let args: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            encode::command(&mut bytes, &args);
        }
        let framed = same_however_cut(Limits::default(), &bytes, seed);
        let got: Vec<_> = framed.frames.into_iter().filter_map(|(_, request)| request).collect();
        prop_assert_eq!(got, requests);
    }

    #[test]
    fn pieces_of_protocol_in_any_order(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "*", "$", "1", "2", "0", "-1", "3", "12", "\r\n", "\n", "\r", "GET", "k", "\"", "'", "\\x41", "\0", " ",
                "*1\r\n", "*2\r\n", "$3\r\nGET\r\n", "$1\r\nk\r\n", "$5\r\n", "PING\r\n", "é",
            ]),
            0..24,
        ),
        seed: u64,
    ) {
        let limits = Limits { max_bulk: 12, max_args: 3, max_inline: 16, max_request: 40 };
        same_however_cut(limits, pieces.concat().as_bytes(), seed);
        same_however_cut(Limits::default(), pieces.concat().as_bytes(), seed);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), seed: u64) {
        same_however_cut(Limits::default(), &bytes, seed);
    }
}
