//! The flusher: a client of nearside itself, which makes the flushes of one namespace.
//!
//! It speaks over a connection within the process, whose session claims nothing. So a flush is a write like any other: fenced,
//! routed, sent to where a hash slot has moved, announced.
//!
//! Invariants:
//! - A reply that was lost makes nothing of a flush: it is settled by looking, which the next one does.
//! - While the upstream refuses, one flush at a time asks whether it still does, with pauses in between.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sha1_smol::Sha1;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::ack::Waiter;
use super::asked::{AllAsked, Asked};
use super::crash::crash;
use super::dirty::Verdict;
use super::engine::{Open, WriteBack};
use super::flushing::{Flush, base_of};
use super::op::unix_ms;
use super::queues::Key;
use super::replies::Replies;
use super::script::FLUSH;
use super::watched;
use crate::cache::Micros;
use crate::resp::encode;

/// Flushes under way at a time.
const WINDOW: usize = 256;

/// Keys that are being read at a time, beside those whose clients wait.
const READS: usize = 256;

/// Bytes that wait to be written, above which nothing more is begun.
const MOST_UNWRITTEN: usize = 1 << 20;

/// How long a write waits for what stands upstream to be read, before it is acknowledged without.
const READ_WAIT: Duration = Duration::from_secs(1);

/// How long it sleeps at most.
const IDLE: Duration = Duration::from_secs(60);

/// How often it is asked whether the upstream is there again.
const PING_PAUSE: Duration = Duration::from_millis(100);

/// How long no script is tried where the upstream has refused one.
const SCRIPTLESS: Duration = Duration::from_secs(60);

/// Between two flushes while the upstream refuses.
const FIRST_REST: Duration = Duration::from_millis(20);
const LONGEST_REST: Duration = Duration::from_millis(500);

/// How the flusher reaches the rest of the process.
pub trait Ways: Send + Sync + 'static {
    /// A connection to a session that claims nothing.
    fn connect(&self) -> io::Result<StdStream>;
    /// Whether a command that was answered with this error may have been executed.
    fn may_be_done(&self, reply: &[u8]) -> bool;
    fn now(&self) -> Micros;
}

/// See the [module](self).
pub struct Flusher<W, C> {
    engine: Arc<WriteBack<W>>,
    ways: C,
    sha1: String,
    /// The upstream lets nearside run no scripts; until then they are not tried again.
    scriptless: Option<Instant>,
    /// How long the next pause is, while the upstream refuses.
    rest: Option<Duration>,
    not_before: Instant,
    /// When it was last asked whether the upstream is there again.
    pinged: Instant,
    asked: AllAsked,
    out: BytesMut,
}

impl<W: Waiter, C: Ways> Flusher<W, C> {
    pub fn new(engine: Arc<WriteBack<W>>, ways: C) -> Self {
        Self {
            engine,
            ways,
            sha1: Sha1::from(FLUSH).digest().to_string(),
            scriptless: None,
            rest: None,
            not_before: Instant::now(),
            pinged: Instant::now(),
            asked: AllAsked::default(),
            out: BytesMut::new(),
        }
    }

    /// Runs until the engine is closed and nothing is dirty.
    pub async fn run(mut self) {
        loop {
            let ended = match self.ways.connect().and_then(UnixStream::from_std) {
                Ok(stream) => self.serve(stream).await,
                Err(error) => Err(error),
            };
            let Err(error) = ended else { return };
            tracing::warn!(namespace = self.engine.name, %error, "the flusher's own connection has ended; it makes another");
            while let Some(asked) = self.asked.pop() {
                match asked {
                    Asked::Flush(flush) => self.end(&flush, Verdict::Unknown, b"the connection has ended"),
                    Asked::Value(key, ..) | Asked::Time(key, _) => {
                        self.engine.was_read(&key, None, self.ways.now())
                    }
                    Asked::Read | Asked::Ping => {}
                }
            }
            self.out.clear();
            self.engine.slow.store(false, Ordering::Relaxed);
            sleep(LONGEST_REST).await;
        }
    }

    async fn serve(&mut self, stream: UnixStream) -> io::Result<()> {
        let (mut reader, mut writer) = stream.into_split();
        let mut replies = Replies::default();
        loop {
            self.begin().await;
            if self.asked.is_empty() && self.engine.is_over() {
                return Ok(());
            }
            let engine = self.engine.clone();
            let next = self.next();
            tokio::select! {
                read = replies.read(&mut reader) => {
                    read?;
                    while let Some(reply) = replies.next()? {
                        self.take(&reply);
                    }
                }
                written = writer.write_buf(&mut self.out), if !self.out.is_empty() => {
                    written?;
                    crash("after-flush");
                }
                () = engine.bell.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// When it is to look again, though nothing has come.
    fn next(&self) -> Instant {
        if self.room() > 0 && self.engine.has_ready() {
            return Instant::now();
        }
        let now = self.ways.now();
        let due = self.engine.next_time().map(|at| Duration::from_micros(at.saturating_sub(now)));
        let due = Instant::now() + due.unwrap_or(IDLE).min(IDLE);
        let next = if self.is_resting() { due.min(self.not_before) } else { due };
        let next = if self.engine.is_away() { next.min(self.pinged + PING_PAUSE) } else { next };
        self.asked.waits_since().map_or(next, |since| next.min(since + READ_WAIT))
    }

    /// How many flushes may be begun now.
    fn room(&self) -> usize {
        if self.is_resting() || self.out.len() > MOST_UNWRITTEN {
            return 0;
        }
        let window = if self.rest.is_some() { 1 } else { WINDOW };
        window.saturating_sub(self.asked.flushes())
    }

    fn is_resting(&self) -> bool {
        self.rest.is_some() && Instant::now() < self.not_before
    }

    /// Sends what is to be sent now.
    async fn begin(&mut self) {
        let engine = self.engine.clone();
        for key in self.asked.overdue(READ_WAIT) {
            // One such wait is enough: who comes next is not kept waiting.
            engine.slow.store(true, Ordering::Relaxed);
            engine.is_not_awaited(&key);
        }
        // What clients do may not show it: they are answered without the upstream.
        if engine.is_away() && self.pinged.elapsed() >= PING_PAUSE {
            self.pinged = Instant::now();
            if !self.asked.pings() {
                encode::command(&mut self.out, &[b"PING"]);
                self.asked.push(Asked::Ping);
            }
        }
        for key in engine.take_awaited() {
            match engine.is_away() || engine.is_slow() {
                true => engine.was_read(&key, None, self.ways.now()),
                false => self.read(key, true),
            }
        }
        let is_in_vain = engine.is_away() || engine.is_slow() || self.out.len() > MOST_UNWRITTEN;
        let room = if is_in_vain { 0 } else { READS.saturating_sub(self.asked.reads()) };
        engine.take_unread(room).into_iter().for_each(|key| self.read(key, false));
        // Without room, too: a key whose time has come is not waited for any more.
        for flush in engine.take_flushes(self.room(), self.ways.now()) {
            if self.scriptless.is_some_and(|until| Instant::now() < until) {
                self.end_by_watching(flush).await;
                continue;
            }
            self.send(&flush, false);
            self.asked.push(Asked::Flush(flush));
        }
    }

    /// Asks what stands upstream.
    fn read(&mut self, key: Key, is_awaited: bool) {
        encode::command(&mut self.out, &[b"GET", &key]);
        encode::command(&mut self.out, &[b"PTTL", &key]);
        self.asked.push(Asked::Value(key.clone(), Instant::now(), is_awaited));
        self.asked.push(Asked::Time(key, Bytes::new()));
    }

    /// Where no script may be run: key by key, under a `WATCH`, on a connection for that.
    async fn end_by_watching(&mut self, flush: Flush) {
        let verdict = match self.ways.connect().and_then(UnixStream::from_std) {
            Ok(stream) => watched::flush(stream, &flush, &|reply| self.ways.may_be_done(reply)).await,
            Err(error) => (Verdict::Refused, error.to_string().into()),
        };
        self.end(&flush, verdict.0, &verdict.1);
    }

    /// Writes the request for a flush; with the text of the script if the server does not know it.
    fn send(&mut self, flush: &Flush, text: bool) {
        let now = unix_ms();
        let (op, value, ends) = match flush.op.value() {
            Some(value) => (&b"s"[..], &value[..], flush.op.ends()),
            None => (&b"d"[..], &b""[..], String::new()),
        };
        let words: Vec<_> = flush.bases.iter().flat_map(|base| base.words(now)).collect();
        let script = if text { ("EVAL", FLUSH) } else { ("EVALSHA", &*self.sha1) };
        let mut request: Vec<&[u8]> = vec![script.0.as_bytes(), script.1.as_bytes(), b"1", &flush.key];
        request.extend([op, value, ends.as_bytes()]);
        request.extend(words.iter().map(String::as_bytes));
        encode::command(&mut self.out, &request);
    }

    /// Takes a reply.
    fn take(&mut self, reply: &Bytes) {
        self.engine.slow.store(false, Ordering::Relaxed);
        match self.asked.pop() {
            Some(Asked::Flush(flush)) => self.take_flush(flush, reply),
            Some(Asked::Value(..)) => self.asked.note_value(reply),
            Some(Asked::Time(key, value)) => {
                let base = base_of(&value, reply);
                match base {
                    Some(_) => self.engine.note_away(None),
                    None if is_away(&value) => self.engine.note_away(Some(&value)),
                    None => self.engine.note_unreadable(&value),
                }
                self.engine.was_read(&key, base, self.ways.now());
            }
            Some(Asked::Ping) => self.engine.note_away(Some(&reply[..]).filter(|reply| is_away(reply))),
            Some(Asked::Read) | None => {}
        }
    }

    fn take_flush(&mut self, flush: Flush, reply: &Bytes) {
        crash("before-reply");
        match &reply[..] {
            b":1\r\n" | b":2\r\n" | b":3\r\n" | b":4\r\n" => {
                self.end(&flush, Verdict::Done, b"");
                crash("after-reply");
                self.read_back(&flush.key);
            }
            [b'$', ..] => {
                let stamp = memchr::memchr(b'\n', reply).map(|at| reply.slice(at + 1..reply.len() - 2));
                self.end(&flush, Verdict::Conflict(stamp.unwrap_or_default()), b"");
            }
            said if said.starts_with(b"-NOSCRIPT") => {
                self.send(&flush, true);
                self.asked.push(Asked::Flush(flush));
            }
            said if self.ways.may_be_done(said) => self.end(&flush, Verdict::Unknown, said),
            said => {
                if said.starts_with(b"-NOPERM") || said.starts_with(b"-ERR unknown command") {
                    self.scriptless = Some(Instant::now() + SCRIPTLESS);
                }
                self.end(&flush, Verdict::Refused, said);
            }
        }
    }

    /// What was flushed, and is clean, is read into the cache: the next write finds there what it is made upon.
    fn read_back(&mut self, key: &[u8]) {
        if self.engine.is_open() == Open::Yes
            && self.engine.read(key).is_none()
            && self.out.len() < MOST_UNWRITTEN
        {
            encode::command(&mut self.out, &[b"GET", key]);
            self.asked.push(Asked::Read);
        }
    }

    fn end(&mut self, flush: &Flush, verdict: Verdict, said: &[u8]) {
        match verdict {
            Verdict::Done | Verdict::Conflict(_) => self.rest = None,
            Verdict::Refused | Verdict::Unknown => {
                if is_away(said) {
                    self.engine.note_away(Some(said));
                }
                let rest = self.rest.map_or(FIRST_REST, |rest| (rest * 2).min(LONGEST_REST));
                (self.rest, self.not_before) = (Some(rest), Instant::now() + rest);
            }
        }
        self.engine.flushed(&flush.key, verdict, said, self.ways.now());
    }
}

/// Whether it tells that the upstream takes no requests at all.
fn is_away(said: &[u8]) -> bool {
    [&b"-ERR nearside:"[..], b"-LOADING", b"-MASTERDOWN", b"-CLUSTERDOWN"]
        .iter()
        .any(|word| said.starts_with(word))
}
