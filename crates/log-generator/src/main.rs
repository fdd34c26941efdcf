//! Entry point of `log-generator`: reads the command line, runs it, and turns the result into an exit
//! status.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use log_generator::options::{Options, Target};
use log_generator::run::{RunError, run};

/// What a shell expects of options without meaning.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let plan = match Options::parse().plan() {
        Ok(plan) => plan,
        Err(error) => return complain(&error, ExitCode::from(USAGE)),
    };
    let to_stdout = matches!(plan.target, Target::Stdout { .. });
    match run(plan) {
        Ok(()) => ExitCode::SUCCESS,
        // A container's stderr is one of its logs: nothing but lines may stand there.
        Err(RunError::Write(_) | RunError::Stuck | RunError::Writer) if to_stdout => {
            ExitCode::FAILURE
        }
        Err(error) => complain(&error, ExitCode::FAILURE),
    }
}

fn complain(error: &dyn std::error::Error, status: ExitCode) -> ExitCode {
    // Where stderr is closed, the exit status has to do.
    match writeln!(io::stderr(), "log-generator: {error}") {
        Ok(()) | Err(_) => status,
    }
}
