//! In whatever form the upstream tells of changes, the best that it allows is taken, by itself, and what it tells is obeyed.

use crate::support;

use std::time::Duration;

use nearside::config::{Config, OnUpdate, Tracking, TrackingForm};
use support::filter::{Filter, Rule, no_redirect, no_tracking, only_broadcast};
use support::program::Program;
use support::relay::Relay;
use support::scripted::{Scripted, invalidate};
use support::{Conn, Nearside, Redis, eventually, without};

fn bounded(config: &mut Config) {
    config.max_staleness = Duration::from_millis(500);
    config.namespaces.iter_mut().for_each(|namespace| namespace.max_staleness = config.max_staleness);
}

/// In front of a server that refuses what this refuses.
fn behind(redis: &Redis, rule: Rule, change: impl FnOnce(&mut Config)) -> (Filter, Nearside) {
    let filter = Filter::to(redis.address(), rule);
    let nearside = Nearside::with(filter.address, |config| {
        bounded(config);
        change(config);
    });
    (filter, nearside)
}

fn form(nearside: &Nearside) -> String {
    let stats = nearside.stats();
    let line = stats.lines().find_map(|line| line.strip_prefix("nearside_tracking_form:"));
    line.unwrap_or_else(|| panic!("no form in {stats}")).to_owned()
}

#[track_caller]
fn takes(nearside: &Nearside, wanted: &str) {
    eventually(&format!("{wanted} is taken"), || form(nearside) == wanted);
    let (_, page) = nearside.get("/metrics");
    for name in ["redirect", "register", "broadcast", "channels", "none"] {
        let line = format!("nearside_tracking_form{{form=\"{name}\"}} {}", u8::from(name == wanted));
        assert!(page.contains(&line), "{line} in {page}");
    }
}

/// Until `command` is answered from the cache.
#[track_caller]
fn hits(nearside: &Nearside, client: &mut Conn, command: &str) -> String {
    let mut said = String::new();
    eventually(&format!("{command} is a hit"), || {
        let before = nearside.stat("hits");
        said = client.text(command);
        nearside.stat("hits") > before
    });
    said
}

#[test]
fn a_feed_that_comes_and_goes_is_no_news_of_the_form() {
    let redis = Redis::start();
    let relay = Relay::to(redis.address());
    let mut near = Program::start(relay.address.port(), &["--tracking-form", "register"]);
    let is_up = |near: &Program| near.connect().text("NEARSIDE STATS").contains("nearside_feed:up");
    for lost in 1..=5 {
        eventually("the feed is up", || is_up(&near));
        relay.cut_feed();
        eventually("the loss is seen", || near.stat("feed_lapses") >= lost);
    }
    eventually("the feed is up again", || is_up(&near));
    near.terminate();
    assert!(near.ended().success());
    let told: Vec<_> = near.seen.lines().filter(|line| line.contains("how changes become known")).collect();
    assert!(told.len() == 1 && told[0].contains("register"), "{told:#?}");
}

/// Reads of every kind are hits, and what a foreign writer does is seen.
#[track_caller]
fn is_coherent(redis: &Redis, nearside: &Nearside, mut clients: Vec<Conn>) {
    let mut direct = redis.connect();
    direct.cmd("SET plain one");
    direct.cmd("HSET hash f one");
    direct.cmd("SET users/1 one");
    for client in &mut clients {
        for (read, write, key) in [
            ("GET plain", "SET plain", "plain"),
            ("HGET hash f", "HSET hash f", "hash"),
            ("GET users/1", "SET users/1", "users/1"),
            ("MGET plain users/1", "SET users/1", "users/1"),
            ("GET absent", "SET absent", "absent"),
        ] {
            for value in ["two", "three"] {
                hits(nearside, client, read);
                direct.cmd(&format!("{write} {value}"));
                eventually(&format!("{read} sees {value}"), || client.text(read).contains(value));
            }
            hits(nearside, client, read);
            direct.cmd(&format!("DEL {key}"));
            eventually(&format!("{read} sees that it is gone"), || !client.text(read).contains("three"));
            hits(nearside, client, read);
            direct.cmd(&format!("{write} one"));
        }
        direct.cmd("DEL absent");
    }
}

fn clients(nearside: &Nearside) -> Vec<Conn> {
    vec![nearside.connect(), nearside.connect_resp3()]
}

#[test]
fn where_redirect_is_allowed_it_is_taken() {
    let redis = Redis::start();
    let nearside = Nearside::start(redis.address());
    takes(&nearside, "redirect");
    is_coherent(&redis, &nearside, clients(&nearside));
    assert_eq!(redis.calls("exists"), 0, "nothing is registered");
}

#[test]
fn where_redirect_is_refused_keys_are_registered() {
    let redis = Redis::start();
    let (_filter, nearside) = behind(&redis, no_redirect, |_| ());
    takes(&nearside, "register");
    is_coherent(&redis, &nearside, clients(&nearside));
    assert!(redis.calls("exists") > 0);
}

#[test]
fn where_only_broadcast_is_allowed_that_is_taken() {
    let redis = Redis::start();
    let (_filter, nearside) = behind(&redis, only_broadcast, |_| ());
    takes(&nearside, "broadcast");
    is_coherent(&redis, &nearside, clients(&nearside));
}

#[test]
fn where_nothing_is_allowed_namespaces_are_cached_by_their_channels() {
    let redis = Redis::start();
    let (_filter, nearside) = behind(&redis, no_tracking, |_| ());
    takes(&nearside, "channels");
    let mut client = nearside.connect();
    hits(&nearside, &mut client, "GET users/1");
    let mut direct = redis.connect();
    direct.cmd("SET users/1 new");
    direct.cmd("PUBLISH users/update 1");
    eventually("it is obeyed", || client.text("GET users/1").contains("new"));
    for _ in 0..3 {
        client.cmd("GET elsewhere");
    }
    assert!(!nearside.is_cached("elsewhere"));
    let (_filter, none) = behind(&redis, no_tracking, |config| config.namespaces.clear());
    takes(&none, "none");
}

#[test]
fn a_form_that_is_set_is_the_one() {
    let redis = Redis::start();
    for (wanted, shown) in [
        (TrackingForm::Redirect, "redirect"),
        (TrackingForm::Register, "register"),
        (TrackingForm::Broadcast, "broadcast"),
        (TrackingForm::Off, "channels"),
    ] {
        let nearside = Nearside::with(redis.address(), |config| {
            bounded(config);
            config.tracking_form = wanted;
        });
        takes(&nearside, shown);
        if wanted != TrackingForm::Off {
            is_coherent(&redis, &nearside, clients(&nearside));
        }
        let mut client = nearside.connect();
        hits(&nearside, &mut client, "GET users/1");
    }
    let (_filter, nearside) =
        behind(&redis, no_redirect, |config| config.tracking_form = TrackingForm::Redirect);
    takes(&nearside, "channels");
}

#[test]
fn prefixes_are_registered_where_only_that_is_allowed() {
    fn no_broadcast(args: &[Vec<u8>]) -> Option<&'static str> {
        no_redirect(args).or_else(|| {
            args.iter().any(|arg| arg.eq_ignore_ascii_case(b"BCAST")).then_some("ERR BCAST is not supported")
        })
    }
    let redis = Redis::start();
    let (_filter, nearside) = behind(&redis, no_broadcast, |config| config.tracking = Tracking::Prefix);
    takes(&nearside, "register");
    is_coherent(&redis, &nearside, clients(&nearside));
}

/// One connection cannot be told of both.
#[test]
fn where_some_keys_are_told_of_by_prefix_the_others_are_registered_all_the_same() {
    let redis = Redis::start();
    let (_filter, nearside) =
        behind(&redis, no_redirect, |config| config.namespaces[0].tracking = Tracking::Prefix);
    is_coherent(&redis, &nearside, clients(&nearside));
    takes(&nearside, "register");
    let mixed = Nearside::with(redis.address(), |config| {
        bounded(config);
        config.namespaces[0].tracking = Tracking::Prefix;
    });
    is_coherent(&redis, &mixed, clients(&mixed));
    takes(&mixed, "redirect");
}

#[test]
fn what_is_allowed_later_is_taken_then() {
    let redis = Redis::start();
    let (filter, nearside) = behind(&redis, no_tracking, |_| ());
    takes(&nearside, "channels");
    filter.refuse(no_redirect);
    takes(&nearside, "register");
    is_coherent(&redis, &nearside, clients(&nearside));
    filter.refuse(|_| None);
    eventually("the link is tracked", || nearside.stat("tracked_links") > 0);
    takes(&nearside, "redirect");
    is_coherent(&redis, &nearside, clients(&nearside));
}

/// One user's missing right is no matter of another's.
#[test]
fn a_user_who_may_not_track_is_served_by_what_the_feed_registers() {
    let redis = Redis::start();
    let rules = format!("on >pw ~* &* +@all {}", without("client|tracking"));
    assert_eq!(redis.connect().text(&format!("ACL SETUSER bob {rules}")), "+OK\r\n");
    let nearside = Nearside::with(redis.address(), bounded);
    let mut bob = nearside.connect();
    assert_eq!(bob.text("AUTH bob pw"), "+OK\r\n");
    is_coherent(&redis, &nearside, vec![bob]);
    takes(&nearside, "redirect");
    is_coherent(&redis, &nearside, clients(&nearside));
}

#[test]
fn a_key_that_cannot_be_registered_is_not_cached_and_the_others_are() {
    let redis = Redis::start();
    let mut direct = redis.connect();
    direct.cmd("ACL SETUSER near on >pw ~open* ~users/* &* +@all");
    direct.cmd("ACL SETUSER all on >pw ~* &* +@all");
    let (_filter, nearside) = behind(&redis, no_redirect, |config| {
        let url = config.upstream.to_string().replace("redis://", "redis://near:pw@");
        config.upstream = nearside::config::Upstream::parse(&url).unwrap();
    });
    let mut all = nearside.connect();
    all.cmd("AUTH all pw");
    for _ in 0..5 {
        let lines = all.pipeline(&["GET open1", "GET closed", "GET open2", "MGET open3 closed open4"]);
        assert_eq!(lines[..3], ["$-1\r\n"; 3]);
        assert_eq!(lines[3], "*3\r\n$-1\r\n$-1\r\n$-1\r\n");
    }
    let asked = redis.calls("exists");
    for _ in 0..20 {
        assert_eq!(all.text("GET closed"), "$-1\r\n");
    }
    assert_eq!(redis.calls("exists"), asked, "what was refused is not asked for each time");
    for key in ["open1", "open2", "open3"] {
        hits(&nearside, &mut all, &format!("GET {key}"));
    }
    assert!(!nearside.is_cached("closed"));
    direct.cmd("SET open1 new");
    eventually("the change is seen", || all.text("GET open1").contains("new"));
    direct.cmd("ACL SETUSER near ~*");
    hits(&nearside, &mut all, "GET closed");
}

#[test]
fn without_exists_no_key_is_registered_and_broadcast_is_taken() {
    fn no_exists(args: &[Vec<u8>]) -> Option<&'static str> {
        let exists = args[0].eq_ignore_ascii_case(b"EXISTS");
        no_redirect(args)
            .or(exists.then_some("NOPERM this user has no permissions to run the 'exists' command"))
    }
    let redis = Redis::start();
    let (_filter, nearside) = behind(&redis, no_exists, |_| ());
    let mut client = nearside.connect();
    client.cmd("GET plain");
    takes(&nearside, "broadcast");
    is_coherent(&redis, &nearside, clients(&nearside));
}

#[test]
fn a_feed_that_can_register_nothing_does_not_connect_again_and_again() {
    fn neither(args: &[Vec<u8>]) -> Option<&'static str> {
        let broadcast = args.iter().any(|arg| arg.eq_ignore_ascii_case(b"BCAST"));
        let exists = args[0].eq_ignore_ascii_case(b"EXISTS");
        no_redirect(args)
            .or(broadcast.then_some("ERR BCAST is not supported"))
            .or(exists.then_some("NOPERM this user has no permissions to run the 'exists' command"))
    }
    let redis = Redis::start();
    let (_filter, nearside) = behind(&redis, neither, |_| ());
    let mut client = nearside.connect();
    client.cmd("GET plain");
    takes(&nearside, "channels");
    let connects = || {
        let (_, page) = nearside.get("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix("nearside_feed_connects_total "));
        line.expect("it is counted").parse::<u64>().unwrap()
    };
    let before = connects();
    // What was refused is asked again after a second at first.
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < until {
        client.cmd("GET plain");
    }
    assert_eq!(connects(), before);
    hits(&nearside, &mut client, "GET users/1");
}

#[test]
fn refill_and_refresh_register_too() {
    let redis = Redis::start();
    let (_filter, nearside) = behind(&redis, no_redirect, |config| {
        let [users, items] = &mut config.namespaces[..] else { panic!("two namespaces") };
        users.refill_on_write = true;
        items.on_update = OnUpdate::Refresh;
    });
    takes(&nearside, "register");
    let (mut client, mut direct) = (nearside.connect(), redis.connect());
    for i in 0..20 {
        client.cmd(&format!("SET users/1 mine{i}"));
        eventually("the write's value is there", || nearside.is_cached("users/1"));
        let before = nearside.stat("misses");
        assert!(client.text("GET users/1").contains(&format!("mine{i}")));
        assert_eq!(nearside.stat("misses"), before, "the next read is a hit");
        direct.cmd(&format!("SET users/1 theirs{i}"));
        eventually("a change behind it is seen", || {
            client.text("GET users/1").contains(&format!("theirs{i}"))
        });
    }
    direct.cmd("SET items/1 zero");
    for i in 0..20 {
        hits(&nearside, &mut client, "GET items/1");
        direct.cmd(&format!("SET items/1 new{i}"));
        direct.cmd("PUBLISH items/update 1");
        eventually("it is fetched anew", || nearside.is_cached("items/1"));
        eventually("and is the new one", || client.text("GET items/1").contains(&format!("new{i}")));
    }
}

/// A upstream by hand, which refuses to redirect.
struct ByHand {
    upstream: Scripted,
    nearside: Nearside,
    client: Conn,
}

const OLD: &str = "$3\r\nold\r\n";
const NEW: &str = "$3\r\nnew\r\n";

impl ByHand {
    fn new() -> Self {
        let upstream = Scripted::start();
        let nearside = Nearside::with(upstream.address, |config| {
            config.tracking_form = TrackingForm::Register;
            config.max_staleness = Duration::from_secs(30);
            config.namespaces.iter_mut().for_each(|n| n.max_staleness = config.max_staleness);
        });
        let client = nearside.connect();
        Self { upstream, nearside, client }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    /// The client's own read, which waits for nothing.
    #[track_caller]
    fn read(&mut self, value: &str) {
        self.client.send(&support::line("GET k"));
        self.upstream.find("GET k").reply(value);
        assert_eq!(Self::text(self.client.reply()), value, "without a wait for the registration");
    }

    fn tell(&self) {
        let name = "nearside_invalidations_total{source=\"tracking\"}";
        let heard = || {
            let (_, page) = self.nearside.get("/metrics");
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.expect(name).parse::<u64>().unwrap()
        };
        let before = heard();
        self.upstream.push(self.upstream.feed(), &invalidate(Some("k")));
        eventually("it is heard", || heard() > before);
    }

    #[track_caller]
    fn fetched(&self) -> (support::scripted::Asked, support::scripted::Asked) {
        (self.upstream.find("get k"), self.upstream.find("PTTL k"))
    }

    #[track_caller]
    fn is_hit(&mut self, value: &str) {
        let before = self.nearside.stat("hits");
        assert_eq!(Self::text(self.client.cmd("GET k")), value);
        assert_eq!(self.nearside.stat("hits"), before + 1);
    }
}

#[test]
fn the_first_read_does_not_wait_for_its_registration_and_the_fill_does() {
    let mut race = ByHand::new();
    race.read(OLD);
    let exists = race.upstream.find("EXISTS k");
    assert_eq!(race.upstream.waiting(), 0, "nothing is read before the key is registered");
    exists.reply(":1\r\n");
    let (get, ttl) = race.fetched();
    get.reply(OLD);
    ttl.reply(":-1\r\n");
    eventually("it is filled", || race.nearside.is_cached("k"));
    race.is_hit(OLD);
}

/// They wait for no longer than where nothing is registered.
#[test]
fn those_who_wait_for_the_same_are_served_by_the_first_read() {
    for changed in [false, true] {
        let mut race = ByHand::new();
        let mut other = race.nearside.connect();
        race.client.send(&support::line("GET k"));
        let get = race.upstream.find("GET k");
        let exists = race.upstream.find("EXISTS k");
        other.send(&support::line("GET k"));
        eventually("it waits", || race.nearside.stat("shared_flights") == 1);
        if changed {
            race.tell();
            let again = race.upstream.find("GET k");
            get.reply(OLD);
            again.reply(NEW);
        } else {
            get.reply(OLD);
        }
        assert_eq!(ByHand::text(race.client.reply()), OLD);
        assert_eq!(ByHand::text(other.reply()), if changed { NEW } else { OLD });
        exists.reply(":1\r\n");
    }
}

#[test]
fn a_change_behind_the_registration_voids_what_is_being_read() {
    let mut race = ByHand::new();
    race.read(OLD);
    race.upstream.find("EXISTS k").reply(":1\r\n");
    let (get, ttl) = race.fetched();
    race.tell();
    get.reply(OLD);
    ttl.reply(":-1\r\n");
    race.read(NEW);
    assert!(!race.nearside.is_cached("k"));
}

/// The one report is used up then: a lease that was taken behind it would hear of no other.
#[test]
fn a_change_before_the_registration_is_answered_has_the_key_registered_anew() {
    let mut race = ByHand::new();
    race.read(OLD);
    let exists = race.upstream.find("EXISTS k");
    race.tell();
    exists.reply(":1\r\n");
    let again = race.upstream.find("EXISTS k");
    assert_eq!(race.upstream.waiting(), 0, "nothing is read behind a registration that may be used up");
    again.reply(":1\r\n");
    let (get, ttl) = race.fetched();
    get.reply(NEW);
    ttl.reply(":-1\r\n");
    eventually("it is filled", || race.nearside.is_cached("k"));
    race.is_hit(NEW);
}

#[test]
fn misses_are_registered_together_and_a_lost_feed_leaves_nobody_waiting() {
    let mut race = ByHand::new();
    race.read(OLD);
    let exists = race.upstream.find("EXISTS k");
    race.client.send(&[support::line("GET k2"), support::line("GET k3")].concat());
    for key in ["k2", "k3"] {
        race.upstream.find(&format!("GET {key}")).reply(OLD);
        race.client.reply();
    }
    exists.reply(":1\r\n");
    race.upstream.find("EXISTS k2 k3");
    let (get, ttl) = race.fetched();
    get.reply(OLD);
    ttl.reply(":-1\r\n");
    // Another waits for what is fetched for the first.
    let mut other = race.nearside.connect();
    other.send(&support::line("GET k2"));
    eventually("it waits", || race.nearside.stat("shared_flights") > 0);
    race.upstream.close(race.upstream.feed());
    race.upstream.find("GET k2").reply(NEW);
    assert_eq!(ByHand::text(other.reply()), NEW);
}
