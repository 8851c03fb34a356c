//! Finding the addresses of a name, by the system's resolver, which may take its time.
//!
//! Invariants:
//! - A lookup that hangs (a name server that is away) holds a thread of its own and nothing else: no worker, no runtime's pool,
//!   not the end of the process. There are at most [`MOST`] of them, and one more begins only when the last hangs.
//! - Whoever asks for what is being looked up waits for the same answer, and may leave at any time. What was just not found
//!   is not asked for again before [`REST`] is over: however many connections are wanted, name servers are asked a few times
//!   a second.
//! - What was found is not kept: a new connection goes where the name leads now.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

/// Lookups under way at a time.
const MOST: usize = 4;

/// A lookup that takes so long hangs.
const HANGS: Duration = Duration::from_secs(1);

/// How long it is believed that there is no such name.
const REST: Duration = Duration::from_millis(250);

/// What finds the addresses of a host, with this port.
type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// See the [module](self). Clones know the same.
#[derive(Clone, Debug)]
pub(super) struct Names {
    lookup: Lookup,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Asked>,
    /// Held by each lookup that is under way.
    under_way: Arc<()>,
}

#[derive(Clone, Debug)]
struct Asked {
    host: String,
    port: u16,
    since: Instant,
    answer: watch::Receiver<Option<Answer>>,
}

#[derive(Clone, Debug)]
struct Answer {
    at: Instant,
    found: Result<Vec<SocketAddr>, (io::ErrorKind, String)>,
}

impl Default for Names {
    fn default() -> Self {
        Self::by(|host, port| (host, port).to_socket_addrs().map(Iterator::collect))
    }
}

impl Names {
    pub(super) fn by(lookup: Lookup) -> Self {
        Self { lookup, state: Arc::default() }
    }

    /// That knows nothing yet.
    pub(super) fn anew(&self) -> Self {
        Self::by(self.lookup)
    }

    /// All addresses of the host, in the system's order. Errors: it has none, or they cannot be found.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let mut answer = self.ask(host, port)?;
        let answer = answer.wait_for(Option::is_some).await.map(|answer| answer.clone());
        let found = answer.ok().flatten().map(|answer| answer.found);
        found
            .unwrap_or_else(|| Err((io::ErrorKind::Other, "the lookup has failed".to_owned())))
            .map_err(|(kind, why)| io::Error::new(kind, format!("the name {host} does not resolve: {why}")))
    }

    /// Where the answer comes.
    fn ask(&self, host: &str, port: u16) -> io::Result<watch::Receiver<Option<Answer>>> {
        let mut state = self.state.lock();
        let has_room = Arc::strong_count(&state.under_way) - 1 < MOST;
        if let Some(asked) = state.last.as_ref().filter(|asked| asked.host == host && asked.port == port) {
            let serves = match &*asked.answer.borrow() {
                None => asked.since.elapsed() < HANGS || !has_room,
                Some(answer) => answer.found.is_err() && answer.at.elapsed() < REST,
            };
            if serves {
                return Ok(asked.answer.clone());
            }
        }
        if !has_room {
            return Err(io::Error::other("too many lookups hang: is a name server there?"));
        }
        let (told, answer) = watch::channel(None);
        let (lookup, name, counted) = (self.lookup, host.to_owned(), state.under_way.clone());
        std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let _counted = counted;
            let found = lookup(&name, port).map_err(|error| (error.kind(), error.to_string()));
            told.send_replace(Some(Answer { at: Instant::now(), found }));
        })?;
        state.last =
            Some(Asked { host: host.to_owned(), port, since: Instant::now(), answer: answer.clone() });
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn an_address_is_its_own_answer_and_a_name_that_is_not_there_is_named() {
        let names = Names::by(|_, _| panic!("nothing is looked up"));
        assert_eq!(names.resolve("127.0.0.1", 1).await.unwrap(), ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(names.resolve("::1", 1).await.unwrap(), ["[::1]:1".parse().unwrap()]);
        let error = Names::default().resolve("no-such-host.invalid", 1).await.unwrap_err().to_string();
        assert!(error.starts_with("the name no-such-host.invalid does not resolve: "), "{error}");
        let error = names.resolve("h", 1).await.unwrap_err().to_string();
        assert_eq!(error, "the name h does not resolve: the lookup has failed");
    }

    #[tokio::test]
    async fn what_is_not_found_is_asked_for_seldom_and_what_is_found_each_time() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static THERE: AtomicUsize = AtomicUsize::new(0);
        let names = Names::by(|_, port| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            match THERE.load(Ordering::SeqCst) {
                0 => Err(io::Error::other("no such name")),
                there => Ok(vec![SocketAddr::from(([127, 0, 0, there as u8], port))]),
            }
        });
        let began = Instant::now();
        while began.elapsed() < REST * 2 {
            assert!(names.clone().resolve("h", 1).await.is_err());
        }
        let asked = ASKED.load(Ordering::SeqCst);
        assert!((2..=4).contains(&asked), "{asked}");
        THERE.store(1, Ordering::SeqCst);
        while names.resolve("h", 1).await.is_err() {
            assert!(began.elapsed() < SOON);
        }
        THERE.store(2, Ordering::SeqCst);
        assert_eq!(names.resolve("h", 1).await.unwrap(), ["127.0.0.2:1".parse().unwrap()]);
        assert_eq!(names.resolve("i", 2).await.unwrap(), ["127.0.0.2:2".parse().unwrap()]);
    }

    #[tokio::test]
    async fn one_that_hangs_holds_nobody_up_and_takes_few_threads() {
        static RELEASED: AtomicBool = AtomicBool::new(false);
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let names = Names::by(|_, _| {
            // The first ones are never answered.
            let hangs = ASKED.fetch_add(1, Ordering::SeqCst) < MOST - 1;
            while hangs && !RELEASED.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(Vec::new())
        });
        let began = Instant::now();
        // Whoever leaves and comes again waits for the same, until that hangs; and then for the next.
        while timeout(Duration::from_millis(1), names.resolve("h", 1)).await.is_err() {
            let most = began.elapsed().as_millis() as usize / HANGS.as_millis() as usize + 1;
            let asked = ASKED.load(Ordering::SeqCst);
            assert!(asked <= most && began.elapsed() < SOON, "{asked} after {:?}", began.elapsed());
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), MOST);
        RELEASED.store(true, Ordering::SeqCst);
    }
}
