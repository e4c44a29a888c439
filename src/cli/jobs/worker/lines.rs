//! What a command writes: progress, and the last lines for the report of a failure. All else is dropped.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, FramedRead, LinesCodec, LinesCodecError};

/// Longest line, bytes. A longer one is dropped, which bounds what is held of a command's output.
const LINE_BYTES_MAX: usize = 8_192;

/// Last lines that are kept.
const LINES_KEPT: usize = 40;

/// Bytes of the last lines that are reported.
const TAIL_BYTES_MAX: usize = 16_384;

/// Beginning of a line that is progress.
const PROGRESS: &str = "progress:";

/// The last lines of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail(Mutex<VecDeque<String>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The last lines, of at most [`TAIL_BYTES_MAX`].
    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        let begin = text.ceil_char_boundary(text.len().saturating_sub(TAIL_BYTES_MAX));
        text[begin..].to_owned()
    }

    /// The last line that is not blank.
    pub(super) fn last(&self) -> Option<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().find(|line| !line.trim().is_empty()).cloned()
    }
}

/// Reads a stream to its end.
pub(super) async fn read(
    stream: Option<impl AsyncRead + Unpin>,
    tail: &Tail,
    progress: Option<&watch::Sender<Option<Value>>>,
) {
    let Some(stream) = stream else { return };
    let mut lines = FramedRead::new(stream, Lines(LinesCodec::new_with_max_length(LINE_BYTES_MAX)));
    while let Some(Ok(line)) = lines.next().await {
        match progress.zip(progress_of(&line)) {
            Some((progress, value)) => drop(progress.send_replace(Some(value))),
            None => tail.push(line),
        }
    }
}

/// Lines of text. One that is too long or no text is replaced by a remark, so that the rest is read as well.
struct Lines(LinesCodec);

impl Lines {
    fn readable(line: Result<Option<String>, LinesCodecError>) -> io::Result<Option<String>> {
        match line {
            Ok(line) => Ok(line),
            Err(LinesCodecError::MaxLineLengthExceeded) => {
                Ok(Some(format!("(a line of more than {LINE_BYTES_MAX} bytes)")))
            }
            Err(LinesCodecError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Ok(Some("(a line that is not UTF-8)".to_owned()))
            }
            Err(LinesCodecError::Io(error)) => Err(error),
        }
    }
}

impl Decoder for Lines {
    type Item = String;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<String>> {
        Self::readable(self.0.decode(buffer))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> io::Result<Option<String>> {
        Self::readable(self.0.decode_eof(buffer))
    }
}

/// The progress in a line: a number from 0 to 100, or a JSON value.
fn progress_of(line: &str) -> Option<Value> {
    let stated = line.strip_prefix(PROGRESS)?.trim();
    let number = stated.strip_suffix('%').unwrap_or(stated).trim();
    if let Some(percent) = number.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent)) {
        return Some(json!({ "percent": percent }));
    }
    serde_json::from_str(stated).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_percentage_or_an_object() {
        assert_eq!(progress_of("progress: 40"), Some(json!({ "percent": 40.0 })));
        assert_eq!(progress_of("progress:12.5 %"), Some(json!({ "percent": 12.5 })));
        assert_eq!(progress_of("progress: {\"page\": 3}"), Some(json!({ "page": 3 })));
        for other in
            ["progress: 101", "progress: soon", "progress", " progress: 1", "progress: [1]", "progress: NaN"]
        {
            assert_eq!(progress_of(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn output_is_read_to_its_end_and_little_of_it_is_kept() {
        let long = "x".repeat(3 * LINE_BYTES_MAX);
        let numbers = (0..1_000).map(|n| n.to_string()).collect::<Vec<_>>().join("\n") + "\n";
        let text = [numbers.as_bytes(), long.as_bytes(), b"\nprogress: 7\n\xff\xfe\nend\n\n"].concat();
        let (tail, (sender, receiver)) = (Tail::default(), watch::channel(None));
        read(Some(text.as_slice()), &tail, Some(&sender)).await;
        assert_eq!(*receiver.borrow(), Some(json!({ "percent": 7.0 })));
        assert_eq!(tail.last().as_deref(), Some("end"));
        let kept = tail.text();
        assert!(
            kept.contains("\n999\n") && !kept.contains("\n900\n") && kept.contains("not UTF-8"),
            "{kept}"
        );
        assert!(kept.contains("a line of more than"), "{kept}");
    }
}
