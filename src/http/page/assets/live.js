// The stream of events, and the button that holds it.
//
// One EventSource for each tab, open only while the tab is seen and not paused: browsers open few connections to a
// host. The id of the last event is kept for the tab, so that after a pause, a reload or a cut connection the stream
// goes on where it ended.

const URL_OF_EVENTS = "/api/v1/events";
const LAST = "uptally.last-event";
const PAUSED = "uptally.paused";
const RETRY_MS_MIN = 1000;
const RETRY_MS_MAX = 30000;

const listeners = new Map();
let source = null;
let retry = null;
let retryMs = RETRY_MS_MIN;

/** Calls `listener` with the data of every event of that name. */
export function on(name, listener) {
    listeners.set(name, [...(listeners.get(name) ?? []), listener]);
}

/** Whether the reader holds the page still. */
export function isPaused() {
    return sessionStorage.getItem(PAUSED) === "1";
}

/** Whether the page may change by itself. */
export function isLive() {
    return !isPaused() && document.visibilityState === "visible";
}

export function startLive() {
    const button = document.querySelector("[data-pause]");
    button.addEventListener("click", () => {
        sessionStorage.setItem(PAUSED, isPaused() ? "0" : "1");
        follow();
        announce(isPaused() ? "Updates are paused" : "Updates go on");
        tell("pause", isPaused());
    });
    document.addEventListener("visibilitychange", follow);
    addEventListener("pagehide", close);
    addEventListener("pageshow", follow);
    follow();
}

/** Says something to those who do not see the page. */
export function announce(text) {
    document.querySelector("[data-announce]").textContent = text;
}

/** Opens or closes the stream, as tab and button want it. */
function follow() {
    const button = document.querySelector("[data-pause]");
    button.textContent = isPaused() ? "Resume" : "Pause";
    button.setAttribute("aria-pressed", String(isPaused()));
    if (isLive()) open();
    else close();
    if (isPaused()) show("paused", "Paused");
}

function open() {
    if (source) return;
    const last = sessionStorage.getItem(LAST);
    source = new EventSource(last ? `${URL_OF_EVENTS}?last_event_id=${encodeURIComponent(last)}` : URL_OF_EVENTS);
    source.onopen = () => {
        retryMs = RETRY_MS_MIN;
        show("live", "Live");
    };
    source.onerror = () => {
        show("lost", "Lost");
        // A cut connection the browser opens again by itself; a refusal it takes for an end.
        if (source.readyState !== EventSource.CLOSED) return;
        close();
        retry = setTimeout(follow, retryMs);
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
    };
    for (const name of ["fleet", "changes", "report", "reset"]) {
        source.addEventListener(name, (event) => {
            if (event.lastEventId) sessionStorage.setItem(LAST, event.lastEventId);
            tell(name, event.data ? JSON.parse(event.data) : null);
        });
    }
}

function close() {
    clearTimeout(retry);
    source?.close();
    source = null;
}

function show(state, word) {
    const pulse = document.querySelector("[data-pulse]");
    pulse.parentElement.dataset.pulseState = state;
    pulse.textContent = word;
}

function tell(name, data) {
    for (const listener of listeners.get(name) ?? []) listener(data);
}
