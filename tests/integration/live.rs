//! `/live` and `/why`: what is told to who looks, and that nobody else is harmed by it.

use crate::support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::program::Program;
use support::{Nearside, Redis, eventually, free_port, line};

/// How long an event may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A listener, and what of its events was not looked at yet.
struct Live {
    stream: TcpStream,
    /// The status and the head of the reply.
    head: String,
    rest: String,
}

impl Live {
    #[track_caller]
    fn to(admin: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut live = Self { stream, head: String::new(), rest: String::new() };
        live.head = live.until("\r\n\r\n").expect("a head");
        live
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// All before the next `end`; `None` if the connection is closed before.
    #[track_caller]
    fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some((before, behind)) = self.rest.split_once(end) {
                let (before, behind) = (before.to_owned(), behind.to_owned());
                self.rest = behind;
                return Some(before);
            }
            let mut piece = [0; 4096];
            let n = self.stream.read(&mut piece).expect("something in time");
            if n == 0 {
                return None;
            }
            self.rest += std::str::from_utf8(&piece[..n]).expect("ASCII");
        }
    }

    /// The next event, its name and its data; `None` if there is none any more.
    #[track_caller]
    fn event(&mut self) -> Option<(String, Value)> {
        let mut event = self.until("\n\n")?;
        // Each update is a chunk of its own, whose length stands before it.
        event = event.split("\r\n").last().unwrap().to_owned();
        let field = |name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("no {name}: {event}")).to_owned()
        };
        Some((field("event"), serde_json::from_str(&field("data")).expect("JSON")))
    }

    /// The next `now`.
    #[track_caller]
    fn now(&mut self) -> Value {
        let (name, data) = self.event().expect("an event");
        assert_eq!(name, "now");
        data
    }

    /// The first `now` of which this holds.
    #[track_caller]
    fn now_with(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.now();
            if holds(&now) {
                return now;
            }
            assert!(Instant::now() < deadline, "not in time: {what}: {now}");
        }
    }
}

fn live(nearside: &Nearside) -> Live {
    let mut live = Live::to(nearside.admin);
    assert_eq!(live.status(), 200, "{}", live.head);
    assert_eq!(live.event().expect("an event").0, "history", "it comes first");
    live
}

fn metric(nearside: &Nearside, name: &str) -> u64 {
    let page = nearside.get("/metrics").1;
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("nearside_{name} ")));
    line.map_or(0, |number| number.parse::<f64>().unwrap() as u64)
}

#[test]
fn who_listens_is_told_the_history_and_then_each_second_what_is_known() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut conn = nearside.connect();
    let key = &b"users/\0\x1b[31m<script>\xff\"\\ \xc3\xa4"[..];
    conn.args(&[b"SET", key, b"value"]);
    let mut live = Live::to(nearside.admin);
    for header in [
        "content-type: text/event-stream\r\n",
        "cache-control: no-store\r\n",
        "x-content-type-options: nosniff",
    ] {
        assert!(live.head.to_ascii_lowercase().contains(header), "{header}: {}", live.head);
    }
    let (name, history) = live.event().expect("an event");
    assert_eq!(
        (&*name, &history["every"], history["columns"][0].as_str()),
        ("history", &5.into(), Some("at"))
    );
    assert!(history["samples"].as_array().is_some_and(|samples| samples.len() <= 180), "{history}");
    let first = live.now();
    assert_eq!((first["state"].as_str(), &first["why"]), (Some("ready"), &Value::Null));
    (0..50).for_each(|_| drop(conn.args(&[b"GET", key])));
    conn.cmd("LRANGE users/none 0 -1");
    let second = live.now_with("the hits", |now| now["hits"].as_u64() >= Some(49));
    let apart = second["at"].as_u64().unwrap() - first["at"].as_u64().unwrap();
    assert!(apart >= 990, "{apart} ms after the one before");
    assert_eq!(second["namespaces"][0]["name"], "users");
    assert_eq!(second["namespaces"][0]["tracking"], "keys");
    assert!(second["namespaces"][0]["back"].is_null(), "its writes go through");
    let node = &second["nodes"][0];
    assert_eq!(node["address"], redis.address().to_string());
    assert_eq!((&node["feed"], &node["form"]), (&"up".into(), &"redirect".into()), "{node}");
    assert!(node["links"].as_u64() >= Some(1) && node["proven"].is_u64(), "{node}");
    assert!(second["staleness"]["proven"].is_u64(), "{second}");
    assert_eq!(second["staleness"]["bound"], 1_000_000);
    assert_eq!(second["memory"]["max"], 64 << 20);
    assert!(second["latency"]["hit"]["p50"].as_f64() <= second["latency"]["hit"]["p99"].as_f64(), "{second}");
    assert!(second["dropped"]["write"].is_u64() && second["bypasses"]["transaction"].is_u64(), "{second}");
    // A key is shown as redis-cli does, and can be asked for as it is.
    let hot = &second["hot"][0];
    assert_eq!(hot["key"], r#"users/\x00\x1b[31m<script>\xff\"\\ \xc3\xa4"#);
    assert!(hot["hits"].as_f64() > Some(30.0) && hot["bytes"].as_u64() == Some(11), "{hot}");
    let (status, why) = nearside.get(&format!("/why?key={}", hot["query"].as_str().unwrap()));
    assert!(status == 200 && why.starts_with("cached: yes\nnamespace: users\n"), "{why}");
    let (status, why) = nearside.get("/why?key=other");
    assert!(status == 200 && why.starts_with("cached: no\nnamespace: none\n"), "{why}");
    assert_eq!(nearside.get("/why").0, 400);
}

#[test]
fn a_lost_upstream_is_seen_and_its_return() {
    let mut redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut live = live(&nearside);
    live.now_with("ready", |now| now["state"] == "ready");
    redis.kill();
    let lost = live.now_with("the loss", |now| now["state"] == "disconnected");
    assert_eq!((&lost["nodes"][0]["feed"], &lost["nodes"][0]["links"]), (&"down".into(), &0.into()));
    assert_eq!((&lost["staleness"]["proven"], &lost["nodes"][0]["proven"]), (&Value::Null, &Value::Null));
    assert!(lost["why"].as_str().unwrap().starts_with("the upstream is not reachable"), "{lost}");
    redis.restart();
    live.now_with("its return", |now| now["state"] == "ready" && now["nodes"][0]["feed"] == "up");
}

#[test]
fn nothing_is_worked_out_while_nobody_listens() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    assert_eq!((metric(&nearside, "live_updates_total"), metric(&nearside, "live_listeners")), (0, 0));
    let mut one = live(&nearside);
    one.now();
    assert_eq!(metric(&nearside, "live_listeners"), 1);
    drop(one);
    eventually("it is seen to have left", || metric(&nearside, "live_listeners") == 0);
    let (before, began) = (metric(&nearside, "live_updates_total"), Instant::now());
    let mut other = live(&nearside);
    (0..2).for_each(|_| drop(other.now()));
    let worked_out = metric(&nearside, "live_updates_total") - before;
    let most = began.elapsed().as_secs() + 1;
    assert!((2..=most).contains(&worked_out), "{worked_out} for one listener in {:?}", began.elapsed());
}

#[test]
fn one_listener_too_many_is_told_so_and_none_is_in_the_way_of_a_probe() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    let mut all: Vec<Live> = (0..8).map(|_| Live::to(nearside.admin)).collect();
    assert!(all.iter().all(|live| live.status() == 200));
    let (status, head, said) = nearside.page("/live");
    assert_eq!((status, &*said), (503, "there are 8 listeners already: close a page, or try again\n"));
    assert!(head.to_ascii_lowercase().contains("retry-after: 5"), "{head}");
    assert_eq!(metric(&nearside, "refused_live_listeners_total"), 1);
    // So many that say nothing as there are connections: these go, and listeners stay.
    let silent: Vec<_> = (0..70).map(|_| TcpStream::connect(nearside.admin).unwrap()).collect();
    assert_eq!(nearside.get("/livez").0, 200);
    // One of them takes nothing, which is of no matter to the others.
    for live in &mut all[1..] {
        assert_eq!(live.event().expect("an event").0, "history");
        (0..2).for_each(|_| drop(live.now()));
    }
    drop(silent);
    assert_eq!(nearside.get("/readyz"), (200, "ok\n".into()));
    all.pop();
    eventually("there is room again", || Live::to(nearside.admin).status() == 200);
}

#[test]
fn a_drain_is_seen_and_ends_with_its_listeners() {
    let mut redis = Redis::start();
    let mut nearside = Nearside::with(redis.address(), |config| config.drain_timeout = 3 * PATIENCE);
    let mut live = live(&nearside);
    live.now_with("ready", |now| now["state"] == "ready");
    let mut busy = nearside.connect();
    busy.send(&line("BLPOP users/list 0"));
    eventually("it waits", || redis.connect().text("INFO clients").contains("blocked_clients:1"));
    let mut direct = redis.connect();
    // What it waits for is let go, and that takes until the server answers, or is gone.
    direct.send(&line("DEBUG SLEEP 600"));
    nearside.begin_stop(nearside::server::Stop::Drain);
    let now = live.now_with("the drain", |now| now["state"] == "draining");
    assert_eq!(now["why"], "draining");
    redis.kill();
    let ended = nearside.wait_stopped();
    assert!(ended.is_ok(), "{ended:?}");
    while live.event().is_some() {}
}

#[test]
fn keys_are_hidden_where_they_are_not_to_be_shown() {
    // What it says of a command that it does not know has the arguments in it.
    let redis = Redis::with(&["--rename-command", "EXISTS", ""]);
    for (shows, hidden) in [("on", false), ("off", true)] {
        let form = ["--tracking-form", "register", "--admin-keys", shows, "--log-level", "off"];
        let (port, admin) = (free_port(), free_port());
        let upstream = format!("redis://127.0.0.1:{}", redis.port);
        let at = [port, admin].map(|port| port.to_string());
        let arguments = ["--listen", &at[0], "--admin", &at[1], "--upstream", &upstream, "--workers", "1"];
        let program = Program::run(&[&arguments[..], &form].concat(), port, admin);
        eventually("it is ready", || program.status("/readyz") == Some(200));
        let mut live = Live::to(([127, 0, 0, 1], admin).into());
        let mut seen = Vec::new();
        let told = "does not allow EXISTS";
        let deadline = Instant::now() + PATIENCE;
        live.event();
        while !seen.iter().any(|text: &String| text.contains(told)) {
            assert!(Instant::now() < deadline, "{seen:?}");
            program.connect().value("secret/1");
            let now = live.now();
            assert_eq!(now["hot"].is_null(), hidden, "{now}");
            let events = now["events"].as_array().unwrap().iter();
            seen.extend(events.map(|event| event["text"].as_str().unwrap().to_owned()));
            assert!(!hidden || !now.to_string().contains("secret/1"), "{now}");
        }
        assert!(seen.iter().any(|text| text.starts_with("ready for clients (upstream=")), "{seen:?}");
        let refused = seen.iter().find(|text| text.contains(told)).unwrap();
        assert_eq!(refused.contains("secret/1"), !hidden, "{refused}");
        live.now_with("no news", |now| now["events"].as_array().is_some_and(Vec::is_empty));
        let (status, why) = (program.status("/why?key=secret/1"), program.page("/why?key=secret/1"));
        match hidden {
            true => assert_eq!((status, &*why), (Some(403), "keys are not shown: admin-keys = off\n")),
            false => assert!(status == Some(200) && why.contains("cached: no"), "{why}"),
        }
    }
}
