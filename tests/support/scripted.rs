//! An upstream that says what the test tells it to, when the test tells it to.
//!
//! It takes part in every handshake by itself and answers what the feed asks, and `PUBLISH`. Any
//! other request waits for [`Asked::reply`]; what stands behind it on its connection waits as well, so
//! replies come in order, as a server's do.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::SOON;
use nearside::resp::framer::{Frame, Limits, RequestFramer};

/// See the module.
pub struct Scripted {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    connections: Vec<Connection>,
    /// Requests that the test has not looked at yet.
    asked: VecDeque<Asked>,
    /// Every request that came, in the order in which it was read.
    log: Vec<Vec<String>>,
    /// Words with which a request begins, what is said to it, and how often yet.
    rules: Vec<(String, String, usize)>,
}

struct Connection {
    stream: TcpStream,
    /// A reply for each request, once it is known.
    replies: VecDeque<(u64, Option<Vec<u8>>)>,
    next: u64,
    subscribed: bool,
    open: bool,
}

/// A request that waits for its reply.
#[derive(Clone)]
pub struct Asked {
    pub connection: usize,
    pub words: Vec<String>,
    number: u64,
    inner: Arc<Inner>,
}

impl Scripted {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner::default());
        let theirs = inner.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if theirs.ended.load(Ordering::Relaxed) {
                    return;
                }
                let _ = stream.set_nodelay(true);
                let connection = theirs.admit(stream.try_clone().unwrap());
                let inner = theirs.clone();
                std::thread::spawn(move || inner.serve(connection, stream));
            }
        });
        Self { address, inner }
    }

    /// The next request that does not answer itself. Fails the test if none comes.
    #[track_caller]
    pub fn next(&self) -> Asked {
        let asked = self.inner.wait(|state| state.asked.pop_front());
        asked.expect("a request came to the scripted upstream")
    }

    /// The next request, which is this one.
    #[track_caller]
    pub fn expect(&self, line: &str) -> Asked {
        let asked = self.next();
        assert_eq!(asked.words.join(" "), line);
        asked
    }

    /// The next request of these words, whatever comes on other connections meanwhile.
    #[track_caller]
    pub fn find(&self, line: &str) -> Asked {
        let found = self.inner.wait(|state| {
            let at = state.asked.iter().position(|asked| asked.words.join(" ") == line)?;
            state.asked.remove(at)
        });
        found.unwrap_or_else(|| panic!("nobody asked {line}: {:?}", self.log()))
    }

    /// From now on, the next `times` requests that begin with these words are answered so.
    pub fn answers(&self, words: &str, reply: &str, times: usize) {
        self.inner.lock().rules.push((words.into(), reply.into(), times));
    }

    /// How many requests with these words at their beginning are still to be answered by a rule.
    pub fn left(&self) -> usize {
        self.inner.lock().rules.iter().map(|(_, _, left)| left).sum()
    }

    /// Requests that wait for the test to look at them.
    pub fn waiting(&self) -> usize {
        self.inner.lock().asked.len()
    }

    /// How many requests began with this word, in any connection.
    pub fn count(&self, word: &str) -> usize {
        self.inner.lock().log.iter().filter(|words| words[0].eq_ignore_ascii_case(word)).count()
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<Vec<String>> {
        self.inner.lock().log.clone()
    }

    /// The connection that is subscribed.
    #[track_caller]
    pub fn feed(&self) -> usize {
        let find = |state: &mut State| state.connections.iter().position(|c| c.open && c.subscribed);
        self.inner.wait(find).expect("a feed")
    }

    /// Sends a frame that answers nothing, at once.
    pub fn push(&self, connection: usize, frame: &str) {
        let mut state = self.inner.lock();
        let _ = state.connections[connection].stream.write_all(frame.as_bytes());
    }

    pub fn close(&self, connection: usize) {
        self.inner.lock().connections[connection].close();
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.inner.ended.store(true, Ordering::Relaxed);
        self.inner.lock().connections.iter_mut().for_each(Connection::close);
        let _ = TcpStream::connect(self.address);
    }
}

impl Asked {
    /// Answers it with these bytes, behind the replies to what was asked before it.
    pub fn reply(&self, bytes: &str) {
        self.inner.lock().connections[self.connection].answer(self.number, bytes.as_bytes().to_vec());
    }
}

impl Connection {
    fn answer(&mut self, number: u64, bytes: Vec<u8>) {
        if let Some((_, reply)) = self.replies.iter_mut().find(|(waiting, _)| *waiting == number) {
            *reply = Some(bytes);
        }
        while let Some((_, Some(reply))) = self.replies.front() {
            let _ = self.stream.write_all(reply);
            self.replies.pop_front();
        }
    }

    fn close(&mut self) {
        self.open = false;
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn wait<T>(&self, mut find: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + SOON;
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&mut state) {
                return Some(found);
            }
            if Instant::now() > deadline {
                return None;
            }
            state = self.changed.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
        }
    }

    fn admit(&self, stream: TcpStream) -> usize {
        let mut state = self.lock();
        let connection =
            Connection { stream, replies: VecDeque::new(), next: 0, subscribed: false, open: true };
        state.connections.push(connection);
        state.connections.len() - 1
    }

    fn serve(self: &Arc<Self>, connection: usize, mut stream: TcpStream) {
        let mut framer = RequestFramer::new(Limits::default());
        let mut buf = Vec::new();
        let mut chunk = [0; 65536];
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            buf.extend_from_slice(&chunk[..n]);
            while let Frame::Request(len) = framer.next(&buf).expect("a well-formed request") {
                let request = framer.request(&buf);
                let words = request.args().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
                buf.drain(..len);
                self.take(connection, words);
            }
        }
        let mut state = self.lock();
        state.connections[connection].close();
        drop(state);
        self.changed.notify_all();
    }

    fn take(self: &Arc<Self>, connection: usize, words: Vec<String>) {
        let mut state = self.lock();
        let said = words.join(" ");
        let rule = state.rules.iter_mut().find(|(begin, _, left)| *left > 0 && said.starts_with(&**begin));
        let ruled = rule.map(|(_, reply, left)| {
            *left -= 1;
            reply.clone()
        });
        let by_rule = ruled.is_some();
        let this = &mut state.connections[connection];
        let number = this.next;
        this.next += 1;
        this.replies.push_back((number, None));
        match ruled.or_else(|| by_itself(connection, &words)) {
            Some(reply) => {
                this.subscribed |= words[0] == "SUBSCRIBE" && !by_rule;
                this.answer(number, reply.into_bytes());
            }
            None => {
                state.asked.push_back(Asked { connection, words: words.clone(), number, inner: self.clone() })
            }
        }
        state.log.push(words);
        drop(state);
        self.changed.notify_all();
    }
}

/// The reply to what needs no script.
fn by_itself(connection: usize, words: &[String]) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(match &words[..] {
        ["AUTH" | "SELECT", ..] | ["CLIENT", "SETNAME" | "TRACKING", ..] => "+OK\r\n".into(),
        ["HELLO", ..] => "%1\r\n$5\r\nproto\r\n:3\r\n".into(),
        ["CLIENT", "ID"] => format!(":{}\r\n", connection + 1),
        ["COMMAND"] => "*0\r\n".into(),
        // Where the feed looks for swapped databases, and whether all connections lead to one server.
        ["INFO", "commandstats" | "server"] => "$0\r\n\r\n".into(),
        ["PING"] => "+PONG\r\n".into(),
        ["PUBLISH", ..] => ":0\r\n".into(),
        ["SUBSCRIBE", channels @ ..] => {
            let confirmation = |(i, channel): (usize, &&str)| {
                format!(">3\r\n$9\r\nsubscribe\r\n${}\r\n{channel}\r\n:{}\r\n", channel.len(), i + 1)
            };
            channels.iter().enumerate().map(confirmation).collect()
        }
        _ => return None,
    })
}

/// What a server says of a changed key; of all keys if there is none.
pub fn invalidate(key: Option<&str>) -> String {
    match key {
        Some(key) => format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len()),
        None => ">2\r\n$10\r\ninvalidate\r\n_\r\n".into(),
    }
}

/// What another process announces.
pub fn message(channel: &str, key: &str) -> String {
    format!(">3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n{key}\r\n", channel.len(), key.len())
}
