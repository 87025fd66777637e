// Pages show what changes while they are open. An element with `data-live` names the kinds that it
// shows; when one of them changes, the page is asked for again.
import { follow } from "./changes.js";
import { isHeld } from "./held.js";
import { begin as beginMorphing, forget, isTyping, replace } from "./morph.js";
import { areShown } from "./parts.js";
import { ask, stopAsking } from "./session.js";

const HEADERS = { "mooring-background": "true", "mooring-script": "true" };
const UNAUTHORIZED = 401;
const FIRST_MS = 200;
// The time between two refreshes of a tab. It is a multiple of what the page costs, so that ten open
// consoles take few percent of the processors, however much changes.
const GAP_MS = 1500;
const TIMES_ITS_COST = 200;
const LONGEST_GAP_MS = 10000;
// How long the stream may be away, and changes may wait, before the page says so.
const AWAY_MS = 3000;
const WAITING_MS = 20000;

export function begin(document) {
  // The time of the request for what is shown.
  let shownAt = performance.timeOrigin;
  let staleAt;
  let refreshing;
  let timer;
  let nextAt = 0;
  // The page is there no more, or may not be seen any more.
  let isGone = false;
  let hasAsked = false;
  const requests = new Map();
  const stream = follow(document, document.body.dataset.position ?? "", consider);
  beginMorphing(document);

  function region() {
    return document.querySelector("[data-live]");
  }
  function isStale() {
    return !isGone && stream.hasChanged(region()?.dataset.live.split(" ") ?? [], shownAt);
  }
  function isAtRest() {
    return requests.size === 0 && !isHeld(region());
  }

  function consider() {
    if (isStale()) staleAt ??= Date.now();
    sign();
    askToSignIn();
    if (timer || refreshing || document.hidden || !isStale() || stream.state === "ended") return;
    const wait = Math.max(FIRST_MS, nextAt - Date.now());
    timer = setTimeout(refresh, wait * (1 + Math.random() / 2));
  }

  async function refresh() {
    timer = undefined;
    if (document.hidden || !isStale()) return;
    if (!isAtRest()) {
      timer = setTimeout(refresh, GAP_MS);
      return;
    }
    const control = (refreshing = new AbortController());
    const shown = region();
    const { href } = location;
    const askedAt = Date.now();
    let isShown = false;
    try {
      const answer = await fetch(href, { headers: HEADERS, cache: "no-store", signal: control.signal });
      if (answer.status === UNAUTHORIZED) stream.check();
      else if (answer.ok) {
        const text = await answer.text();
        // The person may have gone on, or begun to select text.
        const isThere = region() === shown && location.href === href && !control.signal.aborted;
        isShown = isThere && isAtRest() && (await replace(shown, text));
        if (isShown) {
          shownAt = askedAt;
          staleAt = undefined;
          // They belong to the page, and to what it costs.
          await areShown();
        }
      } else if (answer.status < 500 && answer.status !== 429) isGone = true;
    } catch {
      // The gateway does not answer, or the person went on: consider what is shown then.
    }
    if (refreshing === control) refreshing = undefined;
    const cost = TIMES_ITS_COST * (Date.now() - askedAt);
    nextAt = Date.now() + (isShown ? Math.min(Math.max(GAP_MS, cost), LONGEST_GAP_MS) : LONGEST_GAP_MS);
    if (control.signal.aborted) nextAt = 0;
    consider();
  }

  // Says whether the page shows the present.
  function sign() {
    const place = document.getElementById("live");
    if (!place) return;
    const now = Date.now();
    const isAway = stream.state === "ended" || (stream.state === "away" && now - stream.heardAt > AWAY_MS);
    const isBehind = isAway || isGone || (isStale() && now - staleAt > WAITING_MS);
    place.hidden = !region() || (stream.state === "starting" && !isBehind);
    place.classList.toggle("behind", isBehind);
    const from = new Date(isStale() || isGone ? shownAt : stream.heardAt);
    const text = isBehind ? `As of ${from.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}` : "Live";
    const words = place.querySelector("span");
    if (words.textContent !== text) words.textContent = text;
  }

  function askToSignIn() {
    if (stream.state !== "ended") {
      if (hasAsked && stream.state === "live") stopAsking(document);
      hasAsked &&= stream.state !== "live";
    } else if (!hasAsked && !document.hidden && !isTyping(document)) {
      // What a person types must not go into the dialog.
      hasAsked = true;
      ask(document);
    }
  }

  function isPage(ctx) {
    return ctx.target === document.body;
  }
  document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
    requests.set(ctx, Date.now());
    refreshing?.abort();
  });
  document.addEventListener("htmx:finally:request", ({ detail: { ctx } }) => {
    requests.delete(ctx);
    consider();
  });
  document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => {
    if (isPage(ctx)) {
      shownAt = requests.get(ctx) ?? Date.now();
      staleAt = undefined;
      isGone = false;
      nextAt = 0;
      forget();
    }
    consider();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && stream.state !== "live") stream.retry();
    consider();
  });
  document.addEventListener("focusout", () => setTimeout(consider));
  document.addEventListener("mooring:signed-in", () => stream.retry());
  setInterval(sign, 1000);
}
