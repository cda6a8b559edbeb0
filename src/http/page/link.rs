//! Addresses of pages: everything that a page shows follows from its own.

use axum::http::Uri;
use url::form_urlencoded;

/// The parameters of a page's address, without those that are empty: a form sends its empty fields too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link(Vec<(String, String)>);

impl Link {
    pub(super) fn of(uri: &Uri) -> Self {
        Link::read(uri.query().unwrap_or_default().as_bytes())
    }

    /// Of a form that was posted.
    pub(super) fn read(form: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(form);
        let given = pairs.filter(|(_, value)| !value.is_empty());
        Link(
            given
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// The value of a parameter, empty if it is not there.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map_or("", |(_, value)| value)
    }

    /// The same with other values for some parameters; an empty value takes one away.
    pub(super) fn with(&self, changes: &[(&str, &str)]) -> Self {
        let changed = |name: &str| changes.iter().any(|(change, _)| *change == name);
        let kept = self.0.iter().filter(|(name, _)| !changed(name)).cloned();
        let new = changes.iter().filter(|(_, value)| !value.is_empty());
        Link(
            kept.chain(new.map(|&(name, value)| (name.to_owned(), value.to_owned())))
                .collect(),
        )
    }

    /// The query string, without the question mark.
    pub(super) fn query(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.0)
            .finish()
    }

    /// The same as an address that can be read.
    pub(super) fn uri(&self, path: &'static str) -> Uri {
        // What was serialized is an address; were it none, the page would be the one without parameters.
        self.to(path).parse().unwrap_or_else(|_| Uri::from_static(path))
    }

    /// The address of `path` with these parameters.
    pub(super) fn to(&self, path: &str) -> String {
        if self.0.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", self.query())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_replace_add_and_take_away() {
        let link = Link::of(&"/stores?state=offline&q=&offset=50&sort=id".parse().unwrap());
        assert_eq!(link.get("state"), "offline");
        assert_eq!(link.get("q"), "");
        assert_eq!(link.query(), "state=offline&offset=50&sort=id");
        let next = link.with(&[("offset", "100"), ("state", ""), ("q", "a b&c")]);
        assert_eq!(next.to("/stores"), "/stores?sort=id&offset=100&q=a+b%26c");
        assert_eq!(Link::default().to("/stores"), "/stores");
    }
}
