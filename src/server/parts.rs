//! From the configuration to the parts that run: what each room is told, in its own words.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::files;
use super::password::Source;
use crate::cache::{CoverageId, CoverageSlot, Micros, Wanted};
use crate::command::{ServerCommand, Table};
use crate::config::{self, Config, CrossSlot, HostPort, Place, PresentAs};
use crate::feed::{Feed, Hooks, Told};
use crate::io::{Address, Connector, Dial};
use crate::metrics::Metrics;
use crate::namespace::{Namespace, Namespaces, Rules, Tracking, TrackingForm};
use crate::process::{
    ClusterSettings, FeedUp, Inbox, Message, Node, Password, Process, Registrar, Reports, Settings, Ticket,
    hear_nothing_of_slots, hear_of_slots, micros, provable, prove,
};
use crate::resp::framer::Limits;
use crate::upstream::{self, Asking, Credentials, Elected, Location, Login, Ours, ServerId};
use crate::writeback::ToldBy;

/// Where the upstream is, or will be once sentinels have said it.
fn location(upstream: &config::Upstream) -> Location {
    match &upstream.place {
        Place::Server(address) => address.clone().into(),
        Place::Sentinels(sentinels) => Location::Elected(Elected::new(&*sentinels.service)),
        // Until one of its nodes has said who they are.
        Place::Cluster(_) => Location::Elected(Elected::new("the cluster")),
    }
}

fn cluster(config: &Config) -> ClusterSettings {
    let (seeds, is_named) = match &config.upstream.place {
        Place::Server(address @ Address::Tcp { .. }) => (vec![address.clone()], false),
        Place::Server(Address::Unix(_)) | Place::Sentinels(_) => (Vec::new(), false),
        Place::Cluster(seeds) => (seeds.addresses.clone(), true),
    };
    let at = |at: &HostPort| Address::Tcp { host: at.host.clone(), port: at.port };
    ClusterSettings {
        seeds,
        is_named,
        mapped: config.cluster_address_map.iter().map(|map| (at(&map.announced), at(&map.reached))).collect(),
        splits: config.cross_slot == CrossSlot::Split,
        is_shown: config.present_as == PresentAs::Cluster,
    }
}

/// How the sentinels are asked, and which; `None` if there are none. `dial` is how the upstream is reached.
pub(super) fn sentinels(config: &Config, dial: &Dial) -> Option<(Asking, Vec<Address>)> {
    let Place::Sentinels(sentinels) = &config.upstream.place else { return None };
    let user = config.sentinel_username.as_ref().map(|user| user.as_bytes().to_vec());
    let password = config.sentinel_password.as_ref().map(|password| password.expose().as_bytes().to_vec());
    let asking = Asking {
        service: sentinels.service.clone(),
        login: password.map(|password| Login { user, password }),
        patience: config.connect_timeout,
        dial: dial.another().within(None),
    };
    Some((asking, sentinels.addresses.clone()))
}

/// Nearside's own login, whose password may be still to come.
fn own(config: &Config) -> Credentials {
    let user = config.upstream.username.as_ref().map(|user| user.as_bytes().to_vec());
    match &config.upstream.password {
        Some(password) => Credentials::fixed(user, password.expose().as_bytes().to_vec()),
        None if Source::of(config).is_some() => Credentials::awaited(user),
        None => Credentials::default(),
    }
}

/// `files` is how many file descriptors a connection of a client's own may bring the process to; `tls` secures the
/// connections to the upstream.
pub(super) fn settings(config: &Config, files: usize, tls: Option<Arc<Connector>>) -> Settings {
    Settings {
        upstream: upstream::Settings {
            address: location(&config.upstream),
            own: own(config),
            connect_timeout: config.connect_timeout,
            reply_timeout: config.upstream_timeout.unwrap_or_default(),
            ours: Ours::default(),
            dial: Dial::default().within(Some(files)).over(tls),
        },
        cluster: cluster(config),
        db: config.upstream.db,
        password: config.password.as_ref().map(|password| Password::new(password.expose().as_bytes())),
        limits: Limits { max_request: usize::MAX, ..Limits::default() },
        max_request: config.max_request.into(),
        output_limit: config.client_output_limit.into(),
        max_clients: config.max_clients.into(),
        max_links: config.max_links.into(),
        stall_timeout: config.client_stall_timeout.into(),
        drain_timeout: config.drain_timeout.into(),
        max_staleness: config.max_staleness.into(),
        max_age: config.max_age.into(),
        stale_if_error: (!config.stale_if_error.is_zero()).into(),
        tracking: tracking(config, config.tracking),
        tracking_form: config.tracking_form,
        cache_commands: config.cache_commands.clone(),
        admin_keys: config.admin_keys,
        described: config.describe().into(),
    }
}

pub(super) fn namespaces(config: &Config) -> Namespaces {
    let namespace = |namespace: &config::Namespace| {
        let rules = rules(config, namespace);
        Namespace::new(&namespace.name, namespace.prefix.as_bytes(), &namespace.channel, rules)
            .writing(namespace.writing.clone())
    };
    Namespaces::new(config.namespaces.iter().map(namespace).collect())
}

fn rules(config: &Config, namespace: &config::Namespace) -> Rules {
    Rules {
        on_update: namespace.on_update,
        refill_on_write: namespace.refill_on_write,
        tracking: tracking(config, namespace.tracking),
        max_age: namespace.max_age,
        max_staleness: namespace.max_staleness,
    }
}

/// Puts into effect what of the configuration may change while nearside runs.
pub(super) fn apply(process: &Process, config: &Config) {
    let settings = &process.settings;
    settings.max_request.set(config.max_request);
    settings.output_limit.set(config.client_output_limit);
    settings.max_clients.set(files::fitting(config.max_clients, config.workers));
    settings.max_links.set(config.max_links);
    settings.stall_timeout.set(config.client_stall_timeout);
    settings.drain_timeout.set(config.drain_timeout);
    settings.max_staleness.set(config.max_staleness);
    settings.max_age.set(config.max_age);
    settings.stale_if_error.set(!config.stale_if_error.is_zero());
    if let (Some(known), Some(password)) = (&settings.password, &config.password) {
        known.change(password.expose().as_bytes());
    }
    if let Some(password) = &config.upstream.password {
        settings.upstream.own.take(password.expose().as_bytes().to_vec());
    }
    for namespace in &config.namespaces {
        let known = process.namespaces.iter().find(|known| known.name == namespace.name);
        known.into_iter().for_each(|known| known.change(rules(config, namespace)));
        if let Some((back, writing)) = process.back(known).zip(namespace.writing.as_ref()) {
            back.change(writing);
        }
    }
    process.traces.sample(config.sampled());
    process.cache.change(config.max_memory, config.max_value, micros(config.stale_if_error));
    *settings.described.lock() = config.describe();
    process.tell_bounds();
}

/// The feed of one node.
pub(super) fn feed(
    process: &Arc<Process>,
    node: &Arc<Node>,
    workers: &[Arc<Inbox>],
) -> Feed<Ticket, FeedHooks> {
    Feed {
        cache: process.cache.clone(),
        hooks: FeedHooks { process: process.clone(), node: node.clone(), workers: workers.to_vec() },
        own: process.settings.upstream.own.clone(),
        settings: node.upstream.without_limit(),
        redirects: process.redirects(),
        prefixes: prefixes(process),
        ways: ways(process),
        unregistrable: Cell::default(),
        registering_first: Cell::default(),
        told: Told::default(),
    }
}

/// What the feed must be proven within.
fn bound(process: &Process) -> Duration {
    match process.tightest_staleness() {
        // Nothing is ever served; the feed still has to be watched.
        Duration::ZERO => Duration::from_secs(1),
        bound => bound.max(Duration::from_micros(micros(Duration::from_millis(20)))),
    }
}

/// What is to be reported, as far as the form that is set leaves a choice.
fn tracking(config: &Config, wanted: Tracking) -> Tracking {
    match (config.tracking_form, wanted) {
        (_, Tracking::Off) | (TrackingForm::Off, _) => Tracking::Off,
        (TrackingForm::Broadcast, _) => Tracking::Prefix,
        // One connection can have the one or the other.
        (TrackingForm::Register, _) => Tracking::Keys,
        (TrackingForm::Auto | TrackingForm::Redirect, wanted) => wanted,
    }
}

/// In which ways the feed is to be told for its own sake, the best first.
fn ways(process: &Process) -> Vec<Reports> {
    let by_itself = match process.settings.tracking_form {
        TrackingForm::Auto => true,
        TrackingForm::Register => process.wants(Tracking::Keys),
        TrackingForm::Redirect | TrackingForm::Broadcast | TrackingForm::Off => false,
    };
    let mut ways = Vec::new();
    if process.wants(Tracking::Prefix) {
        ways.push(Reports::Prefixes);
    }
    if by_itself && (process.wants(Tracking::Keys) || process.wants(Tracking::Prefix)) {
        ways.push(Reports::Registered);
    }
    if process.settings.tracking_form == TrackingForm::Auto && process.wants(Tracking::Keys) {
        ways.push(Reports::All);
    }
    ways
}

/// The prefixes whose keys are tracked by broadcast; the empty one is every key's.
fn prefixes(process: &Process) -> Vec<Vec<u8>> {
    if process.settings.tracking == Tracking::Prefix {
        return vec![Vec::new()];
    }
    let by_prefix = |namespace: &&Namespace| namespace.tracking() == Tracking::Prefix;
    process.namespaces.iter().filter(by_prefix).map(|namespace| namespace.prefix().to_vec()).collect()
}

/// How the feed of a node reaches the sessions.
pub(super) struct FeedHooks {
    process: Arc<Process>,
    node: Arc<Node>,
    workers: Vec<Arc<Inbox>>,
}

impl Hooks for FeedHooks {
    fn namespaces(&self) -> &Namespaces {
        &self.process.namespaces
    }

    fn metrics(&self) -> &Metrics {
        &self.process.metrics
    }

    fn slot(&self) -> &CoverageSlot {
        &self.node.feed
    }

    fn now(&self) -> Micros {
        self.process.now()
    }

    fn up(&self, coverage: CoverageId, client_id: Option<i64>, server: Option<ServerId>) {
        let coverages = self.process.cache.coverages();
        // It ends with the feed's: if it stands, it depends on this one.
        if coverages.current(&self.node.announced).is_none() {
            let _ = coverages.arm_untold(&self.node.announced, coverage);
        }
        self.node.feed_up.send_replace(Some(FeedUp {
            coverage,
            client_id,
            server,
            since: self.process.now(),
        }));
        self.process.tell_form(&self.node);
    }

    fn down(&self) {
        let was_up = self.node.feed_up.send_if_modified(|up| up.take().is_some());
        if was_up && self.process.cluster.is() {
            self.process.cluster.refresh_soon();
        }
    }

    fn report(&self, reports: Reports) {
        self.node.reports.set(reports);
        self.process.tell_form(&self.node);
    }

    fn reports(&self) -> Reports {
        self.node.reports.get()
    }

    fn is_redirect_refused(&self) -> bool {
        !self.process.redirects() || self.node.own_refusal.lock().is_some()
    }

    fn registrar(&self) -> &Registrar {
        &self.node.registrar
    }

    fn rights_changed(&self) {
        self.node.registrar.forget_refusals();
        self.node.feed_up.send_modify(|_| ());
    }

    fn watches_users(&self, sees: bool) {
        self.node.watch_users(sees);
    }

    fn server_said(&self, reply: &[u8]) {
        // Redis says `redis_mode`, Valkey `server_mode`.
        match memchr::memmem::find(reply, b"_mode:cluster\r\n").is_some() {
            true if !self.process.cluster.is() => self.process.cluster.notice(&self.node.upstream.address),
            true => {}
            false => self.process.cluster.is_told_of_none(),
        }
    }

    fn is_of_cluster(&self) -> bool {
        self.process.cluster.is()
    }

    fn slots_said(&self, said: Option<(bool, &[u8])>) {
        match said {
            Some((is_ok, nodes)) => hear_of_slots(&self.process, &self.node, is_ok, nodes),
            None => hear_nothing_of_slots(&self.process, &self.node),
        }
    }

    fn prove(&self, at: Micros) {
        prove(&self.process, &self.node, at);
    }

    fn provable(&self, at: Micros) -> Micros {
        provable(&self.process, &self.node, at)
    }

    fn is_voiding(&self) -> bool {
        self.node.owned.is_voiding()
    }

    fn owns(&self, key: &[u8]) -> bool {
        self.process.is_single() || self.process.topology().owner(key).id == self.node.id
    }

    fn slots_doubted(&self) {
        self.process.cluster.refresh_soon();
    }

    fn role_changed(&self) {
        self.node.role.doubt(self.process.now());
    }

    fn left(&self) -> watch::Receiver<u64> {
        self.node.role.left()
    }

    fn commands(&self, commands: &[ServerCommand]) {
        self.process.set_table(Table::builtin().overlay(commands));
    }

    fn refresh(&self, key: &[u8], wanted: Vec<Wanted>) {
        for wanted in wanted {
            let busy = self.workers.iter().max_by_key(|worker| worker.clients());
            if let Some(worker) = busy {
                worker.send(Message::Refresh { key: key.into(), wanted });
            }
        }
    }

    fn bound(&self) -> Duration {
        bound(&self.process)
    }

    fn bound_told(&self) -> watch::Receiver<()> {
        self.process.bounds_told()
    }

    fn told(&self, namespace: &Namespace, key: &[u8], announced: bool) {
        let by = if announced { ToldBy::Announcement } else { ToldBy::Tracking };
        if let Some(back) = self.process.back(Some(namespace)) {
            back.told(key, by, self.process.now());
        }
    }

    fn told_of_all(&self) {
        self.process.backs().for_each(|back| back.told_all());
    }

    fn is_active(&self, now: Micros) -> bool {
        self.process.is_active(now)
    }
}
