//! Cookies of browsers: one on the way to the provider, one for a session. Their values are 32 random bytes.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use cookie::time::Duration;
use cookie::{Cookie, SameSite};

use super::SESSION_S;

/// Length of a value: 32 bytes in base64 without padding.
const VALUE_BYTES: usize = 43;

/// Lifetime of the cookie on the way to the provider, seconds.
const BEGUN_S: i32 = 600;

/// The name of a session's cookie in the original.
const SESSION: &str = "blobforge_session";
const BROWSER: &str = "blobforge_login";

/// How cookies are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cookies {
    /// Whether browsers reach the listener encrypted. The cookies then have the prefix `__Host-`, so that no other
    /// host, above or beside this one, can set them.
    pub(super) is_secure: bool,
}

impl Cookies {
    /// The value of a session's cookie.
    pub(super) fn session(self, headers: &HeaderMap) -> Option<String> {
        read(headers, &self.name(SESSION))
    }

    /// The value that a browser on its way to the provider was given.
    pub(super) fn browser(self, headers: &HeaderMap) -> Option<String> {
        read(headers, &self.name(BROWSER))
    }

    /// Marks a browser on its way to the provider.
    pub(super) fn begun(self, value: &str) -> HeaderValue {
        self.write(BROWSER, value, BEGUN_S)
    }

    /// Removes that mark.
    pub(super) fn arrived(self) -> HeaderValue {
        self.write(BROWSER, "", 0)
    }

    /// Gives a browser its session.
    pub(super) fn opened(self, value: &str) -> HeaderValue {
        self.write(SESSION, value, SESSION_S)
    }

    /// Takes its session from a browser.
    pub(super) fn closed(self) -> HeaderValue {
        self.write(SESSION, "", 0)
    }

    fn name(self, name: &str) -> String {
        format!("{}{name}", if self.is_secure { "__Host-" } else { "" })
    }

    fn write(self, name: &str, value: &str, lifetime_s: i32) -> HeaderValue {
        let cookie = Cookie::build((self.name(name), value.to_owned()))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(self.is_secure)
            .max_age(Duration::seconds(lifetime_s.into()))
            .build();
        HeaderValue::from_str(&cookie.to_string())
            .expect("name and value are ASCII without control characters")
    }
}

/// The value of the first cookie of this name, if it can be one of ours.
fn read(headers: &HeaderMap, name: &str) -> Option<String> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut all = texts.flat_map(Cookie::split_parse).filter_map(Result::ok);
    let found = all.find(|cookie| cookie.name() == name)?;
    let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let value = found.value();
    (value.len() == VALUE_BYTES && value.bytes().all(is_ours)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_this_host_alone_and_for_no_script() {
        let value = "x".repeat(VALUE_BYTES);
        let written = Cookies { is_secure: true }.opened(&value);
        assert_eq!(
            written.to_str().unwrap(),
            format!(
                "__Host-blobforge_session={value}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=86400"
            )
        );
        let written = Cookies { is_secure: false }.begun(&value);
        assert_eq!(
            written.to_str().unwrap(),
            format!("blobforge_login={value}; HttpOnly; SameSite=Lax; Path=/; Max-Age=600")
        );
        let closed = Cookies { is_secure: true }.closed();
        assert!(closed.to_str().unwrap().starts_with("__Host-blobforge_session=; "), "{closed:?}");
        assert!(closed.to_str().unwrap().ends_with("Max-Age=0"), "{closed:?}");
    }

    #[test]
    fn only_a_value_that_can_be_ours_is_read() {
        let value = "Ab-_".repeat(10) + "xyz";
        let read = |text: &str, is_secure| {
            let headers = HeaderMap::from_iter([(COOKIE, text.parse().unwrap())]);
            Cookies { is_secure }.session(&headers)
        };
        assert_eq!(read(&format!("a=b; blobforge_session={value}; c"), false), Some(value.clone()));
        assert_eq!(read(&format!("__Host-blobforge_session={value}"), true), Some(value.clone()));
        assert_eq!(read(&format!("blobforge_session={value}"), true), None, "another host could have set it");
        for wrong in ["", "bf_token", &format!("{value}x"), &value.replace('x', "%")] {
            assert_eq!(read(&format!("blobforge_session={wrong}"), false), None, "{wrong}");
        }
    }
}
