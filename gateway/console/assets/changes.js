// One stream of changes for all tabs of a browser: a browser opens six connections to a server, so
// that a seventh tab with a stream of its own would wait. The tab that has the lock has the stream,
// and tells the others. When it is closed, another tab gets the lock.
const NAME = "mooring-changes";
const PATH = "/console/changes";
const HEADERS = { "mooring-background": "true", "mooring-script": "true" };
const UNAUTHORIZED = 401;
const RETRY_MS = 2000;
// The gateway sends something every 15 seconds.
const SILENCE_MS = 40000;

// `notify` is called after each change of what is known. `position` is that of the page: the
// stream begins there.
export function follow(document, position, notify) {
  const channel = new BroadcastChannel(NAME);
  // When each kind changed last, by the clock of this browser.
  const changedAt = new Map();
  const stream = {
    // starting, live, away, or ended: the session is not valid.
    state: "starting",
    heardAt: Date.now(),
    // Whether one of the kinds has changed since.
    hasChanged: (kinds, since) => kinds.some((kind) => (changedAt.get(kind) ?? -1) >= since),
    // Tries again at once, for example after the person has signed in.
    retry() {
      wake();
      channel.postMessage({ ask: true });
    },
    // Begins the stream again, because another request found that the session has ended.
    check() {
      if (isLeader) check();
      else channel.postMessage({ check: true });
    },
  };
  let isLeader = false;
  let isChecking = false;
  let listening;
  let wake = () => {};
  let retrying;
  let lastMessageAt = Date.now();

  function take({ state, heardAt, at = {}, position: reached }) {
    stream.state = state;
    stream.heardAt = heardAt;
    lastMessageAt = Date.now();
    if (reached) position = reached;
    for (const [kind, time] of Object.entries(at)) {
      changedAt.set(kind, Math.max(time, changedAt.get(kind) ?? 0));
    }
    notify();
  }

  function tell(state, at) {
    const message = { state, heardAt: stream.heardAt, at, position };
    channel.postMessage(message);
    take(message);
  }

  function check() {
    isChecking = true;
    listening?.abort();
  }

  channel.addEventListener("message", ({ data }) => {
    if (data.check) {
      if (isLeader) check();
    } else if (!data.ask) {
      take(data);
      clearTimeout(retrying);
      // Browsers slow the timers of a tab down that has been hidden for long, as the leader may be.
      if (data.state === "away" && !document.hidden) retrying = setTimeout(stream.retry, RETRY_MS);
    } else if (isLeader) {
      wake();
      tell(stream.state, Object.fromEntries(changedAt));
    }
  });

  // Returns the state after the end of the stream.
  async function listen() {
    const control = new AbortController();
    listening = control;
    let silence;
    const heard = () => {
      stream.heardAt = Date.now();
      clearTimeout(silence);
      silence = setTimeout(() => control.abort(), SILENCE_MS);
    };
    try {
      const headers = position ? { ...HEADERS, "last-event-id": position } : HEADERS;
      const answer = await fetch(PATH, { headers, cache: "no-store", signal: control.signal });
      if (answer.status === UNAUTHORIZED) return "ended";
      if (!answer.ok) return "away";
      heard();
      tell("live");
      for await (const event of eventsOf(answer.body)) {
        heard();
        if (event.id) position = event.id;
        const kinds = event.data ? JSON.parse(event.data).kinds : [];
        tell("live", Object.fromEntries(kinds.map((kind) => [kind, stream.heardAt])));
      }
    } catch {
      // The gateway does not answer, or the stream was lost.
    } finally {
      clearTimeout(silence);
      listening = undefined;
    }
    return "away";
  }

  async function lead(isLeading) {
    isLeader = true;
    while (isLeading()) {
      const state = await listen();
      if (!isLeading()) break;
      const isAgain = isChecking && state === "away";
      isChecking = false;
      if (isAgain) continue;
      tell(state);
      await new Promise((resolve) => {
        wake = resolve;
        // A session that has ended does not begin again by itself.
        if (state === "away") setTimeout(resolve, RETRY_MS * (1 + Math.random() / 2));
      });
    }
    isLeader = false;
  }

  async function takeTurns(options = {}) {
    let isLeading = true;
    try {
      await navigator.locks.request(NAME, options, () => lead(() => isLeading));
    } catch {
      // Another tab took the lock, because it heard nothing from this one.
      isLeading = false;
      listening?.abort();
      wake();
      takeTurns();
    }
  }

  if (navigator.locks) {
    takeTurns();
    setInterval(() => {
      const isSilent = Date.now() - lastMessageAt > 2 * SILENCE_MS && stream.state === "live";
      if (!isLeader && !document.hidden && isSilent) {
        lastMessageAt = Date.now();
        takeTurns({ steal: true });
      }
    }, SILENCE_MS / 4);
  } else {
    // Browsers have locks only under TLS and on this machine. Elsewhere each tab that is visible
    // has a stream of its own.
    const leadWhileVisible = () => {
      if (document.hidden) listening?.abort();
      else if (!isLeader) lead(() => !document.hidden);
      wake();
    };
    document.addEventListener("visibilitychange", leadWhileVisible);
    leadWhileVisible();
  }
  // A page that is older than the last changes learns of them.
  channel.postMessage({ ask: true });
  return stream;
}

// The events of a stream, by their fields. A comment is an event without fields.
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").map((line) => line.split(/: ?(.*)/s));
      yield Object.fromEntries(lines.filter(([name]) => name));
    }
  }
}
