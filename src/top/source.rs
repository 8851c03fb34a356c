//! Where the figures come from: the admin port, over TCP or a Unix socket, on one connection that is kept.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::samples::Samples;
use crate::config::{Address, Top};

/// How often it is asked.
pub const EVERY: Duration = Duration::from_secs(1);

/// How long an answer may take, a connection included.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest page that is read.
const MOST: usize = 8 << 20;

/// What is told of a page that is no metrics, in characters.
const TOLD: usize = 200;

/// What was seen at one moment.
#[derive(Debug)]
pub struct Seen {
    pub at: Instant,
    pub samples: Samples,
    /// Why it is not ready, if it is not.
    pub unready: Option<String>,
}

/// See the [module](self).
pub struct Source {
    address: Address,
    token_file: Option<PathBuf>,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    token: Option<String>,
}

impl Source {
    pub fn new(top: &Top) -> Self {
        Self { address: top.at.clone(), token_file: top.token_file.clone(), connection: None }
    }

    /// What the sidecar says now. Errors: why it says nothing, and what to do.
    pub async fn look(&mut self) -> Result<Seen, String> {
        let mut connection = self.connection.take();
        let looked = tokio::time::timeout(PATIENCE, self.ask(&mut connection)).await;
        let seen = looked
            .unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(PATIENCE))))?;
        // One that has failed is not used again.
        self.connection = connection;
        Ok(seen)
    }

    async fn ask(&self, connection: &mut Option<Connection>) -> Result<Seen, String> {
        if connection.as_ref().is_none_or(|connection| connection.sender.is_closed()) {
            *connection = Some(self.connect().await?);
        }
        let Some(connection) = connection else { return Err("not connected".to_owned()) };
        let (status, page) = connection.get("/metrics").await?;
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(format!("{status}: name the file with the admin port's token: --token-file"));
            }
            other => return Err(format!("{other}: {}", shown(&page))),
        }
        let samples = Samples::parse(&page);
        if !samples.is_nearside() {
            return Err(
                "what answers is no nearside: name the admin address, by default port 9380".to_owned()
            );
        }
        let (status, page) = connection.get("/readyz").await?;
        let unready = (status != StatusCode::OK).then(|| shown(&page));
        Ok(Seen { at: Instant::now(), samples, unready })
    }

    async fn connect(&self) -> Result<Connection, String> {
        let token = match &self.token_file {
            Some(path) => Some(read_token(path).await?),
            None => None,
        };
        let failed = |error: std::io::Error| error.to_string();
        let sender = match &self.address {
            Address::Tcp { host, port } => {
                open(TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?).await?
            }
            Address::Unix(path) => open(UnixStream::connect(path).await.map_err(failed)?).await?,
        };
        Ok(Connection { sender, token })
    }
}

async fn read_token(path: &std::path::Path) -> Result<String, String> {
    let text = tokio::task::spawn_blocking({
        let path = path.to_owned();
        move || std::fs::read_to_string(path)
    });
    let text = text.await.map_err(|error| error.to_string())?;
    let text = text.map_err(|error| format!("--token-file: {}: {error}", path.display()))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

async fn open(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Empty<Bytes>>, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // It ends with the sender, and what fails is told there.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

impl Connection {
    async fn get(&mut self, path: &str) -> Result<(StatusCode, String), String> {
        self.sender.ready().await.map_err(|error| error.to_string())?;
        // A name that leads nowhere else, whatever address it is reached by.
        let mut request =
            Request::get(path).header(HOST, "localhost").header(ACCEPT, "text/plain;version=0.0.4");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).map_err(|error| format!("--token-file: {error}"))?;
        let response = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// The first line, in so far as it is text.
fn shown(page: &str) -> String {
    let line = page.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(TOLD).collect()
}
