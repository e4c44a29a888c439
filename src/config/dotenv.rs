//! Reads a `.env` file. The parser knows no line numbers, so its input counts the lines that it has read.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use super::layer::Problem;

/// The variables of a `.env` file, in its order; none if there is no such file.
///
/// # Errors
/// When the file cannot be read, or for the first line that is not `NAME=value`. The line is named by its
/// number and not shown, because it may contain a secret.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>, Problem> {
    let problem = |reason| Problem { source: path.display().to_string(), key: String::new(), reason };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(problem(error.to_string())),
    };
    variables(BufReader::new(file)).map_err(problem)
}

fn variables(file: impl BufRead) -> Result<Vec<(String, String)>, String> {
    let begun = Rc::new(Cell::new(0_usize));
    let lines = Lines { file, begun: Rc::clone(&begun), is_in_line: false };
    let entries = dotenvy::from_read_iter(lines);
    let described = |error| match error {
        // A value in quotes may span lines; the text of the error holds them.
        dotenvy::Error::LineParse(text, _) => {
            let first = (begun.get() + 1).saturating_sub(text.lines().count().max(1));
            format!("line {first} is not `NAME=value`")
        }
        other => format!("line {}: {other}", begun.get()),
    };
    entries.map(|entry| entry.map_err(&described)).collect()
}

/// Hands out at most one line at a time, so that the parser's buffer never holds a line that it has not
/// reached.
struct Lines<R> {
    file: R,
    /// Lines of which at least one byte was handed out.
    begun: Rc<Cell<usize>>,
    is_in_line: bool,
}

impl<R: BufRead> Read for Lines<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let held = self.file.fill_buf()?;
        let most = held.len().min(out.len());
        let length = held[..most].iter().position(|byte| *byte == b'\n').map_or(most, |end| end + 1);
        out[..length].copy_from_slice(&held[..length]);
        if length > 0 {
            if !self.is_in_line {
                self.begun.set(self.begun.get() + 1);
            }
            self.is_in_line = out[length - 1] != b'\n';
        }
        self.file.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_named_by_its_number_in_the_file() {
        for (text, expected) in [
            ("PASS WORD hunter2", "line 1 is not `NAME=value`"),
            ("# a comment\n\nA=1\n\n  # another\nhunter2\nB=2\n", "line 6 is not `NAME=value`"),
            ("A='one\ntwo'\nhunter2\n", "line 3 is not `NAME=value`"),
            ("A=1\nB='hunter2\nC=3\n", "line 2 is not `NAME=value`"),
            ("A=1\r\nB=2\r\nhunter2\r\n", "line 3 is not `NAME=value`"),
        ] {
            assert_eq!(variables(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        let error = variables(&b"A=1\nB=\xff\n"[..]).unwrap_err();
        assert!(error.starts_with("line 2: "), "{error}");
    }

    #[test]
    fn good_lines_are_variables_however_long() {
        let long = "x".repeat(100_000);
        let text = format!("A=1\n# c\nexport B=\"two\nlines\"\nC={long}");
        let found = variables(text.as_bytes()).unwrap();
        let expected = [("A", "1"), ("B", "two\nlines"), ("C", long.as_str())];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
