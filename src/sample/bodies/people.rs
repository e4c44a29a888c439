//! Builds events about their author or for their author: profiles, lists, articles, ciphertext.

use nostr_sdk::Tag;
use serde::Serialize;

use super::Source;
use crate::sample::draft::tag;
use crate::sample::words;

/// Longest follow list, in `p` tags.
const FOLLOWS_MAX: usize = 500;

#[derive(Serialize)]
struct Profile {
    name: String,
    display_name: String,
    about: String,
    picture: String,
    nip05: String,
    lud16: String,
}

impl Source<'_> {
    /// Most lists are short, a few are long.
    pub(super) fn follows(&mut self) -> Vec<Tag> {
        let longest = self.dice.skewed(FOLLOWS_MAX - 4) + 1;
        let length = self.dice.index(longest) + 5;
        let length = length.min(self.authors.len());
        let first = self.dice.index(self.authors.len());
        self.authors.iter().cycle().skip(first).take(length).map(|author| tag(["p", &author.hex])).collect()
    }

    pub(super) fn relays(&mut self) -> Vec<Tag> {
        let count = self.dice.between(2, 8);
        let mut one = || {
            let relay = words::relay(self.dice);
            match self.dice.below(3) {
                0 => tag(["r", &relay, "read"]),
                1 => tag(["r", &relay, "write"]),
                _ => tag(["r", &relay]),
            }
        };
        (0..count).map(|_| one()).collect()
    }

    pub(super) fn profile(&mut self, author: usize) -> String {
        let name = words::name(author);
        let about = self.dice.between(10, 300);
        let profile = Profile {
            display_name: format!("{name} {}", words::emoji(self.dice)),
            about: words::text(self.dice, about),
            picture: words::picture(self.dice),
            nip05: format!("{name}@cord.example"),
            lud16: format!("{name}@knot.example"),
            name,
        };
        serde_json::to_string(&profile).expect("strings are JSON")
    }

    pub(super) fn direct_message(&mut self) -> (Vec<Tag>, String) {
        let content = self.ciphertext(64, 600);
        let vector = self.dice.base64(22);
        (vec![self.person()], format!("{content}?iv={vector}=="))
    }

    pub(super) fn article(&mut self) -> (Vec<Tag>, String) {
        let length = self.dice.between(5_000, 20_000);
        let mut content = String::with_capacity(length + 200);
        while content.len() < length {
            let paragraph = self.dice.between(300, 1_200);
            content.push_str("## ");
            content.push_str(&words::title(self.dice));
            content.push_str("\n\n");
            content.push_str(&words::text(self.dice, paragraph));
            content.push_str("\n\n");
        }
        let (title, summary) = (words::title(self.dice), words::text(self.dice, 120));
        let mut tags = vec![
            tag(["d", &title.replace(' ', "-")]),
            tag(["title", &title]),
            tag(["summary", &summary]),
            tag(["published_at", &self.created_at.to_string()]),
            tag(["image", &words::picture(self.dice)]),
        ];
        tags.extend((0..3).map(|_| tag(["t", words::topic(self.dice)])));
        (tags, content)
    }

    pub(super) fn settings(&mut self) -> (Vec<Tag>, String) {
        let app = self.dice.pick(&["sample-app/settings", "sample-app/drafts", "cord/read-until"]);
        (vec![tag(["d", app])], self.ciphertext(80, 900))
    }
}
