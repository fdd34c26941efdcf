//! Entry point of `cluster-benchmark`: command line, exit status, and the last word on what still
//! costs money. 0 is a pass, 1 a failed verdict or something left, 2 no verdict; a signal's own from
//! 128 on.

use std::{
    fs,
    io::{Write, stderr},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::Parser;
use cluster_benchmark::{
    cli::{Cli, Place},
    cost::default_an_hour,
    error::{Error, Result, file_error},
    run,
    standing::{Stage, Standing},
    tools::Tools,
    verdict::Outcome,
};
use rig::interrupt::Interrupt;

const FAILED: u8 = 1;
const NO_VERDICT: u8 = 2;

/// File beside a cluster's kubeconfig that says what still costs money.
const NOTE: &str = "STILL-COSTS-MONEY";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut standing = Standing {
        stage: Stage::Nothing,
        cluster: String::new(),
        region: String::new(),
        dollars_an_hour: default_an_hour(&run::today()),
    };
    let result = catch_unwind(AssertUnwindSafe(|| execute(&cli, &mut standing)))
        .unwrap_or_else(|_said| Err(Error::Refused("a fault of this program; see above".into())));
    let status = match &result {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(FAILED),
        Ok(Outcome::Invalid) => ExitCode::from(NO_VERDICT),
        Err(error) => {
            print(&format!("cluster-benchmark: {error}"));
            match error {
                Error::Interrupted(signal) => ExitCode::from(signal.exit_code()),
                _ => ExitCode::from(NO_VERDICT),
            }
        }
    };
    say_what_stands(&standing);
    status
}

/// The last word; also in a file, for whoever closed the terminal.
fn say_what_stands(standing: &Standing) {
    if standing.cluster.is_empty() {
        return;
    }
    let still = standing.to_string();
    let note = run::root().map(|root| run::directory(&root, &standing.cluster).join(NOTE));
    let written = match (&note, still.is_empty()) {
        (Ok(note), false) => fs::write(note, &still),
        (Ok(note), true) if note.exists() => fs::remove_file(note),
        _ => Ok(()),
    };
    if let Err(error) = written {
        print(&format!("the file {NOTE} can't be kept: {error}"));
    }
    if !still.is_empty() {
        print(&still);
    }
}

fn execute(cli: &Cli, standing: &mut Standing) -> Result<Outcome> {
    let root = run::root()?;
    let interrupt = Interrupt::install()
        .map_err(|error| Error::Refused(format!("taking over signals: {error}")))?;
    let mut tools = Tools::new(root.clone(), interrupt);
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
            if !options.leftovers {
                standing.cluster.clone_from(cluster);
                standing.region.clone_from(&options.region);
            }
            tools.set("AWS_REGION", options.region.as_str());
            let directory = run::directory(&root, cluster);
            fs::create_dir_all(&directory).map_err(file_error(&directory))?;
            // The chosen workspace is kept there: nobody else's choice, nor another run's, is this
            // one's.
            tools.set("TF_DATA_DIR", directory.join("terraform").display().to_string());
            run::on_aws(options, &tools, standing, &say)
        }
        Place::Here(options) => run::here(options, &tools, &say),
    }
}

fn print(text: &str) {
    // A closed standard error leaves the exit status to tell.
    let _result = writeln!(stderr().lock(), "{text}");
}
