//! Entry point of `cluster-benchmark`: command line, exit status, and the last word on what still
//! costs money. 0 is a pass, 1 a failed verdict or something left, 2 no verdict; a signal's own from
//! 128 on.

use std::{
    io::{Write, stderr},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::Parser;
use cluster_benchmark::{
    cli::{Cli, Place},
    cost::default_an_hour,
    error::{Error, Result},
    run,
    standing::{Stage, Standing},
    tools::Tools,
};
use rig::interrupt::Interrupt;

const FAILED: u8 = 1;
const NO_VERDICT: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut standing = Standing {
        stage: Stage::Nothing,
        cluster: String::new(),
        region: String::new(),
        dollars_an_hour: default_an_hour(),
    };
    let result = catch_unwind(AssertUnwindSafe(|| execute(&cli, &mut standing)))
        .unwrap_or_else(|_said| Err(Error::Refused("a fault of this program; see above".into())));
    let status = match &result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            print(&format!("cluster-benchmark: {error}"));
            match error {
                Error::Interrupted(signal) => ExitCode::from(signal.exit_code()),
                _ => ExitCode::from(NO_VERDICT),
            }
        }
    };
    let still = standing.to_string();
    if !still.is_empty() {
        print(&still);
    }
    status
}

fn execute(cli: &Cli, standing: &mut Standing) -> Result<bool> {
    let root = run::root()?;
    let interrupt = Interrupt::install()
        .map_err(|error| Error::Refused(format!("taking over signals: {error}")))?;
    let mut tools = Tools::new(root, interrupt);
    // Nothing may wait for a key: the AWS command line would show long answers in a pager.
    tools.set("AWS_PAGER", "");
    // It would outrank the workspace that is chosen for the cluster.
    tools.unset("TF_WORKSPACE");
    let say = |text: &str| {
        let now = jiff::Timestamp::now().strftime("%H:%M:%S");
        print(&format!("{now}  {text}"));
    };
    match &cli.place {
        Place::Aws(options) => {
            let cluster = options.destroy.as_ref().unwrap_or(&options.cluster);
            standing.cluster.clone_from(cluster);
            standing.region.clone_from(&options.region);
            tools.set("AWS_REGION", options.region.as_str());
            run::on_aws(options, &tools, standing, &say)
        }
        Place::Here(options) => run::here(options, &tools, &say),
    }
}

fn print(text: &str) {
    // A closed standard error leaves the exit status to tell.
    let _result = writeln!(stderr().lock(), "{text}");
}
