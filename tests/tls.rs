//! TLS to the upstream and with clients: everything works over it as it does without.

mod support;

use support::tls::{Authority, Client, TlsRedis, listen};
use support::{Nearside, eventually};

const LOCAL: &[&str] = &["127.0.0.1"];

/// A CA, a Redis with TLS, and nearside in front of it that its clients reach by TLS.
fn both(versions: &str) -> (Authority, TlsRedis, Nearside) {
    let authority = Authority::new();
    let (server, ours) = (authority.issue("server", LOCAL), authority.issue("nearside", LOCAL));
    let redis = TlsRedis::start(&authority, &server, false, &["--tls-protocols", versions]);
    let nearside = Nearside::tls(&redis, &authority, |config| listen(config, &ours));
    (authority, redis, nearside)
}

#[test]
fn hits_come_over_tls_on_both_sides_and_follow_a_foreign_writer() {
    let (authority, redis, nearside) = both("TLSv1.2 TLSv1.3");
    let mut client = Client::of(&authority.ca()).connect(nearside.address).unwrap();
    assert_eq!(client.cmd("SET k v"), b"+OK\r\n");
    assert_eq!(client.value("k").as_deref(), Some("v"));
    assert_eq!(client.value("k").as_deref(), Some("v"));
    let page = nearside.get("/metrics").1;
    assert!(page.contains("nearside_hits_total 1\n"), "{page}");
    assert_eq!(redis.redis.connect().cmd("SET k foreign"), b"+OK\r\n");
    eventually("the change is seen", || client.value("k").as_deref() == Some("foreign"));
    // The connections are known as nearside's own.
    let seen = redis.redis.connect().text("CLIENT LIST");
    assert!(seen.contains("name=nearside"), "{seen}");
    assert!(client.text("CLIENT LIST").contains("addr=127.0.0.1:"));
    assert!(!client.text("CLIENT LIST").contains("name=nearside"));
}
