//! A filter in front of a real server that refuses what a service refuses.
//!
//! A request that is refused reaches the server as a script that answers with the error: so its reply stands where it
//! belongs, and in the connection's own protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nearside::resp::encode;
use nearside::resp::framer::{Frame, Limits, RequestFramer};

/// What is said to a request, nothing at all if it is empty; `None` lets it pass.
pub type Rule = fn(&[Vec<u8>]) -> Option<&'static str>;

/// See the module.
pub struct Filter {
    pub address: SocketAddr,
    ended: Arc<AtomicBool>,
    rule: Arc<Mutex<Rule>>,
}

impl Filter {
    pub fn to(upstream: SocketAddr, rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ended, rule) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(rule)));
        let (stop, rules) = (ended.clone(), rule.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let rule = rules.clone();
                std::thread::spawn(move || requests(ends.0, ends.1, &rule));
                std::thread::spawn(move || copy(server, client));
            }
        });
        Self { address, ended, rule }
    }

    /// From now on this is refused.
    pub fn refuse(&self, rule: Rule) {
        *self.rule.lock().unwrap() = rule;
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn requests(mut client: TcpStream, mut server: TcpStream, rule: &Mutex<Rule>) {
    let mut framer = RequestFramer::new(Limits::default());
    let (mut buf, mut chunk) = (Vec::new(), [0; 65536]);
    while let Ok(n @ 1..) = client.read(&mut chunk) {
        buf.extend_from_slice(&chunk[..n]);
        let mut out = bytes::BytesMut::new();
        while let Ok(Frame::Request(len)) = framer.next(&buf) {
            let args: Vec<Vec<u8>> = framer.request(&buf).args().map(<[u8]>::to_vec).collect();
            match rule.lock().unwrap()(&args) {
                Some("") => {}
                Some(error) => {
                    let script = b"return redis.error_reply(ARGV[1])";
                    encode::command(&mut out, &[b"EVAL", script, b"0", error.as_bytes()]);
                }
                None => out.extend_from_slice(&buf[..len]),
            }
            buf.drain(..len);
        }
        if server.write_all(&out).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn is_tracking(args: &[Vec<u8>]) -> bool {
    let word =
        |i: usize, word: &str| args.get(i).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    word(0, "CLIENT") && word(1, "TRACKING")
}

fn has(args: &[Vec<u8>], word: &str) -> bool {
    args.iter().any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
}

/// As managed services do that have trackings of their own.
pub fn no_redirect(args: &[Vec<u8>]) -> Option<&'static str> {
    (is_tracking(args) && has(args, "REDIRECT")).then_some("ERR REDIRECT is not supported")
}

/// Only of all keys at once.
pub fn only_broadcast(args: &[Vec<u8>]) -> Option<&'static str> {
    (is_tracking(args) && has(args, "ON") && !has(args, "BCAST")).then_some("ERR only BCAST is supported")
}

pub fn no_tracking(args: &[Vec<u8>]) -> Option<&'static str> {
    is_tracking(args).then_some("ERR unknown subcommand 'TRACKING'. Try CLIENT HELP.")
}
