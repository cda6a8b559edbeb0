//! Buckets: object stores in which reports are kept, by URL and the usual environment variables.

use std::error::Error as StdError;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use super::ArchiveError;

/// What a bucket's error says, without what may hold a key: a signed URL has it behind its question mark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bucket for reports failed: {kind}: {text}")]
pub struct BucketError {
    kind: &'static str,
    text: String,
}

impl BucketError {
    /// In words that may be shown to anybody.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

impl From<object_store::Error> for BucketError {
    fn from(error: object_store::Error) -> Self {
        let kind = match &error {
            object_store::Error::NotFound { .. } => "there is no such bucket",
            object_store::Error::PermissionDenied { .. } => "permission denied",
            object_store::Error::Unauthenticated { .. } => "the credentials do not hold",
            _ => "no answer, or none that is understood",
        };
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        BucketError {
            kind,
            text: without_queries(&text),
        }
    }
}

/// Every query of a URL becomes three dots.
fn without_queries(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, query)) = rest.split_once('?') {
        kept.push_str(before);
        kept.push_str("?...");
        let end = query.find(|c: char| c.is_whitespace() || matches!(c, ')' | '"' | '\'' | '>'));
        rest = end.and_then(|end| query.get(end..)).unwrap_or_default();
    }
    kept.push_str(rest);
    kept
}

/// Opens the bucket that a URL names, and the path in it.
pub(super) fn open(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path), ArchiveError> {
    let Ok((scheme, prefix)) = ObjectStoreScheme::parse(url) else {
        return Err(ArchiveError::Scheme(url.scheme().to_owned()));
    };
    let store = match scheme {
        ObjectStoreScheme::AmazonS3 => s3(url)?,
        ObjectStoreScheme::GoogleCloudStorage => gcs(url)?,
        ObjectStoreScheme::MicrosoftAzure => azure(url)?,
        _ => return Err(ArchiveError::Scheme(url.scheme().to_owned())),
    };
    Ok((store, prefix))
}

/// One kind of bucket: its function, which without the feature refuses.
macro_rules! bucket {
    ($open:ident, $feature:literal, $prefix:literal, $builder:path) => {
        #[cfg(feature = $feature)]
        fn $open(url: &Url) -> Result<Arc<dyn ObjectStore>, ArchiveError> {
            use $builder as Builder;
            let builder = client::options($prefix).fold(Builder::new(), |builder, (key, value)| match key.parse() {
                Ok(key) => builder.with_config(key, value),
                // Other programs have variables that begin so, too.
                Err(_) => builder,
            });
            let store = builder
                .with_url(url.as_str())
                .with_retry(client::retries())
                .build();
            let store = store.map_err(|error| ArchiveError::BucketSettings(error.into()))?;
            Ok(Arc::new(store))
        }

        #[cfg(not(feature = $feature))]
        fn $open(_: &Url) -> Result<Arc<dyn ObjectStore>, ArchiveError> {
            Err(ArchiveError::Feature($feature))
        }
    };
}

bucket!(s3, "s3", "AWS_", object_store::aws::AmazonS3Builder);
bucket!(gcs, "gcs", "GOOGLE_", object_store::gcp::GoogleCloudStorageBuilder);
bucket!(azure, "azure", "AZURE_", object_store::azure::MicrosoftAzureBuilder);

#[cfg(feature = "object-stores")]
mod client {
    use std::time::Duration;

    use object_store::RetryConfig;
    use tokio_rustls::rustls::crypto::ring;

    /// What the environment says under a prefix, over what holds else: a bucket that does not answer must not keep a
    /// report's turn for long.
    pub(super) fn options(prefix: &'static str) -> impl Iterator<Item = (String, String)> {
        // The first one to come stays, whoever it is.
        let _ = ring::default_provider().install_default();
        let ours = [("connect_timeout", "5 seconds"), ("timeout", "30 seconds")];
        let ours = ours.map(|(key, value)| (key.to_owned(), value.to_owned()));
        // `vars` would panic at a variable that is not text.
        let theirs = std::env::vars_os().filter_map(move |(key, value)| {
            let key = key.into_string().ok()?.to_ascii_lowercase();
            key.starts_with(&prefix.to_ascii_lowercase()).then_some(())?;
            Some((key, value.into_string().ok()?))
        });
        ours.into_iter().chain(theirs)
    }

    /// A few times, within half a minute.
    pub(super) fn retries() -> RetryConfig {
        RetryConfig {
            max_retries: 3,
            retry_timeout: Duration::from_secs(30),
            ..RetryConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_bucket_holds_no_key() {
        let source =
            "error sending request for url (https://host/c/a.csv?sv=1&sig=SECRET%3D) twice, 'https://h?sig=SECRET'";
        let error = BucketError::from(object_store::Error::Generic {
            store: "Azure",
            source: source.into(),
        });
        let text = error.to_string();
        assert!(!text.contains("SECRET"), "{text}");
        assert!(text.contains("https://host/c/a.csv?...) twice"), "{text}");
        assert_eq!(error.kind(), "no answer, or none that is understood");
    }
}
