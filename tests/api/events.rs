//! What is told as it happens.

use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use uptally::clock::Clock;
use uptally::live::Settings;

use super::app::App;
use super::support::{TestDatabase, fixture};

/// One subscriber.
struct Stream {
    body: BodyDataStream,
    text: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: u64,
    kind: String,
    data: Value,
}

impl Stream {
    async fn open(app: &App, path: &str, last_event_id: &str) -> Result<Self, u16> {
        let mut request = Request::get(path).header("host", "localhost");
        if !last_event_id.is_empty() {
            request = request.header("last-event-id", last_event_id);
        }
        let service = TowerToHyperService::new(app.router.clone());
        let answer = service.call(request.body(Body::empty()).unwrap()).await.unwrap();
        if answer.status() != 200 {
            return Err(answer.status().as_u16());
        }
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Ok(Stream {
            body: answer.into_body().into_data_stream(),
            text: String::new(),
        })
    }

    /// The next event; None at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines();
                    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
                };
                let parsed = field("id").map(|id| Event {
                    id: id.parse().unwrap(),
                    kind: field("event").unwrap(),
                    data: serde_json::from_str(&field("data").unwrap()).unwrap(),
                });
                let read = self.text.len() - rest.len();
                self.text.drain(..read);
                if parsed.is_some() {
                    return parsed;
                }
                continue;
            }
            let piece = tokio::time::timeout(Duration::from_secs(8), self.body.next()).await;
            let piece = piece.expect("an event within 8 s")?.unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// The next event of a kind.
    async fn next_of(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if event.kind == kind {
                return event;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_once_and_who_comes_back_misses_none() {
    let database = TestDatabase::start().await;
    let client = database.connect().await;
    client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    let insert = async |id: &str, at: &str, status: &str| {
        let sql = format!("INSERT INTO public.store_activity VALUES ('{id}', '2023-11-08 {at}', '{status}')");
        client.batch_execute(&sql).await.unwrap();
    };
    insert("a", "12:00", "active").await;
    let (clock, _) = Clock::standing(fixture::NOW);
    let mut app = App::start(&database, &clock, Settings::default()).await;
    let mut stream = Stream::open(&app, "/api/v1/events", "").await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(
        (first.kind.as_str(), &first.data["counts"]["online"]),
        ("fleet", &json!(1))
    );
    let mut fleet = app.json("/api/v1/fleet").await;
    let mut told = first.data.clone();
    for fleet in [&mut fleet, &mut told] {
        fleet["feed"]["lag_us"] = json!(0);
    }
    fleet.as_object_mut().unwrap().remove("windows");
    assert_eq!(told, fleet, "the same as is asked for");

    insert("a", "12:10", "inactive").await;
    let changed = stream.next_of("changes").await;
    let change = json!([{"store_id": "a", "from": "online", "to": "offline"}]);
    assert_eq!(
        changed.data,
        json!({"at": fixture::NOW.to_string(), "changes": change, "more": 0})
    );
    let fleet = stream.next_of("fleet").await;
    assert_eq!(fleet.data["counts"]["offline"], 1);
    assert!(first.id < changed.id && changed.id < fleet.id);

    insert("b", "12:11", "active").await;
    let began = Instant::now();
    let come = stream.next_of("changes").await;
    assert_eq!(
        come.data["changes"],
        json!([{"store_id": "b", "from": null, "to": "online"}])
    );
    assert_eq!(stream.next_of("fleet").await.data["stores"], 2);
    let mut back = Stream::open(&app, "/api/v1/events", &changed.id.to_string())
        .await
        .unwrap();
    assert_eq!(back.next().await.unwrap(), fleet);
    assert_eq!(back.next().await.unwrap(), come);
    drop(back);
    let by_query = format!("/api/v1/events?last_event_id={}", fleet.id);
    let mut back = Stream::open(&app, &by_query, "").await.unwrap();
    assert_eq!(back.next().await.unwrap(), come);
    drop(back);
    for unknown in ["7", "x", &(come.id + 1_000).to_string()] {
        let mut lost = Stream::open(&app, "/api/v1/events", unknown).await.unwrap();
        assert_eq!(lost.next().await.unwrap().kind, "reset");
        assert_eq!(lost.next_of("fleet").await.data["stores"], 2);
    }

    client
        .batch_execute("DELETE FROM public.store_activity WHERE store_id = 'a'")
        .await
        .unwrap();
    let gone = stream.next_of("changes").await;
    assert_eq!(
        gone.data["changes"],
        json!([{"store_id": "a", "from": "offline", "to": null}])
    );
    assert!(began.elapsed() > Duration::from_millis(900), "at most one a second");

    let asked = Request::post("/api/v1/reports").body(Body::empty()).unwrap();
    let id = app.ask(asked).await.json()["report_id"].clone();
    let ended = stream.next_of("report").await;
    assert_eq!(
        ended.data,
        app.json(&format!("/api/v1/reports/{}", id.as_str().unwrap())).await
    );
    assert_eq!(ended.data["state"], "complete");

    // Three places; each comes free with its stream.
    let (two, three) = (
        Stream::open(&app, "/api/v1/events", "").await,
        Stream::open(&app, "/api/v1/events", "").await,
    );
    assert!(two.is_ok() && three.is_ok());
    assert_eq!(Stream::open(&app, "/api/v1/events", "").await.err(), Some(503));
    drop(two);
    assert!(Stream::open(&app, "/api/v1/events", "").await.is_ok());

    // That the numbers are old is told too, and the end ends everything at once.
    app.handle.drain();
    let mut unready = stream.next_of("fleet").await;
    while unready.data["feed"]["ready"] == true {
        unready = stream.next_of("fleet").await;
    }
    assert_eq!(unready.data["feed"]["reason"], "shutting down");
    let began = Instant::now();
    app.events.close();
    assert_eq!(stream.next().await, None);
    assert!(began.elapsed() < Duration::from_millis(500));
    assert_eq!(Stream::open(&app, "/api/v1/events", "").await.err(), Some(503));
    app.stop().await;
}
