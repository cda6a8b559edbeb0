//! Reports that are made by themselves: when they are due, once, and not for ever kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::tempdir;
use tokio_postgres::Client;
use uptally::clock::Clock;
use uptally::report::{Connect, Job, JobLimits, Jobs, ReportRequest};
use uptally::time::{HOUR_US, MINUTE_US, Timestamp};

use super::fake::{FakeSource, LATEST, OPEN, limits, registry};
use super::support::{TestDatabase, within};

const LIMITS: JobLimits = JobLimits {
    grace: Duration::from_hours(3),
    keep_max: 3,
    keep_days: 10,
};

fn jobs(source: &Arc<FakeSource>, csvs: &Path, connect: Connect, lines: &str, clock: &Clock) -> Jobs {
    let registry = registry(source, csvs, connect, limits());
    let jobs = Job::parse_all(lines, ReportRequest::default()).unwrap();
    Jobs::new(registry, jobs, LIMITS, clock.clone())
}

/// Looks until nothing is about to be made.
async fn work(jobs: &mut Jobs) {
    for _ in 0..500 {
        if !jobs.look().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("something is due for ever");
}

/// Job, due instant, attempt and state of all reports, oldest first.
async fn made(client: &Client) -> Vec<(String, Timestamp, i32, String)> {
    let sql = "SELECT job, due_at, attempt, state FROM public.reports ORDER BY due_at, job, attempt";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect()
}

fn files(csvs: &Path) -> usize {
    std::fs::read_dir(csvs).unwrap().count()
}

/// By two daemons that both think that they lead, over hours that begin at half past in Kathmandu.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_due_report_is_made_once_whoever_makes_it() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let client = database.connect().await;
    let source = FakeSource::new(OPEN);
    // 09:03 in UTC, 14:48 in Kathmandu.
    let (clock, hand) = Clock::standing(LATEST);
    let lines = "hourly 0 * * * * Asia/Kathmandu; daily 0 0 * * * UTC format=json";
    let mut two = [(); 2].map(|()| jobs(&source, csvs.path(), database.connector(), lines, &clock));
    let mut expected = Vec::new();
    let first_due = LATEST.plus(-48 * MINUTE_US);
    for hour in 0..4 {
        hand.set(LATEST.plus(hour * HOUR_US));
        let [one, other] = &mut two;
        tokio::join!(work(one), work(other));
        expected.push((
            "hourly".to_owned(),
            first_due.plus(hour * HOUR_US),
            1,
            "complete".to_owned(),
        ));
        assert_eq!(made(&client).await, expected, "a day ago is too long ago");
    }
    let of = "SELECT bool_and(as_of = due_at AND as_of_requested::timestamptz = due_at AND requested_at > due_at)
              FROM public.reports";
    assert!(client.query_one(of, &[]).await.unwrap().get::<_, bool>(0));
    // Missed: only the last one is made.
    hand.set(LATEST.plus(15 * HOUR_US));
    work(&mut two[0]).await;
    expected.push((
        "daily".to_owned(),
        LATEST.plus(15 * HOUR_US - 3 * MINUTE_US),
        1,
        "complete".to_owned(),
    ));
    expected.push((
        "hourly".to_owned(),
        first_due.plus(15 * HOUR_US),
        1,
        "complete".to_owned(),
    ));
    expected.sort_by_key(|(_, due, ..)| *due);
    assert_eq!(made(&client).await, expected);
    // Another life knows it too.
    work(&mut jobs(&source, csvs.path(), database.connector(), lines, &clock)).await;
    assert_eq!(made(&client).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_is_made_again_after_a_pause_and_not_for_ever() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let client = database.connect().await;
    let source = FakeSource::new(OPEN);
    let (clock, hand) = Clock::standing(LATEST);
    let dir = csvs.path().join("csvs");
    let mut jobs = jobs(&source, &dir, database.connector(), "hourly 0 * * * * UTC", &clock);
    // No directory, and none can be made.
    std::fs::remove_dir(&dir).unwrap();
    std::fs::write(&dir, "a file").unwrap();
    let failed = async |count: usize| {
        within(Duration::from_secs(5), "it has failed", async || {
            let all = made(&client).await;
            all.len() == count && all.iter().all(|(.., state)| state == "failed")
        })
        .await;
    };
    let ago = async |seconds: i32| {
        let sql = "UPDATE public.reports SET finished_at = clock_timestamp() - make_interval(secs => $1)";
        client.execute(sql, &[&f64::from(seconds)]).await.unwrap();
    };
    for attempt in 1..=5_usize {
        assert!(jobs.look().await, "it is made");
        failed(attempt).await;
        let pause_s = 60_i32 << (attempt - 1);
        ago(pause_s - 10).await;
        jobs.look().await;
        assert_eq!(made(&client).await.len(), attempt, "too soon");
        ago(pause_s + 1).await;
    }
    assert!(!jobs.look().await, "it is given up");
    assert_eq!(made(&client).await.len(), 5);
    // The next one has a disk.
    std::fs::remove_file(&dir).unwrap();
    hand.set(LATEST.plus(HOUR_US));
    work(&mut jobs).await;
    let (.., attempt, state) = made(&client).await.pop().unwrap();
    assert_eq!((attempt, state.as_str()), (1, "complete"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_files_are_removed_and_the_newest_never() {
    let (database, csvs) = (TestDatabase::start().await, tempdir().unwrap());
    let client = database.connect().await;
    let source = FakeSource::new(OPEN);
    let (clock, hand) = Clock::standing(LATEST);
    let lines = "a 0 * * * * UTC; b 0 9 * * * UTC";
    let mut jobs = jobs(&source, csvs.path(), database.connector(), lines, &clock);
    for hour in 0..6 {
        hand.set(LATEST.plus(hour * HOUR_US));
        work(&mut jobs).await;
    }
    assert_eq!(files(csvs.path()), 3 + 1, "three of a, one of b");
    let removed = async || {
        let sql = "SELECT job || ' ' || extract(hour FROM due_at AT TIME ZONE 'UTC') FROM public.reports
                   WHERE removed_at IS NOT NULL ORDER BY due_at";
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    assert_eq!(removed().await, ["a 9", "a 10", "a 11"]);
    let age = "UPDATE public.reports SET requested_at = requested_at - interval '11 days'";
    client.execute(age, &[]).await.unwrap();
    hand.set(LATEST.plus(6 * HOUR_US));
    work(&mut jobs).await;
    assert_eq!(removed().await, ["a 9", "a 10", "a 11", "a 12", "a 13", "a 14"]);
    assert_eq!(files(csvs.path()), 2, "the newest of each");
}
