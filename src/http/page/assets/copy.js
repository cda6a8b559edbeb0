// Lines for the shell: they follow the form, name the server as the browser knows it, and can be copied.

import { announce } from "./live.js";

export function startCopying() {
    for (const button of document.querySelectorAll("[data-copy]")) {
        const line = document.querySelector(button.dataset.copy);
        line.textContent = line.textContent.replace(/https?:\/\/[^/']+/, location.origin);
        button.addEventListener("click", async () => {
            await navigator.clipboard.writeText(line.textContent).catch(() => getSelection().selectAllChildren(line));
            button.textContent = "Copied";
            announce("Copied");
            setTimeout(() => (button.textContent = "Copy"), 2000);
        });
    }
    const form = document.querySelector("[data-report-form]");
    const line = document.querySelector("#curl-trigger");
    form?.addEventListener("input", () => {
        const fields = [...new FormData(form)].filter(([, value]) => value !== "");
        const query = new URLSearchParams(fields).toString().replaceAll("'", "%27");
        line.textContent = line.textContent.replace(/\/api\/v1\/reports[^']*/, `/api/v1/reports?${query}`);
    });
}
