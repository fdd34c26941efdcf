//! A repository and a PATH of stand-ins in a temporary directory, and the program run in it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The longest that a test waits for the program.
const DEADLINE: Duration = Duration::from_secs(60);

const TOOLS: [&str; 7] = ["aws", "tofu", "kubectl", "docker", "git", "make", "curl"];

/// What the stand-ins need of the system.
const SYSTEM: [&str; 9] = ["bash", "env", "cat", "sleep", "touch", "cp", "rm", "wc", "mkdir"];

/// A place to run in.
pub(crate) struct Bench {
    directory: TempDir,
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) said: String,
    /// Every command, in order.
    pub(crate) record: Vec<String>,
}

impl Ended {
    /// Whether commands that begin or end so came in this order.
    #[track_caller]
    pub(crate) fn assert_order(&self, expected: &[&str]) {
        let mut commands = self.record.iter();
        for part in expected {
            let found = commands.any(|command| command.contains(part));
            assert!(found, "no {part:?} in its place in:\n{}", self.record.join("\n"));
        }
    }

    /// Commands that are the first of their kind; numbers in them aside.
    pub(crate) fn kinds(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let kind = |command: &String| command.replace(|one: char| one.is_ascii_digit(), "");
        self.record.iter().filter(|command| seen.insert(kind(command))).cloned().collect()
    }

    /// Where a command stands for the first time, from 0.
    #[track_caller]
    pub(crate) fn position(&self, command: &str) -> usize {
        let position = self.record.iter().position(|other| other == command);
        position.unwrap_or_else(|| panic!("no {command} in:\n{}", self.record.join("\n")))
    }

    /// Whether a command was given at all.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.record.iter().any(|command| command.contains(part))
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self { directory: TempDir::new().unwrap() };
        for path in ["repository/infrastructure/aws", "repository/deployment/aws", "bin", "state"] {
            fs::create_dir_all(bench.path(path)).unwrap();
        }
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/stand-in");
        for tool in TOOLS {
            symlink(&stand_in, bench.path("bin").join(tool)).unwrap();
        }
        for program in SYSTEM {
            let found = ["/bin", "/usr/bin"].iter().map(|place| Path::new(place).join(program));
            let found = found.into_iter().find(|path| path.exists()).unwrap();
            symlink(found, bench.path("bin").join(program)).unwrap();
        }
        bench
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Changes how the stand-ins behave.
    pub(crate) fn set(&self, name: &str, content: &str) -> &Self {
        fs::write(self.path("state").join(name), content).unwrap();
        self
    }

    pub(crate) fn unset(&self, name: &str) {
        fs::remove_file(self.path("state").join(name)).unwrap();
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path("state").join(name).exists()
    }

    pub(crate) fn state(&self, name: &str) -> String {
        fs::read_to_string(self.path("state").join(name)).unwrap_or_default()
    }

    pub(crate) fn without(&self, tool: &str) -> &Self {
        fs::remove_file(self.path("bin").join(tool)).unwrap();
        self
    }

    pub(crate) fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster-benchmark"));
        command
            .args(arguments)
            .current_dir(self.path("repository"))
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("STAND_IN", self.path("state"))
            .env("POLL_INTERVAL", "10ms")
            .env("QUIET_TIME", "20ms")
            .env("SAMPLE_INTERVAL", "50ms")
            .env("RAMPUP_MINUTES", "0")
            .env("COOLDOWN_MINUTES", "0")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.path("said")).unwrap());
        command.spawn().unwrap()
    }

    pub(crate) fn end(&self, mut child: Child) -> Ended {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > DEADLINE {
                child.kill().unwrap();
                let said = fs::read_to_string(self.path("said")).unwrap();
                panic!("no end; it said:\n{said}");
            }
            thread::sleep(Duration::from_millis(5));
        };
        Ended {
            status,
            said: fs::read_to_string(self.path("said")).unwrap(),
            record: self.state("record").lines().map(str::to_owned).collect(),
        }
    }

    pub(crate) fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        self.end(self.start(arguments, environment))
    }

    /// A short run on AWS.
    pub(crate) fn aws(&self, environment: &[(&str, &str)]) -> Ended {
        self.run(&["aws", "0.003"], environment)
    }

    /// The only report.
    pub(crate) fn report(&self) -> PathBuf {
        let reports = fs::read_dir(self.path("repository/local/reports")).unwrap();
        let mut reports = reports.map(|entry| entry.unwrap().path());
        let first = reports.next().unwrap();
        assert!(reports.next().is_none(), "more than one report");
        first
    }
}

/// Waits until a file is there.
#[track_caller]
pub(crate) fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < DEADLINE, "{} does not appear", path.display());
        thread::sleep(Duration::from_millis(5));
    }
}
