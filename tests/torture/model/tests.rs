//! The model against a real server, and against the table of commands.

use nearside::command::{CacheRule, Table};
use nearside::resp::framer::{Frame, Limits, RequestFramer};

use super::*;
use crate::scenario::ALL;
use crate::support::{Redis, request};

/// What is cached is asked for: a new row of the table needs a question here.
#[test]
fn every_cached_command_is_asked() {
    let asks = KINDS.into_iter().flat_map(Kind::asks);
    let asked: Vec<_> = asks.map(|ask| ask.words.split(' ').next().unwrap().to_ascii_lowercase()).collect();
    let table = Table::builtin();
    let mut missing = Vec::new();
    for row in (0..).map_while(|number| table.row(number)) {
        let words = row.arity.unsigned_abs().max(2) as usize;
        let args: Vec<&[u8]> = (0..words).map(|i| if i == 0 { row.name.as_bytes() } else { b"k" }).collect();
        let (raw, mut framer) = (request(&args), RequestFramer::new(Limits::default()));
        assert!(matches!(framer.next(&raw), Ok(Frame::Request(_))));
        let cached = row.cache(&framer.request(&raw)) == CacheRule::Single;
        // Not known to the server of these tests.
        let module = row.name.starts_with("json.") || row.name == "digest";
        if cached && !module && !asked.contains(&row.name.to_string()) {
            missing.push(row.name.clone());
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// Every answer that is foretold is the server's, after every write, in both protocols.
#[test]
fn the_server_answers_as_foretold() {
    let redis = Redis::start();
    let (mut two, mut three) = (redis.connect(), redis.connect());
    three.cmd("HELLO 3");
    let mut random = Random::new(7);
    let allowed = Allowed { expiry: false, undeclared: 5, ..ALL };
    for kind in KINDS {
        let (mut held, key) = (None, format!("{kind:?}"));
        for n in 1..300 {
            let op = op(kind, &key, 2 * n, held, allowed, &mut random);
            for command in &op.commands {
                let args: Vec<&[u8]> = command.iter().map(|arg| arg.as_bytes()).collect();
                two.send(&request(&args));
                let reply = two.reply();
                assert_ne!(reply[0], b'-', "{command:?}: {}", String::from_utf8_lossy(&reply));
            }
            held = op.content;
            for ask in kind.asks() {
                let command = ask.command(&key);
                let args: Vec<&[u8]> = command.iter().map(|arg| arg.as_bytes()).collect();
                for (conn, resp3) in [(&mut two, false), (&mut three, true)] {
                    let said = String::from_utf8(conn.args(&args)).unwrap();
                    let expected = String::from_utf8(ask.expect(held, resp3)).unwrap();
                    assert_eq!(said, expected, "{command:?} after {:?}, RESP3 {resp3}", op.commands);
                }
            }
        }
    }
}
