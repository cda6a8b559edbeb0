// The list of stores without whole page loads: a link or a filter fetches its address and takes the list from it.
// The address stays the truth, so that back, forth, reload and sharing work.

import { fetchPage } from "./refresh.js";

const TYPING_MS = 250;

let pending = null;

export function startList() {
    const form = document.querySelector("[data-filters]");
    if (!form) return;
    let typing = null;
    const submit = (replace) => {
        clearTimeout(typing);
        const fields = [...new FormData(form)].filter(([, value]) => value !== "");
        const query = new URLSearchParams(fields).toString();
        show(query ? `${form.action}?${query}` : form.action, replace ? "replace" : "push");
    };
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        submit(false);
    });
    form.addEventListener("change", () => submit(false));
    form.addEventListener("input", (event) => {
        if (event.target.type !== "search") return;
        clearTimeout(typing);
        typing = setTimeout(() => submit(true), TYPING_MS);
    });
    document.addEventListener("click", (event) => {
        const link = event.target.closest("[data-list] .pages a, [data-list] thead a");
        if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        show(link.href, "push");
    });
    addEventListener("popstate", () => show(location.href, "none"));
}

async function show(url, history_) {
    pending?.abort();
    const mine = (pending = new AbortController());
    const list = document.querySelector("[data-list]");
    list.setAttribute("aria-busy", "true");
    try {
        const fresh = await fetchPage(url, mine.signal);
        const next = fresh.querySelector("[data-list]");
        if (!next) return location.assign(url);
        if (history_ === "push" && url !== location.href) history.pushState(null, "", url);
        if (history_ === "replace") history.replaceState(null, "", url);
        const focused = position(list);
        list.replaceWith(document.importNode(next, true));
        refocus(focused);
        if (history_ === "none") fill(fresh);
    } catch (error) {
        if (error.name !== "AbortError") location.assign(url);
    } finally {
        if (pending === mine) {
            pending = null;
            document.querySelector("[data-list]").removeAttribute("aria-busy");
        }
    }
}

/** The place of the focus among the links of the list that stay: heads and pages. */
function position(list) {
    const links = [...list.querySelectorAll("thead a, .pages > *")];
    return links.indexOf(document.activeElement);
}

function refocus(position) {
    if (position < 0) return;
    const links = [...document.querySelectorAll("[data-list] :is(thead a, .pages > *)")];
    const link = links[position];
    (link?.href ? link : document.querySelector("[data-list] .scroll"))?.focus({ preventScroll: true });
}

/** Makes the form say what the address says. */
function fill(fresh) {
    const form = document.querySelector("[data-filters]");
    const next = fresh.querySelector("[data-filters]");
    for (const field of form.elements) {
        if (field.name) field.value = next.elements[field.name].value;
    }
}
