//! What the command line tells of itself: a script by which a shell completes it, and the manual page. Both are made from
//! the one definition that also reads it.

use std::io;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::cli::{EXIT_CODES, command};
use super::settings::settings;

const NAME: &str = "nearside";

/// The script for this shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), NAME, &mut script);
    script
}

/// The manual page, in roff. The same for the same version: it has no date.
pub fn manual() -> Vec<u8> {
    let mut page = Vec::new();
    // Nothing that is written to memory fails.
    let _infallible = write(&mut page);
    page
}

fn write(page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(command()).manual("nearside manual");
    man.render_title(page)?;
    man.render_name_section(page)?;
    synopsis().to_writer(page)?;
    man.render_description_section(page)?;
    commands().to_writer(page)?;
    man.render_options_section(page)?;
    rest().to_writer(page)
}

/// In short: all options would fill the screen.
fn synopsis() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold(NAME), roman(" [options] [command]")]);
    roff
}

/// Each command with the flags that it alone has; this page is that of all of them.
fn commands() -> Roff {
    let (mut roff, command) = (Roff::new(), command());
    roff.control("SH", ["COMMANDS"]);
    for command in command.get_subcommands() {
        roff.control("TP", []);
        roff.text([bold(format!("{NAME} {}{}", command.get_name(), arguments(command)))]);
        roff.text([roman(command.get_about().map(ToString::to_string).unwrap_or_default())]);
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let name = argument.get_long().map_or(argument.get_id().to_string(), |long| format!("--{long}"));
            roff.control("IP", []);
            roff.text([bold(name), roman(format!(": {help}"))]);
        }
    }
    roff
}

/// What a command is given in the line of its name.
fn arguments(command: &Command) -> String {
    let positional = command.get_positionals().map(|argument| match argument.is_required_set() {
        true => format!(" <{}>", argument.get_id()),
        false => format!(" [{}]", argument.get_id()),
    });
    positional.collect()
}

fn rest() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, says) in EXIT_CODES {
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(says)]);
    }
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([roman(
        "Each option has a variable, and each is a key of the file. An option counts before a variable, a variable \
         before the file; a variable that is empty counts as not set.",
    )]);
    for setting in settings() {
        roff.control("TP", []);
        roff.text([bold(setting.variable())]);
        roff.text([roman("as "), bold(format!("--{}", setting.name))]);
    }
    for (name, says) in [
        ("NEARSIDE_CONFIG", "the file, as --config"),
        ("NEARSIDE_PASSWORD", "what clients have to give, with auth = \"password\""),
        ("NO_COLOR", "without colours, also on a terminal, if it is not empty"),
        ("CLICOLOR_FORCE", "in colours, also where there is no terminal, if it is neither empty nor 0"),
    ] {
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(says)]);
    }
    roff.control("SH", ["SIGNALS"]);
    for (name, says) in [
        ("SIGTERM, SIGINT", "end it when what is in flight is done; a second one ends it at once"),
        ("SIGHUP", "has it read anew what can change while it runs"),
    ] {
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(says)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("redis-server"), roman("(1), "), bold("redis-cli"), roman("(1)")]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_option_and_command() {
        let page = String::from_utf8(manual()).unwrap().replace('\\', "");
        for setting in settings() {
            assert!(page.contains(&format!("--{}", setting.name)), "{}", setting.name);
            assert!(page.contains(&setting.variable()), "{}", setting.variable());
        }
        for command in command().get_subcommands() {
            assert!(page.contains(&format!("nearside {}", command.get_name())), "{}", command.get_name());
        }
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "SIGNALS"] {
            assert!(
                page.contains(&format!(".SH {section}")) || page.contains(&format!(".SH \"{section}\"")),
                "{section}"
            );
        }
        assert_eq!(manual(), manual(), "it has no date");
    }

    #[test]
    fn every_shell_completes_every_option() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = String::from_utf8(completions(shell)).unwrap();
            for name in settings().iter().map(|setting| &*setting.name).chain(["completions", "check"]) {
                assert!(script.contains(name), "{shell}: {name}");
            }
        }
    }
}
