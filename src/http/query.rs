//! The query of a request, refused if its percent-encoding is broken.
//!
//! The usual decoder keeps a broken escape as text and replaces bytes that are not UTF-8. A name decoded that
//! way is not the one that the client meant.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::{Failure, Rejection};

/// Most characters of a field's name in a refusal.
const NAME_CHARACTERS_MAX: usize = 64;

/// The fields of a query. A field whose percent-encoding is broken is refused with its name: 400.
#[derive(Debug, Clone, Copy)]
pub struct StrictQuery<T>(
    /// The decoded fields.
    pub T,
);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        if let Some(field) = broken_field(parts.uri.query().unwrap_or_default()) {
            let why = format!("{field} is not percent-encoded UTF-8: each % begins two hexadecimal digits");
            return Err(Failure::from(Rejection::bad_field(field, why)).into_response());
        }
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(fields)| Self(fields)).map_err(IntoResponse::into_response)
    }
}

/// The name of the first field that cannot be decoded.
fn broken_field(query: &str) -> Option<String> {
    let broken = query.split('&').find(|pair| !is_well_encoded(pair))?;
    Some(broken.split('=').next().unwrap_or_default().chars().take(NAME_CHARACTERS_MAX).collect())
}

fn is_well_encoded(pair: &str) -> bool {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    pair.split('%').skip(1).all(is_escape) && percent_decode_str(pair).decode_utf8().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_with_a_broken_escape_is_named() {
        for query in [
            "a=1&device_id=%zz&b=2",
            "device_id=%",
            "device_id=%4",
            "device_id=100%",
            "device_id=%ff",
            "device_id=%c3",
        ] {
            assert_eq!(broken_field(query).as_deref(), Some("device_id"), "{query}");
        }
        assert_eq!(broken_field("%zz=1").as_deref(), Some("%zz"));
    }

    #[test]
    fn well_encoded_fields_pass() {
        for query in ["", "a", "a=", "&&", "a=%25&b=%c3%a4+%20", "a=b%3D%26", "a=ä"] {
            assert_eq!(broken_field(query), None, "{query}");
        }
    }
}
