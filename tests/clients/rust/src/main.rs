//! The Rust clients, each by name: `rust-clients HOST PORT NAME`. See `tests/clients/run` for the steps.

mod fred_client;
mod redis_rs;
mod redis_rs_async;
mod rustis_client;

use std::io::BufRead;
use std::time::{Duration, Instant};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Asks the one who runs this.
pub fn step(what: &str) {
    println!("@ {what}");
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}

/// The result of an action, tried until it fails no more: a client that connects anew by itself.
pub async fn again<T, E: std::fmt::Display>(
    mut action: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let why = match tokio::time::timeout(Duration::from_secs(3), action()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in 3 s".into(),
        };
        if Instant::now() > deadline {
            return Err(why.into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, host, port, name] = &arguments[..] else { panic!("rust-clients HOST PORT NAME") };
    let port: u16 = port.parse().expect("a port");
    let done = match name.as_str() {
        "redis-rs" => redis_rs::check(host, port),
        "redis-rs-async" => redis_rs_async::check(host, port).await,
        "fred" => fred_client::check(host, port).await,
        "rustis" => rustis_client::check(host, port).await,
        other => panic!("no client is called {other}"),
    };
    if let Err(error) = done {
        eprintln!("{name}: {error}");
        std::process::exit(1);
    }
    let lock = include_str!("../Cargo.lock");
    let package = name.trim_end_matches("-rs").trim_end_matches("-rs-async");
    let at = lock.find(&format!("name = \"{package}\"\nversion = ")).expect("the package");
    println!("{name} {}", lock[at..].split('"').nth(3).expect("its version"));
}
