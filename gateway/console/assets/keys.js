// Keys: / searches, g and a letter go to a page, ? lists them.
const WAIT_MS = 1500;

export function begin(document) {
  let goes = 0;
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "/") {
      event.preventDefault();
      document.querySelector(".find input")?.focus();
    } else if (event.key === "?") {
      document.getElementById("keys")?.showModal();
    } else if (event.key === "g") {
      goes = Date.now();
    } else if (Date.now() - goes < WAIT_MS) {
      goes = 0;
      document.querySelector(`.nav a[data-key="${CSS.escape(event.key)}"]`)?.click();
    }
  });
}
