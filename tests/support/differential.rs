//! The differential tester: the same seeded random commands to nearside in front of one server, and straight
//! to another, in lockstep; whatever the two answer must be the same, byte for byte.
//!
//! The exceptions are few: `templates` lists what is never asked, and `Rule` what is compared with tolerance.

#[path = "differential/generate.rs"]
mod generate;
#[path = "differential/random.rs"]
mod random;
#[path = "differential/templates.rs"]
mod templates;

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nearside::resp::pubsub;
use nearside::resp::scanner::Kind;

use crate::support::{Conn, Nearside, Redis, eventually, line};
use generate::{Command, Effect, Generator, SCRIPT, Server, State};
use templates::USERS;

/// Connections that take turns.
const SESSIONS: usize = 5;

/// Those of them that mostly read and write.
const CALM: usize = 3;

/// Commands that are told of when a difference is found.
const HISTORY: usize = 40;

pub struct Summary {
    pub commands: usize,
    pub batches: usize,
    pub hits: i64,
    pub errors: usize,
    /// The longest that nearside was behind the server with the replies to a batch.
    pub slowest: Duration,
}

/// How a reply is compared.
#[derive(Clone, Copy)]
enum Rule {
    Same,
    /// In no order that holds from server to server: its lines are compared as a multiset.
    AnyOrder,
    /// A time that is left, or an end that was counted from it: so far apart at most.
    Close(i64),
    /// The connection's id is masked.
    Hello,
}

fn rule(command: &Command) -> Rule {
    let of_fields = command.args.get(1).is_some_and(|key| matches!(key[..], [.., b'e', b'0'..=b'3']));
    match command.name().as_str() {
        "HGETALL" | "HKEYS" | "HVALS" if of_fields => Rule::AnyOrder,
        "HTTL" | "HEXPIRETIME" => Rule::Close(3),
        "HPTTL" | "HPEXPIRETIME" => Rule::Close(3000),
        "KEYS" | "SCAN" | "HSCAN" | "SSCAN" | "ZSCAN" => Rule::AnyOrder,
        "COMMAND" if command.args.get(1).is_some_and(|arg| arg.eq_ignore_ascii_case(b"list")) => {
            Rule::AnyOrder
        }
        "TTL" | "EXPIRETIME" => Rule::Close(3),
        "PTTL" | "PEXPIRETIME" => Rule::Close(3000),
        "HELLO" => Rule::Hello,
        _ => Rule::Same,
    }
}

impl Rule {
    fn same(self, a: &[u8], b: &[u8]) -> bool {
        if a == b {
            return true;
        }
        let lines = |bytes: &[u8]| {
            let mut lines: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            lines.sort();
            lines
        };
        match self {
            Rule::Same => false,
            Rule::AnyOrder => lines(a) == lines(b),
            Rule::Close(most) => {
                let close = |a: &[u8], b: &[u8]| match (integer(a), integer(b)) {
                    (Some(a), Some(b)) => a == b || a > 0 && b > 0 && (a - b).abs() <= most,
                    _ => a == b,
                };
                let (a, b): (Vec<_>, Vec<_>) =
                    (a.split(is_line_end).collect(), b.split(is_line_end).collect());
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b))
            }
            Rule::Hello => masked(a) == masked(b),
        }
    }
}

fn is_line_end(byte: &u8) -> bool {
    *byte == b'\n'
}

fn integer(reply: &[u8]) -> Option<i64> {
    std::str::from_utf8(reply.strip_prefix(b":")?).ok()?.trim_end().parse().ok()
}

/// A reply to HELLO without the connection's id.
fn masked(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply).into_owned();
    let Some((before, after)) = text.split_once("$2\r\nid\r\n:") else { return text };
    format!("{before}id{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// One client, on both sides.
struct Session {
    through: Conn,
    straight: Conn,
    state: State,
    calm: bool,
}

impl Session {
    fn open(nearside: SocketAddr, server: SocketAddr, calm: bool) -> Self {
        Self { through: Conn::to(nearside), straight: Conn::to(server), state: State::default(), calm }
    }
}

/// One frame: whether it is a message, and its bytes.
type Frame = (bool, Vec<u8>);

/// Reads until `replies` frames have come that are no messages.
fn read(conn: &mut Conn, replies: usize) -> (Vec<Frame>, Option<std::io::Error>) {
    let (mut frames, mut left) = (Vec::new(), replies);
    while left > 0 {
        match conn.frame() {
            Ok((bytes, kind)) => {
                let may = matches!(kind, Kind::Push | Kind::Aggregate);
                let message = may && pubsub::is_message(pubsub::message_word(&bytes));
                left -= usize::from(!message);
                frames.push((message, bytes));
            }
            Err(error) => return (frames, Some(error)),
        }
    }
    (frames, None)
}

/// Runs at least `commands` commands. Fails the test at the first difference.
pub fn run(seed: u64, commands: usize) -> Summary {
    // So that hashes and sorted sets keep one encoding whose order does not hang on the hash seed.
    let settings = ["--hash-max-listpack-value", "1000000", "--hash-max-listpack-entries", "10000"];
    let settings = [&settings[..], &["--zset-max-listpack-entries", "10000"]].concat();
    let settings = [&settings[..], &["--zset-max-listpack-value", "1000000"]].concat();
    let (behind, beside) = (Redis::with(&settings), Redis::with(&settings));
    let nearside = Nearside::start(behind.address());
    for user in USERS {
        assert_eq!([&behind, &beside].map(|redis| redis.connect().text(user)), ["+OK\r\n"; 2]);
    }
    let server = Server {
        field_times: beside.connect().text("COMMAND INFO hpexpire").contains("hpexpire"),
        swallows_failed_logins: replies_to(&beside, &["PING", "AUTH nobody wrong", "ECHO end"]) < 3,
    };
    let open = |i| Session::open(nearside.address, beside.address(), i < CALM);
    let sha = beside.connect().args(&[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()]);
    let sha = String::from_utf8_lossy(&sha[5..45]).into_owned();
    behind.connect().args(&[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()]);

    let mut tester = Tester {
        seed,
        generator: Generator::new(seed, sha, server),
        history: VecDeque::new(),
        done: 0,
        batches: 0,
        errors: 0,
        slowest: Duration::ZERO,
    };
    let mut sessions: Vec<_> = (0..SESSIONS).map(open).collect();
    while tester.done < commands {
        let i = tester.generator.random().below(SESSIONS);
        let before = sessions[i].state.subscribed();
        let goes_on = tester.batch(i, &mut sessions[i]);
        if !goes_on {
            sessions[i] = open(i);
        }
        if before > sessions[i].state.subscribed() {
            settle(&behind, &beside);
        }
    }
    let digest = |redis: &Redis| {
        let mut conn = redis.connect();
        (0..3).map(|db| (conn.cmd(&format!("SELECT {db}")), conn.text("DEBUG DIGEST")).1).collect::<Vec<_>>()
    };
    assert_eq!(digest(&behind), digest(&beside), "seed {seed}: the data differs in the end");
    Summary {
        commands: tester.done,
        batches: tester.batches,
        hits: nearside.stat("hits"),
        errors: tester.errors,
        slowest: tester.slowest,
    }
}

/// How many replies come to these commands in one packet, the last of which is an `ECHO end`.
fn replies_to(redis: &Redis, lines: &[&str]) -> usize {
    let mut conn = redis.connect();
    conn.send(&lines.iter().flat_map(|words| line(words)).collect::<Vec<_>>());
    1 + std::iter::repeat_with(|| conn.reply()).take_while(|reply| !reply.ends_with(b"end\r\n")).count()
}

/// Waits until both servers have the same subscribers: with QUIT and RESET the client is answered, and nearside
/// closes its connection a moment later. So PUBLISH may still count a subscriber that has gone.
fn settle(behind: &Redis, beside: &Redis) {
    let heard = |redis: &Redis| {
        let mut conn = redis.connect();
        ["PUBSUB NUMSUB ch0 ch1 ch2", "PUBSUB SHARDNUMSUB ch0 ch1 ch2", "PUBSUB NUMPAT"]
            .map(|ask| conn.text(ask))
    };
    eventually("the same subscribers", || heard(behind) == heard(beside));
}

struct Tester {
    seed: u64,
    generator: Generator,
    /// Whose, and what it was.
    history: VecDeque<(usize, Command)>,
    done: usize,
    batches: usize,
    /// Error replies, the same on both sides.
    errors: usize,
    slowest: Duration,
}

impl Tester {
    /// Sends some commands and compares the replies; false if the connections are closed now.
    fn batch(&mut self, number: usize, session: &mut Session) -> bool {
        let depth = match self.generator.random().below(10) {
            0..6 => 1 + self.generator.random().below(4),
            6..9 => 5 + self.generator.random().below(16),
            _ => 20 + self.generator.random().below(80),
        };
        let (mut sent, mut bytes, mut quits) = (Vec::new(), Vec::new(), false);
        // Ends where replies come again: what was written without one is known to be done by then.
        while sent.len() < depth || session.state.off || session.state.skip {
            let mut command = self.generator.command(&session.state, session.calm);
            if sent.len() > depth + 20 && session.state.off {
                let args = [&b"CLIENT"[..], b"REPLY", b"ON"].map(<[u8]>::to_vec).into();
                command = Command { args, effect: Effect::ReplyOn };
            }
            let replies = session.state.apply(&command);
            self.write(&mut bytes, &command);
            quits = command.effect == Effect::Quit && !session.state.multi;
            self.history.push_back((number, command.clone()));
            sent.push((command, replies));
            if quits {
                break;
            }
        }
        while self.history.len() > HISTORY * 20 {
            self.history.pop_front();
        }
        self.done += sent.len();
        self.batches += 1;
        self.send(session, &bytes);
        let replies = sent.iter().map(|(_, replies)| replies).sum();
        let (straight, straight_end) = read(&mut session.straight, replies);
        let begun = Instant::now();
        let (through, through_end) = read(&mut session.through, replies);
        self.slowest = self.slowest.max(begun.elapsed());
        self.compare(&sent, &through, &straight);
        if through_end.is_some() || straight_end.is_some() {
            let said = format!("nearside: {through_end:?}, straight: {straight_end:?}");
            self.fail(sent.last().map(|(command, _)| command), &said);
        }
        if quits {
            assert!(session.straight.is_closed(), "the server closes after QUIT");
            if !session.through.is_closed() {
                self.fail(None, "nearside does not close after QUIT");
            }
        }
        !quits
    }

    /// As an array of bulk strings, or now and then as an inline command.
    fn write(&mut self, bytes: &mut Vec<u8>, command: &Command) {
        let plain = |arg: &Vec<u8>| {
            !arg.is_empty() && arg.iter().all(|b| b.is_ascii_alphanumeric() || b"/:-.".contains(b))
        };
        let len: usize = command.args.iter().map(Vec::len).sum();
        if self.generator.random().permille(30) && len < 1000 && command.args.iter().all(plain) {
            bytes.extend(command.args.join(&b' '));
            bytes.extend(self.generator.random().pick(&["\r\n", "\n", " \r\n"]).bytes());
            return;
        }
        let args: Vec<_> = command.args.iter().map(Vec::as_slice).collect();
        nearside::resp::encode::command(bytes, &args);
    }

    /// In pieces that end anywhere.
    fn send(&mut self, session: &mut Session, bytes: &[u8]) {
        let random = self.generator.random();
        let mut cuts: Vec<_> = match random.below(20) {
            0 if bytes.len() < 300 => (1..bytes.len()).collect(),
            0..10 => Vec::new(),
            n => (0..n - 8).map(|_| random.below(bytes.len())).collect(),
        };
        cuts.push(bytes.len());
        cuts.sort_unstable();
        for conn in [&mut session.through, &mut session.straight] {
            let mut start = 0;
            for &end in &cuts {
                if conn.stream.write_all(&bytes[start..end]).is_err() {
                    // The replies will tell what is wrong.
                    break;
                }
                start = end;
            }
        }
    }

    fn compare(&mut self, sent: &[(Command, usize)], through: &[Frame], straight: &[Frame]) {
        let mut of = sent.iter().flat_map(|(command, replies)| std::iter::repeat_n(command, *replies));
        let mut command = None;
        for i in 0..through.len().max(straight.len()) {
            let (a, b) = (through.get(i), straight.get(i));
            if a.or(b).is_some_and(|(message, _)| !message) {
                command = of.next();
            }
            let same = match (a, b, command) {
                (Some((false, a)), Some((false, b)), Some(command)) => rule(command).same(a, b),
                (a, b, _) => a == b,
            };
            if !same {
                let show = |frame: Option<&Frame>| match frame {
                    Some((_, bytes)) => bytes.escape_ascii().to_string(),
                    None => "(nothing)".to_string(),
                };
                self.fail(command, &format!("nearside: {}\nstraight: {}", show(a), show(b)));
            }
            self.errors += usize::from(b.is_some_and(|(_, bytes)| bytes.starts_with(b"-")));
        }
    }

    /// Tells of a difference: the seed, what was said last, and what concerned the same keys before.
    fn fail(&self, command: Option<&Command>, said: &str) -> ! {
        let words: Vec<_> = command.iter().flat_map(|command| &command.args[1..]).collect();
        let tells = |old: &Command| {
            let keyed = |arg: &Vec<u8>| arg.len() > 1 && words.contains(&arg);
            old.effect != Effect::Plain || old.args[1..].iter().any(keyed)
        };
        let skip = self.history.len().saturating_sub(HISTORY);
        let old = self.history.iter().take(skip).filter(|(_, old)| tells(old)).collect::<Vec<_>>();
        let recent = self.history.iter().skip(skip);
        let lines: Vec<_> = (old.into_iter().rev().take(HISTORY).rev())
            .chain(recent)
            .map(|(session, command)| format!("  {session}: {}", command.show()))
            .collect();
        panic!(
            "a difference with NEARSIDE_DIFF_SEED={} after {} commands\n{}\n\nin answer to: {}\n{said}",
            self.seed,
            self.done,
            lines.join("\n"),
            command.map_or("?".into(), Command::show),
        );
    }
}
