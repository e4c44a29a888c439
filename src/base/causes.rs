//! Formats an error with all its causes in one line.

use std::error::Error;

/// The error and each of its causes, joined by colons. A cause whose text is already part of the line is left
/// out: many errors include their cause in their own text.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("cannot open the file")]
        Silent(#[source] io::Error),
        #[error("cannot open the file: {0}")]
        Telling(#[source] io::Error),
        #[error("start")]
        Outer(#[source] Box<Failed>),
    }

    #[test]
    fn every_cause_stands_in_the_line_once() {
        let denied = || io::Error::other("permission denied");
        let expected = "start: cannot open the file: permission denied";
        for inner in [Failed::Silent(denied()), Failed::Telling(denied())] {
            assert_eq!(with_causes(&Failed::Outer(Box::new(inner))), expected);
        }
    }
}
