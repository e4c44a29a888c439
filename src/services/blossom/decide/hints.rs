//! Where a client says that a blob may be: the parameters `xs` and `as` of BUD-10, and lists of servers (kind 10063).

use url::{Url, form_urlencoded};

use crate::base::Sha256;

/// Servers of one request that are asked, and keys whose lists are looked up.
const SERVERS_MAX: usize = 4;
const AUTHORS_MAX: usize = 2;

/// Longest server, bytes.
const SERVER_BYTES_MAX: usize = 512;

/// What the query of a request for a blob says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Servers (`xs`) as they are written, in order.
    pub servers: Vec<String>,
    /// Keys (`as`) whose lists of servers may name more.
    pub authors: Vec<[u8; 32]>,
}

impl Hints {
    /// Reads a query. Parameters that are no hints are ignored, and so are hints that cannot be used or are too many.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let mut hints = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "xs" if hints.servers.len() < SERVERS_MAX && value.len() <= SERVER_BYTES_MAX => {
                    hints.servers.push(value.into_owned());
                }
                "as" if hints.authors.len() < AUTHORS_MAX => {
                    let mut key = [0; 32];
                    if hex::decode_to_slice(&*value, &mut key).is_ok() {
                        hints.authors.push(key);
                    }
                }
                _ => {}
            }
        }
        hints
    }
}

/// The URLs of a blob at these servers, in order, each once. A domain without a scheme is tried with https, then with http; what
/// is no http or https URL is left out. At most twice `SERVERS_MAX` URLs.
#[must_use]
pub fn blob_urls<'a>(
    servers: impl IntoIterator<Item = &'a str>,
    sha256: &Sha256,
    extension: &str,
) -> Vec<Url> {
    let dot = if extension.is_empty() { "" } else { "." };
    let mut urls: Vec<Url> = Vec::new();
    for server in servers.into_iter().take(SERVERS_MAX) {
        let (server, has_scheme) = (server.trim().trim_end_matches('/'), server.contains("://"));
        let bases = if has_scheme {
            vec![server.to_owned()]
        } else {
            vec![format!("https://{server}"), format!("http://{server}")]
        };
        for base in bases {
            let name = format!("/{sha256}{dot}{extension}");
            let Ok(url) = Url::parse(&format!("{base}{name}")) else { continue };
            // Without a host the name would be taken for it.
            let is_plain = matches!(url.scheme(), "http" | "https")
                && url.path().ends_with(&name)
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none();
            if is_plain && !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
    urls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bl_10_02_repeated_hints_keep_their_order_and_others_are_ignored() {
        let key = "ab".repeat(32);
        let hints = Hints::parse(&format!(
            "xs=a.example&xs=https%3A%2F%2Fb.example&sz=7&other=1&as={key}&as=npub1x&xs"
        ));
        assert_eq!(hints.servers, ["a.example", "https://b.example", ""]);
        assert_eq!(hints.authors, [[0xab; 32]]);
        assert_eq!(Hints::parse(""), Hints::default());
        let many = Hints::parse(&"xs=a&".repeat(100));
        assert_eq!(many.servers.len(), SERVERS_MAX);
    }

    #[test]
    fn bl_10_04_a_bare_domain_is_tried_with_https_then_http_and_a_scheme_is_kept() {
        let sha256 = Sha256::of(b"blob");
        let of = |servers: &[&str]| -> Vec<String> {
            blob_urls(servers.iter().copied(), &sha256, "png").into_iter().map(String::from).collect()
        };
        assert_eq!(
            of(&["a.example", "http://b.example:8080/", "https://a.example/"]),
            [
                format!("https://a.example/{sha256}.png"),
                format!("http://a.example/{sha256}.png"),
                format!("http://b.example:8080/{sha256}.png"),
            ]
        );
        for server in
            ["", "ftp://a.example", "https://u:p@a.example", "https://a.example/?x=", "a b", "https://"]
        {
            assert_eq!(of(&[server]), Vec::<String>::new(), "{server}");
        }
    }
}
