//! The nearside program: settings, log, private server if asked for, serve, exit code.
//!
//! Exit codes: 0 after a clean stop, 1 if it could not run, 2 if the configuration is wrong, in which case no
//! port was opened.

use std::{error::Error, io::Write, process::ExitCode};

use nearside::{
    config::{Invocation, Task},
    dev::DevServer,
    logging,
    server::{Server, Shutdown, check},
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
    let _log = match logging::init(&invocation.config) {
        Ok(log) => log,
        Err(_) => return ExitCode::FAILURE,
    };
    match run(invocation) {
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

fn run(invocation: Invocation) -> Result<(), Box<dyn Error>> {
    let mut config = invocation.config;
    // Dropped, and so stopped, after the last client was served.
    let private = if invocation.task == Task::Dev { Some(DevServer::start()?) } else { None };
    if let Some(private) = &private {
        config.upstream = private.upstream();
        // It asks for none.
        (config.upstream_password_file, config.upstream_password_command) = (None, None);
    }
    Server::bind(config)?.run(Shutdown::on_signals())?;
    Ok(())
}
