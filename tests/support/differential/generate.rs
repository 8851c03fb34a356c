//! Random commands, and what each does to the number of replies that follow.

use super::random::Random;
use super::templates::{FIELD_READS, FIELD_WRITES, LOGINS, READS, REST, RULES, WRITES};

pub const SCRIPT: &str = "return redis.call('set', KEYS[1], ARGV[1])";
/// `SCRIPT`'s SHA1, as the server gives it; the test fills it in at start.
pub const LIBRARY: &str = "#!lua name=lib\n\
    redis.register_function('put', function(keys, args) return redis.call('set', keys[1], args[1]) end)\n\
    redis.register_function{function_name='fetch', flags={'no-writes'},\n\
    callback=function(keys, args) return redis.call('get', keys[1]) end}\n";
/// The string `dumped`, as DUMP of Redis 7.0 gives it.
const DUMP: &[u8] = b"\x00\x06dumped\x0a\x00";

/// Reads that are remembered.
const RECENT: usize = 5;

/// What a command is to its connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    Plain,
    Multi,
    /// EXEC or DISCARD.
    EndMulti,
    Watch,
    Select,
    Hello(u8),
    ReplyOff,
    ReplySkip,
    ReplyOn,
    /// Of which family (0 channels, 1 patterns, 2 shards); which are in the command.
    Subscribe(usize),
    Unsubscribe(usize),
    Reset,
    Quit,
}

#[derive(Clone, Debug)]
pub struct Command {
    pub args: Vec<Vec<u8>>,
    pub effect: Effect,
}

impl Command {
    fn new(line: &str, effect: Effect) -> Self {
        Self { args: line.split(' ').map(|word| word.as_bytes().to_vec()).collect(), effect }
    }

    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.args[0]).to_ascii_uppercase()
    }

    /// For a person to read.
    pub fn show(&self) -> String {
        let words = self.args.iter().map(|arg| match arg.len() {
            0 => "\"\"".to_string(),
            1..=60 => arg.escape_ascii().to_string(),
            len => format!("{}...({len})", arg[..40].escape_ascii()),
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// The state of one connection, as far as it says how many replies come.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub resp3: bool,
    pub multi: bool,
    pub off: bool,
    pub skip: bool,
    /// Channels, patterns, shard channels.
    pub subs: [Vec<Vec<u8>>; 3],
}

impl State {
    pub fn subscribed(&self) -> usize {
        self.subs.iter().map(Vec::len).sum()
    }

    /// Takes in a command; says how many replies it has, messages not counted.
    pub fn apply(&mut self, command: &Command) -> usize {
        use Effect::*;
        if self.multi {
            match command.effect {
                EndMulti => self.multi = false,
                Reset => *self = State::default(),
                _ => {}
            }
            return 1;
        }
        if self.off || std::mem::take(&mut self.skip) {
            if command.effect == ReplyOn {
                (self.off, self.skip) = (false, false);
                return 1;
            }
            return 0;
        }
        let restricted = !self.resp3 && self.subscribed() > 0;
        match command.effect {
            Reset => *self = State::default(),
            Subscribe(family) => {
                for channel in &command.args[1..] {
                    if !self.subs[family].contains(channel) {
                        self.subs[family].push(channel.clone());
                    }
                }
                return command.args.len() - 1;
            }
            Unsubscribe(family) => {
                let known = &mut self.subs[family];
                let gone = match command.args.len() {
                    1 => known.len().max(1),
                    n => n - 1,
                };
                known.retain(|channel| command.args.len() > 1 && !command.args[1..].contains(channel));
                return gone;
            }
            _ if restricted => {}
            Multi => self.multi = true,
            Hello(version) => self.resp3 = version == 3,
            ReplyOff => {
                self.off = true;
                return 0;
            }
            ReplySkip => {
                self.skip = true;
                return 0;
            }
            _ => {}
        }
        1
    }
}

/// What is particular to the server.
#[derive(Clone, Copy)]
pub struct Server {
    /// It knows times to live of fields.
    pub field_times: bool,
    /// It gives no reply to a failed login that is not the first command of its packet (Redis 8.2.3).
    pub swallows_failed_logins: bool,
}

impl Server {
    fn takes(&self, template: &str) -> bool {
        !(self.swallows_failed_logins && template.contains("wrong"))
    }
}

pub struct Generator {
    random: Random,
    sha: String,
    server: Server,
    /// Reads that are asked again, so that there is something to serve from memory.
    recent: Vec<Command>,
}

impl Generator {
    pub fn new(seed: u64, sha: String, server: Server) -> Self {
        Self { random: Random::new(seed), sha, server, recent: Vec::new() }
    }

    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// The next command for a connection in this state. One that is `calm` does nothing that would keep it on
    /// a connection of its own for long, so that the cache has something to do.
    pub fn command(&mut self, state: &State, calm: bool) -> Command {
        if calm && !state.multi {
            return match self.random.below(1000) {
                0..10 => Command::new("MULTI", Effect::Multi),
                10..14 => Command::new(&format!("SELECT {}", self.db()), Effect::Select),
                14..16 => Command::new("HELLO 3", Effect::Hello(3)),
                16..18 => Command::new("HELLO 2", Effect::Hello(2)),
                18..21 => Command::new("RESET", Effect::Reset),
                21..23 => Command::new("CLIENT SETNAME calm", Effect::Plain),
                23 => Command::new("FLUSHDB", Effect::Plain),
                24..32 => Command::new(self.login(), Effect::Plain),
                32 => Command::new("HELLO 3 AUTH reader r", Effect::Hello(3)),
                33 => Command::new("HELLO 2 AUTH items i SETNAME me", Effect::Hello(2)),
                34..36 => Command::new(self.random.pick(RULES), Effect::Plain),
                36..600 if self.recent.len() == RECENT => self.recent[self.random.below(RECENT)].clone(),
                36..800 => {
                    let read = self.read();
                    let i = self.random.below(RECENT);
                    match self.recent.get_mut(i) {
                        Some(old) => *old = read.clone(),
                        None => self.recent.push(read.clone()),
                    }
                    read
                }
                _ => self.write(),
            };
        }
        // Without replies, only what leaves no doubt about who hears what.
        if state.off || state.skip {
            return match self.random.permille(if state.off { 150 } else { 0 }) {
                true => Command::new("CLIENT REPLY ON", Effect::ReplyOn),
                false => self.data(state, false),
            };
        }
        if state.multi {
            return match self.random.below(100) {
                0..20 => Command::new("EXEC", Effect::EndMulti),
                20..24 => Command::new("DISCARD", Effect::EndMulti),
                24 => Command::new("RESET", Effect::Reset),
                25 => Command::new(self.random.pick(&["MULTI", "WATCH users/s1"]), Effect::Plain),
                26 => Command::new(&format!("SELECT {}", self.db()), Effect::Plain),
                _ => self.data(state, calm),
            };
        }
        let chance = if state.subscribed() > 0 { 300 } else { 50 };
        match self.random.permille(chance) {
            true => self.control(state),
            false => self.data(state, false),
        }
    }

    fn control(&mut self, state: &State) -> Command {
        use Effect::*;
        let (command, effect) = match self.random.below(100) {
            0..30 => ("MULTI".into(), Multi),
            30..42 => (format!("WATCH {}", self.key()), Watch),
            42..45 => (format!("WATCH {} {}", self.key(), self.key()), Watch),
            45..48 => (self.random.pick(&["EXEC", "DISCARD"]).into(), EndMulti),
            48..58 => (format!("SELECT {}", self.db()), Select),
            58..62 => ("HELLO 3".into(), Hello(3)),
            62..66 => ("HELLO 2".into(), Hello(2)),
            66 => ("HELLO 3 SETNAME you".into(), Hello(3)),
            67 if state.subscribed() == 0 => ("CLIENT REPLY OFF".into(), ReplyOff),
            68..72 if state.subscribed() == 0 => ("CLIENT REPLY SKIP".into(), ReplySkip),
            72 => ("CLIENT REPLY ON".into(), ReplyOn),
            73..80 => {
                let family = self.random.below(3);
                let name = ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"][family];
                let mut line = name.to_string();
                for _ in 0..1 + self.random.below(2) {
                    line += &format!(" {}{}", self.channel(), if family == 1 { "*" } else { "" });
                }
                (line, Subscribe(family))
            }
            80..94 => {
                let family = self.random.below(3);
                let mut line = ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"][family].to_string();
                // Of several, which comes first depends on the server's hash seed.
                if self.random.below(3) == 0 || state.subs[family].len() > 1 {
                    line += &format!(" {}{}", self.channel(), if family == 1 { "*" } else { "" });
                }
                (line, Unsubscribe(family))
            }
            94..97 => ("RESET".into(), Reset),
            97 => ("QUIT".into(), Quit),
            98 => (self.login().into(), Plain),
            _ => ("UNWATCH".into(), Plain),
        };
        Command::new(&command, effect)
    }

    /// A command that touches nothing of its connection.
    fn data(&mut self, state: &State, calm: bool) -> Command {
        loop {
            let template = match self.random.below(if calm { 94 } else { 100 }) {
                // Their order would be compared in the reply of EXEC.
                0..55 if !state.multi && self.of_fields() => self.random.pick(FIELD_READS),
                0..55 => self.random.pick(READS),
                55..94 if self.of_fields() => self.random.pick(FIELD_WRITES),
                55..94 => self.random.pick(WRITES),
                _ => self.random.pick(REST),
            };
            // What empties a database is rarer still; what a transaction would carry out is compared as
            // one reply, so only what needs no care goes in; a message into its own transaction's reply
            // breaks Redis' protocol.
            let has = |word: &str| template.split(' ').any(|part| part.trim_start_matches('!') == word);
            let empties = ["FLUSHDB", "FLUSHALL", "SWAPDB"].iter().any(|name| has(name));
            let alone = [
                "TTL",
                "PTTL",
                "EXPIRETIME",
                "PEXPIRETIME",
                "KEYS",
                "SCAN",
                "HSCAN",
                "SSCAN",
                "ZSCAN",
                "PUBLISH",
                "SPUBLISH",
                "AUTH",
                "HELLO",
            ];
            if !self.server.takes(template)
                || empties && self.random.below(2) > 0
                || state.multi && (alone.iter().any(|name| has(name)) || template.contains("FILTERBY"))
            {
                continue;
            }
            let args = self.expand(template);
            return Command { args, effect: Effect::Plain };
        }
    }

    /// Whether it is time for a hash whose fields have times of their own.
    fn of_fields(&mut self) -> bool {
        self.server.field_times && self.random.below(6) == 0
    }

    fn login(&mut self) -> &'static str {
        let all: Vec<_> = LOGINS.iter().copied().filter(|login| self.server.takes(login)).collect();
        self.random.pick(&all)
    }

    fn read(&mut self) -> Command {
        let templates = if self.of_fields() { FIELD_READS } else { READS };
        self.one_of(templates)
    }

    fn write(&mut self) -> Command {
        let templates = if self.of_fields() { FIELD_WRITES } else { WRITES };
        self.one_of(templates)
    }

    fn one_of(&mut self, templates: &[&'static str]) -> Command {
        let template = self.random.pick(templates);
        Command { args: self.expand(template), effect: Effect::Plain }
    }

    fn expand(&mut self, template: &str) -> Vec<Vec<u8>> {
        let (fixed, template) = match template.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, template),
        };
        let mut args = Vec::new();
        for word in template.split(' ') {
            let (word, times) = match word.strip_suffix('+') {
                Some(word) if word.ends_with([')', '}']) => (word, 1 + self.random.below(3)),
                _ => (word, 1),
            };
            for _ in 0..times {
                match word.strip_prefix('(').and_then(|word| word.strip_suffix(')')) {
                    Some(group) => {
                        let all: Vec<_> = group.split('|').collect();
                        let chosen = self.random.pick(&all);
                        args.extend(chosen.split(',').filter(|w| !w.is_empty()).map(|w| self.fill(w)));
                    }
                    None => args.push(self.fill(word)),
                }
            }
        }
        if self.random.permille(30) {
            args[0].make_ascii_lowercase();
        }
        if !fixed && self.random.permille(30) {
            self.mutate(&mut args);
        }
        args
    }

    /// Makes a command wrong, mostly.
    fn mutate(&mut self, args: &mut Vec<Vec<u8>>) {
        let junk: [&[u8]; 6] = [b"", b"abc", b"-1", b"0", b"99999999999999999999", b"users/s1"];
        let junk = self.random.pick(&junk).to_vec();
        match self.random.below(3) {
            0 => args.push(junk),
            1 if args.len() > 1 => drop(args.pop()),
            _ if args.len() > 1 => {
                let i = 1 + self.random.below(args.len() - 1);
                args[i] = junk;
            }
            _ => {}
        }
    }

    /// One word, with what stands in braces filled in.
    fn fill(&mut self, word: &str) -> Vec<u8> {
        let (Some(start), Some(end)) = (word.find('{'), word.find('}')) else {
            return word.as_bytes().to_vec();
        };
        if start > end || word.contains("KEYS") || word.starts_with("return") {
            return word.as_bytes().to_vec();
        }
        let mut out = word.as_bytes()[..start].to_vec();
        let n = self.random.below(1 << 30);
        let value = match &word[start + 1..end] {
            kind @ ("e" | "s" | "h" | "l" | "t" | "z" | "x" | "p" | "g") => self.key_of(kind).into_bytes(),
            "k" => self.key().into_bytes(),
            "v" => return [out, self.value(), word.as_bytes()[end + 1..].to_vec()].concat(),
            "f" => format!("f{}", n % 6).into_bytes(),
            "m" => format!("{}", n % 20).into_bytes(),
            "n" => format!("{}", 1 + n % 5).into_bytes(),
            "r" => format!("{}", (n % 11) as i64 - 5).into_bytes(),
            "db" => self.db().to_string().into_bytes(),
            "bit" => format!("{}", n % 100).into_bytes(),
            "float" => self.random.pick(&["1", "2.5", "-3", "1e3", "0.1"]).as_bytes().to_vec(),
            "score" => self.random.pick(&["-inf", "+inf", "(1", "2.5", "0", "1000"]).as_bytes().to_vec(),
            "lex" => self.random.pick(&["-", "+", "[v1", "(v3", "[10"]).as_bytes().to_vec(),
            "id" => format!("{}-{}", n % 12, n % 3).into_bytes(),
            "group" => format!("group{}", n % 2).into_bytes(),
            "place" => self.random.pick(&["palermo", "catania", "berlin", "nowhere"]).as_bytes().to_vec(),
            "ttl" => format!("{}", 10_000 + n % 10_000).into_bytes(),
            "at" => format!("{}", 4_000_000_000u64 + (n % 1000) as u64).into_bytes(),
            "glob" => self.random.pick(&["*", "users/*", "[ab]*", "items/h?", "nothing"]).as_bytes().to_vec(),
            "ch" => self.channel().into_bytes(),
            "sha" => self.sha.clone().into_bytes(),
            "script" => SCRIPT.into(),
            "library" => LIBRARY.into(),
            "dump" => dump(),
            other => panic!("no such placeholder: {other}"),
        };
        out.extend(value);
        out.extend(&word.as_bytes()[end + 1..]);
        out
    }

    fn db(&mut self) -> usize {
        self.random.below(3)
    }

    fn channel(&mut self) -> String {
        format!("ch{}", self.random.below(3))
    }

    /// Mostly a key of this type.
    fn key_of(&mut self, kind: &str) -> String {
        // What has to do with times of fields must not come to another hash.
        if kind != "e" && self.random.permille(25) {
            return self.key();
        }
        let n = self.random.below(4);
        let prefix = ["users/", "items/", "", "other:"][n];
        format!("{prefix}{kind}{n}")
    }

    fn key(&mut self) -> String {
        let kind = self.random.pick(&["s", "s", "s", "h", "l", "t", "z", "x", "p", "g"]);
        let n = self.random.below(4);
        format!("{}{kind}{n}", ["users/", "items/", "", "other:"][n])
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.below(40) {
            0 => Vec::new(),
            1 => b"two words\r\n\0\xff".to_vec(),
            2 => vec![b'x'; 1000],
            3 => vec![b'y'; 20_000 + self.random.below(30_000)],
            4..16 => self.random.below(300).to_string().into_bytes(),
            n => format!("v{}", n % 7).into_bytes(),
        }
    }
}

/// `DUMP` with its checksum.
fn dump() -> Vec<u8> {
    let mut out = DUMP.to_vec();
    out.extend(crc64(DUMP).to_le_bytes());
    out
}

/// CRC-64 as Redis has it (Jones, reflected).
fn crc64(bytes: &[u8]) -> u64 {
    let mut crc = 0u64;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x95AC_9329_AC4B_C9B5 } else { crc >> 1 };
        }
    }
    crc
}
