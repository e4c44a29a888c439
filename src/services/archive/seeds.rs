//! Reads seed files: one relay URL per line; lines that begin with `#` and blank lines are skipped.
//!
//! A bad line is reported by its number and skipped. Limits: memory grows with the number of distinct relays,
//! and a line is read up to [`LINE_BYTES_MAX`].

use std::collections::HashSet;
use std::io::{self, BufRead, Read};

use thiserror::Error;

use crate::base::{RelayUrl, RelayUrlError};

/// Longest line that is read, in bytes. No URL is longer; the rest of a longer line is discarded, so that a
/// file without line ends costs no memory.
pub const LINE_BYTES_MAX: u64 = 4_096;

/// Why a line of a seed file was skipped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SeedError {
    /// The URL is not valid.
    #[error(transparent)]
    Address(#[from] RelayUrlError),
    /// The line is not text.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// The line is longer than any URL.
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// Reading the file failed; this is the last item.
    #[error("cannot read the seed file: {0}")]
    Read(#[from] io::Error),
}

/// Contents of a seed file.
#[derive(Debug, Default)]
pub struct Seeds {
    /// The distinct relays, in order of their first line.
    pub relays: Vec<RelayUrl>,
    /// Number of lines that repeat a relay of an earlier line.
    pub duplicates: usize,
    /// Skipped lines: number (from 1) and reason.
    pub refused: Vec<(usize, SeedError)>,
}

impl Seeds {
    /// Reads a seed file to its end.
    ///
    /// # Errors
    ///
    /// Only when the file cannot be read. Bad lines are in [`Seeds::refused`].
    pub fn read(file: impl BufRead) -> io::Result<Self> {
        let mut seeds = Self::default();
        let mut known = HashSet::new();
        for (line, seed) in seed_lines(file) {
            match seed {
                Ok(relay) if known.insert(relay.clone()) => seeds.relays.push(relay),
                Ok(_known) => seeds.duplicates += 1,
                Err(SeedError::Read(error)) => return Err(error),
                Err(error) => seeds.refused.push((line, error)),
            }
        }
        Ok(seeds)
    }
}

/// The lines of a seed file that are neither blank nor comments: number (from 1), and the relay or the reason
/// for skipping.
pub fn seed_lines(file: impl BufRead) -> impl Iterator<Item = (usize, Result<RelayUrl, SeedError>)> {
    SeedLines { file, line: 0, ended: false }
}

struct SeedLines<R> {
    file: R,
    line: usize,
    ended: bool,
}

impl<R: BufRead> SeedLines<R> {
    /// The next line, cut at `LINE_BYTES_MAX`; nothing after the last one.
    fn next_line(&mut self) -> io::Result<Option<Result<Vec<u8>, SeedError>>> {
        let mut bytes = Vec::new();
        let mut bounded = self.file.by_ref().take(LINE_BYTES_MAX + 1);
        if bounded.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        if bytes.ends_with(b"\n") || bounded.limit() > 0 {
            return Ok(Some(Ok(bytes)));
        }
        self.file.skip_until(b'\n')?;
        Ok(Some(Err(SeedError::LineTooLong)))
    }
}

impl<R: BufRead> Iterator for SeedLines<R> {
    type Item = (usize, Result<RelayUrl, SeedError>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            self.line += 1;
            let bytes = match self.next_line() {
                Ok(Some(Ok(bytes))) => bytes,
                Ok(Some(Err(error))) => return Some((self.line, Err(error))),
                Ok(None) => break,
                Err(error) => {
                    self.ended = true;
                    return Some((self.line, Err(error.into())));
                }
            };
            let Ok(text) = str::from_utf8(&bytes) else {
                return Some((self.line, Err(SeedError::NotUtf8)));
            };
            let text = text.trim_start_matches('\u{feff}').trim();
            if !text.is_empty() && !text.starts_with('#') {
                return Some((self.line, RelayUrl::parse(text).map_err(SeedError::from)));
            }
        }
        self.ended = true;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_reported_by_number_and_stops_nothing() {
        let mut file =
            b"\xef\xbb\xbf# relays\r\n\nwss://nos.lol\r\nhttp://no.relay\n  # note\nWSS://Nos.Lol/\n"
                .to_vec();
        file.extend([0xff, b'\n']);
        file.extend(vec![b'a'; 100_000]);
        file.extend(b"\nws://127.0.0.1:7777");
        let seeds = Seeds::read(&*file).unwrap();
        assert_eq!(
            seeds.relays.iter().map(RelayUrl::as_str).collect::<Vec<_>>(),
            ["wss://nos.lol", "ws://127.0.0.1:7777"]
        );
        assert_eq!(seeds.duplicates, 1);
        let refused: Vec<_> = seeds.refused.iter().map(|(line, error)| format!("{line}: {error}")).collect();
        assert_eq!(
            refused,
            [
                "4: the scheme is \"http\", only ws and wss are relays",
                "7: the line is not UTF-8",
                "8: the line is longer than 4096 bytes",
            ]
        );
    }

    #[test]
    fn the_committed_seeds_are_read_whole() {
        let seeds = Seeds::read(&include_bytes!("../../../seeds/seed_relays.txt")[..]).unwrap();
        assert_eq!((seeds.relays.len(), seeds.duplicates), (8_859, 3));
        assert!(seeds.refused.is_empty(), "{:?}", seeds.refused);
    }
}
