//! A terminal that a command draws on, and what can be read there.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::pty::{Winsize, openpty};

use super::instance::await_some;

/// The reader's side of a pseudo-terminal of 40 lines of 120 characters.
pub(crate) struct Terminal {
    drawn: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command whose standard error is the terminal.
    pub(crate) fn spawn(command: &mut Command) -> (Self, Child) {
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let ends = openpty(Some(&size), None).unwrap();
        let child = command.env("TERM", "xterm").stderr(Stdio::from(ends.slave)).spawn().unwrap();
        // The command's copy of the other end would keep the reader waiting for ever.
        command.stderr(Stdio::null());
        let drawn: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, all) = (File::from(ends.master), Arc::clone(&drawn));
        std::thread::spawn(move || {
            let mut part = [0; 4_096];
            // An error is the terminal's way to say that the last writer has gone.
            while let Ok(length @ 1..) = reader.read(&mut part) {
                all.lock().unwrap().extend(&part[..length]);
            }
        });
        (Self { drawn }, child)
    }

    /// Waits until all these words were drawn.
    pub(crate) fn until_drawn(&self, words: &[&str]) {
        let what = format!("{words:?} on the terminal");
        await_some(&what, || {
            let drawn = self.drawn();
            words.iter().all(|word| drawn.contains(word)).then_some(())
        });
    }

    /// Everything drawn so far, with what moves the cursor.
    pub(crate) fn drawn(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().unwrap()).into_owned()
    }
}
