//! What the daemon tells about itself: log lines on stderr and figures for Prometheus.
//!
//! Not here: which figures there are. The part that owns a figure describes and updates it with the
//! macros of the `metrics` crate; this module only collects them.

mod json;
mod process;

use std::io::{self, IsTerminal};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};

use crate::config::{LogConfig, LogFormat};

/// Upper bounds in seconds of the histogram buckets of every figure whose name ends in `_seconds`:
/// from the 0.1 ms of one read of the change feed to the minutes of a rebuild.
const SECONDS_BUCKETS: [f64; 14] = [
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0,
];

/// The Cargo features that this program was built with.
const FEATURES: &[&str] = &[
    #[cfg(feature = "s3")]
    "s3",
];

/// Why the process cannot tell about itself.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter was checked with the configuration, so this is about its meaning, not its form.
    #[error("log.filter is not a filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The log was started before in this process.
    #[error("the log was started twice")]
    LogTwice(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The figures were started before in this process, or cannot be.
    #[error("the figures cannot be collected")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Starts the log of the process. Lines go to stderr in either format: stdout belongs to reports.
pub fn start_log(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter)?;
    let colors = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing::dispatcher::set_global_default(log_to(io::stderr, config.format, filter, colors))
        .map_err(|error| TelemetryError::LogTwice(error.into()))
}

/// Starts to collect figures. `describe` runs once collecting works: it calls the functions with
/// which the parts describe their figures. The caller calls `run_upkeep` on the handle every few
/// seconds, or histograms grow between two scrapes.
pub fn start_metrics(describe: impl FnOnce()) -> Result<PrometheusHandle, TelemetryError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .install_recorder()?;
    describe();
    metrics::describe_gauge!(
        "uptally_build_info",
        "1; the version and the Cargo features are its labels"
    );
    metrics::gauge!("uptally_build_info", "version" => env!("CARGO_PKG_VERSION"), "features" => FEATURES.join(","))
        .set(1.0);
    Ok(handle)
}

/// All figures in the Prometheus text format, those of the process with them.
pub fn render_metrics(handle: &PrometheusHandle) -> String {
    let mut text = handle.render();
    text.push_str(&process::render());
    text
}

/// The text with every control character replaced by its escape, so that it stays on its line and
/// a terminal does not obey it.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}

fn log_to<W>(writer: W, format: LogFormat, filter: EnvFilter, colors: bool) -> tracing::Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => builder.with_ansi(colors).fmt_fields(one_line_fields()).into(),
        LogFormat::Json => builder.json().event_format(json::Flat).into(),
    }
}

/// Fields as `name=value`. A value recorded by its `Display` (`%`) may hold anything that came in
/// over the network, a newline and a forged log line behind it included; hence [`one_line`].
fn one_line_fields() -> impl for<'w> FormatFields<'w> + 'static {
    debug_fn(|writer, field, value| {
        let value = one_line(&format!("{value:?}"));
        if field.name() == "message" {
            writer.write_str(&value)
        } else {
            write!(writer, "{}={value}", field.name())
        }
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::info;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, event: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let filter = EnvFilter::new("info,uptally::telemetry=debug");
        let dispatch = log_to(move || writer.clone(), format, filter, false);
        tracing::dispatcher::with_default(&dispatch, event);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    fn hostile_event() {
        let hostile = "a\nERROR forged\u{1b}[31m\u{85}b";
        let _span = tracing::info_span!("span", store_id = %hostile).entered();
        info!(store_id = %hostile, quoted = hostile, rows = 3, "found {hostile}");
        tracing::trace!("filtered");
    }

    #[test]
    fn an_event_is_one_line_of_text_whatever_is_in_it() {
        let text = logged(LogFormat::Text, hostile_event);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line = text.trim_end_matches('\n');
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.contains("found a\\nERROR forged\\u{1b}[31m\\u{85}b"), "{line}");
        assert!(line.contains("store_id=a\\nERROR"), "{line}");
        assert!(line.ends_with("rows=3"), "{line}");
    }

    #[test]
    fn an_event_is_one_object_of_json() {
        let text = logged(LogFormat::Json, hostile_event);
        assert_eq!(text.lines().count(), 1, "{text}");
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["rows"], 3);
        assert_eq!(object["level"], "INFO");
        assert_eq!(object["target"], "uptally::telemetry::tests");
        assert!(object["store_id"].as_str().unwrap().starts_with("a\nERROR"));
        assert!(object["message"].as_str().unwrap().starts_with("found a\nERROR"));
        object["timestamp"]
            .as_str()
            .unwrap()
            .parse::<crate::time::Timestamp>()
            .unwrap();
    }

    #[test]
    fn the_fields_of_spans_are_at_the_top_and_what_is_further_inside_holds() {
        let text = logged(LogFormat::Json, || {
            let _outer = tracing::info_span!("outer", report_id = %"a1", stage = "early", level = "forged").entered();
            let _inner = tracing::info_span!("inner", stage = "late", bytes = 7_u64).entered();
            let error = io::Error::other(io::Error::new(io::ErrorKind::NotFound, "no such bucket"));
            info!(
                error = &error as &dyn std::error::Error,
                bytes = 8_i64,
                ok = true,
                share = 0.5,
                "put"
            );
        });
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["report_id"], "a1");
        assert_eq!(object["stage"], "late");
        assert_eq!(object["bytes"], 8);
        assert_eq!((&object["ok"], &object["share"]), (&true.into(), &0.5.into()));
        assert_eq!(object["level"], "INFO", "nobody's field");
        assert!(object["error"].as_str().unwrap().contains("no such bucket"), "{text}");
    }

    #[test]
    fn figures_are_collected_and_described() {
        let handle = start_metrics(|| {
            metrics::describe_histogram!("test_read_seconds", "How long a read took.");
        })
        .unwrap();
        metrics::histogram!("test_read_seconds").record(0.002);
        let page = render_metrics(&handle);
        assert!(page.contains("# HELP test_read_seconds How long a read took."));
        assert!(page.contains("test_read_seconds_bucket{le=\"0.0025\"} 1"), "{page}");
        assert!(
            page.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")),
            "{page}"
        );
        assert!(start_metrics(|| ()).is_err());
    }
}
