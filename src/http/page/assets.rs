//! The files of the page, inside the program.
//!
//! Their path holds a hash of all of them: a browser keeps them for a year and asks for others after an upgrade, and
//! the modules find each other by relative paths.

use std::fmt::Write as _;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// One file.
pub(super) struct Asset {
    pub(super) name: &'static str,
    pub(super) content_type: &'static str,
    pub(super) bytes: &'static [u8],
    /// Strong: of the content alone.
    pub(super) etag: String,
}

macro_rules! assets {
    ($($name:literal: $content_type:expr),+ $(,)?) => {
        [$(($name, $content_type, include_bytes!(concat!("assets/", $name)).as_slice())),+]
    };
}

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let files = assets! {
        "app.css": CSS,
        "app.js": JS,
        "copy.js": JS,
        "cursor.js": JS,
        "fleet.js": JS,
        "list.js": JS,
        "live.js": JS,
        "refresh.js": JS,
        "icon.svg": SVG,
    };
    let made = files.map(|(name, content_type, bytes)| Asset {
        name,
        content_type,
        bytes,
        etag: format!("\"{}\"", hash(&[bytes])),
    });
    made.into()
});

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let parts: Vec<&[u8]> = ASSETS
        .iter()
        .flat_map(|asset| [asset.name.as_bytes(), asset.bytes])
        .collect();
    hash(&parts)
});

/// The file of that version and name.
pub(super) fn find(version: &str, name: &str) -> Option<&'static Asset> {
    (version == VERSION.as_str()).then(|| ASSETS.iter().find(|asset| asset.name == name))?
}

/// The path of a file.
pub(super) fn path(name: &str) -> String {
    format!("/assets/{}/{name}", *VERSION)
}

/// The first 64 bits of the SHA-256, in hexadecimal.
fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let mut text = String::new();
    for byte in hash.finalize().iter().take(8) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_under_their_version_only_and_are_small() {
        let path = path("app.js");
        let mut segments = path.split('/').skip(2);
        let (version, name) = (segments.next().unwrap(), segments.next().unwrap());
        assert_eq!(find(version, name).unwrap().name, "app.js");
        assert!(find("0", name).is_none());
        assert!(find(version, "../app.js").is_none());
        let all: usize = ASSETS.iter().map(|asset| asset.bytes.len()).sum();
        assert!(all <= 50_000, "{all} bytes of files");
    }
}
