//! One sentinel: asked where the master of a service is, and heard when it says that there is another.
//!
//! Invariants:
//! - No switch falls between a question and the next word that is heard: the sentinel's subscription ends in front of the
//!   questions and begins anew behind them, in one packet, which it carries out in order.
//! - What is heard says no more than that it is time to ask: only an answer has the epoch by which sentinels that contradict
//!   each other are told apart.
//! - Connection and answer are awaited for a bounded time each.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::connect::{Unread, encode_login, read_reply};
use super::credentials::Login;
use crate::io::{Address, Dial, Stream};
use crate::resp::decode::{Value, decode};
use crate::resp::encode;
use crate::resp::pubsub::{is_message, message_word};
use crate::resp::scanner::{Kind, ReplyScanner};

/// What a sentinel tells its subscribers when a master was replaced.
const SWITCH: &[u8] = b"+switch-master";

/// Other sentinels that are read of an answer.
const MOST: usize = 16;

/// How it is asked.
#[derive(Clone)]
pub struct Asking {
    pub service: String,
    pub login: Option<Login>,
    /// The longest wait for a connection, and for an answer.
    pub patience: Duration,
    pub dial: Dial,
}

/// What a sentinel knows of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `None` if it does not know the service.
    pub master: Option<Address>,
    /// Grows with each failover; 0 if it does not say.
    pub epoch: u64,
    /// What it is called among sentinels, if it says so.
    pub id: Option<Vec<u8>>,
    pub others: Vec<Another>,
}

impl Answer {
    /// Where the master is. Errors: it knows no such service.
    pub fn master_of(&self, service: &str) -> Result<&Address, String> {
        self.master.as_ref().ok_or_else(|| {
            format!("it knows no service {service:?}; SENTINEL MASTERS lists those that it knows")
        })
    }
}

/// Another sentinel of the same service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Another {
    pub address: Address,
    pub id: Vec<u8>,
}

/// A connection to one.
pub struct Sentinel {
    stream: Stream,
    scanner: ReplyScanner,
    buf: BytesMut,
    /// The present reply, as far as it has come.
    reply: Vec<u8>,
}

impl Sentinel {
    /// Connects and logs in. The error says what happened, and is one line.
    pub async fn connect(asking: &Asking, address: &Address) -> Result<Self, String> {
        let connecting = async {
            let opened = async {
                let stream = asking.dial.open(address, asking.patience).await?;
                asking.dial.secure(stream, address).await
            };
            let stream = opened.await.map_err(|error| error.to_string())?;
            let mut sentinel = Self {
                stream,
                scanner: ReplyScanner::new(),
                buf: BytesMut::with_capacity(4096),
                reply: Vec::new(),
            };
            let mut out = BytesMut::new();
            asking.login.iter().for_each(|login| encode_login(&mut out, login));
            // So that its `CLIENT LIST` tells whose connection it is.
            encode::command(&mut out, &[b"CLIENT", b"SETNAME", b"nearside"]);
            sentinel.say(&out).await?;
            let first = match sentinel.next().await {
                // One with TLS does so to who begins without.
                Err(closed) if matches!(sentinel.stream, Stream::Tcp(_)) && !closed.contains("TLS") => {
                    return Err(format!("{closed}; if its port is one for TLS, write rediss+sentinel://"));
                }
                first => first?,
            };
            if asking.login.is_some() {
                if first == Kind::Error {
                    return Err(format!(
                        "{}; look at sentinel-username and sentinel-password",
                        said(&sentinel.reply)
                    ));
                }
                sentinel.next().await?;
            }
            Ok(sentinel)
        };
        within(asking.patience, connecting).await
    }

    /// Asks, and subscribes anew.
    pub async fn ask(&mut self, asking: &Asking) -> Result<Answer, String> {
        within(asking.patience, self.ask_now(asking.service.as_bytes())).await
    }

    async fn ask_now(&mut self, service: &[u8]) -> Result<Answer, String> {
        let mut out = BytesMut::new();
        let questions: [&[&[u8]]; 6] = [
            &[b"UNSUBSCRIBE", SWITCH],
            &[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service],
            &[b"SENTINEL", b"MASTER", service],
            &[b"SENTINEL", b"SENTINELS", service],
            &[b"SENTINEL", b"MYID"],
            &[b"SUBSCRIBE", SWITCH],
        ];
        questions.iter().for_each(|question| encode::command(&mut out, question));
        self.say(&out).await?;
        // What was heard before is answered by what comes.
        while self.next().await.map(|_| is_message(message_word(&self.reply)))? {}
        let kind = self.next().await?;
        if kind == Kind::Error {
            return Err(match self.reply.starts_with(b"-NOAUTH") {
                true => "it asks for a password: set sentinel-password".to_owned(),
                false => format!("it does not say where the master is: {}", said(&self.reply)),
            });
        }
        let master = master(&self.reply)?;
        self.next().await?;
        let epoch =
            fields(&self.value(2)).find(|(name, _)| *name == b"config-epoch").map(|(_, value)| number(value));
        let epoch = epoch.flatten().unwrap_or(0);
        self.next().await?;
        let others = others(&self.value(3));
        self.next().await?;
        let id = self.value(1).as_bytes().map(<[u8]>::to_vec);
        if self.next().await? == Kind::Error {
            return Err(format!("it lets nobody subscribe: {}", said(&self.reply)));
        }
        Ok(Answer { master, epoch, id, others })
    }

    /// Ends when it says that the master of some service was replaced. May be left at any time.
    pub async fn switched(&mut self) -> Result<(), String> {
        loop {
            self.next().await?;
            if is_message(message_word(&self.reply)) {
                return Ok(());
            }
        }
    }

    async fn say(&mut self, out: &[u8]) -> Result<(), String> {
        let said = async {
            self.stream.write_all(out).await?;
            self.stream.flush().await
        };
        said.await.map_err(|error: std::io::Error| error.to_string())
    }

    /// Reads the next reply. If it is not waited for to its end, the next call goes on where it was.
    async fn next(&mut self) -> Result<Kind, String> {
        if self.scanner.is_idle() {
            self.reply.clear();
        }
        let read = read_reply(&mut self.stream, &mut self.scanner, &mut self.buf, &mut self.reply).await;
        read.map_err(|unread| match unread {
            Unread::Closed(why) => why.replace("the upstream", "it").replace(" during the handshake", ""),
            Unread::Garbage(why) => why.to_string(),
        })
    }

    fn value(&self, depth: usize) -> Value {
        decode(&self.reply, depth).unwrap_or(Value::Null)
    }
}

async fn within<T>(patience: Duration, doing: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(patience, doing).await.unwrap_or_else(|_| {
        Err(format!("no answer within {} (connect-timeout)", humantime::format_duration(patience)))
    })
}

/// An error reply on one line.
fn said(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(&reply[..reply.len().min(256)]);
    text.trim_start_matches('-').lines().next().unwrap_or_default().trim_end().to_owned()
}

/// Of the reply to `SENTINEL GET-MASTER-ADDR-BY-NAME`.
fn master(reply: &[u8]) -> Result<Option<Address>, String> {
    match decode(reply, 1) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::Array(parts)) if parts.len() == 2 => {
            let text = |part: &Value| part.as_bytes().map(|text| String::from_utf8_lossy(text).into_owned());
            address(text(&parts[0]), text(&parts[1])).map(Some).ok_or("it names no address".to_owned())
        }
        _ => Err("it is no sentinel: it does not know SENTINEL GET-MASTER-ADDR-BY-NAME".to_owned()),
    }
}

fn address(host: Option<String>, port: Option<String>) -> Option<Address> {
    let (host, port) = (host.filter(|host| !host.is_empty())?, port?.parse().ok().filter(|port| *port > 0)?);
    Some(Address::Tcp { host, port })
}

/// The names and values of one of those that a sentinel lists.
fn fields(listed: &Value) -> impl Iterator<Item = (&[u8], &[u8])> {
    let flat = listed.as_array().unwrap_or_default();
    flat.chunks_exact(2).filter_map(|pair| Some((pair[0].as_bytes()?, pair[1].as_bytes()?)))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn others(listed: &Value) -> Vec<Another> {
    let other = |one: &Value| {
        let field =
            |name: &[u8]| fields(one).find(|(known, _)| *known == name).map(|(_, value)| value.to_vec());
        let text = |name: &[u8]| String::from_utf8(field(name)?).ok();
        Some(Another { address: address(text(b"ip"), text(b"port"))?, id: field(b"runid")? })
    };
    listed.as_array().unwrap_or_default().iter().filter_map(other).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(words: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        encode::command(&mut out, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        out
    }

    #[test]
    fn what_a_sentinel_answers_is_read_with_distrust() {
        let at = |host: &str, port| Address::Tcp { host: host.into(), port };
        assert_eq!(master(&flat(&["10.0.0.1", "6379"])), Ok(Some(at("10.0.0.1", 6379))));
        assert_eq!(master(b"*-1\r\n"), Ok(None));
        for bad in [&flat(&["", "6379"])[..], &flat(&["h", "0"]), &flat(&["h", "x"])] {
            assert!(master(bad).is_err_and(|why| why.contains("no address")));
        }
        for bad in [&b"+OK\r\n"[..], b"*0\r\n", b":1\r\n"] {
            assert!(master(bad).is_err_and(|why| why.contains("no sentinel")));
        }
        let one = |ip: &str| flat(&["name", "x", "ip", ip, "port", "26379", "runid", "abc", "odd"]);
        let listed = [&b"*3\r\n"[..], &one("10.0.0.2"), &one(""), &flat(&["ip", "h"])].concat();
        let listed = others(&decode(&listed, 3).unwrap());
        assert_eq!(listed, [Another { address: at("10.0.0.2", 26379), id: b"abc".to_vec() }]);
        let many = [&b"*99\r\n"[..], &one("h").repeat(99)].concat();
        assert_eq!(others(&decode(&many, 3).unwrap()).len(), MOST);
        assert_eq!(others(&Value::Null), []);
        assert_eq!(said(b"-NOPERM no\r\n"), "NOPERM no");
    }
}
