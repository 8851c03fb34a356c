use proptest::prelude::*;
use redis_protocol::resp2::{decode::decode as decode2, types::OwnedFrame as Frame2};
use redis_protocol::resp3::{
    decode::complete::decode as decode3, types::OwnedFrame as Frame3, types::VerbatimStringFormat,
};

use super::*;
use crate::resp::scanner::{ReplyScanner, Scan};

fn bulk(text: &str) -> Value {
    Value::Bulk(text.into())
}

#[test]
fn every_type() {
    let cases = [
        ("+OK\r\n", Value::Simple(b"OK".to_vec())),
        ("-ERR no\r\n", Value::Error(b"ERR no".to_vec())),
        ("!6\r\nERR no\r\n", Value::Error(b"ERR no".to_vec())),
        (":-5\r\n", Value::Int(-5)),
        (":+5\r\n", Value::Int(5)),
        ("$2\r\n\r\n\r\n", bulk("\r\n")),
        ("=6\r\ntxt:hi\r\n", Value::Verbatim { format: *b"txt", text: b"hi".to_vec() }),
        ("$-1\r\n", Value::Null),
        ("*-1\r\n", Value::Null),
        ("_\r\n", Value::Null),
        ("#t\r\n", Value::Bool(true)),
        ("#f\r\n", Value::Bool(false)),
        (",-inf\r\n", Value::Double(f64::NEG_INFINITY)),
        (",1.5e3\r\n", Value::Double(1500.0)),
        ("(123\r\n", Value::BigNumber(b"123".to_vec())),
        ("*2\r\n:1\r\n*0\r\n", Value::Array(vec![Value::Int(1), Value::Array(vec![])])),
        ("~1\r\n:1\r\n", Value::Set(vec![Value::Int(1)])),
        (">1\r\n$1\r\nx\r\n", Value::Push(vec![bulk("x")])),
        ("%2\r\n+b\r\n:1\r\n+a\r\n_\r\n", {
            let key = |name: &str| Value::Simple(name.into());
            Value::Map(vec![(key("b"), Value::Int(1)), (key("a"), Value::Null)])
        }),
        ("|1\r\n+a\r\n*0\r\n|0\r\n*1\r\n|1\r\n+b\r\n_\r\n:1\r\n", Value::Array(vec![Value::Int(1)])),
    ];
    for (bytes, value) in cases {
        assert_eq!(decode(bytes.as_bytes(), 3), Ok(value), "{bytes:?}");
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes.as_bytes()[..end], 3), Err(ReplyError::Truncated), "{bytes:?} to {end}");
        }
    }
}

#[test]
fn garbage() {
    let cases = [
        ("x\r\n", ReplyError::Type(b'x')),
        ("+a\r\n+b\r\n", ReplyError::Trailing(4)),
        (":\r\n", ReplyError::Header(b':', vec![])),
        (":9223372036854775808\r\n", ReplyError::Header(b':', b"9223372036854775808".to_vec())),
        ("$-2\r\n", ReplyError::Header(b'$', b"-2".to_vec())),
        ("$01\r\na\r\n", ReplyError::Header(b'$', b"01".to_vec())),
        ("*1?\r\n", ReplyError::Header(b'*', b"1?".to_vec())),
        ("#x\r\n", ReplyError::Header(b'#', b"x".to_vec())),
        ("_1\r\n", ReplyError::Header(b'_', b"1".to_vec())),
        (",x\r\n", ReplyError::Header(b',', b"x".to_vec())),
        ("=3\r\ntxt\r\n", ReplyError::Header(b'=', b"3".to_vec())),
        ("$1\r\nab\r\n", ReplyError::BulkEnd(b'b')),
        ("$1\r\na\rb", ReplyError::BulkEnd(b'b')),
        ("*9223372036854775807\r\n", ReplyError::Truncated),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode(bytes.as_bytes(), 3), Err(error), "{bytes:?}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| ["*1\r\n".repeat(levels), ":1\r\n".into()].concat().into_bytes();
    assert!(decode(&nested(5), 5).is_ok());
    assert_eq!(decode(&nested(6), 5), Err(ReplyError::TooDeep(5)));
    assert_eq!(decode(&nested(1_000_000), 64), Err(ReplyError::TooDeep(64)));
    let attributes = ["|1\r\n".repeat(1_000_000), ":1\r\n".into()].concat();
    assert_eq!(decode(attributes.as_bytes(), 64), Err(ReplyError::TooDeep(64)));
}

#[test]
fn accessors() {
    let message = decode(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nk\r\n", 1).unwrap();
    let parts: Vec<_> = message.as_array().unwrap().iter().filter_map(Value::as_bytes).collect();
    assert_eq!(parts, [&b"message"[..], b"c", b"k"]);
    assert_eq!(decode(b":-3\r\n", 0).unwrap().as_int(), Some(-3));
    assert_eq!((Value::Null.as_bytes(), Value::Null.as_int(), Value::Null.as_array()), (None, None, None));
}

/// Writes a value in the types of RESP3, or in those of RESP2 as far as it uses only these.
fn write(out: &mut Vec<u8>, value: &Value, null: &str) {
    let mut line = |marker: char, text: &[u8]| {
        out.push(marker as u8);
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    };
    let length = |text: &[u8]| text.len().to_string().into_bytes();
    match value {
        Value::Simple(text) => line('+', text),
        Value::Error(text) => line('-', text),
        Value::Int(number) => line(':', number.to_string().as_bytes()),
        Value::Bulk(text) => {
            line('$', &length(text));
            out.extend_from_slice(&[text, &b"\r\n"[..]].concat());
        }
        Value::Verbatim { format, text } => {
            line('=', (text.len() + 4).to_string().as_bytes());
            out.extend_from_slice(&[&format[..], b":", text, b"\r\n"].concat());
        }
        Value::Null => out.extend_from_slice(null.as_bytes()),
        Value::Bool(truth) => line('#', if *truth { b"t" } else { b"f" }),
        Value::Double(number) => line(',', number.to_string().as_bytes()),
        Value::BigNumber(text) => line('(', text),
        Value::Array(elements) | Value::Set(elements) | Value::Push(elements) => {
            let marker = match value {
                Value::Array(_) => '*',
                Value::Set(_) => '~',
                _ => '>',
            };
            line(marker, elements.len().to_string().as_bytes());
            elements.iter().for_each(|element| write(out, element, null));
        }
        Value::Map(pairs) => {
            line('%', pairs.len().to_string().as_bytes());
            for (key, value) in pairs {
                write(out, key, null);
                write(out, value, null);
            }
        }
    }
}

fn from_resp2(frame: Frame2) -> Value {
    match frame {
        Frame2::SimpleString(text) => Value::Simple(text),
        Frame2::Error(text) => Value::Error(text.into_bytes()),
        Frame2::Integer(number) => Value::Int(number),
        Frame2::BulkString(text) => Value::Bulk(text),
        Frame2::Array(elements) => Value::Array(elements.into_iter().map(from_resp2).collect()),
        Frame2::Null => Value::Null,
    }
}

/// Maps come back in any order; sorted by key, as the generated ones are.
fn from_resp3(frame: Frame3) -> Value {
    let all = |elements: Vec<Frame3>| elements.into_iter().map(from_resp3).collect();
    match frame {
        Frame3::SimpleString { data, .. } => Value::Simple(data),
        Frame3::SimpleError { data, .. } => Value::Error(data.into_bytes()),
        Frame3::BlobError { data, .. } => Value::Error(data),
        Frame3::Number { data, .. } => Value::Int(data),
        Frame3::BlobString { data, .. } => Value::Bulk(data),
        Frame3::VerbatimString { data, format, .. } => {
            let format = if format == VerbatimStringFormat::Text { *b"txt" } else { *b"mkd" };
            Value::Verbatim { format, text: data }
        }
        Frame3::Null => Value::Null,
        Frame3::Boolean { data, .. } => Value::Bool(data),
        Frame3::Double { data, .. } => Value::Double(data),
        Frame3::BigNumber { data, .. } => Value::BigNumber(data),
        Frame3::Array { data, .. } => Value::Array(all(data)),
        Frame3::Push { data, .. } => Value::Push(all(data)),
        Frame3::Map { data, .. } => {
            let mut pairs: Vec<_> =
                data.into_iter().map(|(key, value)| (from_resp3(key), from_resp3(value))).collect();
            pairs.sort_by(|a, b| a.0.as_bytes().cmp(&b.0.as_bytes()));
            Value::Map(pairs)
        }
        other => panic!("not generated: {other:?}"),
    }
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    "[ -~]{0,20}".prop_map(String::into_bytes)
}

fn resp2() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::Simple),
        text().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Int),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(Value::Bulk),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Value::Array))
}

fn resp3() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => resp2(),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => (-1e15f64..1e15).prop_map(Value::Double),
        1 => "[1-9][0-9]{0,60}".prop_map(|text| Value::BigNumber(text.into_bytes())),
        1 => text().prop_map(|text| Value::Verbatim { format: *b"txt", text }),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let map = prop::collection::btree_map(text(), inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::Array),
            map.prop_map(|map| Value::Map(map.into_iter().map(|(key, v)| (Value::Bulk(key), v)).collect())),
        ]
    })
}

/// All that read replies here agree where this one ends, although another follows, and what it says.
fn agreed(bytes: &[u8], value: &Value) {
    let twice = [bytes, bytes].concat();
    match ReplyScanner::new().scan(&twice) {
        Ok(Scan::Done { used, .. }) => assert_eq!(used, bytes.len()),
        other => panic!("{other:?}"),
    }
    assert_eq!(decode(bytes, 16).as_ref(), Ok(value));
}

proptest! {
    #[test]
    fn resp2_as_redis_protocol_reads_it(value in resp2(), null in prop::sample::select(vec!["$-1\r\n", "*-1\r\n"])) {
        let mut bytes = Vec::new();
        write(&mut bytes, &value, null);
        agreed(&bytes, &value);
        let (frame, used) = decode2(&bytes).unwrap().unwrap();
        prop_assert_eq!((from_resp2(frame), used), (value, bytes.len()));
    }

    #[test]
    fn resp3_as_redis_protocol_reads_it(value in resp3(), push: bool) {
        let value = if push { Value::Push(vec![value]) } else { value };
        let mut bytes = Vec::new();
        write(&mut bytes, &value, "_\r\n");
        agreed(&bytes, &value);
        let (frame, used) = decode3(&bytes).unwrap().unwrap();
        prop_assert_eq!((from_resp3(frame), used), (value, bytes.len()));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode(&bytes, 8);
    }

    #[test]
    fn what_decodes_was_one_reply_for_the_scanner(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "*", "$", "%", "|", ">", "+", ":", "1", "2", "\r\n", "$1\r\nx\r\n", "*2\r\n", "|1\r\n", "+OK\r\n", "_\r\n",
            ]),
            0..20,
        ),
    ) {
        let bytes = pieces.concat().into_bytes();
        if decode(&bytes, 32).is_ok() {
            let done = matches!(ReplyScanner::new().scan(&bytes), Ok(Scan::Done { used, .. }) if used == bytes.len());
            prop_assert!(done, "{:?}", bytes);
        }
    }
}
