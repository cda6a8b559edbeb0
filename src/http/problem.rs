//! Errors as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// An error response. `type` is `about:blank` where the status code says it all, else
/// `urn:uptally:problem:<kind>`, which never changes for one kind.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Problem {
    /// What kind of problem; one of this service's own, or `about:blank`.
    #[serde(rename = "type")]
    kind: String,
    /// The kind in words.
    pub(super) title: &'static str,
    /// The status of the answer.
    pub(super) status: u16,
    /// What was found, and what was expected.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) detail: String,
    /// Seconds after which to try again; also sent as `Retry-After`.
    #[serde(skip)]
    retry_after_s: Option<u32>,
    /// Ways to log in: each sent as `WWW-Authenticate`.
    #[serde(skip)]
    challenges: Vec<&'static str>,
    /// A header that goes with it.
    #[serde(skip)]
    header: Option<Box<(HeaderName, String)>>,
}

impl Problem {
    /// A problem that its status code describes.
    pub fn plain(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            retry_after_s: None,
            challenges: Vec::new(),
            header: None,
        }
    }

    /// A problem of this service's own kind.
    pub fn new(status: StatusCode, kind: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Problem {
            kind: format!("urn:uptally:problem:{kind}"),
            title,
            ..Problem::plain(status, detail)
        }
    }

    /// The same problem, worth another try after `seconds`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same problem with a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: String) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// The same problem, naming one more way to log in (RFC 6750, RFC 7617).
    #[must_use]
    pub fn challenge(mut self, challenge: &'static str) -> Self {
        self.challenges.push(challenge);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some((name, value)) = self.header.as_deref()
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(name.clone(), value);
        }
        for challenge in &self.challenges {
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        // For those who show it in another form.
        response.extensions_mut().insert(self);
        response
    }
}
