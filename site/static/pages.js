// Makes long tables of claims sortable by every heading, and filterable by kind (the paper's claims are shown
// first), by verdict and by words, and gives the
// cells of all wide tables the name of their column, so that a phone shows a row as a card.
// Without scripts they stay plain tables. What scrolls can be reached by keys, both margins have a name,
// and search lists what it means.

document.addEventListener("DOMContentLoaded", () => {
  "use strict";

  // What a cell is sorted by: its first number where it begins with one, else its words.
  function valueOf(cell) {
    const text = cell.textContent.trim();
    const number = text.match(/^(<\s*)?[-−]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?/);
    if (!number) return text;
    return Number(number[0].replace(/[<,\s]/g, "").replace("−", "-"));
  }

  function compare(left, right) {
    if (typeof left === "number" && typeof right === "number") return left - right;
    if (typeof left === typeof right) return left.localeCompare(right);
    return typeof left === "number" ? -1 : 1; // numbers first
  }

  // What rows are, by how the first cell begins; a claim of the paper begins with itself.
  const PAPER = "the paper's claims";
  const KINDS = {
    "under a condition:": "the same under other conditions",
    "control:": "controls",
    "our question:": "our own questions",
    "by others:": "measured by others",
  };
  function kindOf(row) {
    const head = row.cells[0].querySelector("em");
    return (head && KINDS[head.textContent.trim()]) || PAPER;
  }

  function filterable(table, names) {
    const verdict = names.indexOf("verdict");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const count = document.createElement("output");
    const word = document.createElement("input");
    word.type = "search";
    word.placeholder = "filter by a word";
    word.setAttribute("aria-label", word.placeholder);
    const choice = document.createElement("select");
    choice.setAttribute("aria-label", "verdict");
    const verdicts = [...new Set(rows.map((row) => row.cells[verdict].textContent.trim()))];
    for (const name of ["every verdict", ...verdicts]) choice.add(new Option(name));
    const kind = document.createElement("select");
    kind.setAttribute("aria-label", "kind of row");
    for (const name of ["every row", PAPER, ...Object.values(KINDS)]) kind.add(new Option(name));
    kind.value = PAPER;

    function filter() {
      const words = word.value.toLowerCase();
      for (const row of rows) {
        const isKind = kind.selectedIndex === 0 || kindOf(row) === kind.value;
        const wanted = choice.selectedIndex === 0 || row.cells[verdict].textContent.trim() === choice.value;
        row.hidden = !(isKind && wanted && row.textContent.toLowerCase().includes(words));
      }
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    }

    function sortable(heading, column) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const sorted = rows.toSorted((one, two) => compare(valueOf(one.cells[column]), valueOf(two.cells[column])));
        body.append(...(down ? sorted.reverse() : sorted));
      });
    }

    [...table.tHead.rows[0].cells].forEach(sortable);
    word.addEventListener("input", filter);
    choice.addEventListener("change", filter);
    kind.addEventListener("change", filter);
    const controls = document.createElement("div");
    controls.className = "claims-controls";
    controls.append(kind, choice, word, count);
    (table.closest(".table-wrapper") || table).before(controls);
    table.classList.add("claims");
    filter();
  }

  function asCards(table, names) {
    for (const row of table.tBodies[0].rows) {
      [...row.cells].forEach((cell, column) => {
        cell.setAttribute("data-name", names[column]);
        cell.classList.toggle("nothing", cell.textContent.trim() === "–");
      });
    }
    table.classList.add("cards");
  }

  function reachable() {
    for (const box of document.querySelectorAll(".table-wrapper, .output, .cell_output, article pre")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  // A name of the library is found by its own last part: all begin with that of the package.
  if (typeof Search !== "undefined") {
    const found = Search.performObjectSearch;
    Search.performObjectSearch = (term, terms) =>
      found(term, terms).filter(([, name]) => name.split(".").pop().toLowerCase().includes(term));
  }

  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "all pages");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "on this page");
  window.addEventListener("resize", reachable);
  for (const table of document.querySelectorAll("table.docutils")) {
    if (!table.tHead || !table.tBodies.length) continue;
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    if (names.length > 2) asCards(table, names);
    if (names.includes("verdict") && names.includes("note")) filterable(table, names);
  }
  reachable();
});
