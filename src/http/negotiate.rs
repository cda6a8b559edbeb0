//! Which form of a file a request gets: how it is encoded, which part of it, or nothing because the client has it (RFC 9110).
//!
//! Parts are of the file as it is, never of an encoding of it: whoever asks for a part gets it without encoding, unless that
//! is what it does not take.

use axum::http::{HeaderMap, HeaderName, header};

/// How a file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it is.
    Identity,
    Gzip,
    Zstd,
}

/// What is sent of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selected {
    /// All of it.
    Whole(Coding),
    /// The bytes from `first` to `last`, both included.
    Part { first: u64, last: u64 },
    /// There are no such bytes.
    OutOfRange,
    /// The client has it; in this form.
    NotModified(Coding),
    /// It is not the one that the client wants.
    PreconditionFailed,
}

impl Coding {
    /// What `Content-Encoding` says; nothing for the file as it is.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Coding::Identity => None,
            Coding::Gzip => Some("gzip"),
            Coding::Zstd => Some("zstd"),
        }
    }

    /// The entity tag of a file in this form, of the tag of the file as it is, without quotes. Strong: equal tags are equal
    /// bytes.
    pub(super) fn entity_tag(self, of_identity: &str) -> String {
        match self.name() {
            None => format!("\"{of_identity}\""),
            Some(name) => format!("\"{of_identity}-{name}\""),
        }
    }

    /// The form that a client likes best; of several the smallest. Nothing said: as it is. Nothing accepted: as it is too,
    /// which is more use than a refusal.
    fn preferred(headers: &HeaderMap) -> Self {
        let weight = |coding: Coding| weight(headers, coding.name().unwrap_or("identity"));
        let all = [Coding::Identity, Coding::Gzip, Coding::Zstd];
        // The last of equals.
        let best = all
            .into_iter()
            .max_by_key(|coding| weight(*coding))
            .unwrap_or(Coding::Identity);
        if weight(best) == 0 { Coding::Identity } else { best }
    }
}

/// How much a client likes a coding, in thousandths.
fn weight(headers: &HeaderMap, coding: &str) -> u16 {
    let is_identity = coding == "identity";
    let mut any = None;
    let mut said = false;
    for item in list(headers, &header::ACCEPT_ENCODING) {
        said = true;
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let quality = parameters
            .trim()
            .strip_prefix("q=")
            .or_else(|| parameters.trim().strip_prefix("Q="));
        let quality = quality.map_or(Some(1000), thousandths).unwrap_or(0);
        let name = name.trim();
        if name.eq_ignore_ascii_case(coding) || coding == "gzip" && name.eq_ignore_ascii_case("x-gzip") {
            return quality;
        }
        if name == "*" {
            any = Some(quality);
        }
    }
    match any {
        Some(quality) => quality,
        // Acceptable unless it is said not to be, and liked less than what is named.
        None if is_identity => {
            if said {
                1
            } else {
                1000
            }
        }
        None => 0,
    }
}

/// `0`, `1`, or either with up to three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: u16 = match whole {
        "0" => 0,
        "1" => 1000,
        _ => return None,
    };
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    Some(whole + decimals).filter(|sum| *sum <= 1000)
}

/// The items of a header that is a list, whatever lines it came in.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// What is sent of a file of `bytes` bytes. `is_get`: a HEAD asks for no part.
pub(super) fn select(headers: &HeaderMap, is_get: bool, of_identity: &str, bytes: u64) -> Selected {
    let tag = |coding: Coding| coding.entity_tag(of_identity);
    let wants_part = is_get && headers.contains_key(header::RANGE) && weight(headers, "identity") > 0;
    let coding = if wants_part {
        Coding::Identity
    } else {
        Coding::preferred(headers)
    };
    // Any form of the file is the file.
    let forms = [Coding::Identity, Coding::Gzip, Coding::Zstd].map(tag);
    let wanted = |item: &str| item == "*" || forms.iter().any(|form| form == item);
    if headers.contains_key(header::IF_MATCH) && !list(headers, &header::IF_MATCH).any(wanted) {
        return Selected::PreconditionFailed;
    }
    // Here a weak comparison is asked for.
    let has = |item: &str| item == "*" || item.strip_prefix("W/").unwrap_or(item) == tag(coding);
    if list(headers, &header::IF_NONE_MATCH).any(has) {
        return Selected::NotModified(coding);
    }
    if !wants_part {
        return Selected::Whole(coding);
    }
    let is_same = headers
        .get(header::IF_RANGE)
        .is_none_or(|value| value.as_bytes() == tag(Coding::Identity).as_bytes());
    let mut lines = headers.get_all(header::RANGE).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) if is_same => match line.to_str() {
            Ok(line) => part(line, bytes),
            Err(_) => Selected::Whole(Coding::Identity),
        },
        _ => Selected::Whole(Coding::preferred(headers)),
    }
}

/// The one part that a `Range` asks for. What is not understood, and several parts, are answered with the whole.
fn part(line: &str, bytes: u64) -> Selected {
    let whole = Selected::Whole(Coding::Identity);
    let Some((unit, range)) = line.split_once('=') else {
        return whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return whole;
    }
    let Some((first, last)) = range.trim().split_once('-') else {
        return whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number that is too large for us is larger than any file.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (None, Some(length)) if first.is_empty() => match length.min(bytes) {
            0 => Selected::OutOfRange,
            length => Selected::Part {
                first: bytes - length,
                last: bytes - 1,
            },
        },
        (Some(first), None) if last.is_empty() && first < bytes => Selected::Part { first, last: bytes - 1 },
        (Some(first), Some(last)) if first <= last && first < bytes => Selected::Part {
            first,
            last: last.min(bytes - 1),
        },
        (Some(first), None) if last.is_empty() && first >= bytes => Selected::OutOfRange,
        (Some(first), Some(last)) if first <= last => Selected::OutOfRange,
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use super::*;

    fn selected(headers: &[(HeaderName, &str)]) -> Selected {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        select(&map, true, "x", 100)
    }

    #[test]
    fn the_smallest_of_the_forms_that_are_liked_best() {
        use Coding::{Gzip, Identity, Zstd};
        for (accepts, expected) in [
            ("", Identity),
            ("gzip", Gzip),
            ("X-GZIP", Gzip),
            ("gzip, deflate, br, zstd", Zstd),
            ("zstd;q=0.5, gzip;q=0.501", Gzip),
            ("zstd;q=0, *", Gzip),
            ("*;q=0.1", Zstd),
            ("identity, gzip;q=0.5", Identity),
            ("identity;q=0, br", Identity),
            ("br", Identity),
            ("gzip;q=2", Identity),
            ("gzip;q=0.1234", Identity),
            ("gzip;q=0", Identity),
        ] {
            let found = selected(&[(header::ACCEPT_ENCODING, accepts)]);
            assert_eq!(found, Selected::Whole(expected), "{accepts}");
        }
        assert_eq!(selected(&[]), Selected::Whole(Identity));
    }

    #[test]
    fn one_part_of_the_file_as_it_is() {
        let whole = Selected::Whole(Coding::Identity);
        let part = |first, last| Selected::Part { first, last };
        for (range, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=10-", part(10, 99)),
            ("bytes=-7", part(93, 99)),
            ("bytes=-700", part(0, 99)),
            ("BYTES= 98-7000", part(98, 99)),
            ("bytes=99-99999999999999999999999", part(99, 99)),
            ("bytes=100-", Selected::OutOfRange),
            ("bytes=99999999999999999999999-", Selected::OutOfRange),
            ("bytes=100-200", Selected::OutOfRange),
            ("bytes=-0", Selected::OutOfRange),
            ("bytes=9-5", whole),
            ("bytes=0-1,3-4", whole),
            ("bytes=-", whole),
            ("bytes=+1-2", whole),
            ("lines=0-1", whole),
            ("0-1", whole),
        ] {
            assert_eq!(selected(&[(header::RANGE, range)]), expected, "{range}");
        }
        let zstd = (header::ACCEPT_ENCODING, "zstd");
        let range = (header::RANGE, "bytes=0-0");
        assert_eq!(selected(&[zstd.clone(), range.clone()]), part(0, 0));
        let only = (header::ACCEPT_ENCODING, "zstd, identity;q=0");
        assert_eq!(selected(&[only, range.clone()]), Selected::Whole(Coding::Zstd));
        assert_eq!(selected(&[range.clone(), (header::IF_RANGE, "\"x\"")]), part(0, 0));
        for other in ["\"y\"", "W/\"x\"", "\"x-gzip\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            let asked = [zstd.clone(), range.clone(), (header::IF_RANGE, other)];
            assert_eq!(selected(&asked), Selected::Whole(Coding::Zstd), "{other}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=0-0".parse().unwrap());
        assert_eq!(select(&headers, false, "x", 100), whole, "a HEAD asks for no part");
    }

    #[test]
    fn who_has_it_is_told_so() {
        let not_modified = Selected::NotModified(Coding::Identity);
        for (has, expected) in [
            ("\"x\"", not_modified),
            ("W/\"x\"", not_modified),
            ("\"a\", \"x\"", not_modified),
            ("*", not_modified),
            ("\"y\"", Selected::Whole(Coding::Identity)),
            ("\"x-gzip\"", Selected::Whole(Coding::Identity)),
            ("x", Selected::Whole(Coding::Identity)),
        ] {
            let range = (header::RANGE, "bytes=0-0");
            let found = selected(&[(header::IF_NONE_MATCH, has)]);
            assert_eq!(found, expected, "{has}");
            if expected == not_modified {
                assert_eq!(
                    selected(&[range, (header::IF_NONE_MATCH, has)]),
                    expected,
                    "before any part"
                );
            }
        }
        let gzip = (header::ACCEPT_ENCODING, "gzip");
        let has = (header::IF_NONE_MATCH, "\"x-gzip\"");
        assert_eq!(selected(&[gzip, has]), Selected::NotModified(Coding::Gzip));
        assert_eq!(selected(&[(header::IF_MATCH, "\"y\"")]), Selected::PreconditionFailed);
        assert_eq!(
            selected(&[(header::IF_MATCH, "\"y\", \"x-zstd\"")]),
            Selected::Whole(Coding::Identity)
        );
        assert_eq!(selected(&[(header::IF_MATCH, "*")]), Selected::Whole(Coding::Identity));
    }
}
