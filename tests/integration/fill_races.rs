//! A change of a key, put in every position around a read of it: the old value is never served from the
//! cache afterwards, and the cache is used again as soon as it can be.

use crate::support;

use std::time::Duration;

use nearside::config::TrackingForm;
use support::scripted::{Asked, Scripted, invalidate, message};
use support::{Conn, Nearside, eventually};

const KEY: &str = "users/1";
const OLD: &str = "$3\r\nold\r\n";
const NEW: &str = "$3\r\nnew\r\n";

/// Where the change comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    BeforeTheRequest,
    BeforeTheReply,
    BeforeTheTtl,
    AfterTheFill,
}

const EVERYWHERE: [At; 4] = [At::BeforeTheRequest, At::BeforeTheReply, At::BeforeTheTtl, At::AfterTheFill];

/// In each form in which the upstream tells of changes.
const FORMS: [TrackingForm; 3] = [TrackingForm::Redirect, TrackingForm::Register, TrackingForm::Broadcast];

struct Race {
    form: TrackingForm,
    upstream: Scripted,
    nearside: Nearside,
    client: Conn,
}

impl Race {
    fn new() -> Self {
        Self::by(TrackingForm::Redirect)
    }

    fn by(form: TrackingForm) -> Self {
        let upstream = Scripted::start();
        let nearside = Nearside::with(upstream.address, |config| {
            // No heartbeat has to come in between.
            config.max_staleness = Duration::from_secs(30);
            config.tracking_form = form;
            config.namespaces.iter_mut().for_each(|n| n.max_staleness = config.max_staleness);
        });
        let client = nearside.connect();
        Self { form, upstream, nearside, client }
    }

    fn ask(&mut self) {
        self.client.send(&support::line(&format!("GET {KEY}")));
    }

    /// The read and the question for its time to live, which always come together.
    #[track_caller]
    fn fetched(&self) -> (Asked, Asked) {
        (self.upstream.expect(&format!("GET {KEY}")), self.upstream.expect(&format!("PTTL {KEY}")))
    }

    /// Asks, and gives what fills the cache. Where keys are registered first, the client's own read is answered by then.
    #[track_caller]
    fn ask_and_fetch(&mut self, value: &str) -> (Asked, Asked) {
        self.ask();
        if self.form != TrackingForm::Register {
            return self.fetched();
        }
        self.upstream.find(&format!("GET {KEY}")).reply(value);
        assert_eq!(text(self.client.reply()), value);
        self.upstream.find(&format!("EXISTS {KEY}")).reply(":1\r\n");
        (self.upstream.find(&format!("get {KEY}")), self.upstream.find(&format!("PTTL {KEY}")))
    }

    /// What fills the cache was answered: the client has its reply, and the cache has it, or not.
    #[track_caller]
    fn is_over(&mut self, value: &str) {
        match self.form {
            // On the same link, so behind it.
            TrackingForm::Register => drop(self.link()),
            _ => assert_eq!(text(self.client.reply()), value),
        }
    }

    /// Reads from start to end with `change` at the one position.
    #[track_caller]
    fn read_old(&mut self, at: At, mut change: impl FnMut(&Race)) {
        let mut now = |race: &Self, position| {
            if at == position {
                change(race);
            }
        };
        now(self, At::BeforeTheRequest);
        self.nearside.wait_ready();
        let (get, ttl) = self.ask_and_fetch(OLD);
        now(self, At::BeforeTheReply);
        get.reply(OLD);
        now(self, At::BeforeTheTtl);
        ttl.reply(":-1\r\n");
        self.is_over(OLD);
        now(self, At::AfterTheFill);
    }

    /// The next read goes upstream, and what it brings is kept.
    #[track_caller]
    fn goes_upstream(&mut self) {
        let (get, ttl) = self.ask_and_fetch(NEW);
        get.reply(NEW);
        ttl.reply(":-1\r\n");
        self.is_over(NEW);
        self.hits(NEW);
    }

    #[track_caller]
    fn hits(&mut self, value: &str) {
        let before = self.nearside.stat("hits");
        assert_eq!(text(self.client.cmd(&format!("GET {KEY}"))), value);
        assert_eq!(self.nearside.stat("hits"), before + 1, "served from the cache");
        assert_eq!(self.upstream.waiting(), 0, "nothing went upstream");
    }

    /// A number of the admin page.
    fn metric(&self, name: &str) -> u64 {
        let (_, page) = self.nearside.get("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    /// Sends a frame on the feed, and waits until nearside has taken it in.
    fn tell(&self, frame: &str, source: &str) {
        let name = format!("nearside_invalidations_total{{source=\"{source}\"}}");
        let before = self.metric(&name);
        self.upstream.push(self.upstream.feed(), frame);
        eventually("the frame is heard", || self.metric(&name) > before);
    }

    /// The feed is lost and comes back; tracking does when the link has answered what was asked before.
    fn lose_feed(&self) {
        let before = self.nearside.stat("feed_lapses");
        self.upstream.close(self.upstream.feed());
        eventually("the feed's loss is noticed", || self.nearside.stat("feed_lapses") > before);
        eventually("the feed is back", || self.nearside.stats().contains("nearside_feed:up"));
    }

    /// The connection that carries requests: it answers one, anew if it was lost.
    fn link(&mut self) -> usize {
        self.client.send(&support::line("ECHO x"));
        let asked = self.upstream.expect("ECHO x");
        asked.reply("$1\r\nx\r\n");
        assert_eq!(text(self.client.reply()), "$1\r\nx\r\n");
        asked.connection
    }
}

fn text(reply: Vec<u8>) -> String {
    String::from_utf8(reply).unwrap()
}

/// The change in every position; only one before the request leaves the reply good.
#[track_caller]
fn in_every_position(change: impl Fn(&Race)) {
    for (form, at) in FORMS.into_iter().flat_map(|form| EVERYWHERE.map(|at| (form, at))) {
        let mut race = Race::by(form);
        race.read_old(at, &change);
        race.nearside.wait_ready();
        match at {
            At::BeforeTheRequest => race.hits(OLD),
            _ => race.goes_upstream(),
        }
    }
}

#[test]
fn an_invalidation_by_tracking() {
    in_every_position(|race| race.tell(&invalidate(Some(KEY)), "tracking"));
}

#[test]
fn an_announced_update() {
    in_every_position(|race| race.tell(&message("users/update", "1"), "update"));
}

#[test]
fn an_announced_delete() {
    in_every_position(|race| race.tell(&message("users/delete", "1"), "delete"));
}

#[test]
fn a_flush() {
    in_every_position(|race| race.tell(&invalidate(None), "flush"));
}

#[test]
fn a_loss_of_the_feed() {
    in_every_position(Race::lose_feed);
}

#[test]
fn a_change_of_another_key_costs_nothing() {
    for at in [At::BeforeTheRequest, At::AfterTheFill] {
        let mut race = Race::new();
        race.read_old(at, |race| race.tell(&invalidate(Some("users/2")), "tracking"));
        race.hits(OLD);
    }
}

#[test]
fn a_write_by_another_session() {
    for at in EVERYWHERE {
        let mut race = Race::new();
        let mut writer = race.nearside.connect();
        let mut write = None;
        // Its reply stands behind the read's on the link that both share.
        race.read_old(at, |race| {
            writer.send(&support::line(&format!("SET {KEY} new")));
            let asked = race.upstream.expect(&format!("SET {KEY} new"));
            match at {
                At::BeforeTheRequest | At::AfterTheFill => {
                    asked.reply("+OK\r\n");
                    assert_eq!(text(writer.reply()), "+OK\r\n");
                }
                _ => write = Some(asked),
            }
        });
        if let Some(write) = write {
            write.reply("+OK\r\n");
            assert_eq!(text(writer.reply()), "+OK\r\n");
        }
        match at {
            At::BeforeTheRequest => race.hits(OLD),
            _ => race.goes_upstream(),
        }
    }
}

#[test]
fn a_read_while_a_write_is_under_way_is_not_kept() {
    let mut race = Race::new();
    let mut writer = race.nearside.connect();
    writer.send(&support::line(&format!("SET {KEY} new")));
    let write = race.upstream.expect(&format!("SET {KEY} new"));
    race.ask();
    // The fence refuses a lease, so nothing asks for a time to live.
    let read = race.upstream.expect(&format!("GET {KEY}"));
    write.reply("+OK\r\n");
    read.reply(NEW);
    assert_eq!(text(writer.reply()), "+OK\r\n");
    assert_eq!(text(race.client.reply()), NEW);
    assert_eq!(race.nearside.stat("reason_fenced"), 1);
    race.goes_upstream();
}

#[test]
fn a_write_whose_keys_are_not_known() {
    for at in EVERYWHERE {
        let mut race = Race::new();
        let mut writer = race.nearside.connect();
        let mut write = None;
        race.read_old(at, |race| {
            writer.send(&support::line("FLUSHALL"));
            let asked = race.upstream.expect("FLUSHALL");
            match at {
                At::BeforeTheRequest | At::AfterTheFill => {
                    asked.reply("+OK\r\n");
                    writer.reply();
                }
                _ => write = Some(asked),
            }
        });
        if let Some(write) = write {
            write.reply("+OK\r\n");
            writer.reply();
        }
        match at {
            At::BeforeTheRequest => race.hits(OLD),
            _ => race.goes_upstream(),
        }
    }
}

#[test]
fn a_loss_of_the_link_between_reads() {
    for filled in [false, true] {
        let mut race = Race::new();
        if filled {
            race.read_old(At::AfterTheFill, |_| ());
            race.hits(OLD);
        }
        let link = race.link();
        race.upstream.close(link);
        eventually("the loss is noticed", || race.metric("nearside_upstream_disconnects_total") > 0);
        assert_ne!(race.link(), link);
        race.nearside.wait_ready();
        race.goes_upstream();
    }
}

#[test]
fn a_loss_of_the_link_with_the_read_on_it() {
    for at in [At::BeforeTheReply, At::BeforeTheTtl] {
        let mut race = Race::new();
        race.ask();
        let (get, _ttl) = race.fetched();
        if at == At::BeforeTheTtl {
            get.reply(OLD);
        }
        race.upstream.close(get.connection);
        let said = text(race.client.reply());
        assert!(said.starts_with("-ERR nearside: upstream "), "{at:?}: {said}");
        assert!(
            said.ends_with("the reply was lost; the command may have been executed\r\n"),
            "{at:?}: {said}"
        );
        race.link();
        race.nearside.wait_ready();
        race.goes_upstream();
    }
}

#[test]
fn those_who_wait_for_a_voided_read_ask_themselves() {
    let mut race = Race::new();
    let (mut before, mut after) = (race.nearside.connect(), race.nearside.connect());
    race.ask();
    let (get, ttl) = race.fetched();
    before.send(&support::line(&format!("GET {KEY}")));
    eventually("it waits for the first one's read", || race.nearside.stat("shared_flights") == 1);
    assert_eq!(race.upstream.waiting(), 0, "one read upstream, however many wait");
    race.tell(&invalidate(Some(KEY)), "tracking");
    // Who came after the change must not get what was read before it.
    let (get_again, ttl_again) = race.fetched();
    after.send(&support::line(&format!("GET {KEY}")));
    eventually("it waits for the second read", || race.nearside.stat("shared_flights") == 2);
    for (reply, value) in [(&get, OLD), (&ttl, ":-1\r\n"), (&get_again, NEW), (&ttl_again, ":-1\r\n")] {
        reply.reply(value);
    }
    assert_eq!(text(race.client.reply()), OLD);
    assert_eq!(text(before.reply()), NEW);
    assert_eq!(text(after.reply()), NEW);
    race.hits(NEW);
}

#[test]
fn those_who_wait_are_served_by_one_read() {
    let mut race = Race::new();
    let mut others: Vec<_> = (0..10).map(|_| race.nearside.connect()).collect();
    race.ask();
    let (get, ttl) = race.fetched();
    others.iter_mut().for_each(|other| other.send(&support::line(&format!("GET {KEY}"))));
    eventually("all of them wait", || race.nearside.stat("shared_flights") == 10);
    get.reply(OLD);
    ttl.reply(":-1\r\n");
    assert!(others.iter_mut().all(|other| text(other.reply()) == OLD));
    assert_eq!(race.upstream.count("GET"), 1);
}

#[test]
fn a_client_that_leaves_does_not_take_the_others_read_with_it() {
    let mut race = Race::new();
    let mut other = race.nearside.connect();
    race.ask();
    let (get, ttl) = race.fetched();
    other.send(&support::line(&format!("GET {KEY}")));
    eventually("it waits", || race.nearside.stat("shared_flights") == 1);
    let before = race.nearside.stat("clients");
    // A mere close could be of one side only, and the reply still wanted.
    socket2::SockRef::from(&race.client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    race.client = other;
    eventually("the first client is gone", || race.nearside.stat("clients") < before);
    get.reply(OLD);
    ttl.reply(":-1\r\n");
    assert_eq!(text(race.client.reply()), OLD);
    race.hits(OLD);
}

#[test]
fn a_value_that_expires_between_read_and_ttl_is_not_kept() {
    let mut race = Race::new();
    race.ask();
    let (get, ttl) = race.fetched();
    get.reply(OLD);
    ttl.reply(":-2\r\n");
    assert_eq!(text(race.client.reply()), OLD);
    race.goes_upstream();
}

#[test]
fn an_error_is_passed_on_and_not_kept() {
    let mut race = Race::new();
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    race.ask();
    let (get, ttl) = race.fetched();
    get.reply(wrong);
    ttl.reply(":-1\r\n");
    assert_eq!(text(race.client.reply()), wrong);
    race.goes_upstream();
}

/// What comes behind a `MULTI` that the upstream refuses is carried out at once: it is a write like any other.
#[test]
fn a_write_behind_a_refused_multi() {
    let mut race = Race::new();
    race.read_old(At::AfterTheFill, |_| ());
    race.upstream.answers("EVAL", ":1\r\n", 1);
    let mut writer = race.nearside.connect();
    writer.send(&[support::line("MULTI"), support::line(&format!("SET {KEY} new"))].concat());
    race.upstream.expect("MULTI").reply("-NOPERM no\r\n");
    let write = race.upstream.expect(&format!("SET {KEY} new"));
    assert!(writer.reply().starts_with(b"-NOPERM"));
    write.reply("+OK\r\n");
    assert_eq!(writer.reply(), b"+OK\r\n");
    // No message of it has come, and none is needed.
    race.ask();
    let (read, ttl) = race.fetched();
    read.reply(NEW);
    ttl.reply(":-1\r\n");
    assert_eq!(race.client.reply(), NEW.as_bytes());
}
