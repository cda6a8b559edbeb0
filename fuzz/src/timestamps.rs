//! Timestamps: what is read is written and read back the same, and is what chrono makes of the text.

use chrono::{DateTime, NaiveDateTime, SecondsFormat};
use uptally::report::AsOf;
use uptally::time::{ParseTimestampError, Timestamp};

/// Zone words that stand for UTC.
const UTC: [&str; 6] = [" UTC", "UTC", "Z", " +00:00", "+00:00", "+00"];

/// Reads the bytes as text; takes the first eight of them as an instant.
pub fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
    if let Some((word, _)) = bytes.split_first_chunk() {
        write(i64::from_le_bytes(*word));
    }
}

fn read(text: &str) {
    let found = text.parse::<Timestamp>();
    match found {
        Ok(at) => {
            assert!(at.is_in_range());
            assert_eq!(at.to_string().parse(), Ok(at), "{text:?}");
            let seconds = second_opinions(text);
            assert!(
                seconds.contains(&at.micros()),
                "{text:?} is {at}, chrono says {seconds:?}"
            );
        }
        Err(error) => {
            let strict = DateTime::parse_from_rfc3339(text).map(|at| Timestamp::from_chrono(at.to_utc()));
            let accepted = strict.is_ok_and(Timestamp::is_in_range);
            assert!(!accepted, "{text:?} is RFC 3339: {error}");
        }
    }
    let as_of = text.parse::<AsOf>();
    match (text, found) {
        ("now", _) => assert_eq!(as_of, Ok(AsOf::Now)),
        ("latest", _) => assert_eq!(as_of, Ok(AsOf::Latest)),
        (_, found) => assert_eq!(as_of.ok(), found.ok().map(AsOf::At)),
    }
}

/// All that chrono can take the text for.
fn second_opinions(text: &str) -> Vec<i64> {
    let offset = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z"];
    let offset = offset.iter().flat_map(|form| DateTime::parse_from_str(text, form));
    let naive = UTC.iter().filter_map(|zone| text.strip_suffix(zone)).flat_map(|text| {
        let forms = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
        forms.map(|form| NaiveDateTime::parse_from_str(text, form))
    });
    let naive = naive.flatten().map(|at| at.and_utc().timestamp_micros());
    let rfc3339 = DateTime::parse_from_rfc3339(text);
    let zoned = offset.chain(rfc3339).map(|at| at.timestamp_micros());
    zoned.chain(naive).collect()
}

fn write(micros: i64) {
    let range = Timestamp::MAX.since(Timestamp::MIN);
    let at = Timestamp::MIN.plus(micros.rem_euclid(range));
    assert!(at.is_in_range());
    assert_eq!(Timestamp::from_chrono(at.to_chrono()), at);
    let text = at.to_string();
    assert_eq!(text.parse(), Ok(at));
    // The form of the feed, and another clock's.
    let chrono = at.to_chrono();
    assert_eq!(text, chrono.to_rfc3339_opts(SecondsFormat::AutoSi, true));
    assert_eq!(chrono.format("%Y-%m-%d %H:%M:%S%.6f UTC").to_string().parse(), Ok(at));
    let minutes = i32::try_from(micros % (15 * 60)).unwrap_or(0);
    let offset = chrono::FixedOffset::east_opt(minutes * 60).expect("less than 15 hours");
    assert_eq!(chrono.with_timezone(&offset).to_rfc3339().parse(), Ok(at));
    // One that is outside is refused, in whichever form.
    let outside = Timestamp::MAX.plus(micros.rem_euclid(range)).to_string();
    assert_eq!(outside.parse::<Timestamp>(), Err(ParseTimestampError::Range));
}
