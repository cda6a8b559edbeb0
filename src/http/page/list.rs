//! The list of stores: search, filters, order and pages, all of them in the address.

use maud::{Markup, html};

use super::frame::{self, STATES};
use super::link::Link;
use super::show;
use crate::http::v1::Window;
use crate::http::v1::stores::{Store, StoreList};
use crate::time::Timestamp;

/// The order that a list has without being asked.
const DEFAULT_SORT: &str = "down_last_day";

/// Orders that the form offers: the name of the order, and what it is called with its own direction first.
const ORDERS: [(&str, &str, &str); 8] = [
    ("down_last_day", "desc", "Most downtime, last 24 hours"),
    ("down_last_hour", "desc", "Most downtime, last hour"),
    ("down_last_week", "desc", "Most downtime, last 7 days"),
    ("uptime_last_day", "asc", "Lowest uptime, last 24 hours"),
    ("uptime_last_hour", "asc", "Lowest uptime, last hour"),
    ("uptime_last_week", "asc", "Lowest uptime, last 7 days"),
    ("last_observed_at", "asc", "Longest not observed"),
    ("id", "asc", "Store id"),
];

pub(super) fn main(stores: &StoreList, link: &Link) -> Markup {
    html! {
        h1 { "Stores" }
        (form(link))
        section #list aria-label="Stores found" data-list {
            div .heading {
                p .found role="status" data-live="found" { (found(stores)) }
                (reorder())
                (pages(stores, link, "Pages"))
            }
            @if stores.stores.is_empty() {
                p .empty { "No store is like that. " a href="/stores" { "Show all stores" } }
            } @else {
                (table(&stores.stores, stores.as_of, Some(link)))
                div .heading { span {} (pages(stores, link, "Pages, below the list")) }
            }
        }
    }
}

fn found(stores: &StoreList) -> String {
    let shown = u64::try_from(stores.stores.len()).unwrap_or(u64::MAX);
    match (stores.total, shown) {
        (0, _) => "No stores".to_owned(),
        (1, 1) => "1 store".to_owned(),
        (total, 0) => format!("Beyond the last of {} stores", show::count(total)),
        (total, _) => format!(
            "{}–{} of {} stores",
            show::count(stores.offset + 1),
            show::count(stores.offset + shown),
            show::count(total)
        ),
    }
}

fn form(link: &Link) -> Markup {
    let sort = Some(link.get("sort"))
        .filter(|sort| !sort.is_empty())
        .unwrap_or(DEFAULT_SORT);
    html! {
        form .filters method="get" action="/stores" role="search" data-filters {
            label { span { "Store id contains" }
                input type="search" name="q" value=(link.get("q")) maxlength="200" autocomplete="off" spellcheck="false";
            }
            label { span { "State" }
                select name="state" {
                    option value="" { "any" }
                    @for state in STATES {
                        option value=(state.as_str()) selected[link.get("state") == state.as_str()] { (frame::words(state)) }
                    }
                }
            }
            label { span { "Time zone" }
                input type="text" name="timezone" value=(link.get("timezone")) placeholder="any" autocomplete="off" spellcheck="false";
            }
            label { span { "Order" }
                select name="sort" {
                    @for (name, _, words) in ORDERS {
                        option value=(if name == DEFAULT_SORT { "" } else { name }) selected[name == sort] { (words) }
                    }
                }
            }
            button type="submit" { "Show" }
        }
    }
}

fn pages(stores: &StoreList, link: &Link, name: &str) -> Markup {
    let size = stores.limit.max(1);
    let last = stores.total.saturating_sub(1) / size * size;
    let at = |offset: u64| {
        let offset = if offset == 0 { String::new() } else { offset.to_string() };
        link.with(&[("offset", &offset)]).to("/stores")
    };
    let (back, forth) = (stores.offset > 0, stores.offset + size < stores.total);
    let step = |name: &str, to: Option<u64>| {
        html! {
            @match to {
                Some(offset) => a href=(at(offset)) { (name) },
                None => span aria-disabled="true" { (name) },
            }
        }
    };
    html! {
        nav .pages aria-label=(name) {
            (step("First", back.then_some(0)))
            (step("Previous", back.then(|| stores.offset.saturating_sub(size).min(last))))
            (step("Next", forth.then_some(stores.offset + size)))
            (step("Last", forth.then_some(last)))
        }
    }
}

/// Rows stay where they are while somebody reads them; when their order has changed, this shows the new one.
pub(super) fn reorder() -> Markup {
    html! { button .quiet .scripted type="button" data-reorder { "The order has changed: show" } }
}

/// The rows; with links that order them if there is an address to order.
pub(super) fn table(stores: &[Store], as_of: Timestamp, link: Option<&Link>) -> Markup {
    let heads = |window: &str| {
        html! {
            (head("Uptime", &format!("uptime_{window}"), "asc", link))
            (head("Down", &format!("down_{window}"), "desc", link))
        }
    };
    html! {
        div .scroll tabindex="0" role="region" aria-label="Stores" {
            table .stores {
                thead {
                    tr {
                        th scope="col" rowspan="2" { "State" }
                        (head_of("Store", "id", "asc", link, true))
                        th scope="col" rowspan="2" { "Time zone" }
                        (head_of("Observed", "last_observed_at", "asc", link, true))
                        th scope="colgroup" colspan="2" .group { "Last hour" }
                        th scope="colgroup" colspan="2" .group { "Last 24 hours" }
                        th scope="colgroup" colspan="2" .group { "Last 7 days" }
                    }
                    tr { (heads("last_hour")) (heads("last_day")) (heads("last_week")) }
                }
                tbody {
                    @for store in stores { (row(store, as_of)) }
                }
            }
        }
    }
}

fn head(name: &str, sort: &str, first: &str, link: Option<&Link>) -> Markup {
    head_of(name, sort, first, link, false)
}

/// The head of a column: its link orders by it, `first` way first, and the other way once it does.
fn head_of(name: &str, sort: &str, first: &str, link: Option<&Link>, tall: bool) -> Markup {
    let Some(link) = link else {
        return html! { th scope="col" rowspan=[tall.then_some("2")] .num[!tall] { (name) } };
    };
    let current = match link.get("sort") {
        "" => DEFAULT_SORT,
        sort => sort,
    };
    let order = match link.get("order") {
        "" => default_order(current),
        order => order,
    };
    let sorted = current == sort;
    let next = match (sorted, order) {
        (true, "asc") => "desc",
        (true, _) => "asc",
        (false, _) => first,
    };
    let next_order = if next == default_order(sort) { "" } else { next };
    let next_sort = if sort == DEFAULT_SORT { "" } else { sort };
    let href = link
        .with(&[("sort", next_sort), ("order", next_order), ("offset", "")])
        .to("/stores");
    let direction = if order == "asc" { "ascending" } else { "descending" };
    html! {
        th scope="col" rowspan=[tall.then_some("2")] .num[!tall] aria-sort=[sorted.then_some(direction)] {
            a href=(href) { (name) }
        }
    }
}

/// The way that the API orders by a column unless told.
fn default_order(sort: &str) -> &'static str {
    ORDERS
        .iter()
        .find(|(name, _, _)| *name == sort)
        .map_or("desc", |(_, order, _)| order)
}

fn row(store: &Store, as_of: Timestamp) -> Markup {
    let id = store.store_id.as_str();
    html! {
        tr data-live={ "row:" (id) } data-store=(id) {
            td .c-state { (frame::badge(store.state)) }
            th scope="row" .c-store { a href=(show::store_path(id)) title=(id) { (id) } }
            td .c-zone { (store.timezone) }
            td .c-seen {
                @match &store.last_observation {
                    Some(seen) => { time .num datetime=(seen.at) title=(show::utc(seen.at)) { (show::age(seen.at, as_of)) } },
                    None => "never",
                }
            }
            (sums(&store.windows.last_hour, "hour"))
            (sums(&store.windows.last_day, "day"))
            (sums(&store.windows.last_week, "week"))
        }
    }
}

fn sums(sum: &Window, window: &str) -> Markup {
    html! {
        td .num .{ "c-" (window) } { (show::percent(sum.uptime)) }
        td .num .{ "c-" (window) } .none[sum.down_us == 0] { (show::duration(sum.down_us)) }
    }
}
