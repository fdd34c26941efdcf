//! Entry point of `rig`: parses the command line, runs a scenario, prints its verdict, and turns it
//! into an exit status. 0 is a pass, 1 a failed verdict, 2 no verdict; a signal's own from 128 on.

use anyhow::Context;
use clap::FromArgMatches;
use rig::{
    chaos::chaos,
    churn::churn,
    cli::{Cli, LoadOptions, Scenario},
    error::Error,
    fairness::fairness,
    interrupt::Interrupt,
    kill::kill,
    outage::outage,
    run::run,
    scale::scale,
    verdict::{Verdict, check_json},
};
use serde::Serialize;
use std::{
    env,
    io::{IsTerminal, Write, stderr, stdout},
    process::ExitCode,
};
use thyme_core::{
    causes::in_one_line,
    table::{Row, wants_colour},
};

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
    scenario.load().json.as_deref().map_or(Ok(()), check_json)?;
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
        Scenario::Fairness(options) => {
            let verdict = fairness(options, &interrupt)?;
            report(&options.load, &verdict, &verdict.details.rows())
        }
        Scenario::Scale(options) => {
            let verdict = scale(options, &interrupt)?;
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
    rows: &[Row],
) -> anyhow::Result<bool> {
    let variable = |name| env::var(name).ok();
    let (no_color, term) = (variable("NO_COLOR"), variable("TERM"));
    let colour = wants_colour(stdout().is_terminal(), no_color.as_deref(), term.as_deref());
    let table = verdict.table(rows, colour);
    stdout().lock().write_all(table.as_bytes()).context("printing the table")?;
    if let Some(path) = &load.json {
        verdict.write_json(path)?;
    }
    Ok(verdict.passed())
}
