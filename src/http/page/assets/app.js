// The pages work without any of this. What a page has is found by its data attributes.

import { startCopying } from "./copy.js";
import { startCursors } from "./cursor.js";
import { startFleet } from "./fleet.js";
import { startList } from "./list.js";
import { startLive } from "./live.js";
import { startRefreshing } from "./refresh.js";

startCursors();
startCopying();
startList();
if (document.querySelector("[data-pulse]")) {
    startLive();
    startFleet();
    startRefreshing();
}
