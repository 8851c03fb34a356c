//! The command line and the environment: what nearside was asked to do, and with which settings.
//!
//! Flags come before variables, variables before the file. A variable that is set but empty counts as not
//! set, which is how compose files and init systems pass on what they do not have.

use std::{collections::BTreeMap, ffi::OsString, fmt::Write, path::PathBuf};

use anstyle::{AnsiColor, Style};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};
use clap_complete::Shell;

use super::address::{HostPort, Listen};
use super::draft::Draft;
use super::error::ConfigError;
use super::settings::{Config, settings};
use super::value::{FILE, FOLDER};
use super::{file, password};
use crate::io::Address;

const WARNING: Style = AnsiColor::Yellow.on_default();

/// What nearside is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Run in front of the configured upstream.
    Serve,
    /// Run in front of a private server of its own.
    Dev,
    /// Show the configuration and end.
    Check,
    /// Show what the upstream allows and end.
    Connect,
    /// Show what a running sidecar does.
    Top(Top),
    /// Print what completes the command line in this shell, and end.
    Completions(Shell),
    /// Print the manual page, and end.
    Man,
}

/// Which sidecar is to be watched, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// Its admin port.
    pub at: Address,
    /// The file with the token that this asks for, in its first line.
    pub token_file: Option<PathBuf>,
    /// One page without a terminal.
    pub once: bool,
}

/// What the exit codes say.
pub(super) const EXIT_CODES: [(&str, &str); 3] = [
    ("0", "A clean stop, or what was asked for is done."),
    (
        "1",
        "It could not run, or had to end because of a fault. Of check --connect: nothing can be cached. Of top: the sidecar \
         does not answer, or there is no terminal.",
    ),
    ("2", "The command line or the configuration is wrong; no port was opened."),
];

/// A valid command line: the task and the settings for it.
#[derive(Debug)]
pub struct Invocation {
    pub task: Task,
    pub config: Config,
    /// Whether to take the place of the nearside that serves at the same addresses.
    pub takeover: bool,
    origins: BTreeMap<&'static str, String>,
}

impl Invocation {
    /// Reads this process's arguments and environment, and the file if one is named.
    pub fn of_process() -> Result<Invocation, ConfigError> {
        Invocation::parse(std::env::args_os(), |name| std::env::var_os(name))
    }

    /// As [`Invocation::of_process`], with the arguments (program name first) and the environment given.
    pub fn parse(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Invocation, ConfigError> {
        let asked = command().try_get_matches_from(arguments).map_err(ConfigError::Usage)?;
        let (mut task, matches) = match asked.subcommand() {
            Some(("dev", of_dev)) => (Task::Dev, of_dev),
            Some(("check", of_check)) if of_check.get_flag("connect") => (Task::Connect, of_check),
            Some(("check", of_check)) => (Task::Check, of_check),
            Some(("completions", asked)) => {
                return Ok(Invocation::without_settings(Task::Completions(shell_of(asked))));
            }
            Some(("man", _)) => return Ok(Invocation::without_settings(Task::Man)),
            Some((_, of_serve)) => (Task::Serve, of_serve),
            None => (Task::Serve, &asked),
        };
        let mut draft = Draft::default();
        let variable = |name: &str, draft: &mut Draft| {
            let value = environment(name).filter(|value| !value.is_empty())?;
            let text = value.into_string().map_err(|_| draft.problems.push(format!("{name}: not UTF-8")));
            text.ok()
        };
        let path = matches.get_one::<PathBuf>("config").cloned();
        if let Some(path) = path.or_else(|| variable("NEARSIDE_CONFIG", &mut draft).map(PathBuf::from)) {
            file::lay(&path, &mut draft);
        }
        for setting in settings() {
            if let Some(text) = variable(&setting.variable(), &mut draft) {
                draft.apply(setting, &text, setting.variable());
            }
        }
        draft.password = variable(password::VARIABLE, &mut draft);
        lay_flags(matches, &mut draft);
        if task == Task::Dev && matches.contains_id("upstream") {
            draft
                .problems
                .push("--upstream: dev starts an upstream of its own; use nearside serve".to_owned());
        }
        let takeover = matches.get_flag("takeover");
        if takeover && task != Task::Serve {
            draft.problems.push("--takeover: is for nearside serve".to_owned());
        }
        let (config, origins) = draft.finish().map_err(ConfigError::Invalid)?;
        if let Some(("top", of_top)) = asked.subcommand() {
            task = Task::Top(top_of(of_top, &config).map_err(|wrong| ConfigError::Invalid(vec![wrong]))?);
        }
        Ok(Invocation { task, config, takeover, origins })
    }

    /// For what needs none, and so does not fail because of one that is wrong.
    fn without_settings(task: Task) -> Invocation {
        Invocation { task, config: Config::default(), takeover: false, origins: BTreeMap::new() }
    }

    /// What `nearside check` prints: a file that says what is in effect, and from where each value came. In colour.
    pub fn report(&self) -> String {
        let mut report = String::from("# nearside: the configuration is valid, and this is in effect\n");
        for warning in self.config.warnings() {
            let _infallible = writeln!(report, "{WARNING}# warning: {warning}{WARNING:#}");
        }
        let lines: Vec<_> =
            self.config.describe().into_iter().map(|(n, v)| (format!("{n} = {v}"), n)).collect();
        let width = lines.iter().map(|(line, _)| line.len()).max().unwrap_or(0).min(60);
        for (line, name) in &lines {
            let setting = name.split('.').next().unwrap_or_default();
            let origin = self.origins.get(setting).map_or("default", String::as_str);
            let _infallible = writeln!(report, "{line:width$}  # {origin}");
        }
        report
    }
}

fn shell_of(matches: &ArgMatches) -> Shell {
    // It is required, so there is one.
    matches.get_one("shell").copied().unwrap_or(Shell::Bash)
}

/// Without an address, the sidecar is the one that has these settings.
fn top_of(matches: &ArgMatches, config: &Config) -> Result<Top, String> {
    let own = || config.admin.iter().map(ToString::to_string).next();
    let at = matches.get_one::<String>("address").cloned().or_else(own);
    let at = at.ok_or("admin: is off, so there is nothing to watch; name the sidecar's admin address")?;
    let at = match Listen::parse(&at)? {
        Listen::Tcp(at) => reached(at),
        Listen::Unix(path) => Address::Unix(path),
        Listen::Tls(at) => {
            return Err(format!("tls://{at}: an admin port has no TLS; name it without tls://"));
        }
    };
    let token_file = matches.get_one::<PathBuf>("token-file").cloned();
    Ok(Top { at, token_file, once: matches.get_flag("once") })
}

/// Where who listens there is reached from the same machine.
fn reached(HostPort { host, port }: HostPort) -> Address {
    let host = match host.as_str() {
        "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "::1".to_owned(),
        _ => host,
    };
    Address::Tcp { host, port }
}

fn lay_flags(matches: &ArgMatches, draft: &mut Draft) {
    for setting in settings() {
        if let Some(values) = matches.get_many::<String>(&setting.name) {
            let values: Vec<&str> = values.map(String::as_str).collect();
            draft.apply(setting, &values.join(","), format!("--{}", setting.name));
        }
    }
}

fn top() -> Command {
    let address = Arg::new("address")
        .help("Its admin port: HOST:PORT, PORT (on 127.0.0.1) or unix:PATH; without it, that of the settings (admin)");
    let token_file = Arg::new("token-file")
        .long("token-file")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .help("The file with the token that the admin port asks for, in its first line");
    let once = Arg::new("once")
        .long("once")
        .action(ArgAction::SetTrue)
        .help("Print one page of name:value lines, of one second, and end; for scripts");
    let about = "Show what a running sidecar does, on a terminal, until q is pressed";
    Command::new("top").about(about).args([address, token_file, once])
}

/// The command line's shape, made from the table of settings.
pub(super) fn command() -> Command {
    let flags = settings().iter().map(|setting| {
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        Arg::new(setting.name.clone())
            .long(setting.name.clone())
            .value_name(setting.metavar)
            .value_hint(match setting.metavar {
                file if file == FILE.metavar => ValueHint::FilePath,
                folder if folder == FOLDER.metavar => ValueHint::DirPath,
                _ => ValueHint::Unknown,
            })
            .action(if setting.list { ArgAction::Append } else { ArgAction::Set })
            .help(format!("{} [default: {default}]", setting.help))
            .global(true)
    });
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .help("A TOML file with settings; its keys are the flags without their dashes")
        .global(true);
    let takeover =
        Arg::new("takeover").long("takeover").action(ArgAction::SetTrue).global(true).help(
            "Take the place of the nearside of the same user that serves at one of the --listen addresses: on the \
             same sockets, so that no client is refused; it stops once this one is ready, and goes on if this one fails. \
             If there is none, nearside starts as usual",
        );
    let [clean, failed, wrong] = EXIT_CODES;
    Command::new("nearside")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A coherent near cache for Redis, behind a plain Redis port at your application's side")
        .after_help(format!(
            "Every setting is a flag (--max-memory), an environment variable (NEARSIDE_MAX_MEMORY) and a key of\n\
             the file (max-memory); the first of these that is given counts. Without a command, nearside serves.\n\n\
             Exit codes:\n  {}  {}\n  {}  {}\n  {}  {}",
            clean.0, clean.1, failed.0, failed.1, wrong.0, wrong.1
        ))
        .subcommand(Command::new("serve").about("Serve clients in front of --upstream; the default"))
        .subcommand(
            Command::new("dev")
                .about("Serve in front of a private redis-server or valkey-server, gone without a trace at the end"),
        )
        .subcommand(
            Command::new("check").about("Show the configuration in effect, or what is wrong with it").arg(
                Arg::new("connect").long("connect").action(ArgAction::SetTrue).help(
                    "Show instead what the upstream allows, what can be cached by that, and what to change; \
                     exit code 1 if nothing can be cached",
                ),
            ),
        )
        .subcommand(top())
        .subcommand(
            Command::new("completions")
                .about("Print a script by which a shell completes this command line")
                .arg(Arg::new("shell").required(true).value_parser(clap::value_parser!(Shell)).help("The shell")),
        )
        .subcommand(Command::new("man").about("Print the manual page, for man(1)"))
        .arg(config)
        .arg(takeover)
        .args(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str, environment: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
        let arguments: Vec<_> = std::iter::once("nearside").chain(arguments.split_whitespace()).collect();
        Invocation::parse(arguments, |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    fn config(arguments: &str, environment: &[(&str, &str)]) -> Config {
        parse(arguments, environment).expect("valid").config
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_go_before_or_after_the_command() {
        for line in ["--workers 3", "serve --workers 3", "--workers=3 serve"] {
            let invocation = parse(line, &[]).expect(line);
            assert_eq!((invocation.task, invocation.config.workers), (Task::Serve, 3), "{line}");
        }
        assert_eq!(parse("dev", &[]).expect("valid").task, Task::Dev);
        assert_eq!(parse("check", &[]).expect("valid").task, Task::Check);
        assert!(matches!(parse("sevre", &[]), Err(ConfigError::Usage(_))));
    }

    #[test]
    fn who_is_asked_for_the_master_goes_with_sentinels_and_is_not_shown() {
        let url = ("NEARSIDE_UPSTREAM", "redis+sentinel://a,b/main");
        let password = ("NEARSIDE_SENTINEL_PASSWORD", "sesame");
        let report = parse("--sentinel-username app", &[url, password]).expect("valid").report();
        assert!(report.contains("sentinel-password = \"***\"") && !report.contains("sesame"), "{report}");
        for (flags, environment, why) in [
            ("", &[password][..], "sentinel-password: is given, but upstream names no sentinels"),
            ("--sentinel-username app", &[], "sentinel-username: is given, but upstream names no sentinels"),
            ("--sentinel-username app", &[url], "sentinel-username: has no sentinel-password"),
        ] {
            let told = parse(flags, environment).expect_err(why).to_string();
            assert!(told.contains(why) && !told.contains("sesame"), "{told}");
        }
    }

    #[test]
    fn top_watches_who_is_named_or_the_one_of_these_settings() {
        let top = |line: &str| match parse(line, &[]).expect(line).task {
            Task::Top(top) => top.at.to_string(),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(top("top"), "127.0.0.1:9380");
        assert_eq!(top("top --admin 0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(top("top 9999 --admin off"), "127.0.0.1:9999");
        assert_eq!(top("top unix:/run/n.sock --once"), "unix:/run/n.sock");
        for wrong in ["top --admin off", "top tls://a:1", "top nowhere"] {
            assert!(matches!(parse(wrong, &[]), Err(ConfigError::Invalid(_))), "{wrong}");
        }
        // What needs no settings does not fail because of them.
        let wrong = [("NEARSIDE_WORKERS", "many")];
        assert_eq!(parse("man", &wrong).expect("a page").task, Task::Man);
        assert_eq!(parse("completions zsh", &wrong).expect("a script").task, Task::Completions(Shell::Zsh));
        assert!(matches!(parse("completions tcsh", &[]), Err(ConfigError::Usage(_))));
    }

    #[test]
    fn a_flag_beats_a_variable_and_an_empty_variable_is_none() {
        assert_eq!(config("", &[("NEARSIDE_MAX_MEMORY", "2mb")]).max_memory, 2 << 20);
        assert_eq!(config("--max-memory 3mb", &[("NEARSIDE_MAX_MEMORY", "2mb")]).max_memory, 3 << 20);
        assert_eq!(config("", &[("NEARSIDE_MAX_MEMORY", "")]).max_memory, 64 << 20);
        // A service called nearside makes Kubernetes set variables like this one in every pod.
        assert_eq!(config("", &[("NEARSIDE_PORT", "tcp://10.0.0.1:6380")]), Config::default());
    }

    #[test]
    fn lists_are_repeated_flags_or_commas() {
        let repeated = config("--namespace a --namespace b --listen 1 --listen unix:/n", &[]);
        let commas = config("", &[("NEARSIDE_NAMESPACE", "a, b"), ("NEARSIDE_LISTEN", "1,unix:/n")]);
        assert_eq!(repeated, commas);
        assert_eq!((repeated.namespaces.len(), repeated.listen.len()), (2, 2));
        assert!(config("--namespace=", &[("NEARSIDE_NAMESPACE", "a")]).namespaces.is_empty());
    }

    #[test]
    fn everything_wrong_is_told_with_its_source() {
        let error = parse(
            "--max-staleness 1 --max-age=-1s --upstream rediss://:s3cret@db:0",
            &[("NEARSIDE_WORKERS", "many"), ("NEARSIDE_CONFIG", "/nowhere/n.toml")],
        );
        let told = error.expect_err("wrong").to_string();
        for part in [
            "--max-staleness: \"1\" is not a time",
            "--max-age: \"-1s\" is not a time",
            "--upstream: \"rediss://:***@db:0\" has port 0",
            "NEARSIDE_WORKERS: \"many\" is neither",
            "/nowhere/n.toml: No such file",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
        assert!(!told.contains("s3cret"), "{told}");
    }

    #[test]
    fn dev_refuses_an_upstream_on_the_command_line_only() {
        assert!(parse("dev", &[("NEARSIDE_UPSTREAM", "redis://db")]).is_ok());
        assert!(parse("dev --upstream redis://db", &[]).is_err());
    }

    #[test]
    fn a_takeover_is_for_who_serves() {
        for line in ["--takeover", "serve --takeover", "--takeover serve"] {
            assert!(parse(line, &[]).expect(line).takeover, "{line}");
        }
        assert!(!parse("serve", &[]).expect("valid").takeover);
        assert!(parse("dev --takeover", &[]).is_err() && parse("check --takeover", &[]).is_err());
    }

    #[test]
    fn the_report_names_each_source() {
        let report = parse("check --namespace a", &[("NEARSIDE_UPSTREAM", "redis://:s3cret@db")])
            .expect("valid")
            .report();
        let line = |start: &str| {
            let line = report.lines().find(|line| line.starts_with(start)).unwrap_or_default();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("upstream"), "upstream = \"redis://:***@db:6379\" # NEARSIDE_UPSTREAM");
        assert_eq!(line("max-age"), "max-age = \"1m\" # default");
        assert_eq!(line("namespace.a.prefix"), "namespace.a.prefix = \"a/\" # --namespace");
        assert!(toml::Table::try_from(toml::from_str::<toml::Table>(&report).expect("TOML")).is_ok());
    }
}
