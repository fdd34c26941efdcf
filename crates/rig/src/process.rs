//! Child processes that never outlive the driver: each leads a process group of its own, is killed
//! with its group when dropped, and is killed by the kernel should the driver itself be killed.

use crate::{
    error::{Error, Result, io_error},
    limits::{LOG_TAIL_BYTES_MAX, LOG_TAIL_LINES_MAX},
    usage::{Usage, group_usage},
};
use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process_group,
        set_parent_process_death_signal, waitid,
    },
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// How a child ended, and what it had used by then.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Processor time of the whole group.
    pub cpu_seconds: f64,
}

/// A child process and the group that it leads.
///
/// Its standard output goes to `NAME.out` and its standard error to `NAME.log`, both in the
/// directory given and both appended to, so that a restarted child continues them.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    group: Pid,
    out: PathBuf,
    log: PathBuf,
    /// Set once the child was waited for; its identifiers mean nothing from then on.
    ended: Option<Ended>,
}

impl Process {
    /// Starts a child. Call it from a thread that lives as long as the child should: the kernel
    /// kills the child when that thread ends.
    pub fn spawn(
        name: &'static str,
        program: &Path,
        arguments: &[OsString],
        directory: &Path,
    ) -> Result<Self> {
        let out = directory.join(format!("{name}.out"));
        let log = directory.join(format!("{name}.log"));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(append(&out)?)
            .stderr(append(&log)?)
            .process_group(0);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(io_error(format!("starting {}", program.display())))?;
        let group = Pid::from_child(&child);
        Ok(Self { name, child, group, out, log, ended: None })
    }

    /// What the child is called in messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Identifier of the child and of its group.
    pub fn group(&self) -> Pid {
        self.group
    }

    /// First complete line of standard output, once there is one.
    pub fn first_line(&self) -> Result<Option<String>> {
        Ok(self.output()?.split_once('\n').map(|(line, _)| line.to_owned()))
    }

    /// Last line of standard output; to be asked when the child has ended.
    pub fn last_line(&self) -> Result<Option<String>> {
        Ok(self.output()?.lines().next_back().map(str::to_owned))
    }

    /// What the group uses now; nothing once the child was waited for.
    pub fn usage(&self) -> Usage {
        if self.ended.is_some() { Usage::default() } else { group_usage(self.group) }
    }

    /// Whether the child has ended by itself. If so, what is left of its group is killed.
    pub fn poll(&mut self) -> Result<Option<Ended>> {
        if self.ended.is_none() && self.is_zombie()? {
            return self.reap().map(Some);
        }
        Ok(self.ended)
    }

    /// An error unless the child still runs.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.poll()? {
            None => Ok(()),
            Some(ended) => Err(Error::EndedEarly {
                name: self.name,
                status: ended.status,
                log: self.log_tail(),
            }),
        }
    }

    /// Sends a signal to the whole group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        match kill_process_group(self.group, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => {
                Err(io_error(format!("sending {signal:?} to {}", self.name))(error.into()))
            }
        }
    }

    /// Kills the group and waits for the child.
    pub fn kill(&mut self) -> Result<Ended> {
        self.signal(Signal::KILL)?;
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        let exited = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.group), exited)
            .map_err(io::Error::from)
            .map_err(io_error(format!("waiting for {}", self.name)))?;
        self.reap()
    }

    /// The end of what the child wrote to standard error, or else to standard output.
    pub fn log_tail(&self) -> String {
        let log = tail(&self.log).unwrap_or_default();
        if log.is_empty() { tail(&self.out).unwrap_or_default() } else { log }
    }

    fn output(&self) -> Result<String> {
        fs::read_to_string(&self.out).map_err(io_error(format!("reading {}", self.out.display())))
    }

    /// Whether the child waits to be waited for; then its time can still be read.
    fn is_zombie(&self) -> Result<bool> {
        let exited = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let state = waitid(WaitId::Pid(self.group), exited)
            .map_err(io::Error::from)
            .map_err(io_error(format!("asking for the state of {}", self.name)))?;
        Ok(state.is_some())
    }

    /// Takes the zombie's figures, then its group's lives, then its status. In this order: the
    /// zombie keeps the group's number from being given to somebody else.
    fn reap(&mut self) -> Result<Ended> {
        let cpu_seconds = group_usage(self.group).cpu_seconds;
        self.signal(Signal::KILL)?;
        let status = self.child.wait().map_err(io_error(format!("waiting for {}", self.name)))?;
        let ended = Ended { status, cpu_seconds };
        self.ended = Some(ended);
        Ok(ended)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped group (SIGSTOP) dies of SIGKILL too. Nobody is left to be told of a failure.
        let _result = self.kill();
    }
}

/// Has the kernel send SIGKILL to the child when the driver dies, however it dies.
fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The driver may have died before the line above took effect.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed:
    // it makes two plain system calls (prctl, getppid), allocates nothing, takes no lock, and both
    // of its errors are plain codes.
    unsafe { command.pre_exec(before_exec) };
}

fn append(path: &Path) -> Result<File> {
    File::options()
        .append(true)
        .create(true)
        .open(path)
        .map_err(io_error(format!("opening {}", path.display())))
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_TAIL_LINES_MAX)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::process::ExitStatusExt,
        time::{Duration, Instant},
    };

    fn shell(script: &str, directory: &Path) -> Process {
        let arguments = ["-c".into(), script.into()];
        Process::spawn("shell", Path::new("/bin/sh"), &arguments, directory).unwrap()
    }

    /// Polls until there is something.
    fn eventually<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(value) = poll() {
                return value;
            }
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait(process: &mut Process) -> Ended {
        eventually("the child did not end", || process.poll().unwrap())
    }

    fn wait_for_empty(group: Pid) {
        eventually("the group lives on", || {
            (rustix::process::test_kill_process_group(group) == Err(Errno::SRCH)).then_some(())
        });
    }

    /// Scenario: a child burns processor time, writes to both outputs and fails.
    /// Guarantees: its status, time, first line and log are known after its end.
    #[test]
    fn an_ended_child_is_described() {
        let directory = tempfile::tempdir().unwrap();
        let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo out; echo end; echo err >&2; exit 3";
        let mut process = shell(script, directory.path());
        let ended = wait(&mut process);
        assert_eq!(ended.status.code(), Some(3));
        assert!(ended.cpu_seconds > 0.0);
        assert_eq!(process.first_line().unwrap().as_deref(), Some("out"));
        assert_eq!(process.last_line().unwrap().as_deref(), Some("end"));
        let message = process.expect_running().unwrap_err().to_string();
        assert!(message.contains("exit status: 3") && message.ends_with("err"), "{message}");
    }

    /// Scenario: a shell with a background child is dropped while both run.
    /// Guarantees: the whole group is gone.
    #[test]
    fn dropping_kills_the_group() {
        let directory = tempfile::tempdir().unwrap();
        let process = shell("sleep 1000 & echo up; wait", directory.path());
        eventually("no first line", || process.first_line().unwrap());
        let group = process.group();
        drop(process);
        wait_for_empty(group);
    }

    /// Scenario: a shell ends and leaves a child of its own behind.
    /// Guarantees: noticing the end kills the rest of the group.
    #[test]
    fn leftovers_of_an_ended_child_are_killed() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("sleep 1000 & exit 0", directory.path());
        let group = process.group();
        assert!(wait(&mut process).status.success());
        wait_for_empty(group);
    }

    /// Scenario: a stopped child is killed, then asked again.
    /// Guarantees: it dies of SIGKILL, and later calls repeat what is known.
    #[test]
    fn a_stopped_child_can_be_killed() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("sleep 1000", directory.path());
        process.signal(Signal::STOP).unwrap();
        assert!(process.poll().unwrap().is_none());
        assert_eq!(process.kill().unwrap().status.signal(), Some(9));
        assert_eq!(process.kill().unwrap().status.signal(), Some(9));
        process.signal(Signal::TERM).unwrap();
    }

    /// Scenario: the thread that started a child ends, as a killed driver would.
    /// Guarantees: the kernel kills the child.
    #[test]
    fn a_child_dies_with_its_parent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let mut process = std::thread::spawn(move || shell("sleep 1000", &path)).join().unwrap();
        assert_eq!(wait(&mut process).status.signal(), Some(9));
    }

    /// Scenario: a program that does not exist.
    /// Guarantees: the error names it.
    #[test]
    fn a_missing_program_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let program = Path::new("/nonexistent/agent");
        let error = Process::spawn("agent", program, &[], directory.path()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/agent"), "{error}");
    }

    /// Scenario: a log longer than what is shown.
    /// Guarantees: only its last lines are.
    #[test]
    fn the_tail_is_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let text: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
        fs::write(&path, text).unwrap();
        let shown = tail(&path).unwrap();
        assert_eq!(shown.lines().count(), LOG_TAIL_LINES_MAX);
        assert!(shown.ends_with("line 9999"));
    }
}
