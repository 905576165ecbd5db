"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const chips = [...document.querySelectorAll(".chips button")];
let pinned = null;

/* Follow a strategy through all pictures: while the pointer is on it, or until the next click. */
function follow(which) {
  document.body.classList.toggle("following", which !== null);
  for (const part of document.querySelectorAll("[data-s]")) {
    part.classList.toggle("on", part.dataset.s === which);
  }
}
for (const chip of chips) {
  chip.addEventListener("click", () => {
    pinned = pinned === chip.dataset.s ? null : chip.dataset.s;
    chips.forEach((other) => other.setAttribute("aria-pressed", other.dataset.s === pinned));
    follow(pinned);
  });
}
for (const part of document.querySelectorAll(".chips button, .bars .name, .line, table .name")) {
  part.addEventListener("pointerenter", () => follow(part.dataset.s));
  part.addEventListener("pointerleave", () => follow(pinned));
}

function duration(ms) {
  if (ms === null) return "–";
  if (ms >= 6e5) return `${(ms / 6e4).toFixed(0)} min`;
  const [value, unit] = ms < 999.5 ? [ms, "ms"] : [ms / 1e3, "s"];
  return `${value.toFixed(value === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2)} ${unit}`;
}

/* What a plot says at a place from 0 to 1: title, where the cursor stands, a value a strategy. */
const readings = {
  curve(plot, at) {
    let near = 0;
    plot.x.forEach((x, i) => { if (Math.abs(x - at) < Math.abs(plot.x[near] - at)) near = i; });
    const values = plot.y.map((row) => row[near]);
    const order = (a, b) => (values[a] ?? Infinity) - (values[b] ?? Infinity);
    return { title: plot.label[near], at: plot.x[near], values: values.map(duration), order };
  },
  share(plot, at) {
    const ms = plot.low * (plot.high / plot.low) ** at;
    const values = plot.x.map((row) => share(row, plot.shares, ms));
    const order = (a, b) => values[b] - values[a];
    return {
      title: `within ${duration(ms)}`, at, order,
      values: values.map((value) => `${(100 * value).toFixed(1)} %`),
    };
  },
  queue(plot, at) {
    const last = plot.y[0].length - 1;
    const near = Math.min(last, Math.floor(at * plot.y[0].length));
    const values = plot.y.map((row) => row[near]);
    return {
      title: `after ${duration((plot.span * (near + 0.5)) / (last + 1))}`,
      at: (near + 0.5) / (last + 1),
      order: (a, b) => values[a] - values[b],
      values: values.map((value) => value.toLocaleString("en", { maximumFractionDigits: 1 })),
    };
  },
};
function share(times, shares, ms) {
  const after = times.findIndex((time) => time > ms);
  if (after === 0 || times.length === 0) return 0;
  if (after < 0) return 1;
  const [low, high] = [times[after - 1], times[after]];
  return shares[after - 1] + (shares[after] - shares[after - 1]) * ((ms - low) / (high - low));
}

for (const figure of document.querySelectorAll("[data-plot]")) {
  const plane = figure.querySelector(".plane");
  const cursor = figure.querySelector(".cursor");
  const plot = data.plots[figure.dataset.plot];
  const leave = () => { tip.hidden = cursor.hidden = true; };
  let place = 0;
  const show = (at, x, y) => {
    place = Math.min(1, Math.max(0, at));
    const said = readings[figure.dataset.kind](plot, place);
    cursor.style.left = `${100 * said.at}%`;
    tip.replaceChildren(line("p", said.title), rows(said));
    tip.hidden = cursor.hidden = false;
    const left = x + 18 + tip.offsetWidth > innerWidth ? x - 18 - tip.offsetWidth : x + 18;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, Math.min(y - 20, innerHeight - tip.offsetHeight - 8))}px`;
    plane.setAttribute("aria-valuenow", Math.round(100 * said.at));
    plane.setAttribute("aria-valuetext", `${said.title}: ${spoken(said)}`);
  };
  plane.addEventListener("pointermove", (event) => {
    const box = plane.getBoundingClientRect();
    show((event.clientX - box.left) / box.width, event.clientX, event.clientY);
  });
  plane.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") leave();
    if (to === undefined) return;
    event.preventDefault();
    const box = plane.getBoundingClientRect();
    const at = plot.x && figure.dataset.kind === "curve" ? step(plot.x, place, to) : place + to / 50;
    show(at, box.left + box.width * Math.min(1, Math.max(0, at)), box.top + 40);
  });
  plane.addEventListener("blur", leave);
  plane.addEventListener("pointerleave", leave);
  plane.addEventListener("pointercancel", leave);
}
/* The neighbour of a place among places in order. */
function step(places, from, by) {
  let near = 0;
  places.forEach((x, i) => { if (Math.abs(x - from) < Math.abs(places[near] - from)) near = i; });
  return places[Math.min(places.length - 1, Math.max(0, near + by))];
}
function spoken(said) {
  const order = data.names.map((_, i) => i).sort(said.order);
  return order.map((i) => `${data.names[i]} ${said.values[i]}`).join(", ");
}
function line(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
function rows(said) {
  const grid = document.createElement("div");
  for (const i of data.names.map((_, i) => i).sort(said.order)) {
    const key = document.createElement("i");
    key.className = `key ${chips[i].classList[0]}`;
    grid.append(key, line("span", data.names[i]), line("span", said.values[i]));
  }
  return grid;
}

/* Sorts the rows of each load by a column: numbers from small to large, then back. */
const heads = [...document.querySelectorAll("thead th")];
function figureOf(cell) {
  const text = cell.firstChild?.nodeType === 3 ? cell.firstChild.data : cell.textContent;
  const value = parseFloat(text.replace("\u2212", "-"));
  return Number.isNaN(value) ? text.trim() : value;
}
heads.forEach((head, column) => {
  head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    for (const body of document.querySelectorAll("table tbody")) {
      const found = [...body.querySelectorAll("tr[data-strategy]")];
      found.sort((a, b) => {
        const [x, y] = [figureOf(a.children[column]), figureOf(b.children[column])];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
        return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
      });
      body.append(...found);
    }
  });
});

/* The table as CSV, as it is sorted now. */
function csv() {
  const found = [...document.querySelectorAll("tr[data-strategy]")];
  const names = [...found[0].querySelectorAll("td")].map((cell) => cell.dataset.figure);
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const table = found.map((row) => [
    row.dataset.strategy, row.dataset.speedup,
    ...[...row.querySelectorAll("td")].map((cell) => String(figureOf(cell))),
  ]);
  return [["strategy", "speedup", ...names], ...table]
    .map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}
document.querySelector(".csv").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "routecore-replay.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
});
const copy = document.querySelector(".copy");
copy?.addEventListener("click", async () => {
  await navigator.clipboard?.writeText(copy.previousElementSibling.textContent);
  copy.textContent = "Copied";
});

/* Why a request went where it went: the decision nearest to a place in the picture of load. */
const panel = document.getElementById("why");
const [REQUEST, TIME, TOKENS, CACHED, ENDPOINT, AMONG, CANDIDATES] = [0, 1, 2, 3, 4, 5, 6];
function explain(picture, at) {
  const name = picture.dataset.why;
  const why = data.why[name];
  const row = why.rows[at];
  picture.dataset.at = at;
  const mark = picture.querySelector(".place");
  mark.hidden = false;
  mark.style.left = `${(100 * row[TIME]) / Math.max(1, why.span)}%`;
  mark.style.top = `${(100 * (Math.floor(row[ENDPOINT] / why.group) + 0.5)) / picture.dataset.lanes}%`;
  const wins = { true: ", the lowest score wins", false: ", the highest score wins" }[why.lower] ?? "";
  const title = `Request ${row[REQUEST].toLocaleString("en")} after ${duration(row[TIME])}: ` +
    `${row[TOKENS].toLocaleString("en")} prompt tokens, ${row[CACHED].toLocaleString("en")} found in the cache`;
  const chose = `${name} chose endpoint ${row[ENDPOINT]} among ${row[AMONG]}${wins}.`;
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const text of ["endpoint", "score", ...why.terms.map(([term, unit]) =>
    (unit === "1" ? term : `${term}, ${unit}`).replaceAll("_", " "))]) {
    const cell = line("th", text);
    cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const [endpoint, ...values] of row[CANDIDATES]) {
    const made = body.insertRow();
    const first = line("th", `${endpoint === row[ENDPOINT] ? "\u2192 " : ""}${endpoint}`);
    first.scope = "row";
    made.className = endpoint === row[ENDPOINT] ? "chosen" : "";
    made.append(first, ...values.map((value) => line("td", value === null ? "\u2013" : value.toLocaleString("en"))));
  }
  const scroll = document.createElement("div");
  scroll.className = "wide";
  scroll.append(table);
  const steps = document.createElement("p");
  steps.className = "steps";
  for (const [text, by] of [["\u2190 earlier", -1], ["later \u2192", 1]]) {
    const button = line("button", text);
    button.type = "button";
    button.disabled = why.rows[at + by] === undefined;
    button.addEventListener("click", () => explain(picture, at + by));
    steps.append(button);
  }
  panel.replaceChildren(line("h3", title), line("p", chose), scroll, steps);
  panel.hidden = false;
}
for (const picture of document.querySelectorAll("[data-why]")) {
  const why = data.why[picture.dataset.why];
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    const time = ((event.clientX - box.left) / box.width) * why.span;
    const lane = Math.floor(((event.clientY - box.top) / box.height) * picture.dataset.lanes);
    // A decision for this row first, then one of the same time.
    const off = (row) => Math.abs(row[TIME] - time) +
      (Math.floor(row[ENDPOINT] / why.group) === lane ? 0 : why.span / 8);
    let near = 0;
    why.rows.forEach((row, i) => { if (off(row) < off(why.rows[near])) near = i; });
    explain(picture, near);
  });
  picture.addEventListener("keydown", (event) => {
    const by = { Enter: 0, " ": 0, ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const at = picture.dataset.at === undefined ? 0 : Number(picture.dataset.at) + by;
    explain(picture, Math.min(why.rows.length - 1, Math.max(0, at)));
  });
}
