//! Each way in which TLS comes to nothing is told in one line that says what to do.

use crate::support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use support::program::Program;
use support::tls::{Age, Authority, Client, Identity, TlsRedis};
use support::{Conn, Redis, free_port};

const LOCAL: &[&str] = &["127.0.0.1"];

/// The program in front of this upstream, with more settings.
fn program(upstream: &str, listen: &str, more: &[&str]) -> Program {
    let (port, admin) = (free_port(), free_port());
    let (listen, admin_at) = (format!("{listen}127.0.0.1:{port}"), admin.to_string());
    let mut arguments = vec!["--listen", &listen, "--admin", &admin_at, "--upstream", upstream];
    arguments.extend(["--workers", "1", "--connect-timeout", "1s"]);
    arguments.extend(more);
    let mut program = Program::run(&arguments, port, admin);
    program.wait_for("ready for clients");
    program
}

/// The log says so in one line, and so does the error that a client gets.
#[track_caller]
fn says(upstream: &str, more: &[&str], words: &str) {
    let mut program = program(upstream, "", more);
    program.wait_for(words);
    let told = program.seen.lines().filter(|line| line.contains(words)).count();
    assert!(told <= 2, "the link's line and the feed's: {}", program.seen);
    let reply = program.connect().text("GET k");
    assert!(reply.starts_with("-ERR") && reply.contains(words), "{reply}");
    assert_eq!(program.status("/readyz"), Some(503));
}

struct World {
    _authority: Authority,
    redis: TlsRedis,
    ca: String,
}

/// A Redis whose certificate is for these names.
fn redis(names: &[&str], age: Age, demands: bool, more: &[&str]) -> World {
    let authority = Authority::new();
    let server = authority.issue_aged("server", names, age);
    let redis = TlsRedis::start(&authority, &server, demands, more);
    let ca = authority.ca().to_str().unwrap().to_owned();
    World { _authority: authority, redis, ca }
}

fn paths(identity: &Identity) -> (String, String) {
    (identity.cert.to_str().unwrap().to_owned(), identity.key.to_str().unwrap().to_owned())
}

#[test]
fn an_upstream_of_another_ca_is_not_believed() {
    let world = redis(LOCAL, Age::Valid, false, &[]);
    // Of another name, or of the same one.
    for other in [Authority::called("another"), Authority::new()] {
        let ca = other.ca();
        says(
            &world.redis.url(),
            &["--upstream-tls-ca", ca.to_str().unwrap()],
            "is signed by no CA that is trusted: upstream-tls-ca",
        );
    }
    // Nor by the CAs of the system.
    says(&world.redis.url(), &[], "is signed by no CA that is trusted: upstream-tls-ca");
}

#[test]
fn insecure_believes_anybody_and_warns_of_it() {
    let world = redis(&["db.example"], Age::Expired, false, &[]);
    let mut program = program(&world.redis.url(), "", &["--upstream-tls-insecure", "true"]);
    assert!(
        program.seen.contains("upstream-tls-insecure: whoever answers for rediss://127.0.0.1:"),
        "{}",
        program.seen
    );
    assert_eq!(program.connect().text("PING"), "+PONG\r\n");
    program.terminate();
    assert_eq!(program.ended().code(), Some(0));
}

#[test]
fn an_upstream_of_another_name_is_not_believed() {
    let world = redis(&["db.example"], Age::Valid, false, &[]);
    let ca = ["--upstream-tls-ca", &world.ca];
    let url = world.redis.url();
    says(&url, &ca, "certificate is not for 127.0.0.1, but for");
    says(
        &url,
        &[&ca[..], &["--upstream-tls-sni", "other.example"]].concat(),
        "certificate is not for other.example, but for",
    );
}

#[test]
fn an_expired_certificate_is_not_believed() {
    let world = redis(LOCAL, Age::Expired, false, &[]);
    says(&world.redis.url(), &["--upstream-tls-ca", &world.ca], "the upstream's certificate has expired");
}

#[test]
fn an_upstream_that_demands_a_certificate_is_told_of() {
    for versions in ["TLSv1.2", "TLSv1.3"] {
        let world = redis(LOCAL, Age::Valid, true, &["--tls-protocols", versions]);
        let ca = ["--upstream-tls-ca", &world.ca];
        says(&world.redis.url(), &ca, "a client certificate");
        let others = Authority::new();
        let (cert, key) = paths(&others.issue("other", LOCAL));
        let with = [&ca[..], &["--upstream-tls-cert", &cert, "--upstream-tls-key", &key]].concat();
        says(&world.redis.url(), &with, "upstream-tls-cert");
    }
}

#[test]
fn a_url_with_the_wrong_scheme_is_told_of() {
    let world = redis(LOCAL, Age::Valid, false, &[]);
    says(&format!("redis://127.0.0.1:{}", world.redis.port), &[], "rediss://");
    let plain = format!("rediss://127.0.0.1:{}", world.redis.redis.port);
    says(&plain, &["--upstream-tls-ca", &world.ca], "write redis://");
}

#[test]
fn files_that_cannot_be_used_are_told_before_anything_runs() {
    let authority = Authority::new();
    let (one, other) = (authority.issue("one", LOCAL), authority.issue("other", LOCAL));
    let ((cert, key), (_, wrong)) = (paths(&one), paths(&other));
    let empty = authority.folder().join("empty");
    std::fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    for (cert, key, says) in [
        (cert.as_str(), wrong.as_str(), "is not the key of the certificate in"),
        (empty, &key, "empty: holds no certificate"),
        (&cert, empty, "empty: holds no private key"),
        (&cert, "/nowhere", "tls-key: /nowhere: No such file"),
    ] {
        let mut program = Program::run(
            &["--listen", "tls://127.0.0.1:0", "--tls-cert", cert, "--tls-key", key, "--admin", "off"],
            0,
            0,
        );
        assert_eq!(program.ended().code(), Some(2), "{}", program.seen);
        assert!(program.seen.contains(says) && program.seen.lines().count() == 1, "{says}: {}", program.seen);
    }
}

/// The program with TLS for its clients, who need certificates if `demands`.
fn for_clients(authority: &Authority, upstream: &Redis, demands: bool) -> Program {
    let (cert, key) = paths(&authority.issue("nearside", LOCAL));
    let ca = authority.ca();
    let mut more = vec!["--tls-cert", &cert, "--tls-key", &key];
    if demands {
        more.extend(["--tls-client-ca", ca.to_str().unwrap()]);
    }
    program(&format!("redis://{}", upstream.address()), "tls://", &more)
}

fn at(program: &Program) -> SocketAddr {
    ([127, 0, 0, 1], program.port).into()
}

#[track_caller]
fn is_counted(program: &Program, reason: &str) {
    let counted = format!("nearside_failed_tls_handshakes_total{{reason=\"{reason}\"}} 1\n");
    let page = program.page("/metrics");
    assert!(page.contains(&counted), "{page}");
}

#[test]
fn clients_without_the_right_certificate_are_told_of() {
    let (authority, redis, others) = (Authority::new(), Redis::start(), Authority::new());
    let wrong = others.issue("wrong", &["client"]);
    let old = authority.issue_aged("old", &["client"], Age::Expired);
    for (identity, words) in [
        (None, "it has no certificate, and tls-client-ca demands one"),
        (Some(&wrong), "its certificate is signed by none of the CAs of tls-client-ca"),
        (Some(&old), "its certificate is not accepted: certificate expired"),
    ] {
        let mut program = for_clients(&authority, &redis, true);
        let ca = authority.ca();
        let client = Client { identity, ..Client::of(&ca) };
        let got = client.connect(at(&program)).and_then(|mut client| client.try_reply());
        assert!(got.is_err(), "{got:?}");
        program.wait_for(words);
        is_counted(&program, "client_certificate");
    }
}

#[test]
fn a_client_that_does_not_accept_our_certificate_is_told_of() {
    let (authority, redis, others) = (Authority::new(), Redis::start(), Authority::new());
    let mut program = for_clients(&authority, &redis, false);
    assert!(Client::of(&others.ca()).connect(at(&program)).is_err());
    program.wait_for("it does not accept the certificate of tls-cert");
    is_counted(&program, "not_trusted");
    // And one that just goes is not.
    drop(TcpStream::connect(at(&program)).unwrap());
    assert_eq!(Client::of(&authority.ca()).connect(at(&program)).unwrap().cmd("PING"), b"+PONG\r\n");
    assert!(program.page("/metrics").contains("nearside_tls_handshakes_total 1\n"));
}

#[test]
fn a_client_without_tls_on_a_tls_address_is_closed_and_told_of() {
    let (authority, redis) = (Authority::new(), Redis::start());
    let mut program = for_clients(&authority, &redis, false);
    let mut client = Conn::to(at(&program));
    assert!(client.try_reply_to("PING").is_err() && client.is_closed());
    program.wait_for("it speaks without TLS on a tls:// address");
    is_counted(&program, "no_tls");
}

#[test]
fn a_client_with_tls_on_an_address_without_is_closed_and_told_of() {
    let (authority, redis) = (Authority::new(), Redis::start());
    let mut program = program(&format!("redis://{}", redis.address()), "", &[]);
    assert!(Client::of(&authority.ca()).connect(at(&program)).is_err());
    program.wait_for("a client speaks TLS on an address without");
    assert!(program.page("/metrics").contains("nearside_closed_clients_total{reason=\"tls\"} 1\n"));
    // However it is cut, and whatever is in it.
    let mut client = Conn::to(at(&program));
    for byte in *b"\x16\x03\x01\x02\x00\x01\x0a" {
        let _ = client.stream.write_all(&[byte]);
    }
    assert!(client.is_closed());
    assert_eq!(
        redis.connect().text("INFO errorstats").matches("errorstat_").count(),
        0,
        "nothing was passed on"
    );
    assert_eq!(program.connect().text("PING"), "+PONG\r\n");
}
