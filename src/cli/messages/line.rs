//! A message as one line of output.

use std::fmt;
use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::frame::Message;
use crate::cli::output;

/// Writes a message. Acknowledge it only after this succeeded: a message that a closed pipe did not take was
/// not seen.
pub(super) fn write(message: &Message, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(message)?)?;
    } else {
        writeln!(out, "{}", Line(message))?;
    }
    out.flush()
}

/// Time, sender and payload. The payload is shown as text if it is plain text, else as base64.
struct Line<'a>(&'a Message);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(message) = self;
        write!(f, "{}  {}  ", output::instant(message.received_at), Plain(&message.from))?;
        let bytes = URL_SAFE_NO_PAD.decode(&message.payload_b64).ok();
        match bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|text| is_plain(text)) {
            Some(text) => f.write_str(&text),
            None => write!(f, "base64:{}", Plain(&message.payload_b64)),
        }
    }
}

/// Whether the text has no control characters, which would break the line or control the terminal.
fn is_plain(text: &str) -> bool {
    !text.contains(char::is_control)
}

/// Untrusted text with its control characters escaped.
pub(super) struct Plain<'a>(pub(super) &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_plain(self.0) { f.write_str(self.0) } else { write!(f, "{}", self.0.escape_default()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shown(from: &str, payload_b64: &str, expected: &str) {
        let message = Message {
            msg_id: String::new(),
            from: from.to_owned(),
            received_at: 1_700_000_000,
            payload_b64: payload_b64.to_owned(),
            position: None,
        };
        assert_eq!(Line(&message).to_string(), format!("2023-11-14 22:13:20  {expected}"));
    }

    #[test]
    fn text_is_shown_as_text_and_anything_else_as_it_came() {
        shown("alice", &URL_SAFE_NO_PAD.encode("schön, 你好"), "alice  schön, 你好");
        shown("alice", &URL_SAFE_NO_PAD.encode([0xff, 0xfe]), "alice  base64:__4");
        shown("alice", "not base64!", "alice  base64:not base64!");
    }

    #[test]
    fn nobody_can_break_a_line_or_command_the_terminal() {
        for text in ["two\nlines", "\u{1b}[2J", "\u{9b}31m", "nul\0"] {
            let payload = URL_SAFE_NO_PAD.encode(text);
            shown("alice", &payload, &format!("alice  base64:{payload}"));
        }
        shown("a\nb", "\u{1b}", "a\\nb  base64:\\u{1b}");
    }
}
