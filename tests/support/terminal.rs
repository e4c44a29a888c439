//! Commands that keep running: their output on a terminal, and their output lines, as they appear.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::instance::{PATIENCE, await_some, signal, wait};

/// A running command. Dropping it kills it.
pub(crate) struct Following(Child);

impl Following {
    /// Waits for its end.
    pub(crate) fn end(mut self) -> ExitStatus {
        wait(&mut self.0).expect("the process ends")
    }

    /// Sends SIGINT (Ctrl-C) and waits for its end.
    pub(crate) fn interrupt(self) -> ExitStatus {
        signal(self.0.id(), Signal::SIGINT);
        self.end()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The reader's side of a pseudo-terminal of 40 lines of 80 characters.
pub(crate) struct Terminal {
    drawn: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command whose standard error is the terminal.
    pub(crate) fn of(command: &mut Command) -> (Self, Following) {
        let size = Winsize { ws_row: 40, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let ends = openpty(Some(&size), None).unwrap();
        let child = command.env("TERM", "xterm").stderr(Stdio::from(ends.slave)).spawn().unwrap();
        // The command's copy of the other side would block the reader for ever.
        command.stderr(Stdio::null());
        let drawn: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, all) = (File::from(ends.master), Arc::clone(&drawn));
        std::thread::spawn(move || {
            let mut part = [0; 4_096];
            // The terminal reports an error when its last writer has closed it.
            while let Ok(length @ 1..) = reader.read(&mut part) {
                all.lock().unwrap().extend(&part[..length]);
            }
        });
        (Self { drawn }, Following(child))
    }

    /// Waits until all these words were drawn.
    pub(crate) fn until_drawn(&self, words: &[&str]) {
        await_some(&format!("{words:?} on the terminal"), || {
            let drawn = self.drawn();
            words.iter().all(|word| drawn.contains(word)).then_some(())
        });
    }

    /// All output so far, with its control sequences.
    pub(crate) fn drawn(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().unwrap()).into_owned()
    }
}

/// The JSON lines of a command's standard output.
pub(crate) struct Lines {
    lines: Receiver<Value>,
}

impl Lines {
    /// Starts a command.
    pub(crate) fn of(command: &mut Command) -> (Self, Following) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Reads one line at a time, so a command whose lines the test does not take has to wait.
        let (sender, lines) = mpsc::sync_channel(0);
        std::thread::spawn(move || {
            for line in stdout.lines() {
                if sender.send(serde_json::from_str(&line.unwrap()).unwrap()).is_err() {
                    return;
                }
            }
        });
        (Self { lines }, Following(child))
    }

    /// Waits for the next line that satisfies the condition.
    pub(crate) fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("another line comes");
            if is_so(&line) {
                return line;
            }
        }
    }
}
