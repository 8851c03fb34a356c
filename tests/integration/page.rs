//! The page for people: its files, and what a browser is told of them. What it shows is looked at by `tests/browser`.

use crate::support;

use std::io::{Read, Write};
use std::net::TcpStream;

use support::program::Program;
use support::{Redis, SOON};

/// The head and the body of what is answered.
fn asked(program: &Program, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", program.admin)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let (head, body) = said.split_once("\r\n\r\n").expect("a response");
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn the_page_and_its_files_are_served_with_what_keeps_a_browser_from_anything_else() {
    let redis = Redis::start();
    let program = Program::start(redis.port, &[]);
    let headers = [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ];
    for (path, kind, holds) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/page.css", "text/css; charset=utf-8", "prefers-color-scheme: dark"),
        ("/page.js", "text/javascript; charset=utf-8", "new EventSource(\"live\")"),
        ("/charts.js", "text/javascript; charset=utf-8", "class Chart"),
        ("/figures.js", "text/javascript; charset=utf-8", "textContent"),
        ("/icon.svg", "image/svg+xml", "<svg"),
    ] {
        let (head, body) = asked(&program, "GET", path);
        assert!(head.starts_with("http/1.1 200") && body.contains(holds), "{path}: {head}");
        assert!(head.contains(&format!("content-type: {kind}")), "{path}: {head}");
        for header in headers {
            assert!(head.lines().any(|line| line == header), "{path}: no {header} in {head}");
        }
        let (without, nothing) = asked(&program, "HEAD", path);
        assert!(
            without.contains(&format!("content-length: {}", body.len())) && nothing.is_empty(),
            "{without}"
        );
        assert!(asked(&program, "POST", path).0.starts_with("http/1.1 405"), "{path}");
    }
    let (head, body) = asked(&program, "GET", "/index.html");
    assert!(head.starts_with("http/1.1 404") && body.starts_with("there are /, /livez"), "{body}");
}
