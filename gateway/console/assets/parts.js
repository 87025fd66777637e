// Parts of a page that take longer than the rest. `data-part` is the address of the page that has
// their content, in the element with the same id. It is asked for when the part can be seen, and
// again after the page around it was replaced. What a part shows stays until then.
import { isHeld } from "./held.js";
import { replace } from "./morph.js";
import { ask } from "./session.js";

const HEADERS = { "mooring-script": "true" };
const UNAUTHORIZED = 401;
const SERVER_ERRORS = 500;
const BUSY = [429, 408];
const RETRY_MS = 5000;
const HELD_MS = 200;
const PART = "[data-part]";

// The address of the page whose content a part shows.
const shown = new WeakMap();
// Parts that belong to the page as it is.
let upToDate = new WeakSet();
let asking = new AbortController();
let settled = Promise.resolve();

export function begin(document) {
  document.addEventListener("htmx:before:swap", ({ detail: { tasks } }) => {
    for (const { fragment } of tasks) keepOpen(document, fragment);
  });
  document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => {
    if (ctx.target.closest?.(PART)) return;
    // Without a request, the page was refreshed by itself.
    load(document, { isRefreshed: !ctx.response });
  });
  // The person opens what a part is in.
  document.addEventListener("toggle", ({ target }) => target.open && loadMissing(document, asking.signal), {
    capture: true,
  });
  document.addEventListener("mooring:signed-in", () => load(document));
  document.addEventListener(
    "click",
    (event) => {
      // These links are for the previous conditions.
      if (event.target.closest("[data-part][data-old]")) {
        event.preventDefault();
        event.stopPropagation();
      }
    },
    { capture: true },
  );
  load(document);
}

// When all parts that were asked for are shown, or will not be.
export function areShown() {
  return settled;
}

function load(document, { isRefreshed = false } = {}) {
  asking.abort();
  asking = new AbortController();
  upToDate = new WeakSet();
  for (const part of document.querySelectorAll(PART)) {
    part.toggleAttribute("data-old", shown.has(part) && shown.get(part) !== part.dataset.part);
  }
  loadMissing(document, asking.signal, isRefreshed);
}

function loadMissing(document, signal, isRefreshed = false) {
  const missing = [...document.querySelectorAll(PART)].filter(
    (part) => !upToDate.has(part) && !part.closest("details:not([open])"),
  );
  const byPage = Map.groupBy(missing, (part) => part.dataset.part);
  for (const part of missing) upToDate.add(part);
  const all = [...byPage].map(([path, parts]) => loadPage(document, path, parts, signal, isRefreshed));
  settled = Promise.all([settled, ...all]).then(() => {});
}

async function loadPage(document, path, parts, signal, isRefreshed) {
  for (const part of parts) part.setAttribute("aria-busy", "true");
  const answer = await page(path, signal, isRefreshed);
  const isDone = answer.ok && (await put(parts, path, answer.text, signal));
  if (signal.aborted) return;
  for (const part of parts) part.removeAttribute("aria-busy");
  if (isDone) return;
  for (const part of parts) upToDate.delete(part);
  if (answer.status === UNAUTHORIZED && !isRefreshed) ask(document);
  const isAway = answer.status === undefined || answer.status >= SERVER_ERRORS || BUSY.includes(answer.status);
  if (isAway) setTimeout(() => signal.aborted || loadMissing(document, signal, isRefreshed), RETRY_MS);
}

async function page(path, signal, isRefreshed) {
  // Refreshing a page is no use of the session.
  const headers = isRefreshed ? { ...HEADERS, "mooring-background": "true" } : HEADERS;
  try {
    const answer = await fetch(path, { headers, cache: "no-store", signal });
    return { ok: answer.ok, status: answer.status, text: await answer.text() };
  } catch {
    return { ok: false };
  }
}

async function put(parts, path, text, signal) {
  let isDone = true;
  for (const part of parts) {
    // The person is at it.
    while (!signal.aborted && isHeld(part)) await new Promise((resolve) => setTimeout(resolve, HELD_MS));
    if (signal.aborted || !part.isConnected) return false;
    const isPut = await replace(part, text, "innerMorph strip:true");
    if (isPut) {
      shown.set(part, path);
      part.removeAttribute("data-old");
    }
    isDone &&= isPut;
  }
  return isDone;
}

// What the person has opened or closed stays so when the page around it is replaced.
function keepOpen(document, fragment) {
  for (const details of fragment.querySelectorAll("details[id]")) {
    const before = document.getElementById(details.id);
    if (before) details.open = before.open;
  }
}
