//! Children that never outlive their owner, and commands that never outlive their deadline.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::eventually;

/// A running child. Dropped: killed and reaped.
pub struct Process {
    what: String,
    child: Child,
}

impl Process {
    pub fn start(place: &str, command: &mut Command) -> Process {
        let what = format!("{place}: {}", command.get_program().to_string_lossy());
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        Process { what, child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    pub fn signal(&self, signal: Signal) {
        // The child is not reaped before `self` is gone or `wait` was called: the pid is its own.
        let pid = Pid::from_raw(self.child.id() as i32).expect("pid");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.what));
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            if Instant::now() > end {
                self.kill();
                panic!("{} still runs after {deadline:?}", self.what);
            }
            eventually::pause();
        }
    }

    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a command said.
#[derive(Debug, Clone)]
pub struct Output {
    pub what: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn of(place: &str, command: &mut Command, input: Option<&str>, deadline: Duration) -> Self {
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let what = format!("{place}: {command:?}");
        let mut process = Process::start(place, command);
        let stdin = process.child.stdin.take();
        let stdout = read_all(process.child.stdout.take());
        let stderr = read_all(process.child.stderr.take());
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A command that does not read all of it says so by its status.
            let _ = stdin.write_all(input.as_bytes());
        }
        let status = process.wait(deadline);
        let text = |reader: JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&reader.join().expect("reader")).into_owned()
        };
        Output { what, status, stdout: text(stdout), stderr: text(stderr) }
    }

    pub fn ok(&self) -> bool {
        self.status.success()
    }

    /// Standard output; panics with everything there is to know if it failed.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.ok(), "{} failed: {}\n{}{}", self.what, self.status, self.stdout, self.stderr);
        self.stdout
    }

    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.success();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON: {error}: {text}"))
    }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
