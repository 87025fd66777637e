// Files that are dropped on a field, or chosen beside it, become its text.
const LARGEST_BYTES = 4 * 1024 * 1024;

export function begin(document) {
  document.addEventListener("dragover", (event) => {
    if (event.target.closest("[data-drop]")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    const place = event.target.closest("[data-drop]");
    if (!place || !event.dataTransfer.files.length) return;
    event.preventDefault();
    read(place, event.dataTransfer.files[0]);
  });
  document.addEventListener("change", (event) => {
    const place = event.target.closest("[data-drop]");
    if (place && event.target.type === "file" && event.target.files.length) {
      read(place, event.target.files[0]);
    }
  });
}

async function read(place, file) {
  const field = place.querySelector("textarea");
  if (file.size > LARGEST_BYTES) {
    field.setCustomValidity("This file is too large for the console: use the command below.");
  } else {
    field.setCustomValidity("");
    field.value = place.dataset.drop === "pem" ? await pemOf(file) : await file.text();
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  field.reportValidity();
}

const LINE_OF_PEM = /.{1,64}/g;

// The text of a file, or a certificate in DER written as PEM.
async function pemOf(file) {
  const text = await file.text();
  if (text.includes("-----BEGIN")) return text;
  const bytes = new Uint8Array(await file.arrayBuffer());
  const base64 = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  const lines = base64.match(LINE_OF_PEM) ?? [];
  return ["-----BEGIN CERTIFICATE-----", ...lines, "-----END CERTIFICATE-----", ""].join("\n");
}
