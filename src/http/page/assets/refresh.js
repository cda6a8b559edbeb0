// Brings what the server rendered up to date: the page's own address is fetched again, and of each block marked
// data-live only what differs is changed. There is one rendering, the server's, and a page of rows at most.

import { isLive, on } from "./live.js";

const EVERY_MS = 15000;
/** Changes that call for a fetch are gathered for so long. */
const GATHER_MS = 1000;

let fetching = false;
let soon = null;

/** The document at an address of this page, or null if it cannot be had now. */
export async function fetchPage(url, signal) {
    const answer = await fetch(url, { headers: { accept: "text/html" }, signal });
    return new DOMParser().parseFromString(await answer.text(), "text/html");
}

export function startRefreshing() {
    setInterval(() => isLive() && refresh(), EVERY_MS);
    on("pause", (paused) => paused || refresh());
    on("reset", () => refreshSoon());
    on("report", () => document.querySelector("[data-live=reports]") && refreshSoon());
    on("changes", ({ changes }) => {
        const store = document.querySelector("[data-of-store]")?.dataset.ofStore;
        if (store && changes.some((change) => change.store_id === store)) refreshSoon();
    });
    let ready = null;
    on("fleet", ({ feed }) => {
        if (ready !== null && ready !== feed.ready) refreshSoon();
        ready = feed.ready;
    });
}

/** Fetches within a second. */
export function refreshSoon() {
    soon ??= setTimeout(() => {
        soon = null;
        refresh();
    }, GATHER_MS);
}

/** Fetches the page and takes over what is new. */
export async function refresh() {
    if (fetching || document.querySelector("[data-list][aria-busy=true]")) return;
    fetching = true;
    const url = location.href;
    try {
        const fresh = await fetchPage(url);
        if (url === location.href && isLive()) takeOver(fresh);
    } catch {
        // The stream's state says that the server is away.
    } finally {
        fetching = false;
    }
}

/** Changes each marked block of the document to what `fresh` has under the same mark. */
export function takeOver(fresh) {
    const blocks = new Map();
    for (const block of fresh.querySelectorAll("[data-live]")) blocks.set(block.dataset.live, block);
    for (const block of document.querySelectorAll("[data-live]")) {
        const next = blocks.get(block.dataset.live);
        if (next) become(block, next);
    }
    offerOrder(fresh);
}

/** Rows that stay are brought up to date where they are; the button offers another order or other rows. */
function offerOrder(fresh) {
    const ids = (body) => [...body.rows].map((row) => row.dataset.store).join("\n");
    const [body, next] = [document, fresh].map((page) => page.querySelector(".stores tbody"));
    const button = document.querySelector("[data-reorder]");
    if (!button || !body || !next) return;
    const changed = ids(body) !== ids(next);
    button.classList.toggle("on", changed);
    button.onclick = changed
        ? () => {
              body.replaceWith(document.importNode(next, true));
              button.classList.remove("on");
              document.querySelector(".stores").closest(".scroll").focus();
          }
        : null;
}

/** Makes a node equal to `next` with as few changes as it takes; focus and open details stay as they are. */
function become(node, next) {
    if (node.isEqualNode(next)) return;
    if (node.nodeName !== next.nodeName || (next.nodeType === Node.ELEMENT_NODE && node.childNodes.length !== next.childNodes.length)) {
        node.replaceWith(document.importNode(next, true));
        return;
    }
    if (node.nodeType !== Node.ELEMENT_NODE) {
        node.nodeValue = next.nodeValue;
        return;
    }
    for (const { name, value } of next.attributes) {
        if (node.getAttribute(name) !== value) node.setAttribute(name, value);
    }
    for (const { name } of [...node.attributes]) {
        if (!next.hasAttribute(name) && name !== "open") node.removeAttribute(name);
    }
    const nexts = [...next.childNodes];
    [...node.childNodes].forEach((child, i) => become(child, nexts[i]));
}
