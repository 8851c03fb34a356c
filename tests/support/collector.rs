//! A collector that keeps what it is told: OTLP over HTTP, as JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nearside::config::Collector as Url;
use serde_json::Value;

use super::eventually;

/// See the [module](self).
pub struct Collector {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    connections: Vec<TcpStream>,
    /// What was said before the headers' end, and the body.
    told: Vec<(String, Vec<u8>)>,
    /// What is answered next, once each; then 200.
    answers: Vec<&'static str>,
    ended: bool,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::<Mutex<State>>::default());
        let theirs = state.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut state = theirs.lock().unwrap();
                if state.ended {
                    return;
                }
                state.connections.push(stream.try_clone().unwrap());
                let theirs = theirs.clone();
                std::thread::spawn(move || serve(stream, &theirs));
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    /// Answers the next requests with these statuses.
    pub fn answer(&self, statuses: &[&'static str]) {
        self.state.lock().unwrap().answers = statuses.to_vec();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn endpoint(&self) -> Option<Url> {
        Some(Url::parse(&self.url()).unwrap())
    }

    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections.len()
    }

    /// Heads and bodies of the requests so far.
    pub fn told(&self) -> Vec<(String, Value)> {
        let state = self.state.lock().unwrap();
        let told =
            state.told.iter().map(|(head, body)| (head.clone(), serde_json::from_slice(body).unwrap()));
        told.collect()
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        let told = self.told();
        let scopes = told.iter().flat_map(|(_, body)| {
            let scopes = body["resourceSpans"][0]["scopeSpans"].as_array();
            scopes.cloned().expect("scopes")
        });
        scopes.flat_map(|scope| scope["spans"].as_array().cloned().expect("spans")).map(Span).collect()
    }

    /// Waits for so many.
    #[track_caller]
    pub fn wait_for(&self, spans: usize) -> Vec<Span> {
        eventually("the collector is told", || self.spans().len() >= spans);
        self.spans()
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(&stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(is) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = is.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head += &line;
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let mut state = state.lock().unwrap();
        state.told.push((head, body));
        let status = if state.answers.is_empty() { "200 OK" } else { state.answers.remove(0) };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
        if (&stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap();
        state.ended = true;
        for connection in &state.connections {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        drop(state);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One span, as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Span(pub Value);

impl Span {
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_else(|| panic!("{field} of {}", self.0))
    }

    pub fn is_server(&self) -> bool {
        self.0["kind"] == 2
    }

    /// The value of an attribute, as a text; `None` if it has none of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.0["attributes"].as_array().unwrap();
        let value = &all.iter().find(|attribute| attribute["key"] == name)?["value"];
        value["stringValue"].as_str().or_else(|| value["intValue"].as_str())
    }

    pub fn time(&self, field: &str) -> u64 {
        self.text(field).parse().unwrap()
    }
}
