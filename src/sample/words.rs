//! What sample notes say: words of several scripts, strung together without sense.
//!
//! All hosts end in `.example`, which is nobody's: a crawler that follows the sample reaches no one.

use super::dice::Dice;
use super::tongues::TONGUES;

const EMOJI: [&str; 12] = ["🧶", "💜", "🤙", "⚡", "🫡", "😂", "🌄", "👩‍👩‍👧", "🇵🇪", "👍🏽", "☕️", "𝄞"];

/// What JSON has to escape, and what it must leave alone although it looks dangerous.
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

/// An emoji; some are several characters long.
pub(super) fn emoji(dice: &mut Dice) -> &'static str {
    dice.pick(&EMOJI)
}

/// A hashtag without `#`.
pub(super) fn topic(dice: &mut Dice) -> &'static str {
    dice.pick(&TOPICS)
}

/// The name of author `index`, the same every time.
pub(super) fn name(index: usize) -> String {
    let words = TONGUES[index % 3].words;
    let word = words[index * 7 % words.len()].to_lowercase();
    format!("{word}{index}")
}

/// One of 40 relays that do not exist.
pub(super) fn relay(dice: &mut Dice) -> String {
    format!("wss://{}{}.example", dice.pick(&HOST_WORDS), dice.between(1, 5))
}

/// The address of a picture that does not exist.
pub(super) fn picture(dice: &mut Dice) -> String {
    format!("https://media.{}.example/{}.jpg", dice.pick(&HOST_WORDS), dice.hex(32))
}

/// At least `bytes` bytes of sentences in one language, with now and then an emoji or an escape.
pub(super) fn text(dice: &mut Dice, bytes: usize) -> String {
    let tongue = if dice.percent(60) { &TONGUES[0] } else { dice.pick(&TONGUES.each_ref()) };
    let mut text = String::with_capacity(bytes + 80);
    while text.len() < bytes {
        for place in 0..dice.between(3, 12) {
            if place > 0 {
                text.push_str(tongue.gap);
            }
            text.push_str(dice.pick(tongue.words));
        }
        text.push_str(tongue.stop);
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
    let words = TONGUES[0].words;
    (0..dice.between(2, 6)).map(|_| dice.pick(words)).collect::<Vec<_>>().join(" ")
}
