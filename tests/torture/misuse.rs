//! What one client does, or has happen to it, that must harm nobody else, and never goes unnoticed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::faults::{any, nap, operator};
use super::scenario::Stage;
use super::world::call;
use crate::support::chaos::Chaos;
use crate::support::program::Program;
use crate::support::{Conn, eventually};

/// A health check or a browser on the wrong port. It is let go, and nothing that is cached goes with it.
pub fn http(stage: &mut Stage) {
    const QUIET: &str = "users/quiet";
    let i = any(stage);
    let address = stage.world.sidecars[i];
    let mut conn = Conn::to(address);
    let is_cached = |conn: &mut Conn| conn.text(&format!("NEARSIDE WHY {QUIET}")).contains("cached: yes");
    eventually("what is read is kept", || {
        call(&mut conn, &["GET", QUIET]);
        is_cached(&mut conn)
    });
    let host = "Host: nearside\r\nUser-Agent: probe\r\n\r\n";
    let asked = match stage.random.below(4) {
        0 => format!("POST / HTTP/1.1\r\n{host}"),
        1 => format!("GET /healthz HTTP/1.1\r\n{host}"),
        2 => format!("HEAD / HTTP/1.0\r\n{host}"),
        _ => host.to_string(),
    };
    let mut wrong = Vec::new();
    match ask_for_a_page(address, &asked) {
        Ok(said) if said.matches("\r\n").count() > 1 => {
            wrong.push(format!("{asked:?} was answered {said:?}"))
        }
        Ok(_) => {}
        Err(error) => wrong.push(format!("{asked:?} was not let go: {error}")),
    }
    // HEAD is no command of Redis, so for the moment of one PING nobody knows what it has changed.
    let until = Instant::now() + Duration::from_secs(1);
    while !is_cached(&mut conn) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    if !is_cached(&mut conn) {
        wrong.push(format!("{asked:?} took from the cache what others had read"));
    }
    stage.world.misused.lock().unwrap().extend(wrong);
    nap(stage, 10, 60);
}

/// What is said until the connection is closed.
fn ask_for_a_page(address: std::net::SocketAddr, asked: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.write_all(asked.as_bytes())?;
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(String::from_utf8_lossy(&said).into_owned()),
    }
}

/// A program of our own is stopped for a moment while a session of it watches a key. Meanwhile its connection
/// is killed, the key is changed and the transaction is sent: then nobody may be told that it succeeded.
pub fn kill_under_watch(stage: &mut Stage) {
    const KEY: &str = "users/watched by a program";
    let relay = Chaos::to(stage.redis.address());
    let program = Program::start(relay.address.port(), &[]);
    let mut conn = program.connect();
    let mut server = operator(stage);
    call(&mut server, &["SET", KEY, "before"]);
    for _ in 0..3 + stage.random.below(5) {
        if call(&mut conn, &["WATCH", KEY]).is_none() || call(&mut conn, &["GET", KEY]).is_none() {
            conn = program.connect();
            continue;
        }
        // Some say MULTI already, some say it only afterwards.
        let begun = stage.random.one_in(3) && call(&mut conn, &["MULTI"]).is_some();
        program.signal(rustix::process::Signal::STOP);
        match stage.random.below(3) {
            0 => {
                server.text("CLIENT KILL TYPE normal SKIPME yes");
                // Our clients' too, and these know of it.
            }
            _ => relay.reset_all(),
        }
        // Until the server knows of it, too.
        std::thread::sleep(Duration::from_millis(2));
        call(&mut server, &["SET", KEY, "changed meanwhile"]);
        let write: &[&str] = if begun { &["SET", "EXEC"] } else { &["MULTI", "SET", "EXEC"] };
        let mut packet = Vec::new();
        for name in write {
            let request: &[&[u8]] = match *name {
                "SET" => &[b"SET", KEY.as_bytes(), b"lost update"],
                other => &[other.as_bytes()],
            };
            packet.extend(crate::support::request(request));
        }
        let sent = conn.stream.write_all(&packet).is_ok();
        program.signal(rustix::process::Signal::CONT);
        let replies: Vec<_> = write.iter().map_while(|_| conn.try_reply().ok()).collect();
        let told = replies.last().filter(|_| replies.len() == write.len());
        if sent && told.is_some_and(|reply| reply.starts_with(b"*1\r\n+OK")) {
            let story =
                format!("{KEY} was changed while it was watched, and EXEC succeeded (MULTI before: {begun})");
            stage.world.lost_updates.lock().unwrap().push(story);
        }
        conn = program.connect();
    }
    nap(stage, 10, 50);
}
