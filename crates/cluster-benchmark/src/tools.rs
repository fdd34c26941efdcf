//! The operator's tools as processes: started with their arguments as a list (no shell), bounded in
//! time and output, interrupted gently, and recorded.
//!
//! Each runs in a process group of its own, so that Ctrl-C reaches this program first: a tool that
//! changes something (`tofu apply`) gets the signal once, and time to write down what it did.

use std::{
    cell::{Cell, RefCell},
    env,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use rig::interrupt::{Interrupt, StopSignal};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    error::{Error, Result, file_error},
    limits::{
        INTERRUPT_GRACE, MESSAGE_LINES_MAX, OUTPUT_BYTES_MAX, OUTPUT_END_MAX, QUESTION_MAX,
        WATCH_INTERVAL,
    },
};

/// A command to run.
#[derive(Clone, Debug)]
pub struct Invocation {
    program: String,
    arguments: Vec<String>,
    input: Vec<u8>,
    time_max: Duration,
    /// What it prints is shown while it runs.
    is_shown: bool,
}

impl Invocation {
    /// A question: quick, and what it prints is the answer.
    pub fn new<I: Into<String>>(program: &str, arguments: impl IntoIterator<Item = I>) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            input: Vec::new(),
            time_max: QUESTION_MAX,
            is_shown: false,
        }
    }

    /// Gives it something to read. Secrets go this way: arguments are seen by everybody.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Gives it another time than that of a question.
    pub fn within(mut self, time_max: Duration) -> Self {
        self.time_max = time_max;
        self
    }

    /// Shows what it prints while it runs.
    pub fn shown(mut self) -> Self {
        self.is_shown = true;
        self
    }

    /// The command line as one would type it.
    pub fn line(&self) -> String {
        let mut line = self.program.clone();
        for argument in &self.arguments {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
            if !argument.is_empty() && argument.bytes().all(plain) {
                write!(line, " {argument}")
            } else {
                write!(line, " '{}'", argument.replace('\'', "'\\''"))
            }
            .expect("writing to a String can't fail");
        }
        line
    }
}

/// Runs commands in one directory.
#[derive(Debug)]
pub struct Tools {
    directory: PathBuf,
    environment: Vec<(String, String)>,
    removed: Vec<&'static str>,
    interrupt: Interrupt,
    /// The signal that came. From then on nothing is started any more, whoever passed over an error.
    stopped: Cell<Option<StopSignal>>,
    record: RefCell<Option<File>>,
}

impl Tools {
    /// Commands will run in `directory`.
    pub fn new(directory: PathBuf, interrupt: Interrupt) -> Self {
        Self {
            directory,
            environment: Vec::new(),
            removed: Vec::new(),
            interrupt,
            stopped: Cell::new(None),
            record: RefCell::new(None),
        }
    }

    /// Sets a variable for all commands to come.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Takes a variable away from all commands to come.
    pub fn unset(&mut self, name: &'static str) {
        self.removed.push(name);
    }

    /// Where commands run: the root of the repository.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Records the commands to come in a file, one line each with its time and its outcome.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn record_to(&self, path: &Path) -> Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        *self.record.borrow_mut() = Some(file.map_err(file_error(path))?);
        Ok(())
    }

    /// Sleeps; a signal ends the sleep.
    ///
    /// # Errors
    /// The signal.
    pub fn pause(&self, duration: Duration) -> Result<()> {
        if let Some(signal) = self.stopped.get() {
            return Err(Error::Interrupted(signal));
        }
        let paused = self.interrupt.pause(duration).map_err(Error::from);
        if let Err(Error::Interrupted(signal)) = paused {
            self.stopped.set(Some(signal));
        }
        paused
    }

    /// Checks that programs are there before anything begins.
    ///
    /// # Errors
    /// Names all that aren't.
    pub fn require(&self, names: &[&str], hint: &'static str) -> Result<()> {
        let missing = names.iter().filter(|name| !is_on_path(name));
        let names: Vec<String> = missing.map(|name| (*name).to_owned()).collect();
        if names.is_empty() { Ok(()) } else { Err(Error::ToolsMissing { names, hint }) }
    }

    /// Runs a command and gives what it printed on standard output.
    ///
    /// # Errors
    /// It can't be started, fails, takes too long, or a signal came.
    pub fn run(&self, invocation: &Invocation) -> Result<Vec<u8>> {
        if let Some(signal) = self.stopped.get() {
            return Err(Error::Interrupted(signal));
        }
        let started = Instant::now();
        let result = self.try_run(invocation);
        let outcome = match &result {
            Ok(_) => "ok".to_owned(),
            Err(Error::Failed { status, .. }) => status.clone(),
            Err(Error::Interrupted(signal)) => signal.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if let Some(record) = &mut *self.record.borrow_mut() {
            let (now, seconds) = (jiff::Timestamp::now(), started.elapsed().as_secs_f64());
            // The record is a courtesy: a full disk must not end a run that costs money.
            let _result =
                writeln!(record, "{now:.0} {seconds:7.1} s  {outcome}  {}", invocation.line());
        }
        result
    }

    /// Runs a command whose answer is text.
    ///
    /// # Errors
    /// As [`Self::run`], or the answer isn't UTF-8.
    pub fn text(&self, invocation: &Invocation) -> Result<String> {
        let answer = String::from_utf8(self.run(invocation)?);
        let answer = answer.map_err(|error| Error::Answer {
            command: invocation.line(),
            problem: error.to_string(),
        })?;
        Ok(answer.trim_end().to_owned())
    }

    /// Runs a command whose answer is JSON.
    ///
    /// # Errors
    /// As [`Self::run`], or the answer isn't such JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self, invocation: &Invocation) -> Result<T> {
        let answer = self.run(invocation)?;
        serde_json::from_slice(&answer).map_err(|error| {
            let start: String = String::from_utf8_lossy(&answer).chars().take(200).collect();
            Error::Answer { command: invocation.line(), problem: format!("{error} in {start:?}") }
        })
    }

    fn try_run(&self, invocation: &Invocation) -> Result<Vec<u8>> {
        let mut command = Command::new(&invocation.program);
        command
            .args(&invocation.arguments)
            .current_dir(&self.directory)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for name in &self.removed {
            command.env_remove(name);
        }
        let start = |source| Error::Start { command: invocation.line(), source };
        let mut child = command.spawn().map_err(start)?;
        let mut input = child.stdin.take().expect("it was asked for");
        let text = invocation.input.clone();
        // A tool that doesn't read its input is free not to.
        let writer = thread::spawn(move || drop(input.write_all(&text)));
        let output = follow(child.stdout.take().expect("it was asked for"), invocation.is_shown);
        let messages = follow(child.stderr.take().expect("it was asked for"), invocation.is_shown);
        let ended = self.wait(&mut child, invocation);
        // Also where it didn't end by itself: nothing of it must go on.
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                kill(&child, Signal::KILL);
                child.wait().map_err(start)?;
                return Err(error);
            }
        };
        drop(writer);
        // What it left behind may hold its output open for ever: then that is ended.
        let gather = |stream: Receiver<Vec<u8>>| {
            stream.recv_timeout(OUTPUT_END_MAX).or_else(|_held| {
                kill(&child, Signal::KILL);
                stream.recv_timeout(OUTPUT_END_MAX)
            })
        };
        let held = |_held| Error::Answer {
            command: invocation.line(),
            problem: "it has ended, but something that it started holds its output".to_owned(),
        };
        let (output, messages) = (gather(output).map_err(held)?, gather(messages).map_err(held)?);
        if status.success() {
            return Ok(output);
        }
        let messages = String::from_utf8_lossy(&messages);
        let lines: Vec<&str> = messages.trim_end().lines().collect();
        Err(Error::Failed {
            command: invocation.line(),
            status: status.to_string(),
            message: lines[lines.len().saturating_sub(MESSAGE_LINES_MAX)..].join("\n"),
        })
    }

    fn wait(&self, child: &mut Child, invocation: &Invocation) -> Result<ExitStatus> {
        let failed = |source| Error::Start { command: invocation.line(), source };
        let deadline = Instant::now() + invocation.time_max;
        let mut pause = Duration::from_millis(1);
        loop {
            pause = (pause * 2).min(WATCH_INTERVAL);
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let pause = || {
                    thread::sleep(WATCH_INTERVAL);
                    true
                };
                interrupt_gently(child, pause).map_err(failed)?;
                return Err(Error::TooLong {
                    command: invocation.line(),
                    after: invocation.time_max,
                });
            }
            if let Err(stop) = self.pause(pause) {
                // A second signal means now.
                let pause = || self.interrupt.pause(WATCH_INTERVAL).is_ok();
                interrupt_gently(child, pause).map_err(failed)?;
                return Err(stop);
            }
        }
    }
}

/// Sends SIGINT and waits for the end, as long as it may take and `pause` says to go on.
fn interrupt_gently(child: &mut Child, mut pause: impl FnMut() -> bool) -> io::Result<()> {
    kill(child, Signal::INT);
    let deadline = Instant::now() + INTERRUPT_GRACE;
    while child.try_wait()?.is_none() && Instant::now() < deadline && pause() {}
    Ok(())
}

/// Sends a signal to a command and whatever it started.
fn kill(child: &Child, signal: Signal) {
    // It may have ended by itself meanwhile.
    let _gone = kill_process_group(Pid::from_child(child), signal);
}

/// Reads a stream to its end on a thread, showing it meanwhile if asked to.
fn follow(mut stream: impl Read + Send + 'static, is_shown: bool) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (mut all, mut some) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(length) = stream.read(&mut some)
            && length > 0
        {
            if is_shown {
                // A closed standard error must not end the run.
                let _result = io::stderr().lock().write_all(&some[..length]);
            }
            if all.len() + length <= OUTPUT_BYTES_MAX {
                all.extend_from_slice(&some[..length]);
            }
        }
        // Nobody waits any more where that took too long.
        sender.send(all).ok();
    });
    receiver
}

fn is_on_path(name: &str) -> bool {
    let is_program = |path: PathBuf| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| is_program(directory.join(name)))
}
