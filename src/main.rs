//! The nearside program: settings, log, private server if asked for, serve, exit code.
//!
//! Exit codes: 0 after a clean stop, 1 if it could not run, or `check --connect` finds that nothing can be cached, 2 if the command
//! line or the configuration is wrong, in which case no port was opened.

use std::{
    error::Error,
    io::{ErrorKind, Write, stdout},
    process::ExitCode,
};

use anstream::AutoStream;
use nearside::{
    config::{Config, ConfigError, Invocation, Task, Top, Upstream, completions, manual},
    dev::DevServer,
    logging,
    server::{ConfigSource, Server, Shutdown, check, check_journals},
    top,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let invocation = match Invocation::of_process() {
        Ok(invocation) => invocation,
        Err(error) => return error.tell(),
    };
    match &invocation.task {
        Task::Serve | Task::Dev => serve(invocation),
        Task::Check => show_settings(&invocation),
        Task::Connect => show_upstream(&invocation),
        Task::Top(of) => show(of),
        Task::Completions(shell) => print(&completions(*shell)),
        Task::Man => print(&manual()),
    }
}

/// Shows what was asked for, on standard output: in colour if that is wanted there.
fn print(text: &[u8]) -> ExitCode {
    let mut out = AutoStream::new(stdout(), logging::colours(&stdout()));
    match out.write_all(text).and_then(|()| out.flush()) {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            tell(&format!("standard output cannot be written: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Shows what a running sidecar does.
fn show(of: &Top) -> ExitCode {
    let shown = match of.once {
        true => top::once(of).map(|page| print(page.as_bytes())),
        false => top::watch(of).map(|()| ExitCode::SUCCESS),
    };
    shown.unwrap_or_else(|why| {
        tell(&why);
        ExitCode::FAILURE
    })
}

fn tell(what: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "nearside: {what}");
}

fn serve(invocation: Invocation) -> ExitCode {
    let log = match logging::init(&invocation.config) {
        Ok(log) => log,
        Err(error) => {
            tell(&format!("cannot start: there can be no thread for the log: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match run(invocation, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The settings, on standard output; or what is wrong with them that only the machine tells.
fn show_settings(invocation: &Invocation) -> ExitCode {
    match check_journals(&invocation.config) {
        none if none.is_empty() => print(invocation.report().as_bytes()),
        problems => ConfigError::Invalid(problems).tell(),
    }
}

/// What the upstream allows, on standard output.
fn show_upstream(invocation: &Invocation) -> ExitCode {
    let findings = match check(&invocation.config) {
        Ok(findings) => findings,
        Err(error) => {
            tell(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let printed = print(findings.text.as_bytes());
    if findings.caches { printed } else { ExitCode::FAILURE }
}

fn run(invocation: Invocation, log: &logging::Log) -> Result<(), Box<dyn Error>> {
    // Dropped, and so stopped, after the last client was served.
    let private = if invocation.task == Task::Dev { Some(DevServer::start()?) } else { None };
    let upstream = private.as_ref().map(DevServer::upstream);
    let read = move || Ok(in_front_of(Invocation::of_process()?.config, upstream.as_ref()));
    let config = in_front_of(invocation.config, private.as_ref().map(DevServer::upstream).as_ref());
    let source = ConfigSource::new(read, log.levels());
    let server = if invocation.takeover { Server::take_over(config)? } else { Server::bind(config)? };
    server.reloading(source).run(Shutdown::on_signals())?;
    Ok(())
}

/// Likewise in front of a private upstream, which asks for no password.
fn in_front_of(mut config: Config, private: Option<&Upstream>) -> Config {
    if let Some(private) = private {
        config.upstream = private.clone();
        (config.upstream_password_file, config.upstream_password_command) = (None, None);
    }
    config
}
