//! The command of a worker, with places for the files and facts of a job.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::str::FromStr;

/// Words of a command line, with places such as `{input}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<String>);

/// The places that a command can have.
pub(super) const PLACES: [&str; 5] = ["input", "output", "id", "type", "attempt"];

/// Why a text is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("a quote is not closed")]
    Quote,
    #[error("the command is empty")]
    Empty,
    #[error("{{{0}}} is none of {{input}}, {{output}}, {{id}}, {{type}}, {{attempt}}")]
    Place(String),
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let words = shlex::split(text).ok_or(TemplateError::Quote)?;
        if words.first().is_none_or(String::is_empty) {
            return Err(TemplateError::Empty);
        }
        for word in &words {
            if let Some(unknown) = places(word).find(|place| !PLACES.contains(place)) {
                return Err(TemplateError::Place(unknown.to_owned()));
            }
        }
        Ok(Self(words))
    }
}

/// The names in braces in a word. Braces around anything else, as in `${x:-y}` or JSON, are text.
fn places(word: &str) -> impl Iterator<Item = &str> {
    word.split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name)
        .filter(|name| !name.is_empty() && name.bytes().all(|letter| letter.is_ascii_lowercase()))
}

impl Template {
    /// The words of one job. What is filled in is never split or read again.
    pub(super) fn fill(&self, values: &BTreeMap<&'static str, String>) -> Vec<OsString> {
        self.0.iter().map(|word| filled(word, values).into()).collect()
    }
}

fn filled(word: &str, values: &BTreeMap<&'static str, String>) -> String {
    let (mut text, mut rest) = (String::new(), word);
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let place = after.split_once('}').and_then(|(name, behind)| Some((values.get(name)?, behind)));
        // A brace that opens no place is text.
        let (value, behind) = place.map_or(("{", after), |(value, behind)| (value.as_str(), behind));
        text.push_str(value);
        rest = behind;
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(template: &str, input: &str) -> Vec<String> {
        let values = BTreeMap::from([
            ("input", input.to_owned()),
            ("output", "/o".to_owned()),
            ("id", "7".to_owned()),
        ]);
        let filled = template.parse::<Template>().unwrap().fill(&values);
        filled.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn words_are_split_before_places_are_filled() {
        assert_eq!(
            words("convert -q {input} 'a b' {output}.tmp", "/x y;{output}"),
            ["convert", "-q", "/x y;{output}", "a b", "/o.tmp"]
        );
        assert_eq!(words("sh -c 'echo ${A:-b} {\"a\": {id}}'", ""), ["sh", "-c", "echo ${A:-b} {\"a\": 7}"]);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let refused = |text: &str| text.parse::<Template>().unwrap_err();
        assert_eq!(refused("sh -c 'x"), TemplateError::Quote);
        assert_eq!(refused("  "), TemplateError::Empty);
        assert_eq!(refused("convert {in}"), TemplateError::Place("in".to_owned()));
    }
}
