// Each promise of the pages, in a real Chromium before a real daemon.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, describe, it } from "node:test";

import { eventually, launch, NARROW, withPage } from "./browser.js";
import { observe, startDaemon, startProxy } from "./daemon.js";

const STORES = 600;
const HOSTILE = `<img src=x onerror=alert(1)>"'&/?#%`;
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

let daemon, proxy, browser, origin;

before(async () => {
    daemon = await startDaemon({ stores: STORES });
    proxy = await startProxy(daemon.origin);
    origin = proxy.origin;
    browser = await launch();
    // Stores without hours are always open, so that their states are known.
    await observe(daemon.origin, [
        ["web-online", 1, "active"],
        ["web-offline", 180, "active"],
        ["web-offline", 1, "inactive"],
        ["web-silent", 300, "active"],
        [HOSTILE, 1, "active"],
    ]);
});

after(async () => {
    await browser?.close();
    await proxy?.stop();
    await daemon?.stop();
});

const store = (id) => `${origin}/stores/${encodeURIComponent(id)}`;
const stateOf = (page, id) => page.locator(`tr[data-store="${id}"] .state`).getAttribute("data-state");

async function everyPage() {
    const answer = await fetch(`${origin}/api/v1/reports`, { method: "POST" });
    const { report_id: report } = await answer.json();
    await eventually(async () => (await (await fetch(`${origin}/api/v1/reports/${report}`)).json()).state === "complete", "the report");
    return {
        fleet: `${origin}/`,
        week: `${origin}/?span=7d`,
        stores: `${origin}/stores`,
        store: store("web-offline"),
        reports: `${origin}/reports`,
        report: `${origin}/reports/${report}`,
        unknown: store("nobody"),
    };
}

describe("without JavaScript", () => {
    const plain = { javaScriptEnabled: false };

    it("the fleet is shown, with its line and the table behind it", () =>
        withPage(browser, plain, async (page) => {
            await page.goto(origin);
            const counts = await page.locator("[data-count]").allTextContents();
            const { counts: expected } = await (await fetch(`${origin}/api/v1/fleet`)).json();
            const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
            assert.equal(sum(counts.map((text) => Number(text.replace(",", "")))), sum(Object.values(expected)));
            assert.equal(await page.locator("#history-table tbody tr").count(), 24);
            assert.match(await page.locator(".chart path.line").getAttribute("d"), /^M0\.5 /);
            assert.equal(await page.locator("tr[data-store]").count(), 10);
            await page.getByRole("link", { name: "7 days" }).click();
            assert.equal(await page.locator("#history-table tbody tr").count(), 168);
        }));

    it("the list is searched, filtered, ordered and paged by its address", () =>
        withPage(browser, plain, async (page) => {
            await page.goto(`${origin}/stores`);
            assert.equal(await page.locator("tr[data-store]").count(), 50);
            const first = await page.locator("tr[data-store]").first().getAttribute("data-store");
            await page.getByRole("link", { name: "Next" }).first().click();
            assert.match(page.url(), /offset=50/);
            assert.notEqual(await page.locator("tr[data-store]").first().getAttribute("data-store"), first);
            await page.goto(`${origin}/stores`);
            await page.getByLabel("Store id contains").fill("web-");
            await page.getByLabel("State").selectOption("silent");
            await page.getByRole("button", { name: "Show" }).click();
            assert.deepEqual(await page.locator("tr[data-store]").evaluateAll((rows) => rows.map((row) => row.dataset.store)), ["web-silent"]);
            await page.goto(`${origin}/stores?q=web-&sort=id&order=desc`);
            const ids = await page.locator("tr[data-store]").evaluateAll((rows) => rows.map((row) => row.dataset.store));
            assert.deepEqual(ids, ["web-silent", "web-online", "web-offline"]);
        }));

    it("a report is made by a form, waited for and downloaded", () =>
        withPage(browser, plain, async (page) => {
            await page.goto(`${origin}/reports`);
            await page.getByLabel("Windows").selectOption("rolling");
            await page.getByRole("button", { name: "Make report" }).click();
            await page.waitForURL(/\/reports\/[0-9a-f-]{36}$/);
            const link = page.getByRole("link", { name: "Download" });
            await link.waitFor();
            const download = page.waitForEvent("download");
            await link.click();
            const stream = await (await download).createReadStream();
            const chunks = await stream.toArray();
            assert.ok(Buffer.concat(chunks).toString().startsWith("store_id,uptime_last_hour"));
            await page.goto(`${origin}/reports`);
            assert.match(await page.locator(".reports tbody tr").first().textContent(), /complete.*rolling/s);
        }));

    it("a refused report says why, and keeps what was chosen", () =>
        withPage(browser, { ...plain, expected: /^(400|console)/ }, async (page) => {
            await page.goto(`${origin}/reports`);
            await page.getByLabel("As of").fill("yesterday");
            await page.getByLabel("Closed time").selectOption("excluded");
            await page.getByRole("button", { name: "Make report" }).click();
            assert.match(await page.getByRole("alert").textContent(), /as_of.*yesterday/);
            assert.equal(await page.getByLabel("As of").inputValue(), "yesterday");
            assert.equal(await page.getByLabel("Closed time").inputValue(), "excluded");
        }));
});

describe("states", () => {
    it("a dead poller is told from a store that is down", () =>
        withPage(browser, {}, async (page) => {
            await page.goto(`${origin}/stores?q=web-`);
            assert.equal(await stateOf(page, "web-online"), "online");
            assert.equal(await stateOf(page, "web-offline"), "offline");
            assert.equal(await stateOf(page, "web-silent"), "silent");
            await page.goto(store("web-silent"));
            assert.match(await page.locator("[data-live=facts]").textContent(), /silent.*nobody has looked/s);
            // Hours after its only poll are open and unobserved.
            assert.ok((await page.locator("#heat-table td").allTextContents()).includes("100*"));
            assert.notEqual(await page.locator("svg[data-live=heat] path.unseen").getAttribute("d"), "");
        }));

    it("each state is a colour, a shape and a word", () =>
        withPage(browser, {}, async (page) => {
            await page.goto(origin);
            const told = await page.locator(".counts .state").evaluateAll((all) =>
                all.map((state) => [getComputedStyle(state).color, state.querySelector("use").getAttribute("href"), state.textContent]),
            );
            for (const i of [1, 2]) assert.equal(new Set(told.map((state) => state[i])).size, 4, JSON.stringify(told));
            assert.deepEqual(told.map((state) => state[2]), ["online", "offline in hours", "silent", "outside hours"]);
        }));

    it("an id that looks like HTML is text and has a page", () =>
        withPage(browser, {}, async (page) => {
            await page.goto(`${origin}/stores?q=onerror`);
            await page.getByRole("link", { name: HOSTILE }).click();
            assert.equal(await page.locator("h1").textContent(), HOSTILE);
        }));
});

describe("live", () => {
    it("counts, visible rows and the ticker follow, and nothing moves", () =>
        withPage(browser, {}, async (page) => {
            await observe(daemon.origin, [["web-live", 2, "active"]]);
            await page.goto(`${origin}/stores?q=web-live`);
            await page.locator("[data-pulse-state=live]").waitFor();
            await page.evaluate(() => {
                window.shifted = 0;
                window.others = 0;
                new PerformanceObserver((list) => list.getEntries().forEach((entry) => (window.shifted += entry.value))).observe({ type: "layout-shift" });
            });
            await page.waitForTimeout(1500);
            await observe(daemon.origin, [["web-live", 0.02, "inactive"]]);
            await eventually(async () => (await stateOf(page, "web-live")) === "offline", "the new state");
            assert.equal(await page.evaluate(() => window.shifted), 0);
            assert.equal(await page.locator("tr[data-store]").count(), 1);
        }));

    it("the ticker is at most a second's pace, can be paused, and goes on where it was", () =>
        withPage(browser, {}, async (page) => {
            await observe(daemon.origin, [["web-tick", 2, "active"]]);
            await page.goto(origin);
            await page.locator("[data-pulse-state=live]").waitFor();
            await page.waitForTimeout(1500);
            await page.evaluate(() => {
                window.times = [];
                new MutationObserver(() => window.times.push(performance.now())).observe(document.querySelector("[data-ticker]"), { childList: true, subtree: true });
            });
            const shows = (text) => async () => (await page.locator("[data-ticker]").textContent()).includes(text);
            for (const [i, status] of ["inactive", "active", "inactive", "active"].entries()) {
                await observe(daemon.origin, [["web-tick", 0.04 - i * 0.01, status]]);
                await page.waitForTimeout(600);
            }
            await eventually(shows("web-tick"), "the change");
            const times = await page.evaluate(() => window.times);
            for (let i = 1; i < times.length; i++) assert.ok(times[i] - times[i - 1] > 900, `updates ${times}`);
            await page.getByRole("button", { name: "Pause" }).click();
            await observe(daemon.origin, [["web-paused", 1, "active"]]);
            await page.waitForTimeout(2500);
            assert.equal(await shows("web-paused")(), false);
            await page.getByRole("button", { name: "Resume" }).click();
            await eventually(shows("web-paused"), "what happened during the pause");
        }));

    it("after a cut connection nothing is missed", () =>
        withPage(browser, { expected: /ERR_|console: Failed to load/ }, async (page) => {
            await page.goto(origin);
            await page.locator("[data-pulse-state=live]").waitFor();
            await page.waitForTimeout(1500);
            proxy.closed = true;
            proxy.cut();
            await page.locator("[data-pulse-state=lost]").waitFor();
            await observe(daemon.origin, [["web-cut", 1, "active"]]);
            await page.waitForTimeout(1500);
            proxy.closed = false;
            await eventually(async () => (await page.locator("[data-ticker]").textContent()).includes("web-cut"), "the missed change", 20_000);
        }));
});

describe("addresses", () => {
    it("back, forth and reload bring back what was seen", () =>
        withPage(browser, {}, async (page) => {
            await page.goto(`${origin}/stores`);
            await page.getByLabel("State").selectOption("offline");
            await page.waitForURL(/state=offline/);
            await page.getByRole("link", { name: "Store", exact: true }).click();
            await page.waitForURL(/sort=id/);
            assert.equal(await page.locator("th[aria-sort]").textContent(), "Store");
            await page.goBack();
            await eventually(async () => (await page.locator("th[aria-sort]").textContent()) === "Down", "the earlier order");
            await page.goBack();
            await eventually(async () => (await page.getByLabel("State").inputValue()) === "", "the earlier filter");
            await page.goForward();
            await eventually(async () => (await page.getByLabel("State").inputValue()) === "offline", "the filter");
            await page.reload();
            assert.equal(await page.getByLabel("State").inputValue(), "offline");
        }));

    it("an unknown store and a wrong parameter are pages that say so", () =>
        withPage(browser, { expected: /^(404|400|console)/ }, async (page) => {
            await page.goto(store("nobody"));
            assert.match(await page.getByRole("alert").textContent(), /nobody/);
            await page.goto(`${origin}/stores?state=asleep`);
            assert.match(await page.getByRole("alert").textContent(), /state.*asleep/);
        }));
});

describe("keys, motion, size", () => {
    it("everything is reached by keys, with a visible focus", () =>
        withPage(browser, {}, async (page) => {
            await page.goto(`${origin}/stores`);
            const reached = [];
            for (let i = 0; i < 40; i++) {
                await page.keyboard.press("Tab");
                reached.push(
                    await page.evaluate(() => {
                        const style = getComputedStyle(document.activeElement);
                        return [document.activeElement.textContent.trim().slice(0, 20) || document.activeElement.name, style.outlineStyle, style.outlineWidth];
                    }),
                );
            }
            assert.equal(reached[0][0], "Skip to content");
            for (const [name, style, width] of reached) assert.ok(style !== "none" && width !== "0px", `${name} has no visible focus`);
            for (const name of ["Fleet", "Pause", "q", "Show", "Next", "Store"]) {
                assert.ok(reached.some(([found]) => found === name), `${name} is not reached: ${reached.map(([found]) => found)}`);
            }
            await page.getByRole("link", { name: "Store", exact: true }).focus();
            await page.keyboard.press("Enter");
            await page.waitForURL(/sort=id/);
            await eventually(() => page.evaluate(() => document.activeElement.textContent === "Store"), "the focus on the same head");
        }));

    it("the map and the line are read by keys", () =>
        withPage(browser, {}, async (page) => {
            await page.goto(store("web-offline"));
            const map = page.getByRole("slider");
            await map.focus();
            await page.keyboard.press("ArrowRight");
            await page.keyboard.press("Home");
            const text = await map.getAttribute("aria-valuetext");
            assert.match(text, / 00:00 · /);
            assert.equal(await page.locator(".map ~ figcaption [data-readout]").textContent(), text);
        }));

    it("whoever wants less motion sees none", () =>
        withPage(browser, { reducedMotion: "reduce" }, async (page) => {
            await page.goto(origin);
            const moving = await page.evaluate(() => {
                const cell = document.querySelector(".c-state");
                cell.classList.add("flash");
                return document.getAnimations().length;
            });
            assert.equal(moving, 0);
        }));

    it("the first load is small and ready within a second", () =>
        withPage(browser, {}, async (page) => {
            const before = proxy.received();
            await page.goto(origin);
            await page.locator("[data-pulse-state=live]").waitFor();
            const bytes = proxy.received() - before;
            const ready = await page.evaluate(() => performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd);
            assert.ok(bytes > 10_000 && bytes < 100_000, `${bytes} bytes`);
            assert.ok(ready < 1000, `${ready} ms`);
        }));

    it("no page is wider than a phone", async () => {
        for (const [name, url] of Object.entries(await everyPage())) {
            await withPage(browser, { viewport: NARROW, expected: /^(404|console: Failed)/ }, async (page) => {
                await page.goto(url);
                assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), name);
            });
        }
    });

    it("axe finds nothing serious, in either theme", async () => {
        for (const [name, url] of Object.entries(await everyPage())) {
            for (const colorScheme of ["light", "dark"]) {
                await withPage(browser, { colorScheme, bypassCSP: true, expected: /^(404|console: Failed)/ }, async (page) => {
                    await page.goto(url);
                    await page.addScriptTag({ path: AXE });
                    const { violations } = await page.evaluate(() => window.axe.run());
                    const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
                    const told = serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
                    assert.deepEqual(told, [], `${name}, ${colorScheme}`);
                });
            }
        }
    });

    it("the policy forbids what is inline", () =>
        withPage(browser, { expected: /policy|Content Security Policy|violates/ }, async (page) => {
            await page.goto(origin);
            const ran = await page.evaluate(() => {
                const script = document.createElement("script");
                script.textContent = "window.ran = true";
                document.body.append(script);
                return window.ran === true;
            });
            assert.equal(ran, false);
        }));
});

// SCREENSHOTS=docs/screenshots takes those of the docs.
describe("screenshots", { skip: !process.env.SCREENSHOTS }, () => {
    for (const [name, path, settings] of [
        ["fleet", "/", { colorScheme: "light" }],
        ["fleet-dark", "/", { colorScheme: "dark" }],
        ["store-dark", "/stores/web-offline", { colorScheme: "dark" }],
        ["stores-phone", "/stores", { colorScheme: "light", viewport: NARROW }],
    ]) {
        it(name, () =>
            withPage(browser, settings, async (page) => {
                await page.goto(origin + path);
                await page.waitForTimeout(1500);
                await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png` });
            }));
    }
});
