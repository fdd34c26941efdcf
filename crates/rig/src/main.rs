//! Entry point of `rig`: parses the command line, runs a scenario, prints its verdict, and turns it
//! into an exit status. 0 is a pass, 1 a failed verdict, 2 no verdict; a signal's own from 128 on.

use anyhow::Context;
use clap::FromArgMatches;
use rig::{
    chaos::chaos,
    churn::churn,
    cli::{Cli, LoadOptions, Scenario},
    error::Error,
    flood::flood,
    interrupt::Interrupt,
    kill::kill,
    many::many,
    outage::outage,
    run::run,
    verdict::Verdict,
};
use serde::Serialize;
use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};
use thyme_core::causes::in_one_line;

const FAILED: u8 = 1;
const NO_VERDICT: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::from_arg_matches(&Cli::command_here().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match scenario(&cli.scenario) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            // A closed standard error leaves the exit status to tell.
            let _result = writeln!(stderr().lock(), "rig: {}", in_one_line(error.as_ref()));
            match error.downcast_ref() {
                Some(Error::Interrupted(stop)) => ExitCode::from(stop.exit_code()),
                _ => ExitCode::from(NO_VERDICT),
            }
        }
    }
}

fn scenario(scenario: &Scenario) -> anyhow::Result<bool> {
    let interrupt = Interrupt::install().context("taking over signals")?;
    match scenario {
        Scenario::Run(options) => report(&options.load, &run(options, &interrupt)?, &[]),
        Scenario::Kill(options) => {
            let verdict = kill(options, &interrupt)?;
            report(&options.load, &verdict, &verdict.details.rows())
        }
        Scenario::Outage(options) => {
            let verdict = outage(options, &interrupt)?;
            report(&options.load, &verdict, &verdict.details.rows())
        }
        Scenario::Flood(options) => {
            let verdict = flood(options, &interrupt)?;
            report(&options.load, &verdict, &verdict.details.rows())
        }
        Scenario::Many(options) => {
            let verdict = many(options, &interrupt)?;
            report(&options.load, &verdict, &verdict.details.rows())
        }
        Scenario::Churn(options) => {
            let verdict = churn(options, &interrupt)?;
            report(&options.load, &verdict, &verdict.details.rows())
        }
        Scenario::Chaos(options) => {
            let verdict = chaos(options, &interrupt)?;
            report(&options.load, &verdict, &verdict.details.rows())
        }
    }
}

fn report<D: Serialize>(
    load: &LoadOptions,
    verdict: &Verdict<D>,
    rows: &[(&str, String)],
) -> anyhow::Result<bool> {
    stdout().lock().write_all(verdict.table(rows).as_bytes()).context("printing the table")?;
    if let Some(path) = &load.json {
        verdict.write_json(path)?;
    }
    Ok(verdict.passed())
}
