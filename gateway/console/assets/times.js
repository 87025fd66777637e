// Times in the person's zone; UTC is their title.
const sameYear = { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
const otherYear = { ...sameYear, year: "numeric" };

export function showLocally(root) {
  const year = new Date().getFullYear();
  for (const element of root.querySelectorAll("time[datetime]:not([title])")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    element.title = element.textContent;
    if ("clock" in element.dataset) {
      element.textContent = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
      continue;
    }
    element.textContent = at.toLocaleString([], at.getFullYear() === year ? sameYear : otherYear);
  }
}
