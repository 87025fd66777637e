// What the console adds to its pages in a browser. Without it every page and form still works.
import { begin as beginDropping } from "./drop.js";
import { begin as beginHolding } from "./held.js";
import { begin as beginKeys } from "./keys.js";
import { begin as beginLive } from "./live.js";
import { begin as beginPages } from "./pages.js";
import { begin as beginParts } from "./parts.js";
import { begin as beginSession } from "./session.js";
import { begin as beginTheme } from "./theme_button.js";
import { showLocally } from "./times.js";
import { begin as beginCopying } from "./copy.js";

// The whole body is replaced when a person follows a link: listen on the document.
beginCopying(document);
beginDropping(document);
beginHolding(document);
beginKeys(document);
beginLive(document);
beginPages(document);
beginParts(document);
beginSession(document);
beginTheme(document);

function show() {
  showLocally(document.body);
}
document.addEventListener("htmx:after:swap", show);
show();
