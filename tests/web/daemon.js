// A real daemon over a generated fleet, and a way to it that counts bytes and can be cut.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PROGRAM = process.env.UPTALLY ?? new URL("../../target/debug/uptally", import.meta.url).pathname;
const START_MS_MAX = 120_000;

/** Starts `uptally demo` on a free port of loopback; `settings` are environment variables. */
export async function startDaemon({ stores, seed = 7, settings = {} }) {
    // Others may enter it: Postgres does not run as root.
    const directory = mkdtempSync(join(tmpdir(), "uptally-web-"));
    chmodSync(directory, 0o711);
    const child = spawn(PROGRAM, ["demo", "--stores", String(stores), "--seed", String(seed)], {
        cwd: directory,
        env: { ...process.env, UPTALLY__HTTP__LISTEN: "127.0.0.1:0", UPTALLY__LOG__FILTER: "warn", ...settings },
        stdio: ["ignore", "pipe", "pipe"],
    });
    // Whoever ends the tests early does not leave a daemon behind.
    for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
    process.once("exit", () => child.kill("SIGINT"));
    const log = [];
    let origin = null;
    const ready = new Promise((resolve, reject) => {
        const look = (line) => {
            log.push(line);
            const address = /http:\/\/(127\.0\.0\.1:\d+)\/trigger_report/.exec(line);
            if (address) resolve(`http://${address[1]}`);
        };
        createInterface({ input: child.stdout }).on("line", look);
        createInterface({ input: child.stderr }).on("line", look);
        child.once("exit", (code) => reject(new Error(`uptally ended with ${code}:\n${log.join("\n")}`)));
        setTimeout(() => reject(new Error(`uptally was not ready in time:\n${log.join("\n")}`)), START_MS_MAX).unref();
    });
    const stop = async () => {
        if (child.exitCode === null && child.signalCode === null) {
            child.kill("SIGINT");
            await once(child, "exit");
        }
        rmSync(directory, { recursive: true, force: true });
    };
    try {
        origin = await ready;
    } catch (error) {
        await stop();
        throw error;
    }
    return { origin, log, stop };
}

/** Writes observations as a poller would: `[store, minutes ago, status]`, through the API. */
export async function observe(origin, rows) {
    const now = Date.now();
    const lines = rows.map(([store_id, minutesAgo, status]) =>
        JSON.stringify({ store_id, timestamp_utc: new Date(now - minutesAgo * 60_000).toISOString(), status }),
    );
    const answer = await fetch(`${origin}/api/v1/activity`, {
        method: "POST",
        headers: { "content-type": "application/x-ndjson" },
        body: lines.join("\n"),
    });
    const told = await answer.json();
    if (!answer.ok || told.rejected) throw new Error(`POST /api/v1/activity: ${answer.status} ${JSON.stringify(told)}`);
}

/** A TCP proxy before `origin`. `received()` is what came through it to the client in bytes; `cut()` ends every
 *  connection, and while `closed` none is taken. */
export async function startProxy(origin) {
    const { port } = new URL(origin);
    const open = new Set();
    let bytes = 0;
    const proxy = { closed: false };
    const server = net.createServer((client) => {
        if (proxy.closed) return client.destroy();
        const upstream = net.connect(Number(port), "127.0.0.1");
        for (const [from, to] of [[client, upstream], [upstream, client]]) {
            open.add(from);
            from.on("data", (chunk) => {
                if (from === upstream) bytes += chunk.length;
                to.write(chunk);
            });
            from.on("end", () => to.end());
            from.on("error", () => to.destroy());
            from.on("close", () => {
                open.delete(from);
                to.destroy();
            });
        }
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return Object.assign(proxy, {
        origin: `http://127.0.0.1:${server.address().port}`,
        received: () => bytes,
        cut: () => open.forEach((socket) => socket.destroy()),
        stop: async () => {
            server.close();
            proxy.cut();
        },
    });
}
