//! Reads a file as a stream. The next piece is read while the last one is on its way to its reader.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::bytes::Bytes;

use super::{ObjectError, of_io};

/// Bytes of one piece. A stream has two of them in memory.
const PIECE_BYTES: u64 = 256 * 1024;

/// A piece that is being read, and the file, which comes back with it.
type Reading = JoinHandle<io::Result<(File, Bytes)>>;

/// The bytes of `file` in `range`. Ends with an error if the file is shorter.
pub(super) fn pieces(file: File, range: Range<u64>) -> BoxStream<'static, Result<Bytes, ObjectError>> {
    if range.is_empty() {
        return stream::empty().boxed();
    }
    let begin = move || read(file, range.start, range.end);
    let first = (Some(spawn_blocking(begin)), range.start);
    stream::try_unfold(first, move |(reading, at)| async move {
        let Some(reading) = reading else { return Ok(None) };
        let joined = reading.await.map_err(|error| ObjectError::Unavailable(error.to_string()))?;
        let (file, piece) = joined.map_err(|error| of_io(&error))?;
        let next = at.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        let following: Option<Reading> =
            (next < range.end).then(|| spawn_blocking(move || read(file, next, range.end)));
        Ok(Some((piece, (following, next))))
    })
    .boxed()
}

/// Reads the piece that begins at `at`.
fn read(mut file: File, at: u64, end: u64) -> io::Result<(File, Bytes)> {
    let length = PIECE_BYTES.min(end.saturating_sub(at));
    file.seek(SeekFrom::Start(at))?;
    let mut piece = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    let count = (&file).take(length).read_to_end(&mut piece)?;
    if u64::try_from(count).unwrap_or(u64::MAX) < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
    }
    Ok((file, Bytes::from(piece)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures_util::TryStreamExt as _;

    use super::*;

    async fn of(file: &File, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
        let read: Vec<Bytes> = pieces(file.try_clone().unwrap(), range).try_collect().await?;
        assert!(read.iter().all(|piece| !piece.is_empty()));
        Ok(read.concat())
    }

    #[tokio::test]
    async fn a_range_is_read_to_its_end_and_a_file_that_was_cut_is_an_error() {
        let size = usize::try_from(PIECE_BYTES * 2 + 100).unwrap();
        let content: Vec<u8> = (0..size).map(|number| u8::try_from(number % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let size = u64::try_from(size).unwrap();
        for (first, end) in
            [(0, size), (0, 1), (7, 7), (size - 1, size), (1_000, PIECE_BYTES + 1_000), (0, PIECE_BYTES)]
        {
            let expected = &content[usize::try_from(first).unwrap()..usize::try_from(end).unwrap()];
            assert_eq!(of(&file, first..end).await.unwrap(), expected, "{first}..{end}");
        }
        assert!(of(&file, 0..size + 1).await.is_err());
    }
}
