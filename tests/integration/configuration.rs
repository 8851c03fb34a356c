//! Settings, as a user meets them: the shipped file, precedence, what is refused and how it is told.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use nearside::config::{Config, Invocation};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/nearside.toml");

fn nearside() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearside"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NEARSIDE_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    nearside().args(arguments).output().expect("nearside runs")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn load(path: &str) -> Config {
    let arguments = ["nearside", "--config", path];
    Invocation::parse(arguments, |_| None).unwrap_or_else(|error| panic!("{path}: {error}")).config
}

/// The names of the settings, from the flags in the help.
fn settings() -> BTreeSet<String> {
    let help = out(&run(&["--help"]));
    let flags = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let names = flags.filter_map(|rest| rest.split_whitespace().next());
    names.filter(|name| !["config", "takeover"].contains(name)).map(str::to_owned).collect()
}

#[test]
fn the_shipped_file_holds_every_setting_at_its_default_and_nothing_else() {
    let text = fs::read_to_string(SHIPPED).expect("the shipped file");
    assert_eq!(load(SHIPPED), Config::default());

    let keys: BTreeSet<String> = text.parse::<toml::Table>().expect("TOML").keys().cloned().collect();
    let mut expected = settings();
    assert!(expected.contains("max-memory") && expected.remove("namespace"), "{expected:?}");
    assert_eq!(keys, expected);
}

#[test]
fn the_commented_part_of_the_shipped_file_is_valid_at_its_defaults_too() {
    let text = fs::read_to_string(SHIPPED).expect("the shipped file");
    let setting = |line: &str| line.starts_with("#[") || (line.starts_with('#') && line.contains(" = "));
    let uncommented: Vec<_> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if setting(line) && !rest.starts_with([' ', '#']) => rest,
            _ => line,
        })
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), uncommented.join("\n")).expect("written");
    let with_table = load(file.path().to_str().expect("UTF-8"));

    let by_name = Invocation::parse(["nearside", "--namespace", "users"], |_| None).expect("valid").config;
    assert_eq!(with_table, by_name);
    // Every key of the table stands there.
    for (name, value) in by_name.describe().iter().filter(|(name, _)| name.starts_with("namespace.users.")) {
        let key = name.trim_start_matches("namespace.users.");
        let value = value.replace("\"1m\"", "\"60s\"");
        assert!(text.contains(&format!("\n#{key} = {value}\n")), "{key} = {value}");
    }
}

#[test]
fn a_flag_beats_a_variable_and_a_variable_beats_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("n.toml");
    fs::write(&path, "max-memory = '1mb'\nmax-value = '1kb'\nworkers = 1\n").expect("written");
    let output = nearside()
        .args(["check", "--max-memory", "3mb", "--config"])
        .arg(&path)
        .env("NEARSIDE_MAX_MEMORY", "2mb")
        .env("NEARSIDE_MAX_VALUE", "2kb")
        .output()
        .expect("nearside runs");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let report = out(&output);
    for (line, origin) in [
        ("max-memory = \"3mb\"", "--max-memory".to_owned()),
        ("max-value = \"2kb\"", "NEARSIDE_MAX_VALUE".to_owned()),
        ("workers = 1", format!("{}:3: workers", path.display())),
        ("max-age = \"1m\"", "default".to_owned()),
    ] {
        let found =
            report.lines().find(|shown| shown.starts_with(line)).unwrap_or_else(|| panic!("{report}"));
        assert!(found.ends_with(&format!("# {origin}")), "{found}");
    }
}

#[test]
fn what_check_prints_is_a_file_with_the_same_meaning() {
    let flags = [
        "--cache-commands",
        "get,hget",
        "--namespace",
        "users",
        "--namespace",
        "a.b",
        "--listen",
        "7000",
        "--admin",
        "off",
    ];
    let first = run(&[&["check"], &flags[..]].concat());
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), &first.stdout).expect("written");
    let again = load(file.path().to_str().expect("UTF-8"));
    let arguments = [&["nearside"], &flags[..]].concat();
    assert_eq!(again, Invocation::parse(arguments, |_| None).expect("valid").config);
}

#[test]
fn a_bad_configuration_exits_2_with_every_reason_and_opens_no_port() {
    let free =
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").to_string();
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "workers = 2\nmax-memroy = '1mb'\nmax-age = 'soon'\n").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    for command in ["serve", "dev", "check"] {
        let output = run(&[command, "--listen", &free, "--config", path, "--max-staleness", "1"]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert_eq!(out(&output), "");
        let told = told(&output);
        for reason in [
            format!("{path}:2: unknown key \"max-memroy\"; did you mean max-memory?"),
            format!("{path}:3: max-age: \"soon\" is not a time"),
            "--max-staleness: \"1\" is not a time".to_owned(),
        ] {
            assert!(told.contains(&reason), "{reason} in {told}");
        }
        assert!(TcpListener::bind(&free).is_ok());
    }
}

#[test]
fn each_bad_value_is_told_with_what_is_allowed() {
    for (flag, value, says) in [
        ("--listen", "localhost", "does not end in a port"),
        ("--upstream", "redis://6379", "did you mean redis://127.0.0.1:6379?"),
        ("--listen", "unix:/x.sock?db=2", "a part after ? or #"),
        ("--max-memory", "64", "is 64 bytes"),
        ("--max-memory", "64", "write 64mb"),
        ("--max-request", "1000", "write 1000mb"),
        ("--client-output-limit", "0", "no room"),
        ("--upstream", "rediss://db:0", "port 0"),
        ("--upstream-tls-ca", "/ca.pem", "is without TLS; write rediss://"),
        ("--listen", "tls://6390", "needs tls-cert"),
        ("--upstream", "http://db", "write redis://"),
        ("--namespace", "users,users", "given twice"),
        ("--namespace", "a,a/b", "overlap"),
        ("--on-update", "refesh", "invalidate or refresh; did you mean refresh?"),
        ("--max-memory", "64xb", "such as 64mb"),
        ("--workers", "0", "from 1 to 256"),
        ("--admin", "nowhere", "write HOST:PORT, unix:PATH or off"),
        ("--max-clients", "0", "whole number from 1 up"),
        ("--connect-timeout", "0", "above 0"),
        ("--log-level", "inof", "did you mean info?"),
        ("--log-format", "xml", "text or json"),
        ("--cache-commands", "get,hgetal", "did you mean hgetall?; possible are all, or bitcount, "),
        ("--tracking", "bcast", "keys or prefix or off"),
        ("--write", "behind", "through or back"),
        ("--flush-after", "0", "1ms is the least"),
        ("--flush-bytes", "0", "write a size such as 8mb"),
        ("--ack", "disc", "did you mean disk?"),
        ("--on-conflict", "keep", "keep-remote or keep-local or newest; did you mean keep-"),
        ("--journal-max", "1000", "4kb is the least"),
        ("--config", "/nowhere/n.toml", "No such file"),
        ("--max-memroy", "1mb", "--max-memory"),
    ] {
        let output = run(&["check", flag, value]);
        assert_eq!(output.status.code(), Some(2), "{flag} {value}");
        assert!(told(&output).contains(says), "{flag} {value}: {}", told(&output));
    }
}

#[test]
fn a_password_is_never_shown() {
    let url = "redis://app:s3cret@db.example:6379/1";
    let config = Invocation::parse(["nearside", "--upstream", url], |_| None).expect("valid").config;
    assert!(!format!("{config:?} {:?}", config.describe()).contains("s3cret"));
    for command in ["check", "--help"] {
        let output = nearside().arg(command).env("NEARSIDE_UPSTREAM", url).output().expect("nearside runs");
        assert_eq!(output.status.code(), Some(0));
        assert!(!out(&output).contains("s3cret"));
    }
    for bad in
        ["redis://app:s3cret@db:port", "rediss://:s3cret@db:0", "redis://:s3cret@db/x", "ftp://s3cret@db"]
    {
        let output = run(&["check", "--upstream", bad]);
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert!(!told(&output).contains("s3cret"), "{}", told(&output));
    }
}

#[test]
fn help_and_version_are_answered() {
    let version = run(&["--version"]);
    assert_eq!(
        (version.status.code(), out(&version)),
        (Some(0), format!("nearside {}\n", env!("CARGO_PKG_VERSION")))
    );
    let help = out(&run(&["--help"]));
    for part in ["serve", "dev", "check", "--max-memory <SIZE>", "NEARSIDE_MAX_MEMORY", "[default: 64mb]"] {
        assert!(help.contains(part), "{part} in {help}");
    }
}

#[test]
fn an_address_that_others_can_reach_is_warned_of_unless_a_password_is_asked_for() {
    for (listen, warns) in [
        ("0.0.0.0:6380", true),
        ("[::]:6380", true),
        ("192.0.2.1:6380", true),
        ("cache.example:6380", true),
        ("127.0.0.1:6380,0.0.0.0:6381", true),
        ("127.0.0.7:6380", false),
        ("[::1]:6380", false),
        ("localhost:6380", false),
        ("6380,unix:/run/n.sock", false),
    ] {
        let output = run(&["check", "--listen", listen]);
        assert_eq!(output.status.code(), Some(0), "{listen}");
        let report = out(&output);
        assert_eq!(report.contains("# warning: listen: "), warns, "{listen}: {report}");
        let asking = nearside()
            .args(["check", "--listen", listen, "--auth", "password"])
            .env("NEARSIDE_PASSWORD", "sesame")
            .output()
            .expect("nearside runs");
        assert!(!out(&asking).contains("# warning"), "{listen}: {}", out(&asking));
    }
}

/// What `check` says of namespaces `users` and `a/b` with write-back and this journal.
fn with_journal(journal: &Path) -> Output {
    let journal = journal.to_str().expect("UTF-8");
    run(&["check", "--namespace", "users,a/b", "--write", "back", "--journal", journal])
}

#[test]
fn a_journal_that_cannot_be_used_is_refused_and_nothing_is_made_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = folder.path().join("journal");
    let output = with_journal(&journal);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(out(&output).contains("namespace.users.ack = \"disk\""), "{}", out(&output));
    assert!(!journal.exists());

    for (journal, says) in [
        (journal.join("deep"), format!("there is no folder {}; make it first", journal.display())),
        (folder.path().join("file"), "is no folder; name one".to_owned()),
    ] {
        fs::write(folder.path().join("file"), "").expect("written");
        let output = with_journal(&journal);
        assert_eq!(output.status.code(), Some(2), "{}", out(&output));
        let told = told(&output);
        assert!(told.contains(&says) && told.lines().count() == 1, "{told}");
        // The server itself refuses it too, before it opens a port.
        let path = journal.to_str().expect("UTF-8");
        let back = ["--namespace", "a", "--write", "back", "--journal", path];
        let served = run(&[&["--listen", "unix:/nowhere/n.sock"], &back[..]].concat());
        let told = self::told(&served);
        assert!(served.status.code() == Some(1) && told.contains(&says), "{told}");
    }

    let of_other = journal.join("a%2Fb");
    fs::create_dir_all(&of_other).expect("made");
    let lock = fs::File::create(of_other.join("lock")).expect("made");
    assert_eq!(with_journal(&journal).status.code(), Some(0), "nobody uses it");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let output = with_journal(&journal);
    let said = told(&output);
    assert!(output.status.code() == Some(2) && said.lines().count() == 1, "{said}");
    assert!(
        said.contains("namespace \"a/b\": its journal") && said.contains("in use by another process"),
        "{said}"
    );
}

#[test]
fn write_back_that_does_nothing_or_keeps_nothing_is_warned_of() {
    for (flags, warns) in [
        (&["--write", "back"][..], "# warning: write: back concerns keys of namespaces only"),
        (
            &["--write", "back", "--ack", "memory", "--namespace", "a"],
            "# warning: namespace \"a\": its writes are",
        ),
        (&["--ack", "memory", "--namespace", "a"], ""),
    ] {
        let report = out(&run(&[&["check"], flags].concat()));
        assert_eq!(report.contains("# warning"), !warns.is_empty(), "{report}");
        assert!(report.contains(warns), "{report}");
    }
    let refused = run(&["check", "--write", "back", "--namespace", "a"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(told(&refused).contains("needs a journal"), "{}", told(&refused));
}

#[test]
fn a_port_alone_is_an_upstream_on_this_host() {
    let report = out(&run(&["check", "--upstream", "7000"]));
    assert!(report.contains("upstream = \"redis://127.0.0.1:7000\""), "{report}");
}
