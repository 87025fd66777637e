// The button that chooses the theme: as the system, light, dark.
const NEXT = { system: "light", light: "dark", dark: "system" };
const KEY = "mooring-theme";

function present() {
  return localStorage.getItem(KEY) ?? "system";
}

function label(document) {
  const name = present() === "system" ? "as the system" : present();
  for (const button of document.querySelectorAll("[data-theme-button]"))
    button.setAttribute("aria-label", `Theme: ${name}`);
}

export function begin(document) {
  label(document);
  document.addEventListener("htmx:after:swap", () => label(document));
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-button]")) return;
    const next = NEXT[present()];
    if (next === "system") {
      localStorage.removeItem(KEY);
      delete document.documentElement.dataset.theme;
    } else {
      localStorage.setItem(KEY, next);
      document.documentElement.dataset.theme = next;
    }
    label(document);
  });
}
