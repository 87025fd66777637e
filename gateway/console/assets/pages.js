// How pages follow one another. htmx asks for the next page and puts its body into this one.
const UNAVAILABLE = 429;
const SERVER_ERRORS = 500;

export function begin(document) {
  let following;
  const sending = new WeakSet();

  document.addEventListener("htmx:config:request", (event) => {
    // A second click while a form is sent must not send it twice.
    if (sending.has(event.detail.ctx.sourceElement)) event.preventDefault();
  });
  document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
    // Parts of a page, such as a check while a person types, are asked for whenever they change.
    if (!isPage(ctx)) return;
    if (ctx.request.method !== "GET") sending.add(ctx.sourceElement);
    else {
      // Of two links that were followed, the page of the later one is shown.
      // A request that htmx has not sent yet has no `abort`.
      following?.request.abort?.();
      following = ctx;
    }
  });
  document.addEventListener("htmx:finally:request", ({ detail: { ctx } }) => {
    sending.delete(ctx.sourceElement);
    if (following === ctx) following = undefined;
  });

  document.addEventListener("htmx:before:response", (event) => {
    const { ctx } = event.detail;
    const { status } = ctx.response;
    if (ctx.request.method === "GET" || (status !== UNAVAILABLE && status < SERVER_ERRORS)) return;
    // The page of the error would replace the form, and what was typed.
    event.preventDefault();
    say(document, `The service is not available now (${status}). Nothing is lost: try again.`);
  });
  document.addEventListener("htmx:error", ({ detail: { ctx } }) => {
    if (ctx && !ctx.response) say(document, "The gateway does not answer. Try again.");
  });

  document.addEventListener("htmx:before:swap", (event) => {
    const { ctx, tasks } = event.detail;
    const main = tasks.find(({ type }) => type === "main");
    if (!isPage(ctx) || !main || !ctx.response) return;
    const { url, redirected, status } = ctx.response.raw;
    const isAnswer = ctx.request.method !== "GET" && !redirected;
    const next = main.fragment.querySelector("body");
    if (!isAnswer && next?.dataset.version !== document.body.dataset.version) {
      // A later version of the console: its pages need its own scripts and styles.
      event.preventDefault();
      location.assign(url);
      return;
    }
    // The address of a form's answer cannot be loaded again.
    if (isAnswer) ctx.push = "false";
    const isRefusedForm = isAnswer && status >= 400;
    const isOther = isAnswer || redirected || new URL(url).pathname !== location.pathname;
    // A refused form keeps its focus. Fields of another page must not keep what was typed here.
    if (isOther && !isRefusedForm) main.swapSpec.style = "outerSync";
    ctx.isRefusedForm = isRefusedForm;
  });
  document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => {
    if (ctx.isRefusedForm) document.querySelector('main [aria-invalid="true"]')?.focus();
    // Reading goes on at the new page, and not at its menu.
    const isNowhere = document.activeElement === document.body;
    if (isPage(ctx) && isNowhere) document.getElementById("main")?.focus({ preventScroll: true });
  });
}

function isPage(ctx) {
  return ctx.target === ctx.sourceElement.ownerDocument.body;
}

function say(document, text) {
  const notice = document.getElementById("notice");
  if (!notice) return;
  notice.textContent = text;
  notice.hidden = false;
}
