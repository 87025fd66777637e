// Whether the person is at a part of the page in a way that replacing it would disturb: they press a
// button of the mouse, or have selected text in it.
let isPressed = false;

export function begin(document) {
  document.addEventListener("pointerdown", () => (isPressed = true), { capture: true });
  for (const name of ["pointerup", "pointercancel"]) {
    document.addEventListener(name, () => (isPressed = false), { capture: true });
  }
}

export function isHeld(element) {
  const selection = getSelection();
  return isPressed || (!selection.isCollapsed && selection.containsNode(element, true));
}
