// Buttons that copy the text beside them.
export function begin(document) {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = button.parentElement.querySelector("pre, code, output")?.textContent ?? "";
    const label = button.lastChild;
    const before = label.textContent;
    try {
      await navigator.clipboard.writeText(text);
      label.textContent = "Copied";
    } catch {
      // Without the right to the clipboard the text is selected, to be copied by hand.
      getSelection().selectAllChildren(button.parentElement.querySelector("pre, code, output"));
      label.textContent = "Selected";
    }
    setTimeout(() => (label.textContent = before), 2000);
  });
}
