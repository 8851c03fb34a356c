//! `/live`: what happens, told to whoever listens, as server-sent events: first the last quarter of an hour, then once a second
//! what is known at that moment. That clients cannot be served any more, or that a feed was lost, or the end of that, does not
//! wait for the second to end; the next second begins with it then.
//!
//! Invariants:
//! - While nobody listens nothing is worked out but a sample of the counters, each few seconds.
//! - What is told is worked out when the connection takes it: a listener that is slow is told less often, and nothing waits for
//!   it. Nor does it wait for, or tell, anybody else.
//! - So many listen at most, and no more than half of the connections are theirs, so that probes find one.
//! - Keys are told of only if `admin-keys` says so.

mod history;
mod now;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::ready::{State, state};
use crate::process::Process;
use history::{Counts, EVERY, History};
use now::{Told, now, proven};

/// How many may listen.
const MOST: usize = 8;

/// How often a listener is told, but for news.
const PACE: Duration = Duration::from_secs(1);

/// How often it is looked for news, while somebody listens.
const GLANCE: Duration = Duration::from_millis(100);

/// See the [module](self).
pub(super) struct Live {
    process: Arc<Process>,
    draining: Arc<AtomicBool>,
    history: Mutex<History>,
    listeners: AtomicUsize,
    most: usize,
}

impl Live {
    /// For pages that have so many connections.
    pub(super) fn new(process: Arc<Process>, draining: Arc<AtomicBool>, connections: usize) -> Arc<Self> {
        let (history, listeners) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { process, draining, history, listeners, most: MOST.min(connections / 2) })
    }

    /// Takes the samples. Runs until it is dropped.
    pub(super) async fn sample(self: Arc<Self>) {
        let mut clock = interval(EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            let stats = self.process.cache.stats();
            let counts = Counts::of(&self.process, &stats);
            self.history.lock().add(counts, proven(&self.process), stats.bytes);
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// One listener more. Errors: there are as many as may be; a sentence.
    pub(super) fn listen(self: &Arc<Self>) -> Result<Updates, String> {
        let metrics = &self.process.metrics;
        let (before, most) = (self.listeners.fetch_add(1, Ordering::Relaxed), self.most);
        if before >= most {
            self.listeners.fetch_sub(1, Ordering::Relaxed);
            metrics.live_refused.inc();
            return Err(format!("there are {most} listeners already: close a page, or try again"));
        }
        metrics.live_listeners.inc();
        let shows_keys = self.process.settings.admin_keys;
        if shows_keys {
            self.process.hot.watch();
        }
        let [clock, glances] = [PACE, GLANCE].map(|every| {
            let mut clock = interval(every);
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            clock
        });
        let taken = Arc::new(Mutex::new(Instant::now()));
        let glance = self.glance();
        Ok(Updates {
            live: self.clone(),
            told: None,
            clock,
            glances,
            glance,
            is_early: false,
            taken,
            shows_keys,
        })
    }

    fn glance(&self) -> Glance {
        (state(&self.process, self.is_draining()).0, self.process.feeds_up())
    }
}

/// What a person must see at once: the state, and how many feeds are up.
type Glance = (State, usize);

/// The body of a reply that goes on as long as its listener is there.
pub(super) struct Updates {
    live: Arc<Live>,
    /// What the listener knows; nothing before the history was told.
    told: Option<Told>,
    clock: Interval,
    glances: Interval,
    /// As it was told last.
    glance: Glance,
    /// What was told last was news. Behind that the clock counts, so that a state that comes and goes is told twice a second
    /// at most.
    is_early: bool,
    taken: Arc<Mutex<Instant>>,
    /// It looks at the keys that are hit most.
    shows_keys: bool,
}

impl Updates {
    /// When the listener has taken something last.
    pub(super) fn taken(&self) -> Arc<Mutex<Instant>> {
        self.taken.clone()
    }

    /// Whether there is news.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.glances.poll_tick(cx));
            if !self.is_early && self.glance != self.live.glance() {
                return Poll::Ready(());
            }
        }
    }

    fn history(&mut self) -> Bytes {
        let history = self.live.history.lock();
        self.told = Some(Told { events: 0, samples: history.count(), counts: history.last().cloned() });
        event("retry: 2000\nevent: history", &history.all())
    }

    fn now(&mut self) -> Option<Bytes> {
        let (live, told) = (&self.live, self.told.as_mut()?);
        live.process.metrics.live_updates.inc();
        let mut all = now(&live.process, live.is_draining(), told);
        let history = live.history.lock();
        all.insert("samples".to_owned(), history.since(told.samples).into());
        told.samples = history.count();
        Some(event("event: now", &Value::Object(all)))
    }
}

fn event(name: &str, data: &Value) -> Bytes {
    // JSON as it is written here has no line ends.
    format!("{name}\ndata: {data}\n\n").into()
}

impl Body for Updates {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.told.is_none() {
            return Poll::Ready(Some(Ok(Frame::data(self.history()))));
        }
        self.is_early = if self.clock.poll_tick(cx).is_ready() {
            false
        } else {
            ready!(self.poll_news(cx));
            self.clock.reset();
            true
        };
        self.glance = self.live.glance();
        *self.taken.lock() = Instant::now();
        Poll::Ready(self.now().map(|update| Ok(Frame::data(update))))
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        if self.shows_keys {
            self.live.process.hot.unwatch();
        }
        self.live.process.metrics.live_listeners.dec();
        self.live.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use http_body_util::BodyExt;

    use super::*;
    use crate::process::fixture;

    fn live(connections: usize) -> Arc<Live> {
        let process = fixture::process(1);
        Live::new(process, Arc::default(), connections)
    }

    /// The name of what is told next.
    async fn told(updates: &mut Updates) -> String {
        let frame = pin!(updates).frame().await.unwrap().unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        assert!(text.ends_with("}\n\n"), "{text}");
        text.lines().find_map(|line| line.strip_prefix("event: ")).unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_for_long_is_told_once_and_then_at_the_pace_of_others() {
        let live = live(64);
        let mut updates = live.listen().unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((told(&mut updates).await, told(&mut updates).await), ("history".into(), "now".into()));
        tokio::time::sleep(PACE * 30).await;
        let began = tokio::time::Instant::now();
        for waits in 0..3 {
            assert_eq!(told(&mut updates).await, "now");
            assert_eq!(began.elapsed().as_secs(), waits, "nothing was kept for it");
        }
        assert_eq!(live.process.metrics.live_updates.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn another_state_is_told_at_once_and_then_again_after_a_second() {
        let live = live(64);
        let mut updates = live.listen().unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((told(&mut updates).await, told(&mut updates).await), ("history".into(), "now".into()));
        let began = tokio::time::Instant::now();
        tokio::time::sleep(PACE / 4).await;
        live.draining.store(true, Ordering::Relaxed);
        assert_eq!(told(&mut updates).await, "now");
        let early = began.elapsed();
        assert!(early < PACE / 2, "{early:?}");
        // One that comes and goes is not told each time.
        live.draining.store(false, Ordering::Relaxed);
        assert_eq!(told(&mut updates).await, "now");
        assert_eq!((began.elapsed() - early).as_secs(), 1);
    }

    #[tokio::test]
    async fn only_so_many_listen_and_not_on_more_than_half_of_the_connections() {
        for (connections, most) in [(64, 8), (16, 8), (5, 2), (4, 2)] {
            let live = live(connections);
            let mut all: Vec<_> = (0..most).map(|_| live.listen().ok().unwrap()).collect();
            let why = live.listen().err().unwrap();
            assert_eq!(why, format!("there are {most} listeners already: close a page, or try again"));
            assert!(live.process.hot.is_watched());
            all.pop();
            all.push(live.listen().ok().unwrap());
            assert_eq!(live.process.metrics.live_listeners.get(), most);
            drop(all);
            assert_eq!(
                (live.process.hot.is_watched(), live.process.metrics.live_listeners.get()),
                (false, 0)
            );
        }
    }
}
