//! The nearside program: settings, log, private server if asked for, serve, exit code.
//!
//! Exit codes: 0 after a clean stop, 1 if it could not run, 2 if the configuration is wrong, in which case no
//! port was opened.

use std::{error::Error, io::Write, process::ExitCode};

use nearside::{
    config::{Config, Invocation, Task, Upstream},
    dev::DevServer,
    logging,
    server::{ConfigSource, Server, Shutdown, check},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let invocation = match Invocation::of_process() {
        Ok(invocation) => invocation,
        Err(error) => return error.tell(),
    };
    if invocation.task == Task::Check {
        // A reader that has seen enough, such as `head`, is no failure.
        let _ = std::io::stdout().write_all(invocation.report().as_bytes());
        return ExitCode::SUCCESS;
    }
    if invocation.task == Task::Connect {
        return show_upstream(&invocation);
    }
    let log = match logging::init(&invocation.config) {
        Ok(log) => log,
        Err(_) => return ExitCode::FAILURE,
    };
    match run(invocation, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What the upstream allows, on standard output.
fn show_upstream(invocation: &Invocation) -> ExitCode {
    let findings = match check(&invocation.config) {
        Ok(findings) => findings,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "nearside: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let _ = std::io::stdout().write_all(findings.text.as_bytes());
    if findings.caches { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
