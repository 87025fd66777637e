// Applies the chosen theme before the page is drawn.
const chosen = localStorage.getItem("mooring-theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
