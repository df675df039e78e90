"use strict";
// Sorting by a column and finding rows. Without scripts the tables are plain and whole.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const order = row.cells[at].dataset.order;
        return order === undefined ? row.cells[at].textContent : Number(order.replace("inf", "Infinity"));
      };
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => {
        // What is missing stays at the end, either way.
        if ((a === Infinity) !== (b === Infinity)) return a === Infinity ? 1 : -1;
        const numbers = typeof a === "number" && typeof b === "number";
        const sign = numbers ? (a > b) - (a < b)
          : String(a).localeCompare(String(b), undefined, { numeric: true });
        return down ? -sign : sign;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}
for (const find of document.querySelectorAll("input[data-table]")) {
  const rows = [...document.getElementById(find.dataset.table).tBodies[0].rows];
  const told = find.parentElement.querySelector("output");
  find.parentElement.hidden = rows.length < 2;
  find.addEventListener("input", () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    told.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
}
const mark = () => {
  for (const box of document.querySelectorAll(".scroll"))
    box.classList.toggle("wide", box.scrollWidth > box.clientWidth);
};
mark();
addEventListener("resize", mark);
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
document.documentElement.dataset.ready = "yes";
