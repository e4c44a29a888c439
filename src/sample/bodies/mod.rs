//! Builds tags and content of each kind of event, with the shapes and sizes seen on the network.

mod people;
mod social;

use std::collections::VecDeque;

use nostr_sdk::Tag;

use super::dice::Dice;
use super::draft::{Author, Body, Draft, tag};

/// Number of events of each kind per thousand. The sum is 1,000.
const MIX: [(u16, u64); 14] = [
    (1, 460),
    (7, 255),
    (9_735, 45),
    (0, 50),
    (6, 50),
    (10_002, 30),
    (4, 30),
    (1_059, 20),
    (1_111, 20),
    (3, 10),
    (1_984, 10),
    (30_078, 10),
    (30_023, 5),
    (5, 5),
];

/// Inputs for building a body.
pub(super) struct Source<'a> {
    pub(super) dice: &'a mut Dice,
    pub(super) authors: &'a [Author],
    /// Recent notes, the newest last: targets of reactions, replies and zaps.
    pub(super) notes: &'a VecDeque<Draft>,
    /// Time for tags that contain one, in Unix seconds.
    pub(super) created_at: u64,
}

impl<'a> Source<'a> {
    /// Builds the kind, author, tags and content of the next event.
    pub(super) fn body(mut self) -> Body {
        let mut kind = self.kind();
        let mut author = self.dice.skewed(self.authors.len());
        let target = self.target();
        let (tags, content) = match (kind, target) {
            (0, _) => (Vec::new(), self.profile(author)),
            (3, _) => (self.follows(), String::new()),
            (4, _) => self.direct_message(),
            (1_059, _) => (vec![self.person()], self.ciphertext(700, 3_000)),
            (10_002, _) => (self.relays(), String::new()),
            (30_023, _) => self.article(),
            (30_078, _) => self.settings(),
            (5, Some(target)) => {
                author = target.author;
                (vec![tag(["e", &target.id.to_hex()]), kind_tag(target)], String::new())
            }
            (6, Some(target)) => {
                kind = if target.kind.as_u16() == 1 { 6 } else { 16 };
                self.repost(target)
            }
            (7, Some(target)) => self.reaction(target),
            (1_111, Some(target)) => self.comment(target),
            (1_984, Some(target)) => self.report(target),
            (9_735, Some(target)) => self.zap(author, target),
            (_, target) => {
                kind = 1;
                self.note(target)
            }
        };
        Body { kind, author, tags, content }
    }

    fn kind(&mut self) -> u16 {
        let mut number = self.dice.below(1_000);
        for (kind, share) in MIX {
            match number.checked_sub(share) {
                Some(rest) => number = rest,
                None => return kind,
            }
        }
        1
    }

    /// A recent note; newer ones are more likely.
    fn target(&mut self) -> Option<&'a Draft> {
        let back = self.dice.skewed(self.notes.len()) + 1;
        self.notes.len().checked_sub(back).and_then(|place| self.notes.get(place))
    }

    fn hex_of(&self, target: &Draft) -> &'a str {
        &self.authors[target.author].hex
    }

    fn person(&mut self) -> Tag {
        tag(["p", &self.authors[self.dice.skewed(self.authors.len())].hex])
    }

    fn ciphertext(&mut self, least: usize, most: usize) -> String {
        let length = self.dice.between(least, most);
        self.dice.base64(length)
    }
}

fn kind_tag(target: &Draft) -> Tag {
    tag(["k", &target.kind.as_u16().to_string()])
}
