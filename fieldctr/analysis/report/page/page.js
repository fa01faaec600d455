"use strict";

// Sorting: every row of a table is a tbody, so that a drawer goes with its row.
function key(body, column) {
  const text = body.rows[0].cells[column].dataset.v;
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

function order(a, b) {
  if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1; // what is missing comes last, either way
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

function sort(table, head) {
  const column = head.cellIndex;
  const again = head.getAttribute("aria-sort");
  const first = head.firstElementChild.dataset.down === "1" ? "descending" : "ascending";
  const other = first === "descending" ? "ascending" : "descending";
  const now = again === first ? other : first;
  for (const one of table.tHead.rows[0].cells) one.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", now);
  const sign = now === "ascending" ? 1 : -1;
  const bodies = [...table.tBodies].sort((a, b) => {
    const [x, y] = [key(a, column), key(b, column)];
    return x === "" || y === "" ? order(x, y) : sign * order(x, y);
  });
  table.classList.toggle("free", head.textContent.trim() !== "group" || sign < 0);
  table.append(...bodies);
}

for (const button of document.querySelectorAll("table.sortable thead button")) {
  button.addEventListener("click", () => sort(button.closest("table"), button.parentElement));
}

// Focus: one arm comes forward in every chart of its data set.
let pinned = null;

function focus(section, name) {
  section.classList.toggle("focused", name !== null);
  for (const shape of section.querySelectorAll("svg [data-s]")) {
    shape.classList.toggle("chosen", shape.dataset.s === name);
  }
}

for (const button of document.querySelectorAll(".legend button")) {
  const section = button.closest("section");
  const name = button.dataset.s;
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("pointerenter", () => pinned === null && focus(section, name));
  button.addEventListener("pointerleave", () => pinned === null && focus(section, null));
  button.addEventListener("click", () => {
    const on = pinned !== button;
    if (pinned !== null) {
      pinned.setAttribute("aria-pressed", "false");
      focus(pinned.closest("section"), null);
    }
    pinned = on ? button : null;
    button.setAttribute("aria-pressed", String(on));
    focus(section, on ? name : null);
  });
}
