//! Starts `rig` in a directory of its own and finds the processes that it started. Each is known by
//! a variable of its environment, which children inherit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Time for anything to happen on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const MARK: &str = "THYME_RIG_TEST";

/// The variables that `rig` reads; a test must not depend on the caller's.
const VARIABLES: [&str; 22] = [
    "RATE",
    "PODS",
    "DURATION",
    "LINES",
    "KIND",
    "KEEP",
    "PROTOCOL",
    "COMPRESSION",
    "AGENT",
    "AGENT_CONFIG",
    "KILLS",
    "GAP_MIN",
    "GAP_MAX",
    "ROTATE_SIZE",
    "ROTATE_FILES",
    "ROTATE_INTERVAL",
    "OUTAGE",
    "OUTAGE_MODE",
    "FLOOD_RATE",
    "IDLE",
    "STARTUP_MAX",
    "OUTAGE_KILLS",
];

/// A place for one start of `rig`.
pub(crate) struct Driver {
    base: tempfile::TempDir,
    mark: String,
}

impl Driver {
    /// Makes the place.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}", std::process::id());
        Self { base: tempfile::tempdir().unwrap(), mark }
    }

    /// `rig`, with its trees in this place.
    pub(crate) fn command(&self, scenario: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(rig());
        command.arg(scenario).arg("--tmp").arg(self.trees()).args(arguments).env(MARK, &self.mark);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command
    }

    /// Where trees are made.
    pub(crate) fn trees(&self) -> PathBuf {
        let trees = self.base.path().join("trees");
        fs::create_dir_all(&trees).unwrap();
        trees
    }

    /// A file beside them.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    /// Fails when a tree or a process is left.
    pub(crate) fn assert_nothing_left(&self) {
        let left: Vec<PathBuf> =
            fs::read_dir(self.trees()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?} left behind");
        self.wait_for_no_process();
    }

    /// Waits until no process of this place lives.
    pub(crate) fn wait_for_no_process(&self) {
        eventually("processes left behind", || self.processes().is_empty().then_some(()));
    }

    /// Waits for a process of this place, by the start of its name.
    pub(crate) fn wait_for_process(&self, name: &str) -> i32 {
        eventually(name, || {
            let (pid, _) = self.processes().into_iter().find(|(_, found)| found == name)?;
            Some(pid)
        })
    }

    /// Identifiers and names of all living processes of this place.
    fn processes(&self) -> Vec<(i32, String)> {
        let mark = format!("{MARK}={}", self.mark);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A zombie's environment is empty: it is no longer there, only not waited for.
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes()) {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                found.push((pid, name.trim_end().to_owned()));
            }
        }
        found
    }
}

/// Polls until there is something.
pub(crate) fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for the end, and shows everything that was said should the test fail.
pub(crate) fn finish(child: Child) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr).into_owned(),
    );
    println!("{status}\n{out}\n{err}");
    (status.code(), out, err)
}

/// The `rig` under test, with the other binaries beside it.
///
/// `cargo test --workspace` has built them. When only this package is tested they may be missing,
/// and are built here; present ones are taken as they are.
pub(crate) fn rig() -> &'static Path {
    static RIG: OnceLock<&Path> = OnceLock::new();
    RIG.get_or_init(|| {
        let rig = Path::new(env!("CARGO_BIN_EXE_rig"));
        let directory = rig.parent().unwrap();
        let names = ["thyme-agent", "log-generator", "nop-collector"];
        if names.iter().any(|name| !directory.join(name).is_file()) {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--target-dir"]).arg(directory.parent().unwrap());
            build.args(names.iter().flat_map(|name| ["--bin", name]));
            if directory.ends_with("release") {
                build.arg("--release");
            }
            build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
            assert!(build.status().unwrap().success(), "the binaries do not build");
        }
        rig
    })
}
