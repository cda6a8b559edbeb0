//! A report that is made by itself: when, and of what.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{Datelike, Days, Months, NaiveDate};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use super::{AsOf, ReportRequest};
use crate::text::quoted;
use crate::time::Timestamp;
use crate::window::DateRange;

/// Characters of a refused word that an error repeats.
const FOUND_CHARS_MAX: usize = 64;

/// Letters of a job's name at most.
const NAME_CHARS_MAX: usize = 64;

/// A report that is due again and again. Of two of the same name only one would be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What its reports are found by.
    pub name: Arc<str>,
    cron: Cron,
    /// Whose clock and calendar hold.
    zone: Tz,
    request: ReportRequest,
    last: Option<Last>,
}

/// A report of a job that is due, and how often making it was tried before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The job's name.
    pub job: Arc<str>,
    /// The instant, which the report is as of.
    pub at: Timestamp,
    /// 1, and one more after each failure.
    pub attempt: i32,
}

/// The local days before the one on which a report is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Days(u64),
    /// From Monday to Sunday.
    Week,
    Month,
    Year,
}

/// Why a line is no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseJobError {
    /// Something is missing.
    #[error(
        "expected a name, five fields of a cron expression, a time zone and options, such as \
         \"weekly 0 6 * * 1 Europe/Berlin last=week format=csv\""
    )]
    Form,
    /// The name has other characters, or too many.
    #[error("expected a name of at most {NAME_CHARS_MAX} of a-z, 0-9 and -, found {0}")]
    Name(String),
    /// The fields are no cron expression; holds them, and why not.
    #[error("expected a cron expression such as \"0 6 * * 1\", found {0}: {1}")]
    Cron(String, String),
    /// It matches no instant.
    #[error("expected a cron expression that is due sometimes, found {0}")]
    Never(String),
    /// There is no such zone.
    #[error("expected a time zone such as Europe/Berlin, found {0}")]
    Zone(String),
    /// There is no such option.
    #[error("expected options windows, closed, format, columns or last, such as last=week, found {0}")]
    Option(String),
    /// It is there twice.
    #[error("expected option {0} once, found it twice")]
    Twice(String),
    /// Its value is not one of those that it takes.
    #[error("option {0}: {1}, found {2}")]
    Value(String, String, String),
    /// Reports over days have neither windows nor other columns.
    #[error("expected no option {0} beside last: a report over days has columns of its own")]
    BesideLast(&'static str),
    /// There are two jobs of the name.
    #[error("expected one job named {0}, found two")]
    NameTwice(Arc<str>),
}

impl Job {
    /// Jobs, one in a line or between semicolons. Lines that begin with # are skipped.
    ///
    /// # Errors
    /// Names the number of the line.
    pub fn parse_all(text: &str, defaults: ReportRequest) -> Result<Vec<Job>, String> {
        let mut jobs: Vec<Job> = Vec::new();
        for (line, number) in text.split(['\n', ';']).map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let job = Job::parse(line, defaults).and_then(|job| {
                let named_so = jobs.iter().any(|other| other.name == job.name);
                if named_so {
                    Err(ParseJobError::NameTwice(job.name))
                } else {
                    Ok(job)
                }
            });
            jobs.push(job.map_err(|error| format!("job {number}: {error}"))?);
        }
        Ok(jobs)
    }

    /// One job; options that are not given are `defaults`.
    fn parse(line: &str, defaults: ReportRequest) -> Result<Job, ParseJobError> {
        let shown = |text: &str| quoted(text, FOUND_CHARS_MAX);
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, minute, hour, day, month, weekday, zone, options @ ..] = words.as_slice() else {
            return Err(ParseJobError::Form);
        };
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.len() > NAME_CHARS_MAX || !name.chars().all(is_name) {
            return Err(ParseJobError::Name(shown(name)));
        }
        let pattern = [*minute, hour, day, month, weekday].join(" ");
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(&pattern);
        let cron = cron.map_err(|error| ParseJobError::Cron(shown(&pattern), error.to_string()))?;
        let zone: Tz = zone.parse().map_err(|_| ParseJobError::Zone(shown(zone)))?;
        let mut job = Job {
            name: (*name).into(),
            cron,
            zone,
            request: defaults,
            last: None,
        };
        if job.due_after(Timestamp::MIN).is_none() {
            return Err(ParseJobError::Never(shown(&pattern)));
        }
        let mut given: Vec<&str> = Vec::new();
        for option in options {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| ParseJobError::Option(shown(option)))?;
            match key {
                "windows" => job.request.windows = read(key, value)?,
                "closed" => job.request.closed = read(key, value)?,
                "format" => job.request.format = read(key, value)?,
                "columns" => job.request.columns = read(key, value)?,
                "last" => job.last = Some(read(key, value)?),
                _ => return Err(ParseJobError::Option(shown(option))),
            }
            if given.contains(&key) {
                return Err(ParseJobError::Twice(key.to_owned()));
            }
            given.push(key);
        }
        let beside = ["windows", "closed", "columns"]
            .into_iter()
            .find(|name| given.contains(name));
        match beside {
            Some(beside) if job.last.is_some() => Err(ParseJobError::BesideLast(beside)),
            _ => Ok(job),
        }
    }

    /// The last instant up to one at which it was due. A wall time that the clocks skip is due when they have; one that they
    /// show twice, the first time.
    pub fn due_by(&self, at: Timestamp) -> Option<Timestamp> {
        let local = at.to_chrono().with_timezone(&self.zone);
        let due = self.cron.find_previous_occurrence(&local, true).ok()?;
        Some(Timestamp::from_chrono(due.to_utc())).filter(|due| *due <= at)
    }

    /// The first instant after one at which it is due.
    pub fn due_after(&self, at: Timestamp) -> Option<Timestamp> {
        let local = at.to_chrono().with_timezone(&self.zone);
        let due = self.cron.find_next_occurrence(&local, false).ok()?;
        Some(Timestamp::from_chrono(due.to_utc())).filter(|due| *due > at)
    }

    /// What is asked for when it is due at an instant. None: no table has rows of those days.
    pub fn request(&self, due: Timestamp) -> Option<ReportRequest> {
        let today = due.to_chrono().with_timezone(&self.zone).date_naive();
        let days = match self.last {
            Some(last) => Some(last.before(today)?),
            None => None,
        };
        Some(ReportRequest {
            as_of: AsOf::At(due),
            days,
            ..self.request
        })
    }
}

fn read<T: FromStr<Err: fmt::Display>>(key: &str, value: &str) -> Result<T, ParseJobError> {
    value.parse().map_err(|expected: T::Err| {
        ParseJobError::Value(key.to_owned(), expected.to_string(), quoted(value, FOUND_CHARS_MAX))
    })
}

impl Last {
    fn before(self, today: NaiveDate) -> Option<DateRange> {
        let (from, to) = match self {
            Last::Days(count) => (today.checked_sub_days(Days::new(count))?, today),
            Last::Week => {
                let monday = today.checked_sub_days(Days::new(u64::from(today.weekday().num_days_from_monday())))?;
                (monday.checked_sub_days(Days::new(7))?, monday)
            }
            Last::Month => {
                let first = today.with_day(1)?;
                (first.checked_sub_months(Months::new(1))?, first)
            }
            Last::Year => {
                let first = today.with_day(1)?.with_month(1)?;
                (first.checked_sub_months(Months::new(12))?, first)
            }
        };
        DateRange::new(from, to).ok()
    }
}

impl FromStr for Last {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "day" => return Ok(Last::Days(1)),
            "week" => return Ok(Last::Week),
            "month" => return Ok(Last::Month),
            "year" => return Ok(Last::Year),
            _ => {}
        }
        let digits = text
            .strip_suffix('d')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let count = digits
            .and_then(|digits| digits.parse().ok())
            .filter(|count| (1..=36_500).contains(count));
        count
            .map(Last::Days)
            .ok_or("expected day, week, month, year or a number of days such as 30d")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Format;

    fn job(line: &str) -> Job {
        Job::parse(line, ReportRequest::default()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_job_is_due_by_the_clock_of_its_zone() {
        let weekly = job("weekly 30 6 * * MON Europe/Berlin");
        // Summer time ended on the 25th.
        for (from, due) in [
            ("2026-10-14T00:00:00Z", "2026-10-19T04:30:00Z"),
            ("2026-10-19T04:30:00Z", "2026-10-26T05:30:00Z"),
        ] {
            assert_eq!(weekly.due_after(at(from)), Some(at(due)));
            assert_eq!(weekly.due_by(at(due)), Some(at(due)));
            assert_eq!(weekly.due_by(at(due).plus(1)), Some(at(due)));
            assert!(weekly.due_by(at(due).plus(-1)).unwrap() < at(due));
        }
        let skipped = job("nightly 30 2 * * * Europe/Berlin");
        assert_eq!(
            skipped.due_after(at("2026-03-28T12:00:00Z")),
            Some(at("2026-03-29T01:00:00Z"))
        );
        let twice = job("nightly 30 2 * * * Europe/Berlin");
        assert_eq!(
            twice.due_after(at("2026-10-24T12:00:00Z")),
            Some(at("2026-10-25T00:30:00Z"))
        );
        assert_eq!(
            twice.due_after(at("2026-10-25T00:30:00Z")),
            Some(at("2026-10-26T01:30:00Z"))
        );
    }

    /// Whatever is due after an instant was due by itself, and nothing in between.
    #[test]
    fn forwards_and_backwards_are_one() {
        for line in [
            "a */7 1-3 * * * America/Chicago",
            "b 0 0 1 * * Australia/Lord_Howe",
            "c 15 */2 * * 0,6 Asia/Beirut",
        ] {
            let job = job(line);
            let mut due = at("2026-02-20T00:00:00Z");
            while due < at("2026-11-20T00:00:00Z") {
                let next = job.due_after(due).unwrap();
                assert_eq!(job.due_by(next), Some(next), "{line}");
                let before = job.due_by(next.plus(-1)).unwrap();
                assert!(before <= due, "{line}: {before} between {due} and {next}");
                due = next;
            }
        }
    }

    #[test]
    fn the_last_days_are_those_before_the_day_that_it_is_due_on() {
        // 02:00 on Tuesday the 3rd in Auckland.
        let due = at("2026-03-02T13:00:00Z");
        for (last, from, to) in [
            ("day", "2026-03-02", "2026-03-03"),
            ("30d", "2026-02-01", "2026-03-03"),
            ("week", "2026-02-23", "2026-03-02"),
            ("month", "2026-02-01", "2026-03-01"),
            ("year", "2025-01-01", "2026-01-01"),
        ] {
            let job = job(&format!("a 0 2 * * * Pacific/Auckland last={last} format=json"));
            let request = job.request(due).unwrap();
            assert_eq!(request.as_of, AsOf::At(due));
            assert_eq!(request.format, Format::Json);
            let days = DateRange::new(from.parse().unwrap(), to.parse().unwrap()).unwrap();
            assert_eq!(request.days, Some(days), "{last}");
        }
        assert_eq!(job("a 0 2 * * * UTC").request(due).unwrap().days, None);
    }

    #[test]
    fn what_is_no_job_is_refused_with_its_line() {
        let parse = |text: &str| Job::parse_all(text, ReportRequest::default());
        let good = "# all of them\n\nweekly 0 6 * * 1 UTC last=week; monthly 0 6 1 * * Europe/Paris last=month\n";
        assert_eq!(parse(good).unwrap().len(), 2);
        for (text, said) in [
            ("weekly 0 6 * * 1", "job 1: expected a name, five fields"),
            ("\nWeekly 0 6 * * 1 UTC", "job 2: expected a name of at most 64 of a-z"),
            ("a 0 25 * * * UTC", "expected a cron expression such as"),
            ("a 0 0 30 2 * UTC", "expected a cron expression that is due sometimes"),
            (
                "a 0 6 * * 1 Berlin",
                "expected a time zone such as Europe/Berlin, found \"Berlin\"",
            ),
            ("a 0 6 * * 1 UTC week", "expected options windows"),
            ("a 0 6 * * 1 UTC as_of=now", "expected options windows"),
            ("a 0 6 * * 1 UTC last=weeks", "option last: expected day, week"),
            ("a 0 6 * * 1 UTC last=0d", "option last: expected day, week"),
            (
                "a 0 6 * * 1 UTC format=xml",
                "option format: expected csv or json, found \"xml\"",
            ),
            ("a 0 6 * * 1 UTC format=csv format=csv", "expected option format once"),
            (
                "a 0 6 * * 1 UTC last=week columns=extended",
                "expected no option columns beside last",
            ),
            (
                "a 0 6 * * 1 UTC\na 0 7 * * 1 UTC",
                "job 2: expected one job named a, found two",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
