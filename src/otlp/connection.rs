//! A connection to the collector, which is kept.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::config::Collector;
use crate::io::Dial;

/// The longest answer that is read.
const MOST: usize = 64 << 10;

/// As much is told of what a collector says.
const TOLD: usize = 200;

const OURS: &str = concat!("nearside/", env!("CARGO_PKG_VERSION"));

/// What the collector has taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// How many spans it refuses for good, and why.
    pub(super) refused: u64,
    pub(super) why: String,
}

/// The collector has taken nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) why: String,
    /// It would refuse it again.
    pub(super) is_final: bool,
    /// After how long it wants to be asked again.
    pub(super) after: Option<Duration>,
}

impl Failure {
    /// It may be otherwise later.
    pub(super) fn passing(why: impl ToString) -> Self {
        Self { why: why.to_string(), is_final: false, after: None }
    }
}

/// See the [module](self).
pub(super) struct Connection {
    collector: Collector,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(super) async fn open(collector: &Collector, patience: Duration) -> Result<Self, Failure> {
        let stream = Dial::default().open(&collector.address(), patience).await.map_err(Failure::passing)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(Failure::passing)?;
        // It ends with the sender, and what fails is told there.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { collector: collector.clone(), sender })
    }

    /// Whether it leads there, and stands as far as is known.
    pub(super) fn leads_to(&self, collector: &Collector) -> bool {
        self.collector == *collector && !self.sender.is_closed()
    }

    pub(super) async fn post(&mut self, body: Vec<u8>) -> Result<Answer, Failure> {
        self.sender.ready().await.map_err(Failure::passing)?;
        let request = Request::post(self.collector.path())
            .header(HOST, self.collector.authority())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, OURS)
            .body(Full::new(Bytes::from(body)));
        let request = request.map_err(Failure::passing)?;
        let response = self.sender.send_request(request).await.map_err(Failure::passing)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MOST).collect().await.map(|body| body.to_bytes());
        match head.status.is_success() {
            // It has taken them, whatever else it says.
            true => Ok(body.map(|body| answer(&body)).unwrap_or_default()),
            false => Err(refusal(head.status, &head.headers, &body.unwrap_or_default())),
        }
    }
}

/// What a collector says that has taken at least some.
fn answer(body: &[u8]) -> Answer {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let partial = &said["partialSuccess"];
    // A number of 64 bits is a text in JSON, and some write it as a number.
    let refused = &partial["rejectedSpans"];
    let refused = refused.as_u64().or_else(|| refused.as_str()?.parse().ok()).unwrap_or_default();
    Answer { refused, why: shown(partial["errorMessage"].as_str().unwrap_or_default()) }
}

/// What a collector says that has taken none. OTLP names those that may pass; of all others it would say the same again.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let said = match serde_json::from_slice::<Value>(body) {
        Ok(said) => said["message"].as_str().map(shown),
        Err(_) => std::str::from_utf8(body).ok().map(shown),
    };
    let said = said.filter(|said| !said.is_empty()).map_or(String::new(), |said| format!(": {said}"));
    let is_final = !matches!(status.as_u16(), 429 | 502 | 503 | 504);
    let after = headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
    Failure { why: format!("{status}{said}"), is_final, after: after.map(Duration::from_secs) }
}

/// The first line, in so far as it is text.
fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_in_part_is_told_in_either_form() {
        let of = |body: &str| answer(body.as_bytes());
        assert_eq!(of("{}"), Answer::default());
        assert_eq!(of("{\"partialSuccess\":{}}"), Answer::default());
        assert_eq!(of("it is well"), Answer::default());
        let some = Answer { refused: 3, why: "too old".into() };
        for number in ["3", "\"3\""] {
            let body = format!(
                "{{\"partialSuccess\":{{\"rejectedSpans\":{number},\"errorMessage\":\"too old\\nand\"}}}}"
            );
            assert_eq!(of(&body), some);
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_is_final() {
        let (none, mut some) = (HeaderMap::new(), HeaderMap::new());
        some.insert(RETRY_AFTER, "7".parse().unwrap());
        let failure = refusal(StatusCode::SERVICE_UNAVAILABLE, &some, b"busy\nvery");
        let why = "503 Service Unavailable: busy".to_owned();
        assert_eq!(failure, Failure { why, is_final: false, after: Some(Duration::from_secs(7)) });
        let failure = refusal(StatusCode::BAD_REQUEST, &none, b"{\"code\":3,\"message\":\"bad id\"}");
        assert_eq!(failure, Failure { why: "400 Bad Request: bad id".into(), is_final: true, after: None });
        assert!(!refusal(StatusCode::TOO_MANY_REQUESTS, &none, b"").is_final);
        assert_eq!(refusal(StatusCode::NOT_FOUND, &none, b"\xff").why, "404 Not Found");
    }
}
