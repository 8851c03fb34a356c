//! `nearside check --connect`: what the upstream allows, what can be cached by that, and what to change.
//!
//! Invariants: nothing is written to the upstream, and nothing is announced: what cannot be tried without that is asked of the
//! upstream's own account of rights (`ACL DRYRUN`), or said to be untried.

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

use super::error::ServerError;
use super::parts;
use super::password::Source;
use super::runtime::runtime;
use super::tls::Tls;
use crate::config::Config;
use crate::io::Address;
use crate::namespace::{Event, Namespaces, Tracking, TrackingForm};
use crate::process::{ClusterSettings, see_cluster};
use crate::resp::Protocol;
use crate::resp::scanner::Kind;
use crate::resp::{SLOTS, key_slot};
use crate::upstream::{Asking, ConnectError, Identity, Location, Probe, Sentinel, Settings, Who};

/// A key that nobody has, behind the prefix of a namespace.
const KEY: &[u8] = b"nearside:check";

const ANOTHER_FORM: &str = "another form is taken where one is allowed";

/// What was found.
pub struct Findings {
    /// For a person, a line each, in colour.
    pub text: String,
    /// Whether anything can be cached.
    pub caches: bool,
}

/// Looks at the upstream of this configuration. Takes some times `connect-timeout` at most.
///
/// Errors: the files for TLS are of no use, or the system does not let it wait for anything.
pub fn check(config: &Config) -> Result<Findings, ServerError> {
    let runtime = runtime()?;
    let tls = Tls::of(config)?;
    // Several nodes are asked side by side, by tasks of this thread.
    Ok(runtime.block_on(Check::of(config, tls).run()))
}

struct Check<'c> {
    config: &'c Config,
    settings: Settings,
    cluster: ClusterSettings,
    namespaces: Rc<Namespaces>,
    identity: Identity,
    /// Whether the upstream is to tell of changes.
    tracks: bool,
    key: Vec<u8>,
    text: String,
    /// Rules that would give the user what it lacks.
    lacks: Vec<String>,
}

/// What was said to one question.
enum Said {
    Yes,
    /// In these words.
    No(String),
}

/// What is asked, what it means that it is refused, and the rules by which it would not be.
struct Question<'q> {
    what: &'q str,
    without: &'q str,
    grant: &'q str,
}

impl Check<'_> {
    fn of(config: &Config, tls: Tls) -> Check<'_> {
        let settings = parts::settings(config, usize::MAX, tls.outward);
        let identity = Identity {
            who: Who::Own(settings.upstream.own.clone()),
            db: settings.db,
            protocol: Protocol::Resp2,
        };
        let namespaces = Rc::new(parts::namespaces(config));
        let prefix = namespaces.iter().next().map_or(&b""[..], |namespace| namespace.prefix());
        let key = [prefix, KEY].concat();
        let tracks = settings.tracking != Tracking::Off
            || namespaces.iter().any(|namespace| namespace.tracking() != Tracking::Off);
        let (settings, cluster) = (settings.upstream, settings.cluster);
        Check {
            config,
            settings,
            cluster,
            namespaces,
            identity,
            tracks,
            key,
            text: String::new(),
            lacks: Vec::new(),
        }
    }

    async fn run(mut self) -> Findings {
        let _ = writeln!(self.text, "# {}", self.config.upstream);
        if let Some(source) = Source::of(self.config) {
            match source.read().await {
                Ok(password) => drop(self.settings.own.take(password.expose().as_bytes().to_vec())),
                Err(why) => {
                    self.no("password", &why, "nothing can be asked upstream without it");
                    return self.findings(false);
                }
            }
        }
        if !self.finds_master().await || !self.finds_nodes().await {
            return self.findings(false);
        }
        let (settings, began) = (self.settings.clone(), Instant::now());
        let mut probe = match Probe::open(&settings, &self.identity).await {
            Ok(probe) => probe,
            Err(error) => {
                self.no("connect", &error.to_string(), "is upstream right, and does its server run?");
                return self.findings(false);
            }
        };
        if let Said::No(why) = ask(&mut probe, &[b"PING"]).await
            && why.starts_with("NOAUTH")
        {
            let without =
                "give its password: redis://[USER]:PASSWORD@HOST, upstream-password-file or -command";
            self.no("login", &why, without);
            return self.findings(false);
        }
        let took = began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        let took = humantime::format_duration(Duration::from_millis(took));
        self.yes("connect", &format!("{}, in {took}", server(&mut probe).await));
        let form = self.best_form(&mut probe, &settings).await;
        let channels = self.channels(&settings).await;
        let lives = self.rights(&mut probe).await;
        let form = form.filter(|_| self.tracks);
        let caches = lives && (form.is_some() || channels);
        let is_off = match self.config.tracking_form {
            TrackingForm::Off => "tracking-form is off",
            _ => "tracking is off",
        };
        let so = match form {
            _ if !caches && lives && !self.tracks && self.namespaces.is_empty() => {
                format!("nothing can be cached: {is_off}, and there are no namespaces")
            }
            _ if !caches => "nothing can be cached".to_owned(),
            Some(form) => format!("changes become known by: {form}"),
            None => "changes become known by: channels; only keys in namespaces are cached".to_owned(),
        };
        self.lacks.sort_unstable();
        self.lacks.dedup();
        if !self.lacks.is_empty() {
            let (user, rules) = (self.user().to_owned(), self.lacks.join(" "));
            let _ = writeln!(self.text, "to allow what was refused for rights: ACL SETUSER {user} {rules}");
        }
        let _ = writeln!(self.text, "{so}");
        self.findings(caches)
    }

    /// Asks the sentinels, if there are any, where the master is; whether that is known.
    async fn finds_master(&mut self) -> bool {
        let asked = parts::sentinels(self.config, &self.settings.dial);
        let (Some((asking, addresses)), Location::Elected(elected)) = (asked, self.settings.address.clone())
        else {
            return true;
        };
        let mut newest: Option<(u64, Address)> = None;
        for address in addresses {
            let asking = Asking { dial: asking.dial.another(), ..asking.clone() };
            let asked = async { Sentinel::connect(&asking, &address).await?.ask(&asking).await };
            let said = asked.await.and_then(|answer| {
                let master = answer.master_of(&asking.service)?.clone();
                Ok((answer.epoch, master, answer.others.len()))
            });
            let what = format!("sentinel {address}");
            match said {
                Ok((epoch, master, others)) => {
                    self.yes(&what, &format!("names {master}, and knows of {others} other sentinels"));
                    if newest.as_ref().is_none_or(|(before, _)| *before < epoch) {
                        newest = Some((epoch, master));
                    }
                }
                Err(why) => self.no(&what, &why, "it does not help to find the master"),
            }
        }
        let Some((_, master)) = newest else { return false };
        elected.move_to(master);
        true
    }

    /// Asks for the nodes of the cluster, if it is one, and goes on with the one that has the key; whether there is somewhere
    /// to go on.
    async fn finds_nodes(&mut self) -> bool {
        let nodes = match see_cluster(&self.settings, &self.cluster).await {
            Ok(nodes) => nodes,
            Err(why) if self.cluster.is_named => {
                self.no("cluster", &why, "none of the nodes says who the others are");
                return false;
            }
            Err(_) => return true,
        };
        self.yes("cluster", &format!("of {} masters", nodes.len()));
        let unowned = SLOTS - nodes.iter().map(|(_, slots)| slots.len()).sum::<usize>();
        if unowned > 0 {
            let why = format!("{unowned} are nobody's");
            self.no("hash slots", &why, "requests for their keys are answered with CLUSTERDOWN");
        }
        let (slot, mut owner) = (key_slot(&self.key), None);
        for (address, slots) in nodes {
            let dial = self.settings.dial.another();
            let settings = Settings { address: address.clone().into(), dial, ..self.settings.clone() };
            let what = format!("node {address}");
            let looked = match Probe::open(&settings, &self.identity).await {
                Ok(mut probe) => {
                    self.yes(&what, &format!("has {} hash slots", slots.len()));
                    Some((
                        ask(&mut probe, &[b"CLUSTER", b"NODES"]).await,
                        ask(&mut probe, &[b"CLUSTER", b"INFO"]).await,
                    ))
                }
                Err(error) => {
                    let without = "does what it announces lead there from here? see cluster-address-map";
                    self.no(&what, &error.to_string(), without);
                    None
                }
            };
            if let Some((nodes, info)) = looked {
                let without = "nothing of a node is cached that does not say which hash slots it has";
                for (what, said, grant) in
                    [("CLUSTER NODES", nodes, "+cluster|nodes"), ("CLUSTER INFO", info, "+cluster|info")]
                {
                    if let Said::No(_) = said {
                        self.note(&Question { what, without, grant }, said);
                    }
                }
            }
            if slots.contains(slot) || owner.is_none() {
                owner = Some(settings);
            }
        }
        self.settings = owner.unwrap_or_else(|| self.settings.clone());
        true
    }

    fn findings(self, caches: bool) -> Findings {
        Findings { text: self.text, caches }
    }

    /// Tries the forms of tracking, those of the feed each on a connection of its own, for one excludes another; gives the
    /// best that is allowed.
    async fn best_form(&mut self, probe: &mut Probe<'_>, settings: &Settings) -> Option<&'static str> {
        let resp3 = Identity { protocol: Protocol::Resp3, ..self.identity.clone() };
        let opened = Probe::open(settings, &resp3).await;
        let resp3_question = Question {
            what: "RESP3 (HELLO 3)",
            without: "nothing is tracked without: it needs Redis 6 or later",
            grant: "+hello",
        };
        let said = opened.as_ref().map_or_else(refused, |_| Said::Yes);
        self.note(&resp3_question, said);
        let mut feed = opened.ok()?;
        let wanted = self.config.tracking_form;
        let tries = |form| wanted == TrackingForm::Auto || wanted == form;
        let mut best = None;
        if tries(TrackingForm::Redirect) {
            let said = match (feed.id(), ask(&mut feed, &[b"CLIENT", b"ID"]).await) {
                (Some(id), _) => {
                    let id = id.to_string();
                    ask(probe, &[b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", id.as_bytes()]).await
                }
                (None, said) => said,
            };
            let what = "tracking-form redirect";
            let question = Question { what, without: ANOTHER_FORM, grant: "+client|id +client|tracking" };
            best = self.note(&question, said).then_some("redirect");
        }
        for (form, name, command) in [
            (TrackingForm::Register, "register", &[&b"CLIENT"[..], b"TRACKING", b"ON"][..]),
            (TrackingForm::Broadcast, "broadcast", &[b"CLIENT", b"TRACKING", b"ON", b"BCAST"]),
        ] {
            if !tries(form) {
                continue;
            }
            let said = match Probe::open(settings, &resp3).await {
                Ok(mut feed) => match ask(&mut feed, command).await {
                    Said::Yes if form == TrackingForm::Register => {
                        ask(&mut feed, &[b"EXISTS", &self.key]).await
                    }
                    said => said,
                },
                Err(error) => refused(&error),
            };
            let what = format!("tracking-form {name}");
            let grant = "+client|tracking +exists";
            let granted = self.note(&Question { what: &what, without: ANOTHER_FORM, grant }, said);
            best = best.or(granted.then_some(name));
        }
        best
    }

    /// Whether the channels of all namespaces can be heard.
    async fn channels(&mut self, settings: &Settings) -> bool {
        let all = self.namespaces.clone();
        let mut heard = !all.is_empty();
        for namespace in all.iter() {
            let [update, delete] = [Event::Update, Event::Delete].map(|event| namespace.channel(event));
            let grant = format!(
                "+subscribe +publish &{} &{}",
                text(update).replace(' ', "?"),
                text(delete).replace(' ', "?")
            );
            let said = match Probe::open(settings, &self.identity).await {
                Ok(mut probe) => ask(&mut probe, &[b"SUBSCRIBE", update, delete]).await,
                Err(error) => refused(&error),
            };
            let what = format!("channels of namespace {}", namespace.name);
            heard &= self.note(&Question { what: &what, without: "nothing is cached", grant: &grant }, said);
            let what = format!("announcements in namespace {}", namespace.name);
            match self.may_publish(settings, update).await {
                Some(said) => {
                    let without = "others do not learn of writes through this nearside";
                    self.note(&Question { what: &what, without, grant: &grant }, said);
                }
                None => self.line("?", &what, "not tried: a message would reach those who listen"),
            }
        }
        heard
    }

    /// By the upstream's own account; `None` if it gives none.
    async fn may_publish(&self, settings: &Settings, channel: &[u8]) -> Option<Said> {
        let mut probe = Probe::open(settings, &self.identity).await.ok()?;
        let asked: [&[u8]; 6] = [b"ACL", b"DRYRUN", self.user().as_bytes(), b"PUBLISH", channel, b""];
        match probe.ask(&asked).await.ok()? {
            (Kind::Simple, _) => Some(Said::Yes),
            (Kind::Bulk, why) => {
                let why = text(&why);
                let words = why.split_once(' ').map_or(&*why, |(_, words)| words);
                Some(Said::No(format!("NOPERM {words}")))
            }
            _ => None,
        }
    }

    /// What nearside does without, if need be; gives whether times to live can be had, without which nothing is cached.
    async fn rights(&mut self, probe: &mut Probe<'_>) -> bool {
        let key = self.key.clone();
        let mut all = Vec::new();
        let rights: [(&[&[u8]], &str); 8] = [
            (&[b"PTTL", &key], "nothing is cached without times to live"),
            (&[b"EXISTS", &key], "keys cannot be registered (tracking-form register)"),
            (
                &[b"INFO", b"commandstats"],
                "SWAPDB and changed users are not noticed; replies to other users are not cached",
            ),
            (&[b"INFO", b"server"], "a link to another server than the feed's is not noticed"),
            (&[b"COMMAND"], "the built-in table of commands is used"),
            (&[b"CLIENT", b"ID"], "links cannot be tracked (tracking-form redirect)"),
            (
                &[b"CLIENT", b"SETNAME", b"nearside"],
                "CLIENT LIST upstream does not tell whose connections these are",
            ),
            (
                &[b"EVAL", b"return 1", b"0"],
                "where a reply does not tell whether a key is left, a delete is announced",
            ),
        ];
        for (command, without) in rights {
            let words: Vec<_> = command.iter().filter(|arg| **arg != key).map(|arg| text(arg)).collect();
            let what =
                if words[0] == "EVAL" { "EVAL".to_owned() } else { words[..words.len().min(2)].join(" ") };
            // Of these, `CLIENT` alone is a command of several rights.
            let of = if words[0] == "CLIENT" { words[..2].join("|") } else { words[0].clone() };
            let said = ask(probe, command).await;
            let grant = format!("+{}", of.to_ascii_lowercase());
            all.push(self.note(&Question { what: &what, without, grant: &grant }, said));
        }
        all[0]
    }

    /// Notes what was said; whether that is yes.
    fn note(&mut self, question: &Question<'_>, said: Said) -> bool {
        match said {
            Said::Yes => self.yes(question.what, ""),
            // The command it may say: Redis looks at that first.
            Said::No(why) if why.starts_with("NOPERM") && why.contains("one of the keys") => {
                self.yes(question.what, "(not of every key)");
            }
            Said::No(why) => {
                if why.starts_with("NOPERM") {
                    self.lacks.extend(question.grant.split(' ').map(str::to_owned));
                }
                self.no(question.what, &why, question.without);
                return false;
            }
        }
        true
    }

    fn user(&self) -> &str {
        self.config.upstream.username.as_deref().unwrap_or("default")
    }

    fn yes(&mut self, what: &str, more: &str) {
        self.line("yes", what, more);
    }

    fn no(&mut self, what: &str, why: &str, without: &str) {
        self.line("no", what, why);
        self.line("", "", without);
    }

    fn line(&mut self, sign: &str, what: &str, more: &str) {
        let colour = match sign {
            "yes" => AnsiColor::Green.on_default(),
            "no" => AnsiColor::Red.on_default(),
            _ => Style::new(),
        };
        let line = format!("{colour}{sign:<4}{colour:#} {what:<34} {more}");
        let _ = writeln!(self.text, "{}", line.trim_end());
    }
}

fn refused(error: &ConnectError) -> Said {
    Said::No(error.to_string())
}

async fn ask(probe: &mut Probe<'_>, command: &[&[u8]]) -> Said {
    match probe.ask(command).await {
        Ok((Kind::Error, why)) => Said::No(text(why.strip_prefix(b"-").unwrap_or(&why))),
        Ok(_) => Said::Yes,
        Err(error) => refused(&error),
    }
}

/// What the server calls itself.
async fn server(probe: &mut Probe<'_>) -> String {
    let info = probe.ask(&[b"INFO"]).await.map(|(_, info)| info).unwrap_or_default();
    let info = String::from_utf8_lossy(&info);
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let valkey = field("valkey_version").map(|version| format!("Valkey {version}"));
    let version = valkey.or_else(|| field("redis_version").map(|version| format!("Redis {version}")));
    let parts = [version.as_deref(), field("role"), field("redis_mode").filter(|mode| *mode != "standalone")];
    match parts.into_iter().flatten().collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "it does not tell what it is (INFO)".to_owned(),
        told => told,
    }
}

fn text(raw: &[u8]) -> String {
    const SHOWN: usize = 200;
    String::from_utf8_lossy(&raw[..raw.len().min(SHOWN)]).trim().replace(['\r', '\n'], " ")
}
