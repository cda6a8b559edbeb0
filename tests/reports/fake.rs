//! A source of reports that does what a test tells it to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use uptally::report::{Archive, Connect, Coverage, Limits, Registry, RenderError, Rendered, ReportRequest, Source};
use uptally::time::{HOUR_US, Timestamp};
use uptally::window::{ClosedTime, WINDOWS_STEP_US, Windows};

pub const LATEST: Timestamp = Timestamp::from_micros(1_674_637_380_000_000);

pub struct FakeSource {
    /// A permit lets one render go on.
    pub gate: Semaphore,
    pub coverage: Mutex<Option<Coverage>>,
    renders: AtomicUsize,
    pub behaviour: Behaviour,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Behaviour {
    Render,
    Panic,
}

/// More renders than any test asks for.
pub const OPEN: usize = 100_000;

impl FakeSource {
    /// A source whose first `renders` renders go through.
    pub fn new(renders: usize) -> Arc<Self> {
        FakeSource::with(renders, Behaviour::Render)
    }

    pub fn with(renders: usize, behaviour: Behaviour) -> Arc<Self> {
        let coverage = Coverage {
            earliest: LATEST.plus(-400 * HOUR_US),
            latest: LATEST.plus(1_000_000 * HOUR_US),
            newest: Some(LATEST),
            first_day: None,
        };
        Arc::new(FakeSource {
            gate: Semaphore::new(renders),
            coverage: Mutex::new(Some(coverage)),
            renders: AtomicUsize::new(0),
            behaviour,
        })
    }

    /// Renders that have begun.
    pub fn renders(&self) -> usize {
        self.renders.load(Ordering::Relaxed)
    }
}

pub fn csv_of(as_of: Timestamp, windows: Windows, closed: ClosedTime) -> Bytes {
    let step = as_of.micros().div_euclid(WINDOWS_STEP_US);
    let mut csv = format!("as_of_step,windows,closed\n{step},{windows},{closed}\n");
    // As long as the report of 13,559 stores.
    csv.push_str(&"1481966498820158979,60.00,24.00,168.00,0.00,0.00,0.00\n".repeat(13_557));
    csv.into()
}

impl Source for FakeSource {
    fn render(&self, as_of: Option<Timestamp>, request: ReportRequest) -> BoxFuture<'_, Result<Rendered, RenderError>> {
        Box::pin(async move {
            self.renders.fetch_add(1, Ordering::Relaxed);
            self.gate.acquire().await.unwrap().forget();
            assert!(self.behaviour != Behaviour::Panic, "told to");
            let as_of = as_of.unwrap_or(LATEST);
            Ok(Rendered {
                csv: csv_of(as_of, request.windows, request.closed).to_vec().into(),
                as_of,
                cursors: vec!["7:9:8".to_owned()],
                stores: 13_558,
            })
        })
    }

    fn coverage(&self) -> Option<Coverage> {
        *self.coverage.lock().unwrap()
    }

    fn readiness(&self) -> Result<(), String> {
        match self.coverage() {
            Some(_) => Ok(()),
            None => Err("reading the rollups".to_owned()),
        }
    }
}

pub fn limits() -> Limits {
    Limits {
        running_max: 1,
        queue_max: 40,
        ended_max: 100,
        run_max: Duration::from_secs(5),
    }
}

pub fn registry(source: &Arc<FakeSource>, csvs: &std::path::Path, connect: Connect, limits: Limits) -> Registry {
    let archive = Archive::open(csvs.to_str().unwrap()).unwrap();
    let source = Arc::clone(source);
    Registry::new(source, archive, connect, limits)
}
