//! What the program prints for a shell: completions, the manual page, exit codes, colours.

use crate::support;

use std::process::{Command, Output, Stdio};

use support::{Redis, free_port};

fn nearside() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nearside"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("NEARSIDE_") || ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"].contains(&&*name) {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    nearside().args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_shell_completes_the_command_line() {
    for (shell, says) in
        [("bash", "complete -F"), ("zsh", "#compdef nearside"), ("fish", "complete -c nearside")]
    {
        // A wrong setting does not stand in the way.
        let output =
            nearside().args(["completions", shell]).env("NEARSIDE_WORKERS", "many").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = out(&output);
        assert!(
            script.contains(says) && script.contains("max-memory") && script.contains("completions"),
            "{shell}"
        );
    }
    // As bash itself would be asked: the words that follow "nearside ch" and "nearside --max-m".
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nearside.bash");
    std::fs::write(&file, run(&["completions", "bash"]).stdout).unwrap();
    let script = "source \"$1\"; for last in ch --max-m; do COMP_WORDS=(nearside $last) COMP_CWORD=1; \
                  _nearside nearside $last nearside; echo \"${COMPREPLY[@]}\"; done";
    let asked = Command::new("bash").args(["--norc", "-c", script, "bash"]).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&asked.stdout), "check\n--max-memory\n", "{asked:?}");
    assert_eq!(run(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn the_manual_page_is_one() {
    let output = run(&["man"]);
    assert_eq!(output.status.code(), Some(0));
    let page = out(&output);
    assert!(page.lines().any(|line| line.starts_with(".TH nearside 1")), "{page}");
    // All lines that begin with a dot are requests of man(7), by which it is shown as it is meant.
    for line in page.lines().filter(|line| line.starts_with('.')) {
        let request = line[1..].split(' ').next().unwrap();
        assert!(
            ["TH", "SH", "SS", "TP", "IP", "RS", "RE", "ie", "el", "br", "PP"].contains(&request),
            "{line}"
        );
    }
    assert_eq!(page, out(&run(&["man"])));
}

/// The table in docs/deployment.md says the same.
#[test]
fn exit_codes_tell_what_came_of_it() {
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let dead = free_port().to_string();
    for (arguments, code) in [
        (&["check"][..], 0),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["man"], 0),
        (&["completions", "zsh"], 0),
        (&["check", "--connect", "--upstream", &nowhere], 1),
        (&["top", "--once", &dead], 1),
        // There is no terminal.
        (&["top", &dead], 1),
        (&["--listen", "192.0.2.1:1", "--admin", "off"], 1),
        (&["--workers", "many"], 2),
        (&["serve", "--no-such-flag"], 2),
        (&["chek"], 2),
        (&["top", "--admin", "off"], 2),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        if code > 0 && !arguments.contains(&"--connect") {
            assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
        }
    }
    // A reader that has seen enough is no failure, and a full disk is one.
    for (into, code) in [("| true", 0), (">/dev/full", 1)] {
        let script = format!("set -o pipefail; \"$1\" man {into}");
        let status =
            Command::new("bash").args(["-c", &script, "bash", env!("CARGO_BIN_EXE_nearside")]).status();
        assert_eq!(status.unwrap().code(), Some(code), "{into}");
    }
}

#[test]
fn colours_are_for_terminals_unless_they_are_asked_for() {
    let redis = Redis::start();
    let upstream = format!("redis://{}", redis.address());
    let check = ["check", "--connect", "--upstream", &upstream];
    let warned = ["check", "--listen", "0.0.0.0:0"];
    let log = ["--listen", "192.0.2.1:1", "--admin", "off"];
    for (arguments, mark) in [(&check[..], "yes"), (&warned, "# warning"), (&log, "ERROR")] {
        let shown = |variables: &[(&str, &str)]| {
            let output =
                nearside().args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).output();
            let output = output.unwrap();
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        };
        for (variables, coloured) in [
            (&[][..], false),
            (&[("CLICOLOR_FORCE", "1")], true),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
            (&[("CLICOLOR_FORCE", "0")], false),
            (&[("NO_COLOR", "1")], false),
        ] {
            let text = shown(variables);
            assert!(text.contains(mark), "{arguments:?} {variables:?}: {text}");
            assert_eq!(text.contains('\x1b'), coloured, "{arguments:?} {variables:?}: {text:?}");
        }
    }
}

/// The program is another one here, for it is packed and compressed.
#[test]
fn a_release_has_the_same_bytes_each_time() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_nearside"));
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let release = |into: &str, zone: &str| {
        let output = Command::new(format!("{root}scripts/release"))
            .args(["--binary", program.to_str().unwrap(), dir.path().join(into).to_str().unwrap()])
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .env("TZ", zone)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        out(&output)
    };
    let (one, other) = (release("one", "UTC"), release("other", "Asia/Tokyo"));
    assert_eq!((one.lines().count(), &one), (2, &other));
    let archive = one.lines().next().unwrap().split_whitespace().nth(1).unwrap();
    let listed = Command::new("tar").arg("tzf").arg(dir.path().join("one").join(archive)).output().unwrap();
    let listed = out(&listed);
    for file in [
        "nearside",
        "man/nearside.1",
        "completions/nearside.bash",
        "completions/_nearside",
        "LICENSE",
        "sbom.cdx.json",
    ] {
        assert!(
            listed.lines().any(|line| line.split_once('/').is_some_and(|(_, path)| path == file)),
            "{file}: {listed}"
        );
    }
}
