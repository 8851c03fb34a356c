//! The table of all settings: name, kind, default and help, each in one place.
//!
//! A row makes a field of [`Config`], a flag, an environment variable and a key of the file, all under one
//! name, and its line in `--help`, `nearside check` and `NEARSIDE CONFIG`. The only other place where a new
//! setting must be written down is `config/nearside.toml`, and a test says so if it is missing there.

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use super::address::{Listen, Secret, Upstream};
use super::address_map::Mapped;
use super::choice::{Auth, CrossSlot, LogFormat, PresentAs, TokenFor, Writes};
use super::collector::Collector;
use super::commands::COMMANDS;
use super::namespace::{self, Namespace, Written, parse_names};
use super::value::*;
use crate::namespace::{Ack, OnConflict, OnUpdate, Rules, Tracking, TrackingForm, Writing};

/// What was given so far, each value valid by itself.
#[derive(Default)]
pub(super) struct Given {
    pub config: Config,
    pub namespaces: Vec<Written>,
}

/// A row of the table, with the type of its value put aside.
pub(super) struct Setting {
    /// The key in the file, and the flag without its dashes.
    pub name: String,
    pub metavar: &'static str,
    pub default: &'static str,
    /// May be given more than once, as an array in the file, and with commas.
    pub list: bool,
    pub help: String,
    /// Puts a value in effect, or says in one sentence why not.
    pub set: fn(&mut Given, &str) -> Result<(), String>,
    /// Whether two configurations have the same value, secrets included.
    pub same: fn(&Config, &Config) -> bool,
    /// Lines of the file, as name and value, which say what is in effect.
    pub show: fn(&Config) -> Vec<(String, String)>,
}

impl Setting {
    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("NEARSIDE_{}", self.name.replace('-', "_").to_uppercase())
    }
}

/// All settings, in the order in which they are shown.
pub(super) fn settings() -> &'static [Setting] {
    static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(table);
    &SETTINGS
}

/// The kinds that are lists.
const LISTS: [&str; 5] =
    [LISTEN.metavar, ADMIN.metavar, HOSTS.metavar, COMMANDS.metavar, ADDRESS_MAP.metavar];

macro_rules! settings {
    ($( $(#[doc = $help:literal])+ $field:ident: $type:ty = $kind:ident $default:literal; )+) => {
        /// Every setting, validated: what the rest of nearside goes by.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $( $(#[doc = $help])+ pub $field: $type, )+
            /// What clients have to give, if nearside itself asks for it. It is no row, for a flag can be seen by
            /// every user of the machine.
            pub password: Option<Secret>,
            /// The namespaces, none of which covers a key of another.
            pub namespaces: Vec<Namespace>,
        }

        impl Default for Config {
            fn default() -> Config {
                Config {
                    $( $field: ($kind.parse)($default).expect(concat!("default of ", stringify!($field))), )+
                    password: None,
                    namespaces: Vec::new(),
                }
            }
        }

        fn table() -> Vec<Setting> {
            let mut table = vec![$( Setting {
                name: stringify!($field).replace('_', "-"),
                metavar: $kind.metavar,
                default: $default,
                list: LISTS.contains(&$kind.metavar),
                help: [$($help.trim()),+].join(" "),
                set: |given, text| {
                    given.config.$field = ($kind.parse)(text)?;
                    Ok(())
                },
                same: |one, other| one.$field == other.$field,
                show: |config| {
                    vec![(stringify!($field).replace('_', "-"), ($kind.show)(&config.$field))]
                },
            } ),+];
            // Next to the addresses, which one sets first.
            table.insert(2, namespaces());
            table
        }
    };
}

// Sizes are in bytes. `on_update`, `refill_on_write`, `tracking`, `max_age`, `max_staleness` and those from `write` to `journal_max` are
// what a namespace has if it does not say otherwise; `Namespace` holds what counts.
settings! {
    /// Where clients connect: HOST:PORT, PORT (on 127.0.0.1), tls://HOST:PORT or unix:PATH; may be given more than once
    listen: Vec<Listen> = LISTEN "127.0.0.1:6380";
    /// The Redis or Valkey server behind: redis://[USER:PASSWORD@]HOST:PORT[/DB], rediss:// for TLS, or unix:/PATH, or the sentinels that know
    /// where it is: redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE[/DB], or nodes of a cluster:
    /// redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT. Prefer NEARSIDE_UPSTREAM or the file for a password, since flags can be seen by every user of the machine
    upstream: Upstream = UPSTREAM "redis://127.0.0.1:6379";
    /// The file that holds the upstream password, in its first line; it is read anew when it changes
    upstream_password_file: Option<PathBuf> = FILE "";
    /// A program that prints the upstream password, such as a token that ends after minutes; run without a shell, its
    /// words divided as a shell does
    upstream_password_command: Option<Vec<String>> = PROGRAM "";
    /// How often that program is run
    upstream_password_refresh: Duration = TIME_ABOVE_ZERO "10m";
    /// As whom the sentinels of a redis+sentinel:// URL are asked; without it, as their default user
    sentinel_username: Option<String> = WORD "";
    /// Their password. Prefer NEARSIDE_SENTINEL_PASSWORD or the file, since flags can be seen by every user of the machine
    sentinel_password: Option<Secret> = SECRET "";
    /// Where a node of a cluster is reached that announces another address: HOST:PORT=HOST:PORT; may be given more than once
    cluster_address_map: Vec<Mapped> = ADDRESS_MAP "";
    /// What becomes of MGET, MSET, DEL, UNLINK, EXISTS and TOUCH with keys of several hash slots of a cluster: divided among
    /// its nodes (split), or refused (refuse)
    cross_slot: CrossSlot = CROSS_SLOT "split";
    /// What a cluster is to clients: one server (standalone), or a cluster of one node that has all hash slots (cluster)
    present_as: PresentAs = PRESENT_AS "standalone";
    /// A file with the CAs (PEM) that may sign the upstream's certificate, in the place of the system's
    upstream_tls_ca: Option<PathBuf> = FILE "";
    /// A file with the certificate (PEM, with those between it and its CA) that is shown to the upstream
    upstream_tls_cert: Option<PathBuf> = FILE "";
    /// The file with its private key
    upstream_tls_key: Option<PathBuf> = FILE "";
    /// The name that the upstream is told, and that its certificate must be for, in the place of the URL's host
    upstream_tls_sni: Option<String> = HOST "";
    /// Whether whoever answers is taken for the upstream, whatever its certificate: for tests
    upstream_tls_insecure: bool = SWITCH "false";
    /// A file with the certificate (PEM, with those between it and its CA) for clients at tls:// addresses
    tls_cert: Option<PathBuf> = FILE "";
    /// The file with its private key
    tls_key: Option<PathBuf> = FILE "";
    /// A file with the CAs (PEM) that sign the certificates that clients at tls:// addresses must have; without it
    /// they need none
    tls_client_ca: Option<PathBuf> = FILE "";
    /// What owner, group and others may do with a Unix socket that is listened on, in octal; connecting is writing
    unix_socket_mode: u32 = MODE "700";
    /// The group that such a socket is given, by name (of /etc/group) or number
    unix_socket_group: Option<String> = GROUP "";
    /// Who asks clients for a login: the upstream, to which AUTH goes through, or nearside, with the password of
    /// password-file or NEARSIDE_PASSWORD; then all of them have the rights of the upstream URL's user
    auth: Auth = AUTH "upstream";
    /// The file that holds the password for auth = "password", in its first line
    password_file: Option<PathBuf> = FILE "";
    /// What an announced update does to a cached key: drop it (invalidate), or fetch it anew if it was read
    /// since its last fill (refresh)
    on_update: OnUpdate = ON_UPDATE "invalidate";
    /// Whether a write to a namespace reads back what it leaves behind, so that the next read is a hit
    refill_on_write: bool = SWITCH "false";
    /// What the upstream is asked to report (CLIENT TRACKING): changes of each key that was read (keys), of
    /// every key (prefix; in a namespace, of its keys), or nothing (off), which caches only namespaces
    tracking: Tracking = TRACKING "keys";
    /// In which form it reports them: by redirection from each link (redirect), to the feed, which asks for each key
    /// that is to be cached (register), to the feed of all keys (broadcast), not at all (off), or the first of
    /// these that the upstream allows (auto)
    tracking_form: TrackingForm = TRACKING_FORM "auto";
    /// Memory for the cache, its overhead included; kb, mb and gb are of 1024
    max_memory: usize = MEMORY "64mb";
    /// A reply above this size is passed on but not cached
    max_value: usize = SIZE "1mb";
    /// The commands whose replies are cached: all that can be, or these; may be given more than once
    cache_commands: Option<Vec<String>> = COMMANDS "all";
    /// Oldest write that a cached reply may miss; 0 never serves from the cache
    max_staleness: Duration = TIME "1s";
    /// Longest life of a cached reply; 0 keeps none
    max_age: Duration = TIME "60s";
    /// Serve what is cached for this long after the upstream was lost; 0s is off
    stale_if_error: Duration = TIME "0s";
    /// How often a cached reply is compared with the upstream's, to count disagreements (which must not be)
    audit: Option<Duration> = RATE_OR_OFF "off";
    /// When writes of whole values to a namespace are acknowledged: when the upstream has them (through), or before, by a
    /// journal of nearside's own, from which they are flushed (back)
    write: Writes = WRITES "through";
    /// With write = back: how long such a write may wait to be flushed
    flush_after: Duration = FLUSH_AFTER "200ms";
    /// With write = back: bytes that wait in a namespace, at which they are flushed at once
    flush_bytes: u64 = FLUSH_BYTES "8mb";
    /// With write = back: the folder of the journal, in which each namespace has its own
    journal: Option<PathBuf> = FOLDER "";
    /// With write = back: whether a write is acknowledged when the disk has it (disk), or at once (memory), and may then
    /// be lost in a crash
    ack: Ack = ACK "disk";
    /// With write = back: what counts where another has changed the key upstream meanwhile: theirs, and ours goes to the
    /// conflict log (keep-remote), ours (keep-local), or whichever came later (newest)
    on_conflict: OnConflict = ON_CONFLICT "keep-remote";
    /// With write = back: the most that the journal of a namespace may take
    journal_max: u64 = JOURNAL_MAX "256mb";
    /// Worker threads; auto is one for each processor, at most 4
    workers: usize = WORKERS "auto";
    /// Most clients at a time
    max_clients: usize = COUNT "10000";
    /// Most connections to the upstream that clients share, for each worker: one for each user, database and
    /// protocol in use. For a new one, the idle one that was least lately used is closed
    max_links: usize = COUNT "256";
    /// Largest request
    max_request: usize = ROOM "1gb";
    /// Replies that may wait for a client which does not read them, and as many bytes of requests that are read
    /// meanwhile
    client_output_limit: usize = ROOM "64mb";
    /// How long a client whose replies are at that limit may neither read nor send anything, before it is closed
    client_stall_timeout: Duration = TIME_ABOVE_ZERO "5s";
    /// After how long without a word a client is asked whether it is still there; 0 never asks
    tcp_keepalive: Option<Duration> = TIME_OR_FOREVER "300s";
    /// Longest wait for a connection to the upstream
    connect_timeout: Duration = TIME_ABOVE_ZERO "2s";
    /// How often it is looked whether the upstream's name still leads to where the connections are, or off: then it is
    /// resolved anew for each new connection only
    dns_refresh: Option<Duration> = TIME_OR_OFF "off";
    /// Longest wait for the upstream's reply, blocking commands aside; 0 waits for ever
    upstream_timeout: Option<Duration> = TIME_OR_FOREVER "60s";
    /// How long requests in flight may take to finish when nearside is told to stop
    drain_timeout: Duration = TIME "10s";
    /// Where /livez, /readyz and /metrics are served: HOST:PORT, PORT (on 127.0.0.1) or unix:PATH, or off; may be given more
    /// than once
    admin: Vec<Listen> = ADMIN "127.0.0.1:9380";
    /// A file with the token, in its first line, that the admin pages ask for on a port; it is read anew when it changes.
    /// Without one, what changes something can be asked for on a Unix socket only
    admin_token_file: Option<PathBuf> = FILE "";
    /// What needs this token: all pages, or all but the health pages (pages), which a kubelet asks for without one
    admin_token_for: TokenFor = TOKEN_FOR "all";
    /// Names by which browsers and scrapers may ask for the admin pages, beside localhost, IP addresses and the names in
    /// admin; * allows any; may be given more than once
    admin_hosts: Vec<String> = HOSTS "";
    /// Whether the admin pages tell of keys: those that are hit most, those that events name, and what is known of one that is
    /// asked for
    admin_keys: bool = ON_OR_OFF "on";
    /// The collector that is told of sampled misses, as spans of OpenTelemetry: the base URL of its OTLP/HTTP receiver, such as
    /// http://127.0.0.1:4318, behind which /v1/traces is put; or off
    otlp_endpoint: Option<Collector> = COLLECTOR "off";
    /// The part of the misses that it is told of, from 0 (none) to 1 (all)
    otlp_sample_ratio: f64 = RATIO "0.001";
    /// error, warn, info, debug, trace, off, or directives such as info,nearside::feed=debug
    log_level: String = LOG_LEVEL "info";
    /// How the log, on standard error, is written
    log_format: LogFormat = LOG_FORMAT "text";
}

impl Config {
    /// What is valid and yet may not be meant, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let open = self.listen.iter().filter(|listen| self.auth != Auth::Password && listen.is_open());
        let warning = |listen: &Listen| {
            format!(
                "listen: {listen} can be reached from other hosts, and whoever connects acts with the rights of the \
                 upstream URL's user: listen on 127.0.0.1 or a Unix socket, or set auth = \"password\""
            )
        };
        let believes = (self.upstream.tls && self.upstream_tls_insecure).then(|| {
            format!(
                "upstream-tls-insecure: whoever answers for {} is believed, and may read and change everything: set \
                 upstream-tls-ca instead",
                self.upstream
            )
        });
        let grpc = self.otlp_endpoint.as_ref().filter(|collector| collector.is_for_grpc()).map(|collector| {
            format!(
                "otlp-endpoint: {collector} is where collectors speak OTLP over gRPC as a rule, and nearside speaks it over \
                 HTTP: that is port 4318"
            )
        });
        open.map(warning).chain(believes).chain(grpc).chain(self.warnings_of_writing()).collect()
    }

    /// The part of the misses that is sampled.
    pub fn sampled(&self) -> f64 {
        if self.otlp_endpoint.is_some() { self.otlp_sample_ratio } else { 0.0 }
    }

    fn warnings_of_writing(&self) -> impl Iterator<Item = String> {
        let of_none = (self.write == Writes::Back && self.namespaces.is_empty()).then(|| {
            "write: back concerns keys of namespaces only, and there are none: all writes go through; set namespace"
                .to_owned()
        });
        let unkept = |namespace: &&Namespace| {
            namespace.writing.as_ref().is_some_and(|writing| writing.journal.is_none())
        };
        let warning = |namespace: &Namespace| {
            format!(
                "namespace {:?}: its writes are acknowledged from memory, without a journal: those that are not flushed \
                 yet, and its conflict log, are lost if nearside is killed; set journal",
                namespace.name
            )
        };
        of_none.into_iter().chain(self.namespaces.iter().filter(unkept).map(warning))
    }

    /// What is in effect, as names and values of the file, passwords hidden: the answer of
    /// `NEARSIDE CONFIG`.
    pub fn describe(&self) -> Vec<(String, String)> {
        settings().iter().flat_map(|setting| (setting.show)(self)).collect()
    }

    /// What a namespace has if it does not say otherwise.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            on_update: self.on_update,
            refill_on_write: self.refill_on_write,
            tracking: self.tracking,
            max_age: self.max_age,
            max_staleness: self.max_staleness,
        }
    }

    /// Likewise, of its writes.
    pub(super) fn writing(&self) -> (Writes, Writing) {
        let writing = Writing {
            flush_after: self.flush_after,
            flush_bytes: self.flush_bytes,
            journal: self.journal.clone(),
            ack: self.ack,
            on_conflict: self.on_conflict,
            journal_max: self.journal_max,
        };
        (self.write, writing)
    }
}

/// The one setting whose value depends on others, and which is a table in the file.
fn namespaces() -> Setting {
    Setting {
        name: "namespace".to_owned(),
        metavar: "NAME",
        default: "",
        list: true,
        help: "A namespace: covers the keys NAME/…, announced on the channels NAME/update and NAME/delete; \
               may be given more than once, and replaces those of the file"
            .to_owned(),
        set: |given, text| {
            given.namespaces = parse_names(text)?;
            Ok(())
        },
        same: |one, other| one.namespaces == other.namespaces,
        show: |config| config.namespaces.iter().flat_map(namespace::describe).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid_and_shown_in_the_form_in_which_it_is_given() {
        let config = Config::default();
        for setting in settings().iter().filter(|setting| !["namespace", "workers"].contains(&&*setting.name))
        {
            let mut given = Given::default();
            (setting.set)(&mut given, setting.default).expect(&setting.name);
            assert_eq!(given.config, config, "{}", setting.name);
            let [(name, value)] = &(setting.show)(&config)[..] else { panic!("{}: one line", setting.name) };
            assert_eq!(*name, setting.name);
            let value = value.trim_matches(['[', ']', '"']);
            (setting.set)(&mut given, value).expect(name);
            assert_eq!(given.config, config, "{name} = {value}");
        }
    }
}
