//! Text that a stranger sent, as messages, logs and files of rejected rows show it: short, and on one line.

/// In quotes; quotes and backslashes in it are escaped as well as what [`printable`] escapes.
///
/// ```
/// assert_eq!(uptally::text::quoted("say \"hi\"\n", 40), r#""say \"hi\"\n""#);
/// ```
pub fn quoted(text: &str, chars_max: usize) -> String {
    format!("\"{}\"", shown(text, chars_max, &['\'']))
}

/// As many first characters as fit `chars_max`; `…` stands for the rest. Characters that do not print, or that turn
/// the direction of those after them, are escaped.
pub fn printable(text: &str, chars_max: usize) -> String {
    shown(text, chars_max, &['\'', '"', '\\'])
}

fn shown(text: &str, chars_max: usize, as_they_are: &[char]) -> String {
    let mut out = String::new();
    let mut room = chars_max;
    for c in text.chars() {
        let escaped = Some(c.escape_debug()).filter(|_| !as_they_are.contains(&c));
        // An escape is up to ten characters: counted as what is shown, not as what was sent.
        let Some(left) = room.checked_sub(escaped.as_ref().map_or(1, ExactSizeIterator::len)) else {
            out.push('…');
            break;
        };
        room = left;
        match escaped {
            Some(escaped) => out.extend(escaped),
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_as_long_as_it_may_be_and_no_character_is_cut() {
        assert_eq!(printable("äöü", 3), "äöü");
        assert_eq!(printable("äöüß", 3), "äöü…");
        assert_eq!(printable("a\u{1b}b", 7), "a\\u{1b}…");
        assert_eq!(printable("a\u{1b}b", 6), "a…");
        assert_eq!(quoted("", 4), "\"\"");
    }

    #[test]
    fn only_quoted_text_is_escaped_for_its_quotes() {
        assert_eq!(printable("'\"\\", 3), "'\"\\");
        assert_eq!(quoted("'\"\\", 5), r#""'\"\\""#);
    }

    #[test]
    fn hostile_text_is_short_and_on_one_line() {
        assert_eq!(quoted("a\r\nb\u{202e}c\u{0}", 40), r#""a\r\nb\u{202e}c\0""#);
        let controls = quoted(&"\0".repeat(1 << 10), 60);
        assert!(
            controls.chars().count() <= 63 && controls.ends_with("…\""),
            "{controls}"
        );
        assert_eq!(printable(&"é".repeat(1 << 20), 60).chars().count(), 61);
    }
}
