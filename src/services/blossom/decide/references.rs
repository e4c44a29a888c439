//! The blobs that an event refers to, and where they may be: `x`, `imeta` and `url` tags, URLs and `blossom:` URIs
//! (BUD-10) in the content, and an author's list of servers (BUD-03).

use url::{Position, Url};

use crate::base::Sha256;

/// Kinds of events that refer to blobs: notes, pictures, videos, file metadata and articles.
pub const KINDS: [i32; 6] = [1, 20, 21, 22, 1063, 30023];

/// The kind of an author's list of servers.
pub const SERVER_LIST_KIND: i32 = 10063;

/// Most references that are taken from one event.
pub const REFERENCES_MAX: usize = 256;

/// Longest URL that is kept, bytes.
pub const URL_BYTES_MAX: usize = 2_048;

/// Most servers that are taken from one list.
pub const SERVERS_MAX: usize = 32;

/// Tags whose first value is the URL of a file.
const URL_TAGS: [&str; 5] = ["url", "image", "thumb", "fallback", "r"];

/// A blob that an event refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The blob.
    pub sha256: Sha256,
    /// Where it is named; without one the hash alone is.
    pub url: Option<Url>,
}

/// The blobs that an event of one of [`KINDS`] refers to, each place once, at most [`REFERENCES_MAX`].
#[must_use]
pub fn references_of(kind: i32, tags: &[Vec<String>], content: &str) -> Vec<Reference> {
    let mut found = Found::default();
    if kind == 1063 {
        found.add_file(tags.iter().map(|tag| (word(tag, 0), word(tag, 1))));
    }
    for tag in tags {
        match (word(tag, 0), word(tag, 1)) {
            ("imeta", _) => {
                found.add_file(tag.iter().skip(1).filter_map(|entry| entry.split_once(' ')));
            }
            ("x", digits) => found.add(digits.parse().ok(), None),
            (name, url) if URL_TAGS.contains(&name) => found.add_url(url),
            _ => {}
        }
    }
    for word in words_of(content) {
        if word.starts_with("blossom:") {
            found.add_uri(word);
        } else {
            found.add_url(word);
        }
    }
    found.references
}

/// The servers of an author's list, in order, without repetitions, at most [`SERVERS_MAX`]. What is no absolute URL of
/// HTTP is left out.
#[must_use]
pub fn servers_of(tags: &[Vec<String>]) -> Vec<Url> {
    let mut servers = Vec::new();
    for tag in tags.iter().filter(|tag| word(tag, 0) == "server") {
        if let Some(mut url) = web_url(word(tag, 1))
            && servers.len() < SERVERS_MAX
        {
            url.set_query(None);
            let path = url.path().trim_end_matches('/').to_owned();
            url.set_path(&path);
            if !servers.contains(&url) {
                servers.push(url);
            }
        }
    }
    servers
}

/// The hash that a URL names: the last run of exactly 64 hexadecimal digits after the host (BUD-03).
#[must_use]
pub fn hash_in(url: &Url) -> Option<Sha256> {
    let named = &url[Position::BeforePath..Position::AfterQuery];
    named.rsplit(|c: char| !c.is_ascii_hexdigit()).find(|run| run.len() == 64)?.parse().ok()
}

/// The URL of a blob on a server, which may have a path.
#[must_use]
pub fn blob_url(server: &Url, sha256: &Sha256) -> Url {
    let mut url = server.clone();
    url.set_query(None);
    let path = format!("{}/{sha256}", server.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// References in the order in which they were found.
#[derive(Debug, Default)]
struct Found {
    references: Vec<Reference>,
}

impl Found {
    fn add(&mut self, sha256: Option<Sha256>, url: Option<Url>) {
        let Some(sha256) = sha256 else { return };
        let is_known = |known: &Reference| known.sha256 == sha256 && (url.is_none() || known.url == url);
        if self.references.len() < REFERENCES_MAX && !self.references.iter().any(is_known) {
            self.references.push(Reference { sha256, url });
        }
    }

    fn add_url(&mut self, text: &str) {
        if let Some(url) = web_url(text) {
            self.add(hash_in(&url), Some(url));
        }
    }

    /// Adds a file that is described by pairs of name and value. Its hash belongs to its URLs, whatever they contain;
    /// preview pictures name their own hash.
    fn add_file<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
        let (mut hash, mut urls) = (None, Vec::new());
        for (name, value) in pairs {
            match name {
                "x" => hash = hash.or_else(|| value.parse::<Sha256>().ok()),
                "url" | "fallback" => urls.push(value),
                "image" | "thumb" => self.add_url(value),
                _ => {}
            }
        }
        for url in urls {
            match web_url(url) {
                Some(parsed) if hash.is_some() => self.add(hash, Some(parsed)),
                _ => self.add_url(url),
            }
        }
        self.add(hash, None);
    }

    /// Adds a blob that a `blossom:` URI names, at each of its servers.
    fn add_uri(&mut self, text: &str) {
        let Some(uri) = (text.len() <= URL_BYTES_MAX).then(|| Url::parse(text).ok()).flatten() else {
            return;
        };
        let Some((digits, extension)) = uri.path().split_once('.') else { return };
        let Ok(sha256) = digits.parse::<Sha256>() else { return };
        if extension.is_empty() {
            return;
        }
        for (name, server) in uri.query_pairs() {
            let server = match name.as_ref() {
                "xs" if server.contains("://") => web_url(&server),
                "xs" => web_url(&format!("https://{server}")),
                _ => None,
            };
            if let Some(server) = server {
                self.add(Some(sha256), Some(blob_url(&server, &sha256)));
            }
        }
        self.add(Some(sha256), None);
    }
}

/// Words of a text that may be URLs. Markdown writes them in brackets.
fn words_of(text: &str) -> impl Iterator<Item = &str> {
    let is_between = |c: char| c.is_whitespace() || c.is_control() || "\"'<>()[]{}`|\\^".contains(c);
    text.split(is_between)
        .map(|word| word.trim_end_matches(['.', ',', ';', ':', '!', '?', '*', '_', '~']))
        .filter(|word| {
            ["http://", "https://", "blossom:"]
                .iter()
                .any(|start| word.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start)))
        })
}

/// An absolute URL of HTTP, not too long, without credentials.
fn web_url(text: &str) -> Option<Url> {
    if text.len() > URL_BYTES_MAX {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    (is_web && url.username().is_empty() && url.password().is_none()).then_some(url)
}

fn word(tag: &[String], place: usize) -> &str {
    tag.get(place).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn tag(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Found references as `hash's first digit, URL`.
    fn found(kind: i32, tags: &[Vec<String>], content: &str) -> Vec<(char, String)> {
        let shown = |reference: &Reference| {
            let first = reference.sha256.to_string().chars().next().unwrap();
            (first, reference.url.as_ref().map_or_else(String::new, Url::to_string))
        };
        references_of(kind, tags, content).iter().map(shown).collect()
    }

    #[test]
    fn bl_03_3_a_url_names_the_last_run_of_64_digits() {
        let hash = |url: &str| hash_in(&Url::parse(url).unwrap()).map(|hash| hash.to_string());
        assert_eq!(hash(&format!("https://cdn/{A}/{B}.png")), Some(B.to_owned()));
        assert_eq!(hash(&format!("https://cdn/{}", A.to_uppercase())), Some(A.to_owned()));
        assert_eq!(hash(&format!("https://cdn/{A}{B}.png")), None, "128 digits are another hash");
        assert_eq!(hash(&format!("https://cdn/{A}.png#{B}")), Some(A.to_owned()));
        assert_eq!(hash(&format!("https://cdn/?of={A}&w=1")), Some(A.to_owned()));
        assert_eq!(hash(&format!("https://{}.{}/photo.png", &A[..60], &B[..60])), None);
    }

    #[test]
    fn a_note_names_blobs_by_url_and_by_uri() {
        let content = format!(
            "Look: https://cdn.example/{A}.jpg, and ![x](https://b.example/{B}.png) or https://c.example/cat.png \
             blossom:{A}.jpg?xs=s.example&xs=http://t.example/&as={B}"
        );
        assert_eq!(
            found(1, &[], &content),
            [
                ('a', format!("https://cdn.example/{A}.jpg")),
                ('b', format!("https://b.example/{B}.png")),
                ('a', format!("https://s.example/{A}")),
                ('a', format!("http://t.example/{A}")),
            ]
        );
        assert_eq!(
            found(1, &[], &format!("blossom:{A} blossom:aa.jpg")),
            [],
            "an extension and 64 digits are required"
        );
        assert_eq!(found(1, &[], &format!("blossom:{A}.bin")), [('a', String::new())]);
    }

    #[test]
    fn the_hash_of_a_described_file_belongs_to_its_urls() {
        let imeta = tag(&[
            "imeta",
            "url https://cdn.example/cat.jpg",
            &format!("x {A}"),
            "m image/jpeg",
            "fallback https://other.example/cat.jpg",
            &format!("image https://cdn.example/{B}.jpg"),
        ]);
        let expected = [
            ('b', format!("https://cdn.example/{B}.jpg")),
            ('a', "https://cdn.example/cat.jpg".to_owned()),
            ('a', "https://other.example/cat.jpg".to_owned()),
        ];
        assert_eq!(found(20, &[imeta], ""), expected);
        let file = [tag(&["url", "https://cdn.example/cat.jpg"]), tag(&["x", A]), tag(&["ox", B])];
        assert_eq!(found(1063, &file, ""), [('a', "https://cdn.example/cat.jpg".to_owned())]);
        assert_eq!(
            found(1, &[tag(&["x", A]), tag(&["x", "short"]), tag(&["x"]), tag(&[])], ""),
            [('a', String::new())]
        );
    }

    #[test]
    fn what_an_event_can_cost_is_bounded() {
        let lines: Vec<String> = (0..1_000).map(|i| format!("https://cdn/{i:064x}\n")).collect();
        let content = lines.concat();
        assert_eq!(references_of(1, &[], &content).len(), REFERENCES_MAX);
        let long = format!("https://cdn/{}/{A}", "x".repeat(URL_BYTES_MAX));
        assert_eq!(references_of(1, &[], &long), []);
        for odd in ["https://", "https://u:p@cdn/", "blossom:", "blossom:?xs=", "ftp://cdn/", "https://[/"] {
            assert_eq!(references_of(1, &[], &format!("{odd}{A}é {odd}")).len(), 0, "{odd}");
        }
    }

    #[test]
    fn bl_03_5_a_server_list_is_cleaned() {
        let tags = [
            tag(&["server", "https://a.example/"]),
            tag(&["server", "https://a.example"]),
            tag(&["server", "a.example"]),
            tag(&["server", "wss://relay.example"]),
            tag(&["server", "http://b.example/media/?x=1"]),
            tag(&["relay", "https://c.example"]),
        ];
        let servers: Vec<String> = servers_of(&tags).iter().map(Url::to_string).collect();
        assert_eq!(servers, ["https://a.example/", "http://b.example/media"]);
        assert_eq!(
            blob_url(&servers_of(&tags)[1], &A.parse().unwrap()).as_str(),
            format!("http://b.example/media/{A}")
        );
        assert_eq!(
            blob_url(&servers_of(&tags)[0], &A.parse().unwrap()).as_str(),
            format!("https://a.example/{A}")
        );
    }
}
