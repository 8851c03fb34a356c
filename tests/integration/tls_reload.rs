//! Certificates, keys and CAs that change are taken for new connections; what cannot be used leaves what was.

use crate::support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use support::program::Program;
use support::tls::{Authority, Client, Identity, TlsRedis};
use support::{Redis, eventually, free_port};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

const LOCAL: &[&str] = &["127.0.0.1"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn program(upstream: &str, listen: &str, more: &[&str]) -> Program {
    let (port, admin) = (free_port(), free_port());
    let (listen, admin_at) = (format!("{listen}127.0.0.1:{port}"), admin.to_string());
    let mut arguments =
        vec!["--listen", &listen, "--admin", &admin_at, "--upstream", upstream, "--workers", "1"];
    arguments.extend(more);
    let mut program = Program::run(&arguments, port, admin);
    program.wait_for("ready for clients");
    program
}

/// The program with TLS for its clients by these files.
fn listening(redis: &Redis, files: &Identity) -> Program {
    let more = ["--tls-cert", text(&files.cert), "--tls-key", text(&files.key)];
    program(&format!("redis://{}", redis.address()), "tls://", &more)
}

fn at(program: &Program) -> SocketAddr {
    ([127, 0, 0, 1], program.port).into()
}

/// Whether a client is shown the certificate in this file.
fn shows(program: &Program, ca: &Path, cert: &Path) -> bool {
    let mut client = Client::of(ca).connect(at(program)).expect("a handshake");
    assert_eq!(client.cmd("PING"), b"+PONG\r\n");
    let shown = client.stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
    shown == CertificateDer::from_pem_file(cert).unwrap()
}

/// Replaces a file by renaming, as certbot and the like do.
fn replace(path: &Path, by: &Path) {
    let beside = path.with_extension("new");
    std::fs::copy(by, &beside).unwrap();
    std::fs::rename(beside, path).unwrap();
}

fn is_bad(program: &Program) -> bool {
    program.page("/metrics").contains("\nnearside_tls_reload_failed 1")
}

/// Files in use, and others to replace them by.
fn files(authority: &Authority) -> (Identity, Identity, Identity) {
    let (old, new) = (authority.issue("old", LOCAL), authority.issue("new", LOCAL));
    let used = Identity { cert: authority.folder().join("tls.crt"), key: authority.folder().join("tls.key") };
    std::fs::copy(&old.cert, &used.cert).unwrap();
    std::fs::copy(&old.key, &used.key).unwrap();
    (used, old, new)
}

#[test]
fn a_changed_certificate_is_taken_within_ten_seconds_and_connections_live_on() {
    let (authority, redis) = (Authority::new(), Redis::start());
    let (used, old, new) = files(&authority);
    let program = listening(&redis, &used);
    let ca = authority.ca();
    let mut client = Client::of(&ca).connect(at(&program)).unwrap();
    assert!(shows(&program, &ca, &old.cert));
    replace(&used.key, &new.key);
    replace(&used.cert, &new.cert);
    eventually("the new one is shown", || shows(&program, &ca, &new.cert));
    assert_eq!(client.cmd("PING"), b"+PONG\r\n");
    eventually("and all is well", || !is_bad(&program));
}

#[test]
fn on_sighup_files_are_taken_at_once_and_the_end_of_validity_is_known() {
    let (authority, redis) = (Authority::new(), Redis::start());
    let (used, _, new) = files(&authority);
    let mut program = listening(&redis, &used);
    let page = program.page("/metrics");
    let end = page.lines().find_map(|line| {
        line.strip_prefix("nearside_tls_certificate_end_timestamp_seconds{file=\"tls-cert\"} ")
    });
    let end: f64 = end.expect("the gauge").parse().unwrap();
    let left = end - SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((24.0 * 3600.0 - 60.0..=24.0 * 3600.0).contains(&left), "{left}");
    replace(&used.key, &new.key);
    replace(&used.cert, &new.cert);
    let began = Instant::now();
    program.signal(Signal::HUP);
    program.wait_for("the files were read again");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(shows(&program, &authority.ca(), &new.cert));
}

#[test]
fn a_symbolic_link_that_is_turned_is_followed() {
    // As kubelet does: the files are links through `..data`, which is a link to a folder of its own for each version.
    let (authority, redis) = (Authority::new(), Redis::start());
    let (old, new) = (authority.issue("old", LOCAL), authority.issue("new", LOCAL));
    let mount = authority.folder().join("mount");
    let version = |name: &str, of: &Identity| {
        std::fs::create_dir_all(mount.join(name)).unwrap();
        std::fs::copy(&of.cert, mount.join(name).join("tls.crt")).unwrap();
        std::fs::copy(&of.key, mount.join(name).join("tls.key")).unwrap();
        let turned = mount.join("..data_tmp");
        std::os::unix::fs::symlink(name, &turned).unwrap();
        std::fs::rename(turned, mount.join("..data")).unwrap();
    };
    version("..1", &old);
    let link = |file: &str| -> PathBuf {
        std::os::unix::fs::symlink(Path::new("..data").join(file), mount.join(file)).unwrap();
        mount.join(file)
    };
    let used = Identity { cert: link("tls.crt"), key: link("tls.key") };
    let program = listening(&redis, &used);
    assert!(shows(&program, &authority.ca(), &old.cert));
    version("..2", &new);
    std::fs::remove_dir_all(mount.join("..1")).unwrap();
    eventually("the new one is shown", || shows(&program, &authority.ca(), &new.cert));
}

#[test]
fn what_cannot_be_used_leaves_what_was_and_is_told() {
    let (authority, redis) = (Authority::new(), Redis::start());
    let (used, old, new) = files(&authority);
    let mut program = listening(&redis, &used);
    let ca = authority.ca();
    for (bad, words) in [
        ("", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "tls-cert: "),
        (&std::fs::read_to_string(&new.cert).unwrap(), "is not the key of the certificate in"),
    ] {
        std::fs::write(&used.cert, bad).unwrap();
        program.signal(Signal::HUP);
        program.wait_for("the configuration is wrong, and nothing has changed: ");
        program.wait_for("TLS: what was read before is kept: ");
        program.wait_for(words);
        eventually("it is known", || is_bad(&program));
        assert!(shows(&program, &ca, &old.cert));
    }
    // Not there at all, and not asked for.
    std::fs::remove_file(&used.cert).unwrap();
    program.wait_for("tls.crt: No such file");
    let told = program.seen.matches("what was read before is kept").count();
    assert!(told <= 7, "once for each: {}", program.seen);
    replace(&used.key, &new.key);
    replace(&used.cert, &new.cert);
    eventually("the new one is shown", || shows(&program, &ca, &new.cert));
    eventually("and all is well", || !is_bad(&program));
}

#[test]
fn the_upstreams_new_ca_and_our_new_certificate_are_taken() {
    let (one, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let give = |authority: &Authority| {
        let ours = authority.issue("ours", &["nearside"]);
        std::fs::copy(authority.ca(), path("ca")).unwrap();
        std::fs::copy(&ours.cert, path("crt")).unwrap();
        std::fs::copy(&ours.key, path("key")).unwrap();
    };
    give(&one);
    let mut redis = TlsRedis::start(&one, &one.issue("server", LOCAL), true, &[]);
    let (ca, cert, key) = (path("ca"), path("crt"), path("key"));
    let more = [
        ["--upstream-tls-ca", text(&ca)],
        ["--upstream-tls-cert", text(&cert)],
        ["--upstream-tls-key", text(&key)],
    ];
    let program = program(&redis.url(), "", &more.concat());
    eventually("it is ready", || program.status("/readyz") == Some(200));
    // The same port, with all of another CA.
    let server = other.issue("server", LOCAL);
    let port = redis.port.to_string();
    let ca = other.ca();
    redis.redis.become_another(&[
        "--tls-port",
        &port,
        "--tls-auth-clients",
        "yes",
        "--tls-ca-cert-file",
        text(&ca),
        "--tls-cert-file",
        text(&server.cert),
        "--tls-key-file",
        text(&server.key),
    ]);
    eventually("it is not believed", || {
        program.connect().text("GET k").contains("is signed by no CA that is trusted")
    });
    give(&other);
    eventually("it is served again", || program.connect().text("GET k") == "$-1\r\n");
}
