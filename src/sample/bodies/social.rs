//! Builds notes and all kinds of events that refer to a note.

use nostr_sdk::{JsonUtil, Tag};

use super::{Source, kind_tag};
use crate::sample::draft::{Body, Draft, tag};
use crate::sample::words;

impl Source<'_> {
    pub(super) fn note(&mut self, target: Option<&Draft>) -> (Vec<Tag>, String) {
        let length = match self.dice.below(100) {
            0..55 => self.dice.between(25, 160),
            55..86 => self.dice.between(160, 500),
            86..97 => self.dice.between(500, 1_500),
            _ => self.dice.between(1_500, 6_000),
        };
        let mut content = words::text(self.dice, length);
        let mut tags = Vec::new();
        if let Some(target) = target.filter(|_| self.dice.percent(52)) {
            let root = self.target().unwrap_or(target);
            let relay = words::relay(self.dice);
            tags.push(tag(["e", &root.id.to_hex(), &relay, "root"]));
            tags.push(tag(["e", &target.id.to_hex(), "", "reply"]));
            tags.push(tag(["p", self.hex_of(root)]));
            tags.push(tag(["p", self.hex_of(target), "", "mention"]));
            for _ in 0..self.dice.below(3) {
                tags.push(self.person());
            }
        }
        if self.dice.percent(15) {
            for _ in 0..self.dice.between(1, 5) {
                let topic = words::topic(self.dice);
                content.push_str(" #");
                content.push_str(topic);
                tags.push(tag(["t", topic]));
            }
        }
        if self.dice.percent(18) {
            let url = words::picture(self.dice);
            content.push('\n');
            content.push_str(&url);
            tags.push(tag(["imeta", &format!("url {url}"), "m image/jpeg", "dim 1080x1350"]));
            tags.push(tag(["r", &url]));
        }
        if self.dice.percent(20) {
            tags.push(tag(["client", "Sample"]));
        }
        (tags, content)
    }

    pub(super) fn reaction(&mut self, target: &Draft) -> (Vec<Tag>, String) {
        let mut tags = self.pointers(target);
        tags.push(kind_tag(target));
        let content = match self.dice.below(100) {
            0..60 => "+".to_owned(),
            60..63 => "-".to_owned(),
            63..95 => words::emoji(self.dice).to_owned(),
            _ => {
                let picture = words::picture(self.dice);
                tags.push(tag(["emoji", "quipu", &picture]));
                ":quipu:".to_owned()
            }
        };
        (tags, content)
    }

    /// `e` with a relay, and `p`.
    fn pointers(&mut self, target: &Draft) -> Vec<Tag> {
        let relay = words::relay(self.dice);
        vec![tag(["e", &target.id.to_hex(), &relay]), tag(["p", self.hex_of(target)])]
    }

    /// Half of the reposts contain the complete event, so JSON within JSON.
    pub(super) fn repost(&mut self, target: &Draft) -> (Vec<Tag>, String) {
        let mut tags = self.pointers(target);
        if target.kind.as_u16() != 1 {
            tags.push(kind_tag(target));
        }
        let whole = self.dice.percent(50) && target.content.len() < 1_500;
        let content = if whole { target.clone().sign(self.authors).as_json() } else { String::new() };
        (tags, content)
    }

    pub(super) fn comment(&mut self, target: &Draft) -> (Vec<Tag>, String) {
        let mut tags = self.pointers(target);
        let kind = target.kind.as_u16().to_string();
        tags.push(kind_tag(target));
        tags.push(tag(["E", &target.id.to_hex()]));
        tags.push(tag(["K", &kind]));
        tags.push(tag(["P", self.hex_of(target)]));
        let length = self.dice.between(30, 400);
        (tags, words::text(self.dice, length))
    }

    pub(super) fn report(&mut self, target: &Draft) -> (Vec<Tag>, String) {
        let reason = self.dice.pick(&["spam", "nudity", "profanity", "illegal", "impersonation"]);
        let tags = vec![tag(["e", &target.id.to_hex(), reason]), tag(["p", self.hex_of(target), reason])];
        (tags, words::title(self.dice))
    }

    /// A zap receipt: the signed zap request is the value of a tag, so JSON within JSON.
    pub(super) fn zap(&mut self, author: usize, target: &Draft) -> (Vec<Tag>, String) {
        let sender = self.dice.skewed(self.authors.len());
        let amount = (self.dice.between(1, 21_000) * 1_000).to_string();
        let mut request_tags = self.pointers(target);
        let mut tags = request_tags.clone();
        let (first, second) = (words::relay(self.dice), words::relay(self.dice));
        request_tags.extend([tag(["amount", &amount]), tag(["relays", &first, &second])]);
        let length = self.dice.between(0, 60);
        let content = words::text(self.dice, length);
        let request = Body { kind: 9_734, author: sender, tags: request_tags, content };
        let request = Draft::new(request, self.created_at, self.authors).sign(self.authors);
        let invoice = self.dice.letters(310, b"qpzry9x8gf2tvdw0s3jn54khce6mua7l");
        tags.push(tag(["P", &self.authors[sender].hex]));
        tags.push(tag(["bolt11", &format!("lnbc{amount}n1{invoice}")]));
        tags.push(tag(["description", &request.as_json()]));
        tags.push(tag(["preimage", &self.dice.hex(32)]));
        tags.push(tag(["alt", &format!("zap through {}", words::name(author))]));
        (tags, String::new())
    }
}
