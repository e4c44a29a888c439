//! Texts that a remote host sent, made safe to store and to print.

/// Characters kept of a text that a remote host sent.
const TEXT_CHARS_MAX: usize = 500;

/// Makes a text from a remote host safe to store and to print, also by `psql`: cuts it to [`TEXT_CHARS_MAX`]
/// characters, and replaces characters that command a terminal or change the direction of writing. NUL, which
/// PostgreSQL cannot store, and the other control characters of ASCII become their pictures, such as `␛`.
pub(super) fn sanitize(text: &str) -> String {
    let shown = |c: char| match c {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().take(TEXT_CHARS_MAX).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_text_is_cut_and_commands_no_terminal() {
        assert_eq!(sanitize("a\0b"), "a\u{2400}b");
        let text = "\u{1b}[2J\r\n\u{9b}1m\u{7f}\u{202e}x\u{2066}\u{200f}ü \u{1f468}\u{200d}\u{1f469}";
        let shown = "\u{241b}[2J\u{240d}\u{240a}\u{fffd}1m\u{fffd}\u{fffd}x\u{fffd}\u{fffd}ü \u{1f468}\u{200d}\u{1f469}";
        assert_eq!(sanitize(text), shown);
        assert_eq!(sanitize(&"x".repeat(10_000)).len(), TEXT_CHARS_MAX);
    }
}
