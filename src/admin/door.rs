//! Who may have which of the admin pages.
//!
//! Invariants, in the order in which they are looked at:
//! - What comes to the port is for a host that can only be ours (see [`hosts`](super::hosts)). A socket has no name.
//! - What a browser asks for is asked by a page of our own.
//! - Where there is a token, what comes to the port shows it; the health pages may be left out of that. Whoever reaches the
//!   socket was let in by the rights of its file.
//! - Nothing is changed because of a `GET`, nor for anybody who has shown nothing: without a token, only on the socket.
//!
//! Each refusal is counted by its reason, and says what to do.

use hyper::header::{ALLOW, HeaderValue, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use tracing::warn;

use super::answer::{Body, text};
use super::connections::Arrival;
use super::hosts::{Hosts, is_of_our_own};
use super::query::parameter;
use super::token::Token;
use crate::metrics::{AdminRefusal, Metrics};

/// Whom a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Those who ask whether nearside is well.
    Probes,
    /// Those who look.
    Readers,
    /// Those who change something.
    Operators,
}

/// See the [module](self).
pub struct Door {
    token: Option<Token>,
    /// Whether probes need it, too.
    asks_probes: bool,
    hosts: Hosts,
}

impl Door {
    /// `hosts` are the names by which the pages may be asked for, beside those that are always taken; `*` is any.
    pub fn new(token: Option<Token>, asks_probes: bool, hosts: impl IntoIterator<Item = String>) -> Self {
        Self { token, asks_probes, hosts: Hosts::new(hosts) }
    }

    /// What a request is answered that is not let in to such a page; `None` lets it in.
    pub(super) async fn stops<B>(
        &self,
        metrics: &Metrics,
        arrival: Arrival,
        is_for: For,
        request: &Request<B>,
    ) -> Option<Response<Body>> {
        let stopped = match self.strangers(arrival, request) {
            Some(stopped) => Some(stopped),
            None => self.token(arrival, is_for, request).await,
        };
        match stopped {
            Some(Stopped::Refused(reason, status, says)) => {
                metrics.admin_refused[reason as usize].inc();
                if let Some(untold) = metrics.admin_refused_told.now() {
                    let page = request.uri().path();
                    warn!(page, untold, "a request to the admin pages was refused: {}", says.trim_end());
                }
                let mut response = text(status, says);
                if status == StatusCode::UNAUTHORIZED {
                    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                Some(response)
            }
            Some(Stopped::Led(response)) => Some(response),
            None => wrong_method(is_for, request.method()),
        }
    }

    /// Whether somebody else's page asks, or under somebody else's name.
    fn strangers<B>(&self, arrival: Arrival, request: &Request<B>) -> Option<Stopped> {
        let headers = request.headers();
        if arrival == Arrival::Port
            && let Err(host) = self.hosts.allow(headers)
        {
            let says = format!(
                "the admin pages are not for the host {host:?}: ask for localhost or an IP address, or write the name \
                 into admin-hosts\n"
            );
            return Some(Stopped::Refused(AdminRefusal::Host, StatusCode::FORBIDDEN, says));
        }
        let origin = is_of_our_own(headers).err()?;
        let says = format!("the admin pages are not for pages of {origin:?}\n");
        Some(Stopped::Refused(AdminRefusal::Origin, StatusCode::FORBIDDEN, says))
    }

    /// Whether the token is needed, and not there.
    async fn token<B>(&self, arrival: Arrival, is_for: For, request: &Request<B>) -> Option<Stopped> {
        if arrival == Arrival::Socket {
            return None;
        }
        let Some(token) = &self.token else {
            let says = "this changes something: ask on a Unix socket (admin = \"unix:/PATH\"), or set admin-token-file \
                        and send its token as \"Authorization: Bearer TOKEN\"\n";
            let refused = Stopped::Refused(AdminRefusal::Change, StatusCode::FORBIDDEN, says.to_owned());
            return (is_for == For::Operators).then_some(refused);
        };
        if is_for == For::Probes && !self.asks_probes {
            return None;
        }
        token.refresh().await;
        if let Some(led) = shown_in_address(token, request) {
            return Some(Stopped::Led(led));
        }
        let says = "this needs the token of admin-token-file: send it as \"Authorization: Bearer TOKEN\", or open \
                    /?token=TOKEN once in a browser\n";
        let refused = Stopped::Refused(AdminRefusal::Token, StatusCode::UNAUTHORIZED, says.to_owned());
        (!token.is_shown(request.headers())).then_some(refused)
    }
}

enum Stopped {
    Refused(AdminRefusal, StatusCode, String),
    /// To the same page, without the token in its address.
    Led(Response<Body>),
}

/// A browser is given the cookie for a token in the address, and is led on: addresses are kept, and told to others.
fn shown_in_address<B>(token: &Token, request: &Request<B>) -> Option<Response<Body>> {
    let query = request.uri().query().filter(|_| *request.method() == Method::GET)?;
    if !token.is(&parameter(query, "token")?) {
        return None;
    }
    let rest: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("token=")).collect();
    let mark = if rest.is_empty() { "" } else { "?" };
    // It begins with one slash, or it would be of another host.
    let path = request.uri().path().trim_start_matches('/');
    let to = format!("/{path}{mark}{}", rest.join("&"));
    let mut response = text(StatusCode::SEE_OTHER, "");
    response.headers_mut().insert(LOCATION, to.parse().ok()?);
    response.headers_mut().insert(SET_COOKIE, token.cookie(request.headers())?.parse().ok()?);
    Some(response)
}

fn wrong_method(is_for: For, method: &Method) -> Option<Response<Body>> {
    let (right, allow, says) = match is_for {
        For::Operators => (*method == Method::POST, "POST", "only POST\n"),
        For::Probes | For::Readers => {
            (matches!(*method, Method::GET | Method::HEAD), "GET, HEAD", "only GET and HEAD\n")
        }
    };
    (!right).then(|| {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, says);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        response
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status for a request of this kind, and where it leads.
    async fn asked(door: &Door, arrival: Arrival, is_for: For, request: Request<()>) -> (u16, String) {
        let metrics = Metrics::default();
        match door.stops(&metrics, arrival, is_for, &request).await {
            Some(response) => {
                let to = response.headers().get(LOCATION).map(|to| to.to_str().expect("text").to_owned());
                (response.status().as_u16(), to.unwrap_or_default())
            }
            None => (200, String::new()),
        }
    }

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[tokio::test]
    async fn what_changes_something_is_for_the_socket_or_the_token() {
        let open = Door::new(None, true, []);
        for (arrival, method, is_for, status) in [
            (Arrival::Port, "GET", For::Readers, 200),
            (Arrival::Port, "POST", For::Readers, 405),
            (Arrival::Port, "POST", For::Operators, 403),
            (Arrival::Port, "GET", For::Operators, 403),
            (Arrival::Socket, "POST", For::Operators, 200),
            (Arrival::Socket, "GET", For::Operators, 405),
        ] {
            let said = asked(&open, arrival, is_for, request(method, "/x", &[("host", "localhost")])).await;
            assert_eq!(said.0, status, "{arrival:?} {method} {is_for:?}");
        }
        let evil = [("host", "127.0.0.1:1"), ("origin", "http://evil.example")];
        let said = asked(&open, Arrival::Socket, For::Operators, request("POST", "/x", &evil)).await;
        assert_eq!(said.0, 403, "also through a proxy before the socket");
    }

    #[tokio::test]
    async fn where_there_is_a_token_it_is_needed_on_the_port() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s/s+m?").expect("written");
        let door = |asks_probes| Door::new(Some(Token::of(file.path().to_owned())), asks_probes, []);
        let (all, pages) = (door(true), door(false));
        let bearer = [("host", "localhost"), ("authorization", "Bearer s/s+m?")];
        for (method, is_for) in [("GET", For::Probes), ("GET", For::Readers), ("POST", For::Operators)] {
            let ask = |headers| request(method, "/x", headers);
            let none = [("host", "localhost")];
            assert_eq!(asked(&all, Arrival::Port, is_for, ask(&none)).await.0, 401, "{is_for:?}");
            let left_out = if is_for == For::Probes { 200 } else { 401 };
            assert_eq!(asked(&pages, Arrival::Port, is_for, ask(&none)).await.0, left_out, "{is_for:?}");
            assert_eq!(asked(&all, Arrival::Port, is_for, ask(&bearer)).await.0, 200, "{is_for:?}");
            assert_eq!(asked(&all, Arrival::Socket, is_for, ask(&none)).await.0, 200, "{is_for:?}");
        }
        for (uri, leads) in [
            ("/x?token=s%2Fs%2Bm%3F", "/x"),
            ("/x?a=1&token=s%2Fs%2Bm%3F&b=2", "/x?a=1&b=2"),
            ("//evil.example?token=s%2Fs%2Bm%3F", "/evil.example"),
        ] {
            let said = asked(&all, Arrival::Port, For::Readers, request("GET", uri, &bearer[..1])).await;
            assert_eq!(said, (303, leads.to_owned()), "{uri}");
        }
        let wrong = request("GET", "/x?token=s", &bearer[..1]);
        assert_eq!(asked(&all, Arrival::Port, For::Readers, wrong).await.0, 401);
        let posted = request("POST", "/x?token=s%2Fs%2Bm%3F", &bearer[..1]);
        assert_eq!(asked(&all, Arrival::Port, For::Operators, posted).await.0, 401, "an address is no login");
    }
}
