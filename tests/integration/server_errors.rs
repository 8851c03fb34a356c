//! What a server says while it cannot serve (`-LOADING`, `-BUSY`, `-MASTERDOWN`, `-READONLY`, `-MISCONF`, `-OOM`, `-NOAUTH`,
//! too many clients) reaches the client that asked as it is, is never cached, and leaves nothing half-armed: when it is
//! over, what is read is the value, the second read is a hit, and changes are heard of.

use crate::support;

use std::time::Duration;

use support::relay::Relay;
use support::{Conn, Nearside, Redis, eventually};

/// A state of a real server.
struct State {
    code: &'static str,
    begin: fn(&mut Stage),
    end: fn(&mut Stage),
    /// Whether reads are refused, too.
    reads: bool,
    /// Whether it is said to who connects, and not to a request.
    to_connections: bool,
}

struct Stage {
    redis: Redis,
    relay: Relay,
    nearside: Nearside,
    /// A connection that the state leaves alone.
    root: Conn,
    /// Who keeps the server busy.
    script: Option<Conn>,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::with(&Self::args(folder.path().to_str().unwrap(), "0"));
        let relay = Relay::to(redis.address());
        let nearside = Nearside::start(relay.address);
        let root = redis.connect();
        Self { redis, relay, nearside, root, script: None, folder }
    }

    fn args<'a>(folder: &'a str, delay: &'a str) -> [&'a str; 10] {
        let [slow, often] = ["--key-load-delay", "--loading-process-events-interval-bytes"];
        let (busy, any) = ("--busy-reply-threshold", "--enable-protected-configs");
        ["--dir", folder, busy, "10", any, "yes", slow, delay, often, "1024"]
    }

    #[track_caller]
    fn say(&mut self, line: &str) {
        let said = self.root.text(line);
        assert!(!said.starts_with('-'), "{line}: {said}");
    }

    /// A port where nobody listens.
    fn replicate_nobody(&mut self) {
        let line = format!("REPLICAOF 127.0.0.1 {}", support::free_port());
        self.say(&line);
    }
}

const STATES: [State; 8] = [
    State {
        code: "-LOADING",
        begin: |stage| {
            stage.say("DEBUG POPULATE 200000 fill 10");
            stage.say("SAVE");
            let folder = stage.folder.path().to_str().unwrap().to_owned();
            stage.redis.become_another(&Stage::args(&folder, "100"));
            stage.root = stage.redis.connect();
        },
        end: |stage| {
            stage.say("CONFIG SET key-load-delay 0");
            eventually("it is loaded", || stage.root.text("INFO persistence").contains("\r\nloading:0"));
        },
        reads: true,
        to_connections: false,
    },
    State {
        code: "-BUSY",
        begin: |stage| {
            let mut script = stage.redis.connect();
            script.send(&support::request(&[b"EVAL", b"while true do end", b"0"]));
            stage.script = Some(script);
        },
        end: |stage| {
            stage.say("SCRIPT KILL");
            assert!(stage.script.take().unwrap().reply().starts_with(b"-"), "it was killed");
        },
        reads: true,
        to_connections: false,
    },
    State {
        code: "-MASTERDOWN",
        begin: |stage| {
            stage.say("CONFIG SET replica-serve-stale-data no");
            stage.replicate_nobody();
        },
        end: |stage| {
            stage.say("REPLICAOF NO ONE");
            stage.say("CONFIG SET replica-serve-stale-data yes");
        },
        reads: true,
        to_connections: false,
    },
    State {
        code: "-READONLY",
        begin: Stage::replicate_nobody,
        end: |stage| stage.say("REPLICAOF NO ONE"),
        reads: false,
        to_connections: false,
    },
    State {
        code: "-MISCONF",
        begin: |stage| {
            let gone = tempfile::tempdir().unwrap();
            stage.say(&format!("CONFIG SET dir {}", gone.path().display()));
            drop(gone);
            stage.root.args(&[b"CONFIG", b"SET", b"save", b"3600 1000000"]);
            stage.say("BGSAVE");
            eventually("it cannot save", || {
                stage.root.text("INFO persistence").contains("rdb_last_bgsave_status:err")
            });
        },
        end: |stage| stage.say("CONFIG SET stop-writes-on-bgsave-error no"),
        reads: false,
        to_connections: false,
    },
    State {
        code: "-OOM",
        begin: |stage| stage.say("CONFIG SET maxmemory 1"),
        end: |stage| stage.say("CONFIG SET maxmemory 0"),
        reads: false,
        to_connections: false,
    },
    State {
        code: "-NOAUTH",
        begin: |stage| {
            stage.say("CONFIG SET requirepass sesame");
            stage.relay.cut();
        },
        end: |stage| {
            stage.root.args(&[b"CONFIG", b"SET", b"requirepass", b""]);
        },
        reads: true,
        to_connections: false,
    },
    State {
        code: "-ERR max number of clients",
        begin: |stage| {
            // No more than there are, and those go.
            stage.say("CONFIG SET maxclients 1");
            stage.relay.cut();
        },
        end: |stage| stage.say("CONFIG SET maxclients 1000"),
        reads: true,
        to_connections: true,
    },
];

/// What the server itself says to who comes now.
fn told(redis: &Redis, request: &str) -> String {
    let Ok(mut direct) = Conn::try_to(redis.address()) else { return String::new() };
    let said = direct.try_reply_to(request).unwrap_or_default();
    String::from_utf8_lossy(&said).into_owned()
}

/// The requests that meet it, of keys that nobody has read before.
fn requests(state: &State, turn: usize) -> Vec<String> {
    let reads =
        ["GET fresh", "MGET fresh other", "HGETALL hash", "GET users/fresh", "EXISTS fresh", "STRLEN fresh"];
    let writes = ["SET fresh no", "SET users/fresh no", "HSET hash f no", "LPUSH list no"];
    let reads = reads.iter().filter(|_| state.reads);
    reads.chain(&writes).map(|line| line.replace("fresh", &format!("fresh{turn}"))).collect()
}

#[track_caller]
fn is_refused(stage: &Stage, state: &State, conn: &mut Conn, request: &str) {
    let said = conn.text(request);
    if state.to_connections {
        assert!(said.starts_with("-ERR nearside: ") && said.contains(&state.code[1..]), "{request}: {said}");
        return assert!(said.ends_with("the command was not sent\r\n"), "{request}: {said}");
    }
    let own = told(&stage.redis, request);
    // A replica refuses a write before it looks for its primary.
    let readonly = state.code == "-MASTERDOWN" && own.starts_with("-READONLY");
    assert!(own.starts_with(state.code) || readonly, "{request}: {own}");
    assert_eq!(said, own, "{}: {request}", state.code);
}

fn meets(state: &State) {
    let mut stage = Stage::new();
    let (mut two, mut three) = (stage.nearside.connect(), stage.nearside.connect_resp3());
    for turn in 0..2 {
        stage.root.pipeline(&[format!("SET fresh{turn} v"), format!("SET users/fresh{turn} v")]);
    }
    stage.root.pipeline(&["DEL hash", "HSET hash f v"]);
    (state.begin)(&mut stage);
    let probe = if state.reads { "GET fresh0" } else { "SET fresh0 v" };
    eventually("it has begun", || told(&stage.redis, probe).starts_with(state.code));
    // A lost connection is one thing, and what the server says another.
    let mut said = Vec::new();
    let begun = std::time::Instant::now();
    while !(said.len() == 2 && said.iter().all(|said: &String| said.contains(&state.code[1..]))) {
        assert!(begun.elapsed() < support::SOON, "{said:?}");
        said = vec![two.text(probe), three.text(probe)];
    }
    for turn in 0..2 {
        for request in requests(state, turn) {
            // Twice: what was kept of the first would be the second's.
            for conn in [&mut two, &mut three, &mut stage.nearside.connect()] {
                is_refused(&stage, state, conn, &request);
                is_refused(&stage, state, conn, &request);
            }
        }
        if !state.to_connections {
            let lines =
                [&format!("WATCH fresh{turn}"), "MULTI", &format!("SET fresh{turn} no"), "GET x", "EXEC"];
            let own = Conn::to(stage.redis.address()).pipeline(&lines);
            assert!(own[4].starts_with('-'), "{own:?}");
            // Where HELLO is refused, a session of its own connection that is refused has lost its state, and is closed.
            let with_resp3 = state.code != "-NOAUTH";
            for conn in [&mut two, &mut three].into_iter().take(if with_resp3 { 2 } else { 1 }) {
                assert_eq!(conn.pipeline(&lines), own, "{}", state.code);
                conn.cmd("UNWATCH");
            }
        }
        // As long as all heartbeats and what is put off take to meet it.
        std::thread::sleep(Duration::from_millis(400));
    }
    (state.end)(&mut stage);
    eventually("it is over", || told(&stage.redis, "SET probe v") == "+OK\r\n");
    for (turn, conn) in [&mut two, &mut three].into_iter().enumerate() {
        let keys = [format!("fresh{turn}"), format!("users/fresh{turn}")];
        // A link may still wait for its next attempt.
        eventually("it is served", || conn.text(&format!("GET {}", keys[0])).starts_with('$'));
        for key in &keys {
            assert_eq!(
                conn.value(key).as_deref(),
                Some("v"),
                "{}: the value, and not what was said",
                state.code
            );
            is_cached_and_followed(&mut stage, state, conn, key);
        }
        assert!(conn.text("HGETALL hash").contains("$1\r\nf\r\n$1\r\nv\r\n"));
        assert_eq!(conn.text(&format!("SET {} w", keys[0])), "+OK\r\n");
        assert_eq!(conn.value(&keys[0]).as_deref(), Some("w"));
    }
    assert!(stage.nearside.stats().contains("nearside_feed:up"));
    assert_eq!(stage.root.text("EXISTS list"), ":0\r\n", "nothing was written under it");
}

/// It is a hit again, and a change by another is heard of.
#[track_caller]
fn is_cached_and_followed(stage: &mut Stage, state: &State, conn: &mut Conn, key: &str) {
    for value in ["first", "second"] {
        stage.say(&format!("SET {key} {value}"));
        let before = stage.nearside.stat("hits");
        eventually(&format!("{}: {key} is a hit of what was written", state.code), || {
            conn.value(key).as_deref() == Some(value) && stage.nearside.stat("hits") > before
        });
    }
}

macro_rules! each {
    ($($name:ident: $place:literal;)+) => { $(
        #[test]
        fn $name() {
            meets(&STATES[$place]);
        }
    )+ };
}

each! {
    a_server_that_loads_its_data: 0;
    a_server_that_is_busy_with_a_script: 1;
    a_replica_whose_primary_is_gone: 2;
    a_replica_that_takes_no_writes: 3;
    a_server_that_cannot_save: 4;
    a_server_that_has_no_memory_left: 5;
    a_server_that_asks_for_a_password: 6;
    a_server_that_has_too_many_clients: 7;
}
