//! Clients that connect and say nothing, or drip, hold up nobody.

use crate::support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::tls::{Authority, Client, TlsConn, listen};
use support::{Nearside, Redis, eventually};

const LOCAL: &[&str] = &["127.0.0.1"];

struct World {
    authority: Authority,
    nearside: Nearside,
    _redis: Redis,
}

fn world(max_clients: usize) -> World {
    let (authority, redis) = (Authority::new(), Redis::start());
    let ours = authority.issue("nearside", LOCAL);
    let nearside = Nearside::unready(redis.address(), |config| {
        listen(config, &ours);
        config.max_clients = max_clients;
    });
    eventually("nearside is ready", || nearside.get("/readyz").0 == 200 && nearside.tracked() >= 1);
    World { authority, nearside, _redis: redis }
}

impl World {
    fn connect(&self) -> std::io::Result<TlsConn> {
        Client::of(&self.authority.ca()).connect(self.nearside.address)
    }

    fn clients(&self) -> u64 {
        let page = self.nearside.get("/metrics").1;
        let line = page.lines().find_map(|line| line.strip_prefix("nearside_clients "));
        line.unwrap().parse::<f64>().unwrap() as u64
    }
}

/// The beginning of a handshake.
const HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

fn silent(address: SocketAddr, words: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(words).unwrap();
    stream
}

#[test]
fn clients_that_do_not_finish_hold_up_nobody_and_are_closed() {
    let world = world(5000);
    let mut client = world.connect().unwrap();
    assert_eq!(client.cmd("SET k v"), b"+OK\r\n");
    assert_eq!(client.value("k").as_deref(), Some("v"));
    let address = world.nearside.address;
    // More than may be under way, half of whom have said something.
    let began = Instant::now();
    let mut others: Vec<_> =
        (0..800).map(|i| silent(address, if i % 2 == 0 { b"" } else { HELLO })).collect();
    for turn in 0..20 {
        // They drip.
        others.iter_mut().skip(1).step_by(2).for_each(|other| drop(other.write_all(&[0])));
        let at = Instant::now();
        assert_eq!(client.value("k").as_deref(), Some("v"));
        let mut new = world.connect().expect("a handshake");
        assert_eq!(new.value("k").as_deref(), Some("v"));
        assert!(at.elapsed() < Duration::from_secs(1), "{turn}: {:?}", at.elapsed());
    }
    assert!(world.clients() > 100, "they are counted");
    eventually("all are closed", || world.clients() == 1);
    assert!(began.elapsed() < Duration::from_secs(12), "in time: {:?}", began.elapsed());
    others.iter_mut().for_each(|other| assert!(matches!(other.read(&mut [0; 100]), Ok(0) | Err(_))));
    let page = world.nearside.get("/metrics").1;
    assert!(page.contains("nearside_failed_tls_handshakes_total{reason=\"slow\"} 800\n"), "{page}");
    assert_eq!(client.value("k").as_deref(), Some("v"));
}

#[test]
fn one_that_has_not_finished_counts_as_a_client() {
    let world = world(3);
    let others: Vec<_> = (0..3).map(|_| silent(world.nearside.address, HELLO)).collect();
    eventually("they are there", || world.clients() == 3);
    let refused = world.connect().and_then(|mut client| client.try_reply_to("PING"));
    assert!(refused.is_err(), "{refused:?}");
    drop(others);
    eventually("they are gone", || world.clients() == 0);
    assert_eq!(world.connect().unwrap().cmd("PING"), b"+PONG\r\n");
}

#[test]
fn a_stop_waits_for_no_handshake() {
    let mut world = world(100);
    let _others: Vec<_> = (0..3).map(|_| silent(world.nearside.address, HELLO)).collect();
    eventually("they are there", || world.clients() == 3);
    let began = Instant::now();
    world.nearside.begin_stop(nearside::server::Stop::Drain);
    world.nearside.wait_stopped().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
