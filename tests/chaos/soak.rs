//! The soak: rounds of mixed faults, each followed by the oracle.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use tokio_postgres::{Client, Config};
use uptally::failpoint::POINTS;

use crate::support::proxy::{CutAt, Proxy, Weather};
use crate::support::reporter::Reporter;
use crate::support::resources::{Resources, Trend};
use crate::support::serve::Serve;
use crate::world::World;

const NAMES: [&str; 3] = ["uptally doorbell", "uptally ledger", "uptally follower"];

/// What is done to the daemon, its server and what is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillDaemon,
    StopDaemon,
    FreezeDaemon,
    FailPoint,
    KillPostgres,
    EndSessions,
    CutConnections,
    CutCommit,
    BlackHole,
    BadLine,
    Refuse,
    LongTransaction,
    Truncate,
}

/// Each as often as it stands here.
const FAULTS: [Fault; 18] = [
    Fault::KillDaemon,
    Fault::KillDaemon,
    Fault::StopDaemon,
    Fault::FreezeDaemon,
    Fault::FailPoint,
    Fault::FailPoint,
    Fault::FailPoint,
    Fault::KillPostgres,
    Fault::EndSessions,
    Fault::EndSessions,
    Fault::CutConnections,
    Fault::CutCommit,
    Fault::CutCommit,
    Fault::BlackHole,
    Fault::BadLine,
    Fault::Refuse,
    Fault::LongTransaction,
    Fault::Truncate,
];

impl Fault {
    /// Whether the daemon is another one afterwards.
    fn restarts(self) -> bool {
        matches!(self, Fault::KillDaemon | Fault::StopDaemon | Fault::FailPoint)
    }
}

struct Soak {
    world: World,
    rng: Rng,
    proxy: Proxy,
    connection: Config,
    serve: Serve,
    /// Open transactions, to be committed at the end of the round.
    open: Vec<Client>,
    done: BTreeMap<Fault, u64>,
}

/// Runs for so long. Panics at the first drift.
///
/// In the second half one and the same daemon lives through all faults but those that end it; what it holds at the ends of the
/// rounds must stay the same.
pub async fn run(seed: u64, length: Duration) {
    let mut world = World::start(seed).await;
    let proxy = Proxy::start(world.server.connection()).await;
    let connection = proxy.connection();
    let mut serve = world.serve(&connection, &[]);
    serve.wait_until_ready();
    let mut soak = Soak {
        world,
        rng: Rng::with_seed(seed),
        proxy,
        connection,
        serve,
        open: Vec::new(),
        done: BTreeMap::new(),
    };
    let (began, mut half, mut samples) = (Instant::now(), None, Vec::new());
    let (mut rounds, mut fetched) = (0, 0);
    while began.elapsed() < length {
        rounds += 1;
        if half.is_none() && began.elapsed() > length / 2 {
            half = Some(rounds);
            samples.clear();
        }
        soak.world.write();
        let reporter = Reporter::start(soak.serve.address());
        let mut told = Vec::new();
        for _ in 0..soak.rng.u8(1..=4) {
            soak.a_while(50..600).await;
            let mut fault = *soak.rng.choice(&FAULTS).unwrap();
            while half.is_some() && fault.restarts() {
                fault = *soak.rng.choice(&FAULTS).unwrap();
            }
            *soak.done.entry(fault).or_default() += 1;
            told.push(format!("{fault:?} {}", soak.cause(fault).await));
        }
        println!(
            "{:6.1} s, round {rounds}: {}",
            began.elapsed().as_secs_f32(),
            told.join("; ")
        );
        fetched += reporter.stop().await;
        soak.heal().await;
        soak.world.check(&mut soak.serve).await;
        if let Some(resources) = Resources::of(soak.serve.pid()) {
            samples.push((began.elapsed(), resources));
        }
    }
    println!("\n{:<18} {:>6}", "fault", "times");
    for (fault, times) in &soak.done {
        println!("{:<18} {times:>6}", format!("{fault:?}"));
    }
    let trend = Trend::of(&samples);
    println!(
        "FIGURE soak: {rounds} rounds, {} faults, {} committed transactions, {fetched} reports{}; drift 0; seed {seed}; {:.0} s",
        soak.done.values().sum::<u64>(),
        soak.world.committed,
        trend.map_or_else(String::new, |trend| format!("; {trend}")),
        began.elapsed().as_secs_f64()
    );
    if let Some(trend) = trend {
        trend.assert_flat();
    }
}

impl Soak {
    async fn a_while(&mut self, ms: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(ms))).await;
    }

    /// Causes a fault; says what exactly.
    async fn cause(&mut self, fault: Fault) -> String {
        let name = *self.rng.choice(&NAMES).unwrap();
        match fault {
            Fault::KillDaemon => {
                self.restart(&[]);
            }
            Fault::StopDaemon => {
                self.serve.signal(Signal::TERM);
                let began = Instant::now();
                while self.serve.ended().is_none() && began.elapsed() < Duration::from_secs(30) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                self.restart(&[]);
                return format!("within {:.1?}", began.elapsed());
            }
            Fault::FreezeDaemon => {
                let ms = if self.rng.u8(0..20) == 0 {
                    35_000
                } else {
                    self.rng.u64(100..3000)
                };
                self.serve.signal(Signal::STOP);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.serve.signal(Signal::CONT);
                return format!("for {ms} ms");
            }
            Fault::FailPoint => return self.fail_point().await,
            Fault::KillPostgres => self.world.server.crash().await,
            Fault::EndSessions => {
                let sql = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           WHERE application_name LIKE $1) AS ended";
                let name = if self.rng.bool() { "uptally %" } else { name };
                let client = self.world.client().await;
                let ended: i64 = client.query_one(sql, &[&name]).await.unwrap().get(0);
                return format!("{name}: {ended}");
            }
            Fault::CutConnections => {
                return if self.rng.bool() {
                    format!("{} connections", self.proxy.cut())
                } else {
                    format!("{name}: {}", self.proxy.cut_for(name))
                };
            }
            Fault::CutCommit => {
                let at = *self.rng.choice(&[CutAt::BeforeCommit, CutAt::AfterCommit]).unwrap();
                self.proxy.cut_commit("uptally ledger", at);
                return format!("{at:?}");
            }
            Fault::BlackHole => {
                self.proxy.set_for(name, Weather::BlackHole);
                self.a_while(200..3000).await;
                self.proxy.set(Weather::Clear);
                return format!("{name}; then {} ended", self.proxy.cut_for(name));
            }
            Fault::BadLine => {
                let delay = Weather::Slow(Duration::from_millis(self.rng.u64(1..30)));
                let weather = *self.rng.choice(&[delay, Weather::Crumbs]).unwrap();
                self.proxy.set(weather);
                self.a_while(200..2000).await;
                return format!("{weather:?}");
            }
            Fault::Refuse => {
                self.proxy.refuse().await;
                self.proxy.cut();
                self.a_while(100..1500).await;
                self.proxy.admit().await;
            }
            Fault::LongTransaction => {
                let client = self.world.client().await;
                let sql = format!(
                    "BEGIN; INSERT INTO public.store_activity VALUES ('long {}', '{}', 'inactive')",
                    self.rng.u8(..),
                    self.world.end.plus(-self.rng.i64(0..1_000_000_000))
                );
                client.batch_execute(&sql).await.unwrap();
                self.open.push(client);
            }
            Fault::Truncate => {
                let client = self.world.client().await;
                // It waits for whoever writes; where that takes long, it is not to be.
                let sql = "SET lock_timeout = '500ms'; TRUNCATE public.store_activity";
                return client.batch_execute(sql).await.map_or("refused", |()| "").to_owned();
            }
        }
        String::new()
    }

    /// Starts the daemon with a fail point on, and gives it a while to come there.
    async fn fail_point(&mut self) -> String {
        let point = *self.rng.choice(&POINTS).unwrap();
        let action = match self.rng.u8(0..4) {
            0 | 1 => format!("kill@{}", self.rng.u8(1..20)),
            // Where nothing can fail, an error is a panic, which is another matter.
            2 if !point.starts_with("report.") => format!("error/{}", self.rng.u8(2..20)),
            _ => format!("sleep:{}/{}", self.rng.u8(1..200), self.rng.u8(1..20)),
        };
        let plan = format!("{point}={action}");
        self.restart(&[("UPTALLY_FAILPOINTS", &plan)]);
        let began = Instant::now();
        let mut reporter = None;
        while self.serve.ended().is_none() && began.elapsed() < Duration::from_secs(2) {
            if reporter.is_none() && self.serve.listens() {
                reporter = Some(Reporter::start(self.serve.address()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(reporter) = reporter {
            reporter.stop().await;
        }
        let ended = self.serve.ended().is_some();
        self.restart(&[]);
        if ended { format!("{plan}, reached") } else { plan }
    }

    /// Kills it with -9, unless it has ended, and starts another one.
    fn restart(&mut self, variables: &[(&str, &str)]) {
        self.serve.end();
        self.serve = self.world.serve(&self.connection, variables);
    }

    /// Ends all faults.
    async fn heal(&mut self) {
        self.proxy.set(Weather::Clear);
        self.proxy.cut_no_commit();
        for client in self.open.drain(..) {
            // A crash of the server may have ended it.
            let _ = client.batch_execute("COMMIT").await;
        }
        assert_eq!(
            self.serve.ended(),
            None,
            "the daemon ended by itself:\n{}",
            self.serve.log().join("\n")
        );
    }
}
