use proptest::prelude::*;

use super::splits::{same_however_cut, scanned};
use super::*;

/// Replies of every type, each with what it is.
const REPLIES: &[(&str, Kind)] = &[
    ("+OK\r\n", Kind::Simple),
    ("+\r\n", Kind::Simple),
    ("+a\rb\nc\r\r\n", Kind::Simple),
    ("+a\n\rb\r\n", Kind::Simple),
    ("-ERR no\r\n", Kind::Error),
    ("!6\r\nERR no\r\n", Kind::Error),
    (":1000\r\n", Kind::Integer),
    (":-1\r\n", Kind::Integer),
    (":+12345678901234567890\r\n", Kind::Integer),
    ("$5\r\nhello\r\n", Kind::Bulk),
    ("$0\r\n\r\n", Kind::Bulk),
    ("$4\r\n\r\n\r\n\r\n", Kind::Bulk),
    ("$-1\r\n", Kind::Null),
    ("*-1\r\n", Kind::Null),
    ("_\r\n", Kind::Null),
    ("*0\r\n", Kind::Aggregate),
    ("*2\r\n$-1\r\n*-1\r\n", Kind::Aggregate),
    ("*2\r\n*2\r\n:1\r\n:2\r\n*1\r\n*0\r\n", Kind::Aggregate),
    ("%0\r\n", Kind::Aggregate),
    ("%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n+c\r\n_\r\n", Kind::Aggregate),
    ("~2\r\n#t\r\n#f\r\n", Kind::Aggregate),
    (">2\r\n+message\r\n$1\r\nx\r\n", Kind::Push),
    (">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", Kind::Push),
    ("#t\r\n", Kind::Other),
    (",1.5e-3\r\n", Kind::Other),
    (",inf\r\n", Kind::Other),
    ("(3492890328409238509324850943850943825024385\r\n", Kind::Other),
    ("=8\r\ntxt:some\r\n", Kind::Other),
    ("|1\r\n+ttl\r\n:3600\r\n$1\r\nv\r\n", Kind::Bulk),
    ("|1\r\n+a\r\n*2\r\n_\r\n_\r\n|0\r\n-ERR\r\n", Kind::Error),
    ("*2\r\n|1\r\n+a\r\n>0\r\n:1\r\n:2\r\n", Kind::Aggregate),
    ("|1\r\n+a\r\n-b\r\n$-1\r\n", Kind::Null),
];

#[test]
fn every_type() {
    for (reply, kind) in REPLIES {
        let got = same_however_cut(reply.as_bytes(), 1);
        assert_eq!(got.replies, [(reply.len(), *kind)], "{reply:?}");
        // Without its last byte it goes on.
        let got = same_however_cut(&reply.as_bytes()[..reply.len() - 1], 1);
        assert!(got.replies.is_empty() && got.error.is_none() && got.begun.is_some(), "{reply:?}");
    }
}

#[test]
fn every_cut_of_all_of_them() {
    let bytes = REPLIES.iter().map(|(reply, _)| *reply).collect::<String>().into_bytes();
    let whole = same_however_cut(&bytes, 1);
    assert_eq!(whole.replies.len(), REPLIES.len());
    for first in 1..bytes.len() {
        let mut cuts = [first].into_iter();
        assert_eq!(scanned(&bytes, || cuts.next().unwrap_or(usize::MAX)), whole, "{first}");
    }
}

#[test]
fn garbage() {
    let digits = "1".repeat(34);
    let cases = [
        ("x".to_string(), "no reply starts with byte 0x78"),
        ("\r\n".into(), "no reply starts with byte 0x0d"),
        ("*1\r\n.\r\n".into(), "no reply starts with byte 0x2e"),
        ("$?\r\n".into(), "streamed reply '$?', which no server sends"),
        ("*?\r\n".into(), "streamed reply '*?', which no server sends"),
        ("$-2\r\n".into(), "bad reply header '$-2'"),
        ("%-1\r\n".into(), "bad reply header '%-1'"),
        (">-1\r\n".into(), "bad reply header '>-1'"),
        ("$1a\r\n".into(), "bad reply header '$1a'"),
        ("$01\r\n".into(), "bad reply header '$01'"),
        ("$\r\n".into(), "bad reply header '$'"),
        ("$1\n".into(), "bad reply header '$1'"),
        ("$4294967297\r\n".into(), "bad reply header '$4294967297'"),
        (format!(":{digits}"), "bad reply header ':1111111111111111111111111111111111'"),
        (":\r\n".into(), "bad reply header ':'"),
        (":1-\r\n".into(), "bad reply header ':1-'"),
        ("#x\r\n".into(), "bad reply header '#x'"),
        (":?\r\n".into(), "bad reply header ':?'"),
        ("_1\r\n".into(), "bad reply header '_1'"),
        ("$1\r\nab\r\n".into(), "bulk string ends with byte 0x62 in the place of CRLF"),
        ("$1\r\na\rb".into(), "bulk string ends with byte 0x62 in the place of CRLF"),
        (format!("*{0}\r\n*{0}\r\n", i64::MAX), "reply with more elements than can be counted"),
        (format!("%{}\r\n", i64::MAX), "reply with more elements than can be counted"),
    ];
    for (bytes, error) in cases {
        let got = same_however_cut(bytes.as_bytes(), 1).error;
        assert_eq!(got.map(|error| error.to_string()).as_deref(), Some(error), "{bytes:?}");
    }
}

#[test]
fn lines_have_an_end() {
    for marker in ["+", "-", ",", "("] {
        for (len, long) in [(MAX_LINE, false), (MAX_LINE + 1, true)] {
            for tail in ["", "\r", "\r\n", "\r\r\n", "\rx\r\n"] {
                let line = [marker, &"x".repeat(len), tail].concat();
                let got = same_however_cut(line.as_bytes(), 1);
                let long = long || tail.len() > 2;
                assert_eq!(got.error.is_some(), long, "{marker} {len} {tail:?}");
                assert_eq!(got.replies.len(), usize::from(!long && tail == "\r\n"));
            }
        }
    }
}

#[test]
fn what_is_known_on_the_way() {
    let mut scanner = ReplyScanner::new();
    assert_eq!((scanner.is_idle(), scanner.kind(), scanner.missing()), (true, None, 0));
    assert_eq!(scanner.scan(b""), Ok(Scan::More));
    assert!(scanner.is_idle());
    scanner.scan(b">").unwrap();
    assert_eq!((scanner.is_idle(), scanner.kind()), (false, Some(Kind::Push)));
    let done = Scan::Done { used: 3, kind: Kind::Push };
    assert_eq!((scanner.scan(b"0\r\n$"), scanner.is_idle()), (Ok(done), true));
    scanner.scan(b"$10").unwrap();
    assert_eq!((scanner.kind(), scanner.missing()), (None, 0));
    scanner.scan(b"\r\nabc").unwrap();
    assert_eq!((scanner.kind(), scanner.missing()), (Some(Kind::Bulk), 9));
    scanner.scan(b"defghij\r").unwrap();
    assert_eq!(scanner.missing(), 1);
}

#[test]
fn the_elements_of_an_array_are_found() {
    let found = |array: &str| {
        elements(array.as_bytes())
            .map(|all| all.into_iter().map(|at| array[at].to_string()).collect::<Vec<_>>())
    };
    assert_eq!(found("*0\r\n"), Some(vec![]));
    assert_eq!(found("*2\r\n$1\r\na\r\n*1\r\n:1\r\n").unwrap(), ["$1\r\na\r\n", "*1\r\n:1\r\n"]);
    for none in ["", "*1", "%1\r\n+a\r\n+b\r\n", "*2\r\n:1\r\n$3\r\nab", "*1\r\nx\r\n"] {
        assert_eq!(found(none), None, "{none:?}");
    }
}

#[test]
fn a_million_levels() {
    let bytes = ["*1\r\n".repeat(1_000_000), "_\r\n".into()].concat().into_bytes();
    assert_eq!(scanned(&bytes, || 4096).replies, [(bytes.len(), Kind::Aggregate)]);
    let bytes = ["|1\r\n".repeat(1_000_000), "_\r\n".repeat(2_000_001)].concat().into_bytes();
    assert_eq!(scanned(&bytes, || 4096).replies, [(bytes.len(), Kind::Null)]);
}

#[test]
fn small_whatever_it_scans() {
    assert!(size_of::<ReplyScanner>() < 100, "{}", size_of::<ReplyScanner>());
}

proptest! {
    #[test]
    fn replies_in_any_order(
        picks in prop::collection::vec(prop::sample::select(REPLIES), 0..20),
        cut in 0usize..8,
        seed: u64,
    ) {
        let mut bytes: String = picks.iter().map(|(reply, _)| *reply).collect();
        bytes.truncate(bytes.len().saturating_sub(cut));
        let got = same_however_cut(bytes.as_bytes(), seed);
        prop_assert_eq!(got.error, None);
        let kinds: Vec<Kind> = picks.iter().take(got.replies.len()).map(|(_, kind)| *kind).collect();
        prop_assert_eq!(got.replies.into_iter().map(|(_, kind)| kind).collect::<Vec<_>>(), kinds);
    }

    #[test]
    fn pieces_of_protocol_in_any_order(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "*", "$", "%", "|", ">", "~", "+", "-", ":", ",", "#", "_", "!", "=", "(", "1", "2", "0", "?", "t",
                "\r\n", "\r", "\n", "$1\r\nx\r\n", "*2\r\n", "|1\r\n", "+OK\r\n", "12345678901",
            ]),
            0..30,
        ),
        seed: u64,
    ) {
        same_however_cut(pieces.concat().as_bytes(), seed);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), seed: u64) {
        same_however_cut(&bytes, seed);
    }
}
