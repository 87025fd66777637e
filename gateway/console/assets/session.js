// When the session has ended, a dialog lets the person sign in again; nothing typed is lost.
const UNAUTHORIZED = 401;
const FORM_TOKEN = "mooring-form-token";

// By their elements: the requests that are sent again after the person has signed in.
const waiting = new Map();

export function begin(document) {
  document.addEventListener("htmx:before:response", (event) => {
    const { ctx } = event.detail;
    const token = ctx.response.headers.get(FORM_TOKEN);
    if (ctx.response.status === UNAUTHORIZED) {
      event.preventDefault();
      if (!ctx.request.headers["Mooring-Background"]) waiting.set(ctx.sourceElement, ctx);
      ask(document);
    } else if (token && token !== ctx.request.body?.get?.("form_token")) {
      // The person signed in again in another tab, so that the form is of an earlier session.
      event.preventDefault();
      renew(document, token);
      // htmx sends one request of an element at a time.
      setTimeout(() => send(ctx));
    }
  });

  document.addEventListener("submit", async (event) => {
    const dialog = event.target.closest("dialog#again");
    if (!dialog) return;
    event.preventDefault();
    const fault = dialog.querySelector("[role=alert]");
    const token = await signedIn(event.target);
    if (!token) {
      fault.textContent = "This token is not valid, or the gateway does not answer.";
      fault.hidden = false;
      return;
    }
    renew(document, token);
    event.target.reset();
    fault.hidden = true;
    const again = [...waiting.values()];
    waiting.clear();
    dialog.close();
    for (const ctx of again) send(ctx);
    document.dispatchEvent(new Event("mooring:signed-in"));
  });

  document.addEventListener(
    "close",
    (event) => {
      // A person who does not sign in does not want the requests to be sent later.
      const dialog = event.target;
      if (dialog.id === "again" && !dialog.open) waiting.clear();
    },
    { capture: true },
  );
}

export function ask(document) {
  const dialog = document.getElementById("again");
  if (dialog && !dialog.open) dialog.showModal();
}

// The person has signed in again in another tab.
export function stopAsking(document) {
  const dialog = document.getElementById("again");
  const isUsed = waiting.size > 0 || dialog?.querySelector("[name=token]").value;
  if (dialog?.open && !isUsed) dialog.close();
}

// The new form token, or nothing if the person was refused.
async function signedIn(form) {
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { "mooring-script": "true" },
      body: new URLSearchParams(new FormData(form)),
    });
    return answer.ok ? (await answer.json()).form_token : undefined;
  } catch {
    return undefined;
  }
}

function renew(document, token) {
  for (const field of document.querySelectorAll('input[name="form_token"]')) field.value = token;
}

function send({ sourceElement, sourceEvent, request }) {
  if (!sourceElement.isConnected) return;
  if (sourceElement.matches("form")) sourceElement.requestSubmit(request.submitter ?? undefined);
  else if (sourceEvent.type === "click") sourceElement.click();
  else sourceElement.dispatchEvent(new Event(sourceEvent.type));
}
