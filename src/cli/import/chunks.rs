//! Cuts the input into chunks, each of which is verified and stored as one page.

use std::io::{BufRead, BufReader, Read};

use anyhow::Result;
use tokio::sync::mpsc;

use crate::base::nostr_event::{EVENT_BYTES_MAX, Refusal};

/// Most lines and bytes of a chunk.
const CHUNK_LINES: usize = 1_000;
const CHUNK_BYTES: usize = 2 * 1024 * 1024;

/// A line that was refused: its number, from 1, and the reason.
pub(super) type RefusedLine = (u64, Refusal);

/// A part of the file.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) first_line: u64,
    pub(super) last_line: u64,
    pub(super) bytes: u64,
    /// The lines that are not empty and can be read, each with its number.
    pub(super) lines: Vec<(u64, String)>,
    pub(super) refused: Vec<RefusedLine>,
}

/// Reads on a thread of its own. A line that is too long or not UTF-8 is refused and skipped.
pub(super) fn read_chunks(reader: impl Read, chunks: &mpsc::Sender<Chunk>) -> Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, reader);
    let longest = u64::try_from(EVENT_BYTES_MAX)? + 2;
    let mut chunk = Chunk { first_line: 1, ..Chunk::default() };
    let mut line = Vec::new();
    let mut number = 0;
    let mut held = 0;
    loop {
        line.clear();
        let mut read = reader.by_ref().take(longest).read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            break;
        }
        number += 1;
        if line.last() != Some(&b'\n') && read == longest {
            read += skip_line(&mut reader)?;
            chunk.refused.push((number, Refusal::TooLarge));
        } else {
            match std::str::from_utf8(&line).map(str::trim) {
                Ok("") => {}
                Ok(text) => {
                    held += text.len();
                    chunk.lines.push((number, text.to_owned()));
                }
                Err(_) => chunk.refused.push((number, Refusal::Malformed)),
            }
        }
        chunk.bytes += read;
        chunk.last_line = number;
        if chunk.lines.len() + chunk.refused.len() >= CHUNK_LINES || held >= CHUNK_BYTES {
            held = 0;
            let next = Chunk { first_line: number + 1, ..Chunk::default() };
            if chunks.blocking_send(std::mem::replace(&mut chunk, next)).is_err() {
                return Ok(());
            }
        }
    }
    if chunk.last_line > 0 {
        // If the receiver was dropped, it has already reported its error.
        let _ = chunks.blocking_send(chunk);
    }
    Ok(())
}

/// Skips the rest of the line. Returns the number of skipped bytes.
fn skip_line(reader: &mut impl BufRead) -> std::io::Result<u64> {
    Ok(reader.skip_until(b'\n')? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &[u8]) -> Vec<Chunk> {
        let (send, mut receive) = mpsc::channel(16);
        read_chunks(text, &send).unwrap();
        drop(send);
        std::iter::from_fn(|| receive.try_recv().ok()).collect()
    }

    #[test]
    fn every_line_has_its_number_in_the_file() {
        let [chunk] = &chunks(b"a\n\n \xff\n  b \nlast")[..] else { panic!("one chunk") };
        assert_eq!((chunk.first_line, chunk.last_line), (1, 5));
        let lines = [(1, "a"), (4, "b"), (5, "last")].map(|(number, text)| (number, text.to_owned()));
        assert_eq!(chunk.lines, lines);
        assert_eq!(chunk.refused, [(3, Refusal::Malformed)]);
    }

    #[test]
    fn refused_lines_fill_a_chunk_as_others_do() {
        let chunks = chunks(&b"\xff\n".repeat(CHUNK_LINES + 1));
        let ranges: Vec<_> = chunks.iter().map(|chunk| (chunk.first_line, chunk.last_line)).collect();
        assert_eq!(ranges, [(1, 1_000), (1_001, 1_001)]);
        assert_eq!(chunks[1].refused, [(1_001, Refusal::Malformed)]);
    }
}
