// Puts a later version of a page into the part of it that is live, and leaves alone what the person
// is at: fields with the focus, forms that were edited, open dialogs, the focus, the scrolling.
import { showLocally } from "./times.js";

const TEXT = "textarea, select, [contenteditable], input:not([type=checkbox], [type=radio], [type=submit], [type=button])";
const OPEN = "dialog[open], [popover]:popover-open";
const ROWS = "tr:not([id]), li:not([id])";

// Forms in which the person has typed since the page was loaded. A check of a form by the gateway
// answers with what was typed, so that its fields do not tell.
let edited = new WeakSet();

export function begin(document) {
  document.addEventListener("input", ({ target }) => {
    if (target.form) edited.add(target.form);
  });
}

// A new page: nothing on it is edited.
export function forget() {
  edited = new WeakSet();
}

// Whether the element with the focus takes text.
export function isTyping(document) {
  return document.activeElement?.matches(TEXT) ?? false;
}

// Puts the region of the page `text` in the place of `region`, or, as `swap` says, into it. Returns
// false, and changes nothing, if something that has to stay is not in it.
export async function replace(region, text, swap = "outerMorph") {
  const document = region.ownerDocument;
  const page = new DOMParser().parseFromString(text, "text/html");
  const fresh = page.getElementById(region.id);
  const isSame =
    page.body.dataset.version === document.body.dataset.version &&
    fresh?.dataset.live === region.dataset.live;
  if (!isSame) return false;
  const pairs = [];
  for (const kept of keptIn(region)) {
    const twin = twinOf(kept, region, fresh);
    if (twin) pairs.push([kept, twin]);
    else if (!kept.matches("[data-live-keep]")) return false;
  }
  if (!ticksIn(region).every((tick) => twinOf(tick, region, fresh))) return false;

  showLocally(fresh);
  keepOpen(region, fresh);
  const cleanUp = [...markPairs(pairs), ...markRows(region, fresh)];
  for (const field of [...region.querySelectorAll("[autofocus]"), ...fresh.querySelectorAll("[autofocus]")]) {
    field.removeAttribute("autofocus");
  }
  const restoreFocus = focusOf(document, region);
  try {
    await htmx.swap({ text: fresh.outerHTML, target: region, sourceElement: region, swap });
  } finally {
    for (const [element, name] of cleanUp) element.removeAttribute(name);
    for (const element of region.querySelectorAll('[id^="live:"]')) element.removeAttribute("id");
  }
  restoreFocus();
  return true;
}

function keptIn(region) {
  const { activeElement } = region.ownerDocument;
  const found = new Set(region.querySelectorAll(`${OPEN}, [data-live-keep]`));
  for (const form of region.querySelectorAll("form")) if (isEdited(form)) found.add(form);
  if (region.contains(activeElement) && activeElement.matches(TEXT)) {
    found.add(activeElement.closest("form") ?? activeElement);
  }
  return [...found].filter((one) => ![...found].some((other) => other !== one && other.contains(one)));
}

function isEdited(form) {
  const isSearch = form.method === "get";
  if (edited.has(form) && !isSearch) return true;
  // Ticks of a list stay with their rows.
  return [...form.elements].some((field) => !(isSearch && isTick(field)) && isChanged(field));
}

function isTick(field) {
  return field.type === "checkbox" || field.type === "radio";
}

function isChanged(field) {
  if (isTick(field)) return field.checked !== field.defaultChecked;
  if (field.type === "file") return field.files.length > 0;
  if (field.localName === "select") {
    const options = [...field.options];
    const hasDefault = field.multiple || options.some((option) => option.defaultSelected);
    if (!hasDefault) return field.selectedIndex > 0;
    return options.some((option) => option.selected !== option.defaultSelected);
  }
  const hasText = field.type !== "hidden" && field.defaultValue !== undefined;
  return hasText && field.localName !== "output" && field.value !== field.defaultValue;
}

function ticksIn(region) {
  return [...region.querySelectorAll("form[action]:not([method=post]) input")].filter(
    (field) => isTick(field) && isChanged(field),
  );
}

// The element of `fresh` that is the same thing as `element` of `region`, if there is one.
function twinOf(element, region, fresh) {
  const selector = selectorOf(element);
  const alike = [...region.querySelectorAll(selector)];
  const twins = [...fresh.querySelectorAll(selector)];
  return alike.length === twins.length ? twins[alike.indexOf(element)] : undefined;
}

function selectorOf(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const names = isTick(element) ? ["name", "value"] : ["action", "name"];
  const given = names.filter((name) => element.hasAttribute(name));
  return (
    element.localName +
    given.map((name) => `[${name}="${CSS.escape(element.getAttribute(name))}"]`).join("")
  );
}

// What the person has opened or closed stays so.
function keepOpen(region, fresh) {
  const before = region.querySelectorAll("details");
  const after = fresh.querySelectorAll("details");
  if (before.length === after.length) before.forEach(({ open }, i) => (after[i].open = open));
}

// Makes htmx take the second element of each pair for the first, and leave that alone.
function markPairs(pairs) {
  return pairs.flatMap(([kept, twin], number) => {
    const marks = kept.hasAttribute("hx-morph-skip") ? [] : [[kept, "hx-morph-skip"]];
    kept.setAttribute("hx-morph-skip", "");
    if (!kept.id) {
      kept.id = twin.id = `live-kept-${number}`;
      marks.push([kept, "id"]);
    }
    return marks;
  });
}

// Rows are the same if they lead to the same page, so that a row that is focused stays the row of
// its thing when others come and go.
function markRows(region, fresh) {
  const keyed = [region, fresh].map((root) => {
    const byKey = Map.groupBy(root.querySelectorAll(ROWS), (row) => row.querySelector("a[href]")?.getAttribute("href"));
    byKey.delete(undefined);
    return byKey;
  });
  const isOnce = (key) => keyed.every((byKey) => (byKey.get(key)?.length ?? 0) <= 1);
  for (const byKey of keyed) {
    for (const [key, [row]] of byKey) if (isOnce(key)) row.id = `live:${key}`;
  }
  return [];
}

function focusOf(document, region) {
  const { activeElement } = document;
  if (!region.contains(activeElement)) return () => {};
  const { selectionStart, selectionEnd, selectionDirection } = activeElement;
  return () => {
    if (document.activeElement === activeElement) return;
    // The element with the focus may be gone: then reading goes on at the page.
    (activeElement.isConnected ? activeElement : region).focus({ preventScroll: true });
    if (typeof selectionStart === "number" && activeElement.isConnected) {
      activeElement.setSelectionRange(selectionStart, selectionEnd, selectionDirection);
    }
  };
}
