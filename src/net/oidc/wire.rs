//! Sends the requests of the library through the guarded client.

use std::pin::Pin;
use std::time::Duration;

use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use url::Url;

use crate::net::{Egress, Exchange, FetchError, Trust};

/// Time for one request, connection and response included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest response, in bytes: a token that lists some thousand groups.
const BYTES_MAX: usize = 256 * 1024;

/// The way to one provider.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) egress: Egress,
    pub(super) issuer: Url,
}

impl Wire {
    /// Refuses an endpoint without encryption of a provider that has it: secrets are sent there.
    pub(super) fn check_scheme(&self, endpoint: &Url) -> Result<(), FetchError> {
        if self.issuer.scheme() == "https" && endpoint.scheme() != "https" {
            return Err(FetchError::BadUrl("the provider names an endpoint without encryption".to_owned()));
        }
        Ok(())
    }

    /// As for redirects: what the issuer names is trusted like it within its origin, and elsewhere like any
    /// other address that was found.
    fn trust(&self, endpoint: &Url) -> Trust {
        if endpoint.origin() == self.issuer.origin() { Trust::Named } else { Trust::Discovered }
    }
}

impl<'c> AsyncHttpClient<'c> for Wire {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, FetchError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let endpoint = request.uri().to_string();
            let endpoint = Url::parse(&endpoint).map_err(|error| FetchError::BadUrl(error.to_string()))?;
            self.check_scheme(&endpoint)?;
            let trust = self.trust(&endpoint);
            self.egress.exchange(Exchange { request, trust, bytes_max: BYTES_MAX, timeout: TIMEOUT }).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Networks;

    fn wire(issuer: &str) -> Wire {
        Wire { egress: Egress::new(&Networks::default()).unwrap(), issuer: Url::parse(issuer).unwrap() }
    }

    #[tokio::test]
    async fn what_the_issuer_names_is_trusted_within_its_origin() {
        let wire = wire("http://10.0.0.7:8080/realms/x");
        for (endpoint, trust) in [
            ("http://10.0.0.7:8080/token", Trust::Named),
            ("http://10.0.0.7:8081/token", Trust::Discovered),
            ("http://169.254.169.254/latest", Trust::Discovered),
            ("https://10.0.0.7:8080/token", Trust::Discovered),
        ] {
            assert_eq!(wire.trust(&Url::parse(endpoint).unwrap()), trust, "{endpoint}");
        }
        let request =
            openidconnect::http::Request::post("http://127.0.0.1:9/token").body(Vec::new()).unwrap();
        let refused = wire.call(request).await.unwrap_err();
        assert_eq!(refused.reason(), "private_address", "{refused}");
    }

    #[tokio::test]
    async fn an_encrypted_issuer_names_no_open_endpoint() {
        let wire = wire("https://id.example.com");
        assert!(wire.check_scheme(&Url::parse("http://id.example.com/token").unwrap()).is_err());
        assert!(wire.check_scheme(&Url::parse("https://token.example.net/").unwrap()).is_ok());
    }
}
