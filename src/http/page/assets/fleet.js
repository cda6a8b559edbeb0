// Counts, states of visible rows, and the ticker: what the stream of events changes in place.

import { on } from "./live.js";

const WORDS = { online: "online", offline: "offline in hours", silent: "silent", outside_hours: "outside hours" };
/** The events come at most once a second; after a gap many come at once. */
const EVERY_MS = 1000;
const KEPT = 200;
const RATE_MS = 60000;

const grouped = new Intl.NumberFormat("en-US");
const kept = [];
const seen = [];

export function startFleet() {
    let latest = null;
    on("fleet", (fleet) => {
        latest = fleet;
        atMostOnceASecond(showFleet);
    });
    on("changes", ({ at, changes, more }) => {
        kept.unshift(...changes.map((change) => ({ at, ...change })).reverse());
        kept.length = Math.min(kept.length, KEPT);
        seen.push({ at: Date.now(), count: changes.length + more });
        atMostOnceASecond(showChanges);
        for (const { store_id, to } of changes) showState(store_id, to);
    });

    function showFleet() {
        setText("[data-clock]", latest.as_of.slice(11, 19));
        setText("[data-uptime-now]", latest.uptime_now === null ? "–" : `${cut(latest.uptime_now * 100)} %`);
        let before = 0;
        const total = Object.values(latest.counts).reduce((sum, count) => sum + count, 0) || 1;
        for (const state of Object.keys(WORDS)) {
            const count = latest.counts[state];
            setText(`[data-count=${state}]`, grouped.format(count));
            const bar = document.querySelector(`[data-share=${state}]`);
            bar?.setAttribute("x", `${(before / total) * 100}%`);
            bar?.setAttribute("width", `${(count / total) * 100}%`);
            before += count;
        }
    }
}

const due = new Map();

/** Runs `show` now, or when a second has passed since it last ran. */
function atMostOnceASecond(show) {
    const entry = due.get(show) ?? { last: -Infinity, timer: null };
    due.set(show, entry);
    if (entry.timer) return;
    const wait = Math.max(0, entry.last + EVERY_MS - performance.now());
    entry.timer = setTimeout(() => {
        entry.timer = null;
        entry.last = performance.now();
        show();
    }, wait);
}

/** Two decimals, cut off as the server does. */
function cut(percent) {
    return (Math.floor(percent * 100 + 1e-6) / 100).toFixed(2);
}

function setText(selector, text) {
    const node = document.querySelector(selector);
    if (node && node.textContent !== text) node.textContent = text;
}

/** The state in the row of a store, if the row is there. */
function showState(id, state) {
    if (!state) return;
    for (const row of document.querySelectorAll(`tr[data-store="${CSS.escape(id)}"]`)) {
        const badge = row.querySelector(".state");
        if (badge.dataset.state === state) continue;
        badge.replaceWith(stateBadge(state));
        const cell = row.querySelector(".c-state");
        cell.classList.remove("flash");
        requestAnimationFrame(() => cell.classList.add("flash"));
    }
}

function stateBadge(state) {
    const badge = document.createElement("span");
    badge.className = "state";
    badge.dataset.state = state;
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    shape.setAttribute("class", "icon");
    shape.setAttribute("aria-hidden", "true");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", `#${state}`);
    shape.append(use);
    badge.append(shape, WORDS[state] ?? state);
    return badge;
}

/** Fills the rows of the ticker, newest first. They stay where they are; whoever is in them is not disturbed. */
function showChanges() {
    const ticker = document.querySelector("[data-ticker]");
    if (!ticker) return;
    const now = Date.now();
    while (seen.length && seen[0].at < now - RATE_MS) seen.shift();
    const count = seen.reduce((sum, entry) => sum + entry.count, 0);
    setText("[data-ticker-rate]", `${grouped.format(count)} in a minute`);
    if (ticker.matches(":hover, :focus-within")) return;
    [...ticker.children].forEach((row, i) => {
        const change = kept[i];
        if (!change) return;
        const key = `${change.at} ${change.store_id}`;
        if (row.dataset.key === key) return;
        row.dataset.key = key;
        const time = document.createElement("time");
        time.dateTime = change.at;
        time.className = "num";
        time.textContent = change.at.slice(11, 19);
        const link = document.createElement("a");
        link.href = `/stores/${encodeURIComponent(change.store_id)}`;
        link.className = "id";
        link.textContent = change.store_id;
        row.replaceChildren(time, link, change.to ? stateBadge(change.to) : "gone");
    });
}
