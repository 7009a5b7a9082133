//! A terminal to run a program on, and who sits at it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::termios::{Winsize, tcsetwinsize};

/// Long: only a program that hangs takes it.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Session {
    child: Child,
    ours: File,
    /// Keeps the terminal from being hung up before everything was read.
    _theirs: File,
    seen: String,
}

impl Session {
    /// Starts a program whose three streams are a new terminal.
    pub fn start(mut command: Command) -> Session {
        let pair = openpty(None, None).unwrap();
        let theirs = File::from(pair.slave);
        let stream = || Stdio::from(theirs.try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let session = Session {
            child: command.spawn().unwrap(),
            ours: File::from(pair.master),
            _theirs: theirs,
            seen: String::new(),
        };
        session.resize(24, 80);
        session
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.ours, size).unwrap();
    }

    pub fn types(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Reads until `text` is on the screen; returns all that came up to there and was not returned before.
    #[track_caller]
    pub fn shows(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            assert!(start.elapsed() < PATIENCE, "no `{text}` in {:?}", self.seen);
            self.read();
            if let Some(status) = self.child.try_wait().unwrap()
                && !self.seen.contains(text)
                && !self.read()
            {
                panic!("ended ({status}) without `{text}`: {:?}", self.seen);
            }
        }
    }

    /// Waits for the end; returns the status and what came since the last look.
    #[track_caller]
    pub fn ends(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait().unwrap();
            while self.read() {}
            if let Some(status) = ended {
                return (status.code(), self.seen.clone());
            }
            assert!(start.elapsed() < PATIENCE, "does not end: {:?}", self.seen);
        }
    }

    /// Reads what there is, or waits a little for something; returns whether there was.
    fn read(&mut self) -> bool {
        let mut fds = [PollFd::new(self.ours.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(50_u8)).unwrap_or(0) <= 0 {
            return false;
        }
        let mut buffer = [0; 4096];
        let count = self.ours.read(&mut buffer).unwrap_or(0);
        self.seen
            .push_str(&String::from_utf8_lossy(&buffer[..count]));
        count > 0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Fails if it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
