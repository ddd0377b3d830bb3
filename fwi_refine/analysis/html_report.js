"use strict";
// Tables that are sorted by a click on a heading: numbers by value, the rest as text, unknown last.
for (const table of document.querySelectorAll("#samples table")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => {
      const cell = row.cells[column], value = cell.dataset.value;
      return value === undefined ? cell.textContent.trim() : value === "" ? null : Number(value);
    };
    const compare = (a, b) =>
      typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true});
    const rows = [...table.tBodies[0].rows].map(row => [key(row), row]);
    rows.sort(([a], [b]) => a === null ? (b === null ? 0 : 1) : b === null ? -1
      : down ? compare(b, a) : compare(a, b));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

// Pictures that fill the window: the wheel enlarges about the pointer, dragging moves.
const dialog = document.getElementById("zoom"), picture = new Image();
let scale, left, top_;
function place() {
  picture.style.width = `${scale * picture.naturalWidth}px`;
  picture.style.left = `${left}px`;
  picture.style.top = `${top_}px`;
}
for (const button of document.querySelectorAll("figure button")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    picture.src = image.src;
    picture.alt = image.alt;
    dialog.prepend(picture);
    dialog.showModal();
    picture.decode().then(() => {
      scale = Math.min(innerWidth / picture.naturalWidth, innerHeight / picture.naturalHeight);
      left = (innerWidth - scale * picture.naturalWidth) / 2;
      top_ = 0;
      place();
    });
  });
}
dialog.addEventListener("wheel", event => {
  event.preventDefault();
  const next = Math.min(20, Math.max(0.1, scale * Math.exp(-event.deltaY / 500)));
  left = event.clientX - (event.clientX - left) * next / scale;
  top_ = event.clientY - (event.clientY - top_) * next / scale;
  scale = next;
  place();
}, {passive: false});
picture.addEventListener("pointerdown", event => {
  event.preventDefault();
  picture.setPointerCapture(event.pointerId);
});
picture.addEventListener("pointermove", event => {
  if (picture.hasPointerCapture(event.pointerId)) {
    left += event.movementX;
    top_ += event.movementY;
    place();
  }
});
dialog.addEventListener("dblclick", () => dialog.close());
dialog.addEventListener("close", () => picture.remove());
