//! What a key holds: a number, in the form of its kind, so that every reply to every question can be foretold.
//!
//! A key's number grows with each write. What the server answers to a question about a key with a number is a
//! pure function, [`Ask::expect`], and is held against a real server by a test. So a reply tells which writes
//! may have produced it, whatever was asked.

use super::random::Random;

/// Which of the server's types a key is of, and how the number stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `"<n>:xxx"`, in a length that depends on the number.
    Text,
    /// `"<n>"`, which can be counted up.
    Number,
    /// `[n, "x"]`
    List,
    /// `{m: n}`
    Sorted,
    /// `{n}`
    Set,
    /// `{f: n}`
    Hash,
    /// One entry with the id `<n>-1`.
    Stream,
}

pub const KINDS: [Kind; 7] =
    [Kind::Text, Kind::Number, Kind::List, Kind::Sorted, Kind::Set, Kind::Hash, Kind::Stream];

/// A reply, before it is put into RESP2 or RESP3.
#[derive(Clone, Debug, PartialEq)]
enum Is {
    Nil,
    NilArray,
    Int(i64),
    Bulk(String),
    Word(&'static str),
    Double(u64),
    Array(Vec<Is>),
    Set(Vec<Is>),
    Map(Vec<(Is, Is)>),
    /// Members with scores: nested in RESP3, flat in RESP2.
    Scores(Vec<(Is, u64)>),
}

impl Is {
    fn bulk(text: impl ToString) -> Is {
        Is::Bulk(text.to_string())
    }

    fn write(&self, resp3: bool, out: &mut String) {
        let all = |items: &[Is], out: &mut String| items.iter().for_each(|item| item.write(resp3, out));
        match self {
            Is::Nil => out.push_str(if resp3 { "_\r\n" } else { "$-1\r\n" }),
            Is::NilArray => out.push_str(if resp3 { "_\r\n" } else { "*-1\r\n" }),
            Is::Int(n) => *out += &format!(":{n}\r\n"),
            Is::Bulk(text) => *out += &format!("${}\r\n{text}\r\n", text.len()),
            Is::Word(word) => *out += &format!("+{word}\r\n"),
            Is::Double(n) if resp3 => *out += &format!(",{n}\r\n"),
            Is::Double(n) => Is::bulk(n).write(resp3, out),
            Is::Array(items) => {
                *out += &format!("*{}\r\n", items.len());
                all(items, out);
            }
            Is::Set(items) => {
                *out += &format!("{}{}\r\n", if resp3 { '~' } else { '*' }, items.len());
                all(items, out);
            }
            Is::Map(pairs) => {
                *out += &match resp3 {
                    true => format!("%{}\r\n", pairs.len()),
                    false => format!("*{}\r\n", 2 * pairs.len()),
                };
                for (key, value) in pairs {
                    key.write(resp3, out);
                    value.write(resp3, out);
                }
            }
            Is::Scores(pairs) => {
                *out += &format!("*{}\r\n", if resp3 { pairs.len() } else { 2 * pairs.len() });
                for (member, score) in pairs {
                    if resp3 {
                        *out += "*2\r\n";
                    }
                    member.write(resp3, out);
                    Is::Double(*score).write(resp3, out);
                }
            }
        }
    }
}

/// A question: a command whose reply may be cached, and what it is to say of a number.
#[derive(Clone, Copy)]
pub struct Ask {
    /// The command's words, `k` being the key.
    pub words: &'static str,
    reply: fn(Option<u64>) -> Is,
}

impl Ask {
    pub fn command(&self, key: &str) -> Vec<String> {
        self.words.split(' ').map(|word| if word == "k" { key } else { word }.to_string()).collect()
    }

    /// What the server answers if the key holds `content`.
    pub fn expect(&self, content: Option<u64>, resp3: bool) -> Vec<u8> {
        let mut out = String::new();
        (self.reply)(content).write(resp3, &mut out);
        out.into_bytes()
    }
}

fn text(n: u64) -> String {
    format!("{n}:{}", "x".repeat(n as usize % 13))
}

fn or_nil(content: Option<u64>, is: impl FnOnce(u64) -> Is) -> Is {
    content.map_or(Is::Nil, is)
}

fn count(content: Option<u64>, n: i64) -> Is {
    Is::Int(if content.is_some() { n } else { 0 })
}

/// A sorted set is a set of places, too: the member is found where it is.
fn found(content: Option<u64>) -> Is {
    Is::Array(content.map(|_| Is::bulk("m")).into_iter().collect())
}

fn entries(content: Option<u64>) -> Is {
    let entry = |n| {
        let fields = vec![Is::bulk("f"), Is::bulk(n)];
        Is::Array(vec![Is::Bulk(format!("{n}-1")), Is::Array(fields)])
    };
    Is::Array(content.map(entry).into_iter().collect())
}

fn slice(text: String, from: usize, to: usize) -> Is {
    Is::Bulk(text.chars().skip(from).take(to + 1 - from).collect())
}

const fn ask(words: &'static str, reply: fn(Option<u64>) -> Is) -> Ask {
    Ask { words, reply }
}

const EXISTS: Ask = ask("EXISTS k", |c| count(c, 1));

const TEXT: &[Ask] = &[
    ask("GET k", |c| or_nil(c, |n| Is::Bulk(text(n)))),
    ask("GETRANGE k 0 -1", |c| Is::Bulk(c.map(text).unwrap_or_default())),
    ask("GETRANGE k 0 3", |c| slice(c.map(text).unwrap_or_default(), 0, 3)),
    ask("SUBSTR k 1 12", |c| slice(c.map(text).unwrap_or_default(), 1, 12)),
    ask("STRLEN k", |c| Is::Int(c.map(text).unwrap_or_default().len() as i64)),
    EXISTS,
    ask("TYPE k", |c| Is::Word(if c.is_some() { "string" } else { "none" })),
    ask("BITCOUNT k", |c| {
        Is::Int(c.map(text).unwrap_or_default().bytes().map(|b| i64::from(b.count_ones())).sum())
    }),
    ask("GETBIT k 7", |c| Is::Int(c.map_or(0, |n| i64::from(text(n).as_bytes()[0] & 1)))),
    ask("BITPOS k 1", |c| {
        Is::Int(c.map_or(-1, |n| {
            text(n)
                .bytes()
                .position(|b| b != 0)
                .map_or(-1, |i| i as i64 * 8 + i64::from(text(n).as_bytes()[i].leading_zeros()))
        }))
    }),
    ask("BITFIELD_RO k GET u8 0", |c| {
        Is::Array(vec![Is::Int(c.map_or(0, |n| i64::from(text(n).as_bytes()[0])))])
    }),
];

const NUMBER: &[Ask] = &[
    ask("GET k", |c| or_nil(c, Is::bulk)),
    ask("GETRANGE k 0 -1", |c| Is::Bulk(c.map(|n| n.to_string()).unwrap_or_default())),
    ask("STRLEN k", |c| Is::Int(c.map_or(0, |n| n.to_string().len() as i64))),
    EXISTS,
];

const LIST: &[Ask] = &[
    ask("LRANGE k 0 -1", |c| Is::Array(c.map_or(vec![], |n| vec![Is::bulk(n), Is::bulk("x")]))),
    ask("LINDEX k 0", |c| or_nil(c, Is::bulk)),
    ask("LLEN k", |c| count(c, 2)),
    ask("LPOS k x", |c| or_nil(c, |_| Is::Int(1))),
    ask("TYPE k", |c| Is::Word(if c.is_some() { "list" } else { "none" })),
    EXISTS,
];

const SORTED: &[Ask] = &[
    ask("ZSCORE k m", |c| or_nil(c, Is::Double)),
    ask("ZRANGE k 0 -1 WITHSCORES", |c| Is::Scores(c.map_or(vec![], |n| vec![(Is::bulk("m"), n)]))),
    ask("ZRANGEBYSCORE k -inf +inf WITHSCORES", |c| {
        Is::Scores(c.map_or(vec![], |n| vec![(Is::bulk("m"), n)]))
    }),
    ask("ZREVRANGE k 0 -1 WITHSCORES", |c| Is::Scores(c.map_or(vec![], |n| vec![(Is::bulk("m"), n)]))),
    ask("ZREVRANGEBYSCORE k +inf -inf", |c| Is::Array(c.map_or(vec![], |_| vec![Is::bulk("m")]))),
    ask("ZRANGEBYLEX k - +", |c| Is::Array(c.map_or(vec![], |_| vec![Is::bulk("m")]))),
    ask("ZREVRANGEBYLEX k + -", |c| Is::Array(c.map_or(vec![], |_| vec![Is::bulk("m")]))),
    ask("ZMSCORE k m", |c| Is::Array(vec![or_nil(c, Is::Double)])),
    ask("ZCARD k", |c| count(c, 1)),
    ask("ZCOUNT k -inf +inf", |c| count(c, 1)),
    ask("ZLEXCOUNT k - +", |c| count(c, 1)),
    ask("GEODIST k m m", |c| or_nil(c, |_| Is::bulk("0.0000"))),
    ask("GEOHASH k none", |_| Is::Array(vec![Is::Nil])),
    ask("GEOPOS k none", |_| Is::Array(vec![Is::NilArray])),
    ask("GEOSEARCH k FROMMEMBER m BYRADIUS 1 m", found),
    ask("GEORADIUS_RO k 0 0 22000 km", found),
    ask("GEORADIUSBYMEMBER_RO k m 1 m", found),
    ask("ZRANK k m", |c| or_nil(c, |_| Is::Int(0))),
    ask("ZREVRANK k m", |c| or_nil(c, |_| Is::Int(0))),
    ask("TYPE k", |c| Is::Word(if c.is_some() { "zset" } else { "none" })),
    EXISTS,
];

const SET: &[Ask] = &[
    ask("SMEMBERS k", |c| Is::Set(c.map_or(vec![], |n| vec![Is::bulk(n)]))),
    ask("SCARD k", |c| count(c, 1)),
    ask("SISMEMBER k 10", |c| Is::Int((c == Some(10)).into())),
    ask("SMISMEMBER k 10 12", |c| Is::Array([10, 12].map(|n| Is::Int((c == Some(n)).into())).into())),
    ask("TYPE k", |c| Is::Word(if c.is_some() { "set" } else { "none" })),
    EXISTS,
];

const HASH: &[Ask] = &[
    ask("HGET k f", |c| or_nil(c, Is::bulk)),
    ask("HGETALL k", |c| Is::Map(c.map_or(vec![], |n| vec![(Is::bulk("f"), Is::bulk(n))]))),
    ask("HMGET k f g", |c| Is::Array(vec![or_nil(c, Is::bulk), Is::Nil])),
    ask("HVALS k", |c| Is::Array(c.map_or(vec![], |n| vec![Is::bulk(n)]))),
    ask("HKEYS k", |c| Is::Array(c.map_or(vec![], |_| vec![Is::bulk("f")]))),
    ask("HSTRLEN k f", |c| Is::Int(c.map_or(0, |n| n.to_string().len() as i64))),
    ask("HLEN k", |c| count(c, 1)),
    ask("HEXISTS k f", |c| count(c, 1)),
    EXISTS,
];

const STREAM: &[Ask] = &[
    ask("XRANGE k - +", entries),
    ask("XREVRANGE k + -", entries),
    ask("XLEN k", |c| count(c, 1)),
    ask("TYPE k", |c| Is::Word(if c.is_some() { "stream" } else { "none" })),
    EXISTS,
];

impl Kind {
    /// All questions; the first tells the number.
    pub fn asks(self) -> &'static [Ask] {
        match self {
            Kind::Text => TEXT,
            Kind::Number => NUMBER,
            Kind::List => LIST,
            Kind::Sorted => SORTED,
            Kind::Set => SET,
            Kind::Hash => HASH,
            Kind::Stream => STREAM,
        }
    }
}

/// What a write does to a key: commands that are sent in one packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    pub commands: Vec<Vec<String>>,
    /// What the key holds afterwards.
    pub content: Option<u64>,
    /// In what time the key expires.
    pub expires: Option<u64>,
}

/// What may be done in a scenario.
#[derive(Clone, Copy)]
pub struct Allowed {
    /// Writes that build on what is there: not where the server may have forgotten it.
    pub relative: bool,
    /// Short times to live.
    pub expiry: bool,
    /// One in so many writes is a script that does not declare what it writes; none if 0.
    pub undeclared: u64,
    /// One that declares no key at all may be among them: not in a cluster, where keys say whose it is.
    pub keyless: bool,
    /// A script may remove what it makes anew: not while slots move, when Redis may end it in between.
    pub remakes: bool,
    /// One in so many writes is a removal.
    pub removals: u64,
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_string).collect()
}

/// Some write that leaves `n` in `key`, or nothing; `held` is what it holds for certain.
pub fn op(kind: Kind, key: &str, n: u64, held: Option<u64>, allowed: Allowed, random: &mut Random) -> Op {
    let held = held.filter(|_| allowed.relative);
    if random.one_in(allowed.removals) {
        return delete(kind, key, held, random);
    }
    if allowed.undeclared > 0 && random.one_in(allowed.undeclared) {
        return undeclared(kind, key, n, allowed.keyless, random);
    }
    let tmp = format!("{key}.tmp");
    let (px, t) = (20 + random.below(60), text(n));
    let mut expires = None;
    let by = held.map(|held| n as i64 - held as i64);
    let lines: Vec<String> = match (kind, random.below(12)) {
        (Kind::Text, 0) => vec![format!("SETEX {key} 1000 {t}")],
        (Kind::Text, 1) => vec![format!("GETSET {key} {t}")],
        (Kind::Text, 2) => vec![format!("MSET {tmp} {t} {key} {t}")],
        (Kind::Text, 3) => return script(key, "redis.call('SET',KEYS[1],ARGV[1])", &t, n),
        (Kind::Text, 4) => vec![format!("SET {tmp} {t}"), format!("RENAME {tmp} {key}")],
        (Kind::Text, 5) => vec![format!("SET {tmp} {t}"), format!("COPY {tmp} {key} REPLACE")],
        (Kind::Text, 6) => vec!["MULTI".into(), format!("SET {key} {t}"), "EXEC".into()],
        (Kind::Text, 7) if allowed.expiry => {
            expires = Some(px);
            vec![format!("SET {key} {t} PX {px}")]
        }
        (Kind::Text, 8) => {
            vec!["MULTI".into(), format!("DEL {key}"), format!("APPEND {key} {t}"), "EXEC".into()]
        }
        (Kind::Text, 9) => vec![format!("SET {tmp} {t}"), format!("BITOP OR {key} {tmp}")],
        (Kind::Text, _) => vec![format!("SET {key} {t}")],
        (Kind::Number, 0) => vec![format!("GETSET {key} {n}")],
        (Kind::Number, 1) => vec![format!("PSETEX {key} 1000000 {n}")],
        (Kind::Number, 2..6) if by.is_some() => vec![format!("INCRBY {key} {}", by.unwrap_or(0))],
        (Kind::Number, 6) if by.is_some() => vec![format!("DECRBY {key} {}", -by.unwrap_or(0))],
        (Kind::Number, 7) if by.is_some() => {
            vec![format!("BITFIELD {tmp} SET u8 0 1"), format!("INCRBYFLOAT {key} {}", by.unwrap_or(0))]
        }
        (Kind::Number, _) => vec![format!("SET {key} {n}")],
        (Kind::List, 0..5) if held.is_some() => vec![format!("LSET {key} 0 {n}")],
        (Kind::List, 5 | 6) if allowed.remakes => {
            return script(
                key,
                "redis.call('DEL',KEYS[1]) redis.call('RPUSH',KEYS[1],ARGV[1],'x')",
                &n.to_string(),
                n,
            );
        }
        (Kind::List, 7 | 8) => {
            vec![format!("DEL {tmp}"), format!("RPUSH {tmp} {n} x"), format!("RENAME {tmp} {key}")]
        }
        (Kind::List, 9) if held.is_some() => {
            vec!["MULTI".into(), format!("LPOP {key}"), format!("LPUSH {key} {n}"), "EXEC".into()]
        }
        (Kind::List, 10) => vec![
            format!("DEL {tmp}"),
            format!("LPUSH {tmp} x {n}"),
            format!("SORT {tmp} BY nosort STORE {key}"),
        ],
        (Kind::List, _) => {
            vec!["MULTI".into(), format!("DEL {key}"), format!("RPUSH {key} {n} x"), "EXEC".into()]
        }
        (Kind::Sorted, 0..3) if by.is_some() => vec![format!("ZINCRBY {key} {} m", by.unwrap_or(0))],
        (Kind::Sorted, 3) => vec![format!("ZADD {tmp} {n} m"), format!("ZUNIONSTORE {key} 1 {tmp}")],
        (Kind::Sorted, 4) => vec![format!("ZADD {tmp} {n} m"), format!("ZRANGESTORE {key} {tmp} 0 -1")],
        (Kind::Sorted, _) => vec![format!("ZADD {key} {n} m")],
        (Kind::Set, 0..4) if allowed.remakes => {
            return script(
                key,
                "redis.call('DEL',KEYS[1]) redis.call('SADD',KEYS[1],ARGV[1])",
                &n.to_string(),
                n,
            );
        }
        (Kind::Set, 4..7) => {
            vec![format!("DEL {tmp}"), format!("SADD {tmp} {n}"), format!("SUNIONSTORE {key} {tmp}")]
        }
        (Kind::Set, _) => {
            vec!["MULTI".into(), format!("DEL {key}"), format!("SADD {key} {n}"), "EXEC".into()]
        }
        (Kind::Hash, 0..4) if by.is_some() => vec![format!("HINCRBY {key} f {}", by.unwrap_or(0))],
        (Kind::Hash, 4) => vec![format!("HMSET {key} f {n}")],
        (Kind::Hash, _) => vec![format!("HSET {key} f {n}")],
        (Kind::Stream, _) => vec![format!("XADD {key} MAXLEN 1 {n}-1 f {n}")],
    };
    Op { commands: lines.iter().map(|line| words(line)).collect(), content: Some(n), expires }
}

/// Puts anew what its arguments say into the key that it builds of the first two.
const UNDECLARED: &str = "local key = ARGV[1] .. ARGV[2] redis.call('DEL', key) \
    return redis.call(ARGV[3], key, unpack(ARGV, 4))";

/// What `SCRIPT LOAD` answers to it.
const UNDECLARED_SHA: &str = "75e99d7e1be46dbd8b4520091a26c0a2eb83ae10";

fn undeclared(kind: Kind, key: &str, n: u64, keyless: bool, random: &mut Random) -> Op {
    let what = match kind {
        Kind::Text => format!("SET {}", text(n)),
        Kind::Number => format!("SET {n}"),
        Kind::List => format!("RPUSH {n} x"),
        Kind::Sorted => format!("ZADD {n} m"),
        Kind::Set => format!("SADD {n}"),
        Kind::Hash => format!("HSET f {n}"),
        Kind::Stream => format!("XADD {n}-1 f {n}"),
    };
    let (head, tail) = key.split_at(key.len() / 2);
    let declared = format!("{key}.tmp");
    let call = |start: &[&str], declares: bool| {
        let keys: &[&str] = if declares { &["1", &declared] } else { &["0"] };
        let start = [start, keys, &[head, tail]].concat().into_iter().map(str::to_string);
        start.chain(words(&what)).collect::<Vec<String>>()
    };
    let eval = call(&["EVAL", UNDECLARED], !keyless);
    let load = ["SCRIPT", "LOAD", UNDECLARED].map(str::to_string).to_vec();
    let library =
        format!("#!lua name=torture\nredis.register_function('put', function(KEYS, ARGV) {UNDECLARED} end)");
    let function = ["FUNCTION", "LOAD", "REPLACE", &library].map(str::to_string).to_vec();
    let commands = match random.below(8) {
        0 => vec![words("MULTI"), eval, words("EXEC")],
        1 => vec![load, call(&["EVALSHA", UNDECLARED_SHA], !keyless)],
        2 => vec![function, call(&["FCALL", "put"], !keyless)],
        3 | 4 => vec![call(&["EVAL", UNDECLARED], true)],
        _ => vec![eval],
    };
    Op { commands, content: Some(n), expires: None }
}

fn script(key: &str, body: &str, arg: &str, n: u64) -> Op {
    let command = ["EVAL", body, "1", key, arg].map(str::to_string).to_vec();
    Op { commands: vec![command], content: Some(n), expires: None }
}

fn delete(kind: Kind, key: &str, held: Option<u64>, random: &mut Random) -> Op {
    let line = match (kind, random.below(6)) {
        (_, 0 | 1) => format!("DEL {key}"),
        (_, 2) => format!("UNLINK {key}"),
        (_, 3) => format!("PEXPIRE {key} 0"),
        (Kind::Text | Kind::Number, 4) => format!("GETDEL {key}"),
        (Kind::List, 4) => format!("LPOP {key} 2"),
        (Kind::Sorted, 4) => format!("ZREM {key} m"),
        (Kind::Sorted, 5) => format!("ZPOPMIN {key}"),
        (Kind::Set, 4) => format!("SPOP {key}"),
        (Kind::Hash, 4) => format!("HDEL {key} f"),
        (Kind::Set, 5) if held.is_some() => format!("SREM {key} {}", held.unwrap_or(0)),
        _ => format!("DEL {key}"),
    };
    Op { commands: vec![words(&line)], content: None, expires: None }
}

#[cfg(test)]
mod tests;
