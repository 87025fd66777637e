// When the session has ended, a dialog lets the person sign in again; nothing typed is lost.
const UNAUTHORIZED = 401;

export function begin(document) {
  let waiting = [];

  document.addEventListener("htmx:before:response", (event) => {
    const { ctx } = event.detail;
    if (ctx.response.status !== UNAUTHORIZED) return;
    // The answer is not shown; the request is sent again when the person has signed in.
    event.preventDefault();
    waiting.push(ctx);
    open(document);
  });

  document.addEventListener("submit", async (event) => {
    const dialog = event.target.closest("dialog#again");
    if (!dialog) return;
    event.preventDefault();
    const fault = dialog.querySelector("[role=alert]");
    const answer = await fetch(event.target.action, {
      method: "POST",
      headers: { "mooring-script": "true" },
      body: new URLSearchParams(new FormData(event.target)),
    });
    if (!answer.ok) {
      fault.textContent = "This token is not valid, or the gateway does not answer.";
      fault.hidden = false;
      return;
    }
    const { form_token: token } = await answer.json();
    for (const field of document.querySelectorAll('input[name="form_token"]')) field.value = token;
    event.target.reset();
    fault.hidden = true;
    dialog.close();
    const again = waiting;
    waiting = [];
    for (const ctx of again) send(ctx);
  });
}

function open(document) {
  const dialog = document.getElementById("again");
  if (!dialog.open) dialog.showModal();
}

function send(ctx) {
  const element = ctx.sourceElement;
  if (!element.isConnected) return;
  if (element.matches("form")) element.requestSubmit(ctx.request.submitter ?? undefined);
  else element.click();
}
