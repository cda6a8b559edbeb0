//! `uptally.rollup_day`: running sums by local day, written with the cells that they are made from.

use chrono::{Days, NaiveDate};
use chrono_tz::Tz;
use tokio_postgres::Client;

use super::FlushError;
use super::write::Writer;
use crate::db::DbError;
use crate::rollup::{DaySums, Dirty, changed_stores, first_date_at};
use crate::schedule::Zone;
use crate::time::Timestamp;

const SUM: &str = "
    INSERT INTO uptally.rollup_day (day, store_no, down_us)
    SELECT s.day, s.store_no, s.down_us
    FROM uptally.day_sums($1::text[], $2::text[]::date[], $3::timestamptz[], $4::text::date, $5::text::date, $6::integer[]) AS s";

/// When each of some days begins in each zone that a schedule has.
struct Midnights {
    names: Vec<String>,
    days: Vec<String>,
    starts: Vec<Timestamp>,
}

impl Midnights {
    async fn read(client: &Client, first: NaiveDate, last: NaiveDate) -> Result<Self, DbError> {
        let sql = "SELECT DISTINCT timezone_str FROM uptally.rollup_schedule";
        let mut all = Midnights {
            names: Vec::new(),
            days: Vec::new(),
            starts: Vec::new(),
        };
        for row in client.query(sql, &[]).await? {
            let name: &str = row.try_get(0)?;
            let Ok(zone) = name.parse::<Tz>().map(Zone::of) else {
                continue;
            };
            for day in first.iter_days().take_while(|&day| day <= last) {
                all.names.push(name.to_owned());
                all.days.push(day.to_string());
                all.starts.push(zone.day_start(day));
            }
        }
        Ok(all)
    }
}

/// Brings the sums to the cells that the same transaction has written: of stores that changed before the last day that has
/// sums, and of the days that are to have some now.
pub(super) async fn write(t: &Writer<'_>, dirty: &Dirty) -> Result<(), FlushError> {
    let (Some(covers_from), Some(to)) = (dirty.covers_from, dirty.summed_to) else {
        return Ok(());
    };
    // A day before everything, at which every sum is what it is counted from.
    let beginning = first_date_at(covers_from) - Days::new(1);
    let Some(had) = dirty.had_summed_to else {
        return sum(t, beginning, to, None).await;
    };
    let changed = changed_stores(dirty);
    if let Some(&first) = changed.values().min() {
        let stores: Vec<i32> = changed.keys().map(|&store| super::write::number(store)).collect();
        // The sum at the beginning of the day that changed is what it was.
        let first = first_date_at(first.max(covers_from)).max(beginning);
        if first < had {
            t.execute(
                "DELETE FROM uptally.rollup_day d
                 USING unnest($1::integer[]) AS c (store_no), generate_series(1, $3::text::date - $2::text::date) AS n (n)
                 WHERE d.store_no = c.store_no AND d.day = $2::text::date + n.n",
                &[&stores, &first.to_string(), &had.to_string()],
            )
            .await?;
            sum(t, first, had, Some(&stores)).await?;
        }
    }
    // Days that retention has passed by get none, however far the newest observation jumped.
    let from = had.max(beginning);
    if from < to {
        sum(t, from, to, None).await?;
    }
    Ok(())
}

async fn sum(t: &Writer<'_>, first: NaiveDate, last: NaiveDate, stores: Option<&[i32]>) -> Result<(), FlushError> {
    let Midnights { names, days, starts } = Midnights::read(t.client(), first, last).await?;
    let (first, last) = (first.to_string(), last.to_string());
    t.execute(SUM, &[&names, &days, &starts, &first, &last, &stores])
        .await?;
    Ok(())
}

/// The sums between the beginnings of two days, as far as there are some; None: memory has all of them.
pub async fn read_day_sums(client: &Client, from: NaiveDate, to: NaiveDate) -> Result<Option<DaySums>, DbError> {
    let sql = "SELECT summed_to::text, revision FROM uptally.checkpoint";
    let row = client.query_one(sql, &[]).await?;
    let Some(summed_to) = date(row.try_get(0)?) else {
        return Ok(None);
    };
    if summed_to <= from {
        return Ok(None);
    }
    let to = to.min(summed_to);
    Ok(Some(DaySums {
        to,
        revision: row.try_get(1)?,
        at_from: at(client, from).await?,
        at_to: at(client, to).await?,
    }))
}

async fn at(client: &Client, day: NaiveDate) -> Result<Vec<i64>, DbError> {
    let sql = "SELECT store_no, down_us FROM uptally.rollup_day WHERE day = $1::text::date";
    let mut sums = Vec::new();
    for row in client.query(sql, &[&day.to_string()]).await? {
        let store = usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or(0);
        if sums.len() <= store {
            sums.resize(store + 1, 0);
        }
        if let Some(sum) = sums.get_mut(store) {
            *sum = row.try_get(1)?;
        }
    }
    Ok(sums)
}

/// A day whose sum is not what the cells say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayDifference {
    /// The store, if it is in the tables.
    pub store_id: String,
    /// The day at whose beginning the sum is wrong.
    pub day: NaiveDate,
    /// What the cells add up to, microseconds.
    pub expected: i64,
    /// What the table has.
    pub found: i64,
}

/// Sums that are not what the cells of the same tables say, at most a thousand. Of one store, or of all.
pub async fn day_differences(client: &Client, store: Option<i32>) -> Result<Vec<DayDifference>, DbError> {
    let sql = "SELECT covers_from, summed_to::text FROM uptally.checkpoint";
    let row = client.query_one(sql, &[]).await?;
    let (Some(covers_from), Some(to)) = (row.try_get(0)?, date(row.try_get(1)?)) else {
        return Ok(Vec::new());
    };
    // Retention may have taken some of the cells of earlier days.
    let first = crate::rollup::last_date_at(covers_from) + Days::new(1);
    if first >= to {
        return Ok(Vec::new());
    }
    let Midnights { names, days, starts } = Midnights::read(client, first, to).await?;
    let sql = "
        SELECT coalesce(s.store_id, 'store number ' || store_no), day::text, coalesce(e.down_us, 0), coalesce(f.down_us, 0)
        FROM uptally.day_sums($1::text[], $2::text[]::date[], $3::timestamptz[], $4::text::date, $5::text::date, $6::integer[]) AS e
        FULL JOIN (SELECT r.day, r.store_no, r.down_us FROM uptally.rollup_day r
                   WHERE r.day > $4::text::date AND ($6 IS NULL OR r.store_no = ANY ($6))) AS f USING (day, store_no)
        LEFT JOIN uptally.rollup_store s USING (store_no)
        WHERE e.down_us IS DISTINCT FROM f.down_us
        ORDER BY 1, 2 LIMIT 1000";
    let stores: Option<Vec<i32>> = store.map(|store| vec![store]);
    let (first, to) = (first.to_string(), to.to_string());
    let rows = client
        .query(sql, &[&names, &days, &starts, &first, &to, &stores])
        .await?;
    rows.iter()
        .map(|row| {
            Ok(DayDifference {
                store_id: row.try_get(0)?,
                day: date(row.try_get(1)?).unwrap_or_default(),
                expected: row.try_get(2)?,
                found: row.try_get(3)?,
            })
        })
        .collect()
}

/// A date of a table, which is always one.
pub(super) fn date(text: Option<&str>) -> Option<NaiveDate> {
    text?.parse().ok()
}
