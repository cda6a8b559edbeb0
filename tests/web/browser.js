// A real Chromium. Whatever a page says on its console, throws, or is refused by its own policy fails the test.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";

import { chromium } from "playwright-core";

const PROGRAM = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find((path) => existsSync(path));
const FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

export const WIDE = { width: 1440, height: 900 };
export const NARROW = { width: 390, height: 844 };

export function launch() {
    return chromium.launch({ executablePath: PROGRAM, args: FLAGS });
}

/** Runs `visit` with a page in a context of its own, and fails if anything went wrong in it that `expected` (a regular
 *  expression) does not name. */
export async function withPage(browser, options, visit) {
    const { expected = null, ...settings } = options;
    const context = await browser.newContext({ viewport: WIDE, ...settings });
    const wrong = [];
    const blame = (text) => {
        if (!expected?.test(text)) wrong.push(text);
    };
    try {
        const page = await context.newPage();
        page.on("console", (message) => ["error", "warning"].includes(message.type()) && blame(`console: ${message.text()}`));
        page.on("pageerror", (error) => blame(`thrown: ${error.stack}`));
        page.on("response", (answer) => answer.status() >= 400 && blame(`${answer.status()} ${answer.url()}`));
        await page.addInitScript(() => {
            document.addEventListener("securitypolicyviolation", (event) => {
                console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
            });
        });
        await visit(page, context);
    } finally {
        await context.close();
    }
    assert.deepEqual(wrong, [], "what went wrong in the page");
}

/** Waits until `look` gives something true, and returns it. */
export async function eventually(look, what, ms = 10_000) {
    const until = Date.now() + ms;
    for (;;) {
        const found = await look();
        if (found) return found;
        assert.ok(Date.now() < until, `${what} did not come within ${ms} ms`);
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
}
