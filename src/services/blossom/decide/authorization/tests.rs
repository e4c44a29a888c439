//! Tests of tokens, by the lines of the conformance list (BL-11).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use nostr_sdk::{Event, EventBuilder, EventId, JsonUtil as _, Keys, Kind, Tag, Timestamp};

use super::*;

const NOW: i64 = 1_700_000_000;
const HOST: &str = "blobs.example.com";

fn blob() -> Sha256 {
    Sha256::of(b"blob")
}

fn keys() -> Keys {
    Keys::parse("0000000000000000000000000000000000000000000000000000000000000003").unwrap()
}

/// A draft of a token for an upload of [`blob`], in force at [`NOW`].
#[derive(Clone)]
struct Draft {
    kind: u16,
    created_at: i64,
    content: &'static str,
    tags: Vec<Vec<String>>,
}

impl Draft {
    fn new(verb: &str) -> Self {
        let draft = Self { kind: TOKEN_KIND, created_at: NOW, content: "words", tags: Vec::new() };
        draft.tag("t", &verb).tag("expiration", &(NOW + 60))
    }

    fn upload() -> Self {
        Self::new("upload").tag("x", &blob())
    }

    fn tag(mut self, name: &str, value: &dyn ToString) -> Self {
        self.tags.push(vec![name.to_owned(), value.to_string()]);
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.tags.retain(|tag| tag[0] != name);
        self
    }

    fn event(&self) -> Event {
        let created_at = Timestamp::from_secs(self.created_at.unsigned_abs());
        EventBuilder::new(Kind::from(self.kind), self.content)
            .tags(self.tags.iter().map(|tag| Tag::parse(tag).unwrap()))
            .custom_created_at(created_at)
            .sign_with_keys(&keys())
            .unwrap()
    }

    fn header(&self) -> String {
        format!("Nostr {}", URL_SAFE_NO_PAD.encode(self.event().as_json()))
    }

    fn token(&self) -> Token {
        Token::parse(&self.header()).unwrap()
    }
}

/// What a request at [`NOW`] for [`HOST`] says to the token.
fn checked(draft: &Draft, verb: Verb, about: About) -> Result<(), TokenError> {
    draft.token().check(Demand { verb, about, hosts: &[HOST.to_owned()], now: NOW })
}

fn uploads(draft: &Draft) -> Result<(), TokenError> {
    checked(draft, Verb::Upload, About::Blob(blob()))
}

/// The error with which a header is refused when it is read.
fn unread(header: &str) -> Option<TokenError> {
    Token::parse(header).err()
}

fn asked(verb: Verb, blob: Option<Sha256>) -> Asked<'static> {
    Asked { verb, blob, host: HOST, signs: false, now: NOW }
}

#[test]
fn bl_11_02_both_alphabets_any_padding_and_any_case_of_the_scheme_are_read() {
    // Contents of different lengths, with characters in whose Base64 the alphabets differ.
    for content in ["", "a", "ab", "abc", "???>>>~~~", "ü🌺ÿÿ"] {
        let json = Draft { content, ..Draft::upload() }.event().as_json();
        let forms = [
            URL_SAFE_NO_PAD.encode(&json),
            URL_SAFE.encode(&json),
            STANDARD.encode(&json),
            STANDARD_NO_PAD.encode(&json),
        ];
        let mixed = forms[2].replacen('+', "-", 1);
        for form in forms.into_iter().chain([mixed]) {
            for scheme in ["Nostr", "nostr", "NOSTR"] {
                assert_eq!(unread(&format!("{scheme} {form}")), None, "{content} {form}");
            }
        }
    }
    assert_eq!(unread("Bearer abc"), Some(TokenError::OtherScheme));
    assert_eq!(unread("Nostr"), Some(TokenError::OtherScheme));
    assert_eq!(unread("Nostr a*b"), Some(TokenError::NotBase64));
    assert_eq!(unread(&format!("Nostr {}", "A".repeat(TOKEN_BYTES_MAX))), Some(TokenError::TooLong));
    for text in ["{}", "[]", "null", "\u{0}"] {
        let header = format!("Nostr {}", URL_SAFE_NO_PAD.encode(text));
        assert_eq!(unread(&header), Some(TokenError::NotAnEvent), "{text}");
    }
}

#[test]
fn bl_11_03_kind_id_and_signature_are_checked() {
    let header = |event: &Event| format!("Nostr {}", URL_SAFE_NO_PAD.encode(event.as_json()));
    let other_kind = Draft { kind: 27_235, ..Draft::upload() };
    assert_eq!(unread(&other_kind.header()), Some(TokenError::OtherKind));
    let mut event = Draft::upload().event();
    event.content = "other".to_owned();
    assert_eq!(unread(&header(&event)), Some(TokenError::BadId));
    // The id fits the fields, and the signature is that of another event.
    event.id = EventId::new(&event.pubkey, &event.created_at, &event.kind, &event.tags, &event.content);
    assert_eq!(unread(&header(&event)), Some(TokenError::BadSignature));
}

#[test]
fn bl_11_04_a_token_of_the_future_is_refused_beyond_the_skew_and_an_old_one_is_not() {
    let at = |created_at| uploads(&Draft { created_at, ..Draft::upload() });
    for good in [0, NOW - 1_000_000, NOW, NOW + SKEW_S] {
        assert_eq!(at(good), Ok(()), "{good}");
    }
    assert_eq!(at(NOW + SKEW_S + 1), Err(TokenError::NotYetValid));
}

#[test]
fn bl_11_05_an_expiration_is_needed_and_has_to_lie_in_the_future() {
    let until = |text: &str| uploads(&Draft::upload().without("expiration").tag("expiration", &text));
    assert_eq!(until(&(NOW + 1).to_string()), Ok(()));
    assert_eq!(until(&NOW.to_string()), Err(TokenError::Expired));
    for text in ["", "soon", "1.5", "99999999999999999999", "1e10"] {
        assert_eq!(until(text), Err(TokenError::NoExpiration), "{text}");
    }
    assert_eq!(uploads(&Draft::upload().without("expiration")), Err(TokenError::NoExpiration));
    // Of two the earlier one counts.
    assert_eq!(uploads(&Draft::upload().tag("expiration", &(NOW - 1))), Err(TokenError::Expired));
}

#[test]
fn bl_11_06_a_token_allows_its_own_verb_alone() {
    let about = |verb| match verb {
        Verb::List => About::Nothing,
        _ => About::Blob(blob()),
    };
    for have in Verb::ALL {
        for need in Verb::ALL {
            let draft = Draft::new(have.as_str()).tag("x", &blob());
            let expected = if have == need { Ok(()) } else { Err(TokenError::OtherVerb) };
            assert_eq!(checked(&draft, *need, about(*need)), expected, "{have:?} {need:?}");
        }
    }
    for verb in ["", "UPLOAD", "upload "] {
        assert_eq!(uploads(&Draft::new(verb).tag("x", &blob())), Err(TokenError::OtherVerb), "{verb}");
    }
    // A second verb widens nothing.
    assert_eq!(
        uploads(&Draft::new("delete").tag("t", &"upload").tag("x", &blob())),
        Err(TokenError::OtherVerb)
    );
    assert_eq!(uploads(&Draft::upload().without("t")), Err(TokenError::OtherVerb));
}

#[test]
fn bl_11_07_a_server_tag_has_to_name_this_host_however_it_is_written() {
    for server in [
        HOST,
        "BLOBS.example.COM",
        "https://blobs.example.com",
        "https://blobs.example.com/",
        "http://blobs.example.com:8080/upload?x#y",
        "blobs.example.com:443",
        "blobs.example.com.",
        " blobs.example.com ",
    ] {
        assert_eq!(uploads(&Draft::upload().tag("server", &server)), Ok(()), "{server}");
    }
    for server in ["", "example.com", "evil-blobs.example.com", "blobs.example.com.evil.org", "https://", "/"]
    {
        assert_eq!(
            uploads(&Draft::upload().tag("server", &server)),
            Err(TokenError::OtherServer),
            "{server}"
        );
    }
    let mut nameless = Draft::upload();
    nameless.tags.push(vec!["server".to_owned()]);
    assert_eq!(uploads(&nameless), Err(TokenError::OtherServer));
    assert_eq!(host_of("http://[::1]:8080/"), "::1");
    assert_eq!(host_of("[2001:DB8::1]"), "2001:db8::1");
}

#[test]
fn bl_11_08_a_token_without_a_server_tag_is_valid_everywhere() {
    let token = Draft::upload().token();
    let demand = Demand { verb: Verb::Upload, about: About::Blob(blob()), hosts: &[], now: NOW };
    assert_eq!((token.is_scoped(), token.check(demand)), (false, Ok(())));
}

#[test]
fn bl_11_09_one_of_several_servers_and_blobs_is_enough() {
    let other = Sha256::of(b"other");
    let draft = Draft::new("upload")
        .tag("x", &other)
        .tag("x", &"no hash")
        .tag("x", &blob().to_string().to_ascii_uppercase())
        .tag("server", &"other.example.com")
        .tag("server", &HOST);
    assert_eq!(uploads(&draft), Ok(()));
    assert_eq!(checked(&draft, Verb::Upload, About::Blob(other)), Ok(()));
    assert_eq!(checked(&draft, Verb::Upload, About::Blob(Sha256::of(b"third"))), Err(TokenError::OtherBlob));
}

#[test]
fn bl_11_10_each_endpoint_needs_the_blob_that_it_is_about() {
    let ours = About::Blob(blob());
    for verb in [Verb::Upload, Verb::Media, Verb::Delete] {
        let draft = Draft::new(verb.as_str());
        assert_eq!(checked(&draft, verb, ours), Err(TokenError::NoBlob));
        assert_eq!(
            checked(&draft.clone().tag("x", &Sha256::of(b"other")), verb, ours),
            Err(TokenError::OtherBlob)
        );
        assert_eq!(checked(&draft.clone().tag("x", &"no hash"), verb, ours), Err(TokenError::OtherBlob));
        assert_eq!(checked(&draft.tag("x", &blob()), verb, ours), Ok(()));
    }
    let read = About::BlobOrOpen(blob());
    assert_eq!(checked(&Draft::new("get"), Verb::Get, read), Ok(()));
    assert_eq!(checked(&Draft::new("get").tag("x", &blob()), Verb::Get, read), Ok(()));
    for other in [Sha256::of(b"other").to_string(), "no hash".to_owned()] {
        assert_eq!(checked(&Draft::new("get").tag("x", &other), Verb::Get, read), Err(TokenError::OtherBlob));
    }
    assert_eq!(checked(&Draft::new("list"), Verb::List, About::Nothing), Ok(()));
}

#[test]
fn bl_11_11_without_a_stated_hash_the_token_is_asked_when_the_hash_is_known() {
    let draft = Draft::upload();
    assert_eq!(checked(&draft, Verb::Upload, About::BlobToCome), Ok(()));
    let token = draft.token();
    assert!(token.names(&blob()) && !token.names(&Sha256::of(b"other")));
    assert_eq!(checked(&Draft::new("upload"), Verb::Upload, About::BlobToCome), Err(TokenError::NoBlob));
    let unread = Draft::new("upload").tag("x", &"no hash");
    assert_eq!(checked(&unread, Verb::Upload, About::BlobToCome), Err(TokenError::OtherBlob));
    assert_eq!(token.only_blob(), Some(blob()));
    assert_eq!(draft.tag("x", &Sha256::of(b"other")).token().only_blob(), None);
}

#[test]
fn bl_11_14_a_token_needs_no_words() {
    assert_eq!(uploads(&Draft { content: "", ..Draft::upload() }), Ok(()));
}

#[test]
fn bl_11_15_a_token_is_valid_again_and_again() {
    let token = Draft::upload().token();
    let demand = Demand { verb: Verb::Upload, about: About::Blob(blob()), hosts: &[], now: NOW };
    for _ in 0..3 {
        assert_eq!(token.check(demand), Ok(()));
    }
}

#[test]
fn bl_11_16_a_delete_token_without_a_server_is_never_passed_on() {
    let delete = asked(Verb::Delete, Some(blob()));
    let loose = Draft::new("delete").tag("x", &blob());
    assert_eq!(token_for(Some(&loose.token()), None, delete), Credential::Unavailable);
    let bound = loose.tag("server", &HOST);
    let passed = token_for(Some(&bound.token()), None, delete);
    assert!(matches!(passed, Credential::Token(token) if Token::parse(token.expose()).unwrap().is_scoped()));
}

#[test]
fn bl_px_01_an_upstream_is_shown_a_token_that_is_valid_there() {
    let upload = asked(Verb::Upload, Some(blob()));
    let (operator, client) = (Keys::generate(), keys());
    let signer = |shown: Credential| match shown {
        Credential::Token(token) => Some(*Token::parse(token.expose()).unwrap().pubkey()),
        _ => None,
    };
    let of = |keys: &Keys| Some(keys.public_key().to_bytes());
    let shown = |draft: &Draft, keys: Option<&Keys>| token_for(Some(&draft.token()), keys, upload);
    // Valid there: as it came.
    for valid in [Draft::upload(), Draft::upload().tag("server", &"other.org").tag("server", &HOST)] {
        let token = valid.token();
        assert_eq!(token_for(Some(&token), None, upload), Credential::Token(token.header.clone()));
        assert_eq!(signer(shown(&valid, Some(&operator))), of(&client));
    }
    // Valid here alone, or for another blob: the operator's, if there is one.
    for foreign in [
        Draft::upload().tag("server", &"proxy.example.com"),
        Draft::new("upload").tag("x", &Sha256::of(b"original")),
        Draft::new("media").tag("x", &blob()),
    ] {
        assert_eq!(shown(&foreign, None), Credential::Unavailable);
        assert_eq!(signer(shown(&foreign, Some(&operator))), of(&operator));
    }
    assert_eq!(token_for(None, None, upload), Credential::Nothing);
    assert_eq!(signer(token_for(None, Some(&operator), upload)), of(&operator));
    let signing = Asked { signs: true, ..upload };
    assert_eq!(signer(token_for(Some(&Draft::upload().token()), Some(&operator), signing)), of(&operator));
}

#[test]
fn a_token_that_is_signed_here_is_valid_there_and_old_servers_read_it() {
    for (verb, blob) in [(Verb::Upload, Some(blob())), (Verb::Delete, Some(blob())), (Verb::List, None)] {
        let header = sign(&keys(), asked(verb, blob));
        let token = Token::parse(header.expose()).unwrap();
        let about = blob.map_or(About::Nothing, About::Blob);
        let demand = Demand { verb, about, hosts: &[HOST.to_owned()], now: NOW };
        assert_eq!((token.check(demand), token.is_scoped()), (Ok(()), true));
        let elsewhere = Demand { hosts: &["other.example.com".to_owned()], ..demand };
        assert_eq!(token.check(elsewhere), Err(TokenError::OtherServer));
        // The same text in all forms of Base64.
        let text = header.expose().strip_prefix("Nostr ").unwrap();
        let json = URL_SAFE_NO_PAD.decode(text).unwrap();
        assert_eq!((STANDARD.encode(&json), URL_SAFE.encode(&json)), (text.to_owned(), text.to_owned()));
    }
}
