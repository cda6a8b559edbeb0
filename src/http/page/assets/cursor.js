// A cursor in the pictures: pointer or arrow keys choose a cell, and the readout says what its table says.

export function startCursors() {
    for (const plot of document.querySelectorAll("[data-cursor]")) watch(plot);
}

function watch(plot) {
    plot.tabIndex = 0;
    plot.setAttribute("role", "slider");
    plot.setAttribute("aria-label", plot.querySelector("[role=img]").getAttribute("aria-label"));
    const cross = document.createElement("div");
    cross.className = "cross";
    cross.hidden = true;
    let at = null;

    // A map has a row of cells for each row of its table, a line one cell for each.
    const table = document.querySelector(plot.dataset.cursor);
    const map = plot.dataset.cursorTop !== undefined;
    const columns = () => (map ? table.tHead.rows[0].cells.length - 1 : table.tBodies[0].rows.length);
    const rows = () => (map ? table.tBodies[0].rows.length : 1);
    const top = () => Number(plot.dataset.cursorTop ?? 0);

    plot.setAttribute("aria-valuemin", "0");
    plot.setAttribute("aria-valuemax", String(columns() * rows() - 1));
    plot.setAttribute("aria-valuenow", "0");
    plot.setAttribute("aria-valuetext", "no cell chosen");

    function choose(x, y) {
        at = { x: Math.min(Math.max(x, 0), columns() - 1), y: Math.min(Math.max(y, 0), rows() - 1) };
        const text = words(table, map, at);
        const readout = plot.closest("figure").querySelector("[data-readout]");
        readout.textContent = text;
        plot.setAttribute("aria-valuenow", String(at.y * columns() + at.x));
        plot.setAttribute("aria-valuetext", text);
        const box = plot.getBoundingClientRect();
        const [width, height] = [box.width / columns(), (box.height - top()) / rows()];
        cross.style.left = `${(map ? at.x : at.x + 0.5) * width}px`;
        cross.style.top = `${top() + at.y * height}px`;
        cross.style.width = `${map ? width : 0}px`;
        cross.style.height = `${height}px`;
        cross.hidden = false;
        if (!cross.isConnected) plot.append(cross);
    }

    plot.addEventListener("pointermove", (event) => {
        const box = plot.getBoundingClientRect();
        const y = (event.clientY - box.top - top()) / ((box.height - top()) / rows());
        if (y < 0) return;
        choose(Math.floor((event.clientX - box.left) / (box.width / columns())), Math.floor(y));
    });
    plot.addEventListener("pointerleave", () => {
        if (document.activeElement !== plot) cross.hidden = true;
    });
    plot.addEventListener("blur", () => (cross.hidden = true));
    plot.addEventListener("keydown", (event) => {
        const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-columns(), 0], End: [columns(), 0] };
        const step = steps[event.key];
        if (!step) return;
        event.preventDefault();
        const from = at ?? { x: columns() - 1 - step[0], y: -step[1] };
        choose(from.x + step[0], from.y + step[1]);
    });
}

/** What the table behind a picture says of a cell. */
function words(table, map, { x, y }) {
    const body = table.tBodies[0];
    if (!map) {
        const [hour, ...cells] = body.rows[x].cells;
        const heads = [...table.tHead.rows[0].cells].slice(1);
        return `${hour.textContent} · ${cells.map((cell, i) => `${heads[i].textContent.toLowerCase()} ${cell.textContent}`).join(" · ")}`;
    }
    const cell = body.rows[y].cells[x + 1];
    const [day, hour] = [body.rows[y].cells[0].textContent, table.tHead.rows[0].cells[x + 1].textContent];
    return `${day} ${hour}:00 · ${cell.title || (cell.textContent ? "closed" : "not known")}`;
}
