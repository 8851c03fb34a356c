//! Who may have the admin pages: by token, by Unix socket, by the host that is asked for.

use crate::support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use support::program::Program;
use support::{Redis, SOON, eventually, free_port};

/// The status of what is answered to these lines, and all of it.
fn asked(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    write!(stream, "{}\r\nConnection: close\r\n\r\n", request.replace('\n', "\r\n")).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    (said.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default(), said)
}

fn on_port(program: &Program, request: &str) -> (u16, String) {
    let stream = TcpStream::connect(("127.0.0.1", program.admin)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    asked(stream, request)
}

fn on_socket(path: &Path, request: &str) -> (u16, String) {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    asked(stream, request)
}

#[test]
fn the_pages_are_for_who_has_the_token_or_may_use_the_socket() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let (token, socket) = (folder.path().join("token"), folder.path().join("admin.sock"));
    std::fs::write(&token, "sesame\n").unwrap();
    let (port, admin) = (free_port(), free_port());
    let (listen, upstream) = (port.to_string(), format!("redis://127.0.0.1:{}", redis.port));
    let at = format!("{admin},unix://{}", socket.display());
    let file = token.to_str().unwrap();
    let arguments = [
        "--listen",
        &listen,
        "--admin",
        &at,
        "--upstream",
        &upstream,
        "--admin-token-file",
        file,
        "--workers",
        "1",
    ];
    // One that was killed has left its socket.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut program = Program::run(&[&arguments[..], &["--unix-socket-mode", "777"]].concat(), port, admin);
    program.wait_for("ready for clients");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o770, "others may not");
    for page in ["/livez", "/readyz", "/metrics", "/nothing"] {
        let (status, said) = on_port(&program, &format!("GET {page} HTTP/1.1\nHost: localhost"));
        assert_eq!(status, 401, "{page}: {said}");
        assert!(
            said.contains("www-authenticate: Bearer") && said.contains("Authorization: Bearer TOKEN"),
            "{said}"
        );
    }
    let bearer = |token: &str| {
        on_port(&program, &format!("GET /metrics HTTP/1.1\nHost: localhost\nAuthorization: Bearer {token}"))
    };
    let (status, said) = bearer("sesame");
    assert!(
        status == 200 && said.contains("nearside_refused_admin_requests_total{reason=\"token\"} 4\n"),
        "{said}"
    );
    assert_eq!(bearer("sesam").0, 401);
    let (status, said) = on_port(&program, "GET /metrics?token=sesame HTTP/1.1\nHost: localhost");
    assert!(status == 303 && said.contains("\r\nlocation: /metrics\r\n"), "{said}");
    let cookie = said.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict") && !said.contains("sesame"), "{said}");
    let cookie = cookie.split(';').next().unwrap();
    let by_cookie = format!("GET /metrics HTTP/1.1\nHost: localhost\nCookie: {cookie}");
    assert_eq!(on_port(&program, &by_cookie).0, 200);
    // The socket's rights have let in whoever is there, whatever the host.
    assert_eq!(on_socket(&socket, "GET /metrics HTTP/1.1\nHost: any.example").0, 200);
    // Another token, in another file of that name.
    std::fs::write(folder.path().join("new"), "open").unwrap();
    std::fs::rename(folder.path().join("new"), &token).unwrap();
    assert_eq!((bearer("open").0, bearer("sesame").0, on_port(&program, &by_cookie).0), (200, 401, 401));
    program.terminate();
    assert!(program.ended().success() && !socket.exists(), "its file is gone");
    assert!(!program.seen.contains("sesame"), "{}", program.seen);
}

#[test]
fn a_name_that_somebody_else_may_have_lead_here_is_refused() {
    let redis = Redis::start();
    let program = Program::start(redis.port, &["--admin-hosts", "nearside.svc"]);
    let get = |host: &str| on_port(&program, &format!("GET /metrics HTTP/1.1\n{host}"));
    for host in ["Host: localhost:1", "Host: 10.1.2.3:9380", "Host: [::1]", "Host: Nearside.svc:9380"] {
        assert_eq!(get(host).0, 200, "{host}");
    }
    let (status, said) = get("Host: evil.example:9380");
    assert!(status == 403 && said.contains("write the name into admin-hosts"), "{said}");
    let (status, said) = get("Host: 127.0.0.1\nOrigin: http://evil.example");
    assert!(status == 403 && said.contains("http://evil.example"), "{said}");
    assert_eq!(get("Host: 127.0.0.1:7\nOrigin: http://127.0.0.1:7").0, 200);
    // As a probe of a kubelet: by the pod's address, and without a token.
    eventually("it is ready", || on_port(&program, "GET /readyz HTTP/1.1\nHost: 10.1.2.3:9380").0 == 200);
    assert_eq!(on_port(&program, "GET /livez HTTP/1.0").0, 200, "without a host");
}
