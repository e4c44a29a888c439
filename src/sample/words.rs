//! Builds the text of sample notes: random words of several scripts.
//!
//! All hosts end in `.example`, which is reserved (RFC 2606): a crawler that follows them reaches no server.

use super::dice::Dice;
use super::languages::LANGUAGES;

const EMOJI: [&str; 12] = ["🧶", "💜", "🤙", "⚡", "🫡", "😂", "🌄", "👩‍👩‍👧", "🇵🇪", "👍🏽", "☕️", "𝄞"];

/// Characters that JSON must escape, and characters that it must leave unchanged although they look
/// dangerous.
const ESCAPES: [&str; 12] = [
    "\"so it is\" ",
    "C:\\cord\\knot ",
    "\ttab ",
    "\r\n",
    "a/b </script> ",
    "\u{8}",
    "\u{c}",
    "\u{1f}",
    "\u{7f}",
    "\u{2028}",
    "\u{feff}",
    "e\u{301} ",
];

const TOPICS: [&str; 16] = [
    "nostr",
    "bitcoin",
    "coffee",
    "photography",
    "music",
    "plebchain",
    "art",
    "zap",
    "grownostr",
    "日本語",
    "andes",
    "weaving",
    "food",
    "linux",
    "rust",
    "gm",
];

const HOST_WORDS: [&str; 8] = ["knot", "cord", "lima", "cusco", "andes", "llama", "condor", "puno"];

/// An emoji; some consist of several characters.
pub(super) fn emoji(dice: &mut Dice) -> &'static str {
    dice.pick(&EMOJI)
}

/// A hashtag without `#`.
pub(super) fn topic(dice: &mut Dice) -> &'static str {
    dice.pick(&TOPICS)
}

/// The name of author `index`; always the same for one index.
pub(super) fn name(index: usize) -> String {
    let words = LANGUAGES[index % 3].words;
    let word = words[index * 7 % words.len()].to_lowercase();
    format!("{word}{index}")
}

/// One of 40 URLs of relays that do not exist.
pub(super) fn relay(dice: &mut Dice) -> String {
    format!("wss://{}{}.example", dice.pick(&HOST_WORDS), dice.between(1, 5))
}

/// The address of a picture that does not exist.
pub(super) fn picture(dice: &mut Dice) -> String {
    format!("https://media.{}.example/{}.jpg", dice.pick(&HOST_WORDS), dice.hex(32))
}

/// At least `bytes` bytes of sentences in one language, with occasional emoji and escapes.
pub(super) fn text(dice: &mut Dice, bytes: usize) -> String {
    let language = if dice.percent(60) { &LANGUAGES[0] } else { dice.pick(&LANGUAGES.each_ref()) };
    let mut text = String::with_capacity(bytes + 80);
    while text.len() < bytes {
        for place in 0..dice.between(3, 12) {
            if place > 0 {
                text.push_str(language.separator);
            }
            text.push_str(dice.pick(language.words));
        }
        text.push_str(language.stop);
        match dice.below(100) {
            0..8 => text.push('\n'),
            8..14 => text.push_str(emoji(dice)),
            14..18 => text.push_str(dice.pick(&ESCAPES)),
            _ => {}
        }
    }
    text
}

/// A heading of a few words.
pub(super) fn title(dice: &mut Dice) -> String {
    let words = LANGUAGES[0].words;
    (0..dice.between(2, 6)).map(|_| dice.pick(words)).collect::<Vec<_>>().join(" ")
}
