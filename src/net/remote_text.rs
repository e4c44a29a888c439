//! Texts that a remote host sent, made safe to store.

/// Characters kept of a text that a remote host sent.
const TEXT_CHARS_MAX: usize = 500;

/// Makes a text from a remote host safe to store: cuts it to [`TEXT_CHARS_MAX`] characters and replaces NUL,
/// which PostgreSQL cannot store.
pub(super) fn sanitize(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).map(|c| if c == '\0' { '\u{2400}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_text_is_cut_and_has_no_nul() {
        assert_eq!(sanitize("a\0b"), "a\u{2400}b");
        assert_eq!(sanitize(&"x".repeat(10_000)).len(), TEXT_CHARS_MAX);
    }
}
