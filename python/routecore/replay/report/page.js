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
  plane.addEventListener("pointermove", (event) => {
    const box = plane.getBoundingClientRect();
    const at = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const said = readings[figure.dataset.kind](plot, at);
    cursor.style.left = `${100 * said.at}%`;
    tip.replaceChildren(line("p", said.title), rows(said));
    tip.hidden = cursor.hidden = false;
    const left = event.clientX + 18 + tip.offsetWidth > innerWidth
      ? event.clientX - 18 - tip.offsetWidth : event.clientX + 18;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, Math.min(event.clientY - 20, innerHeight - tip.offsetHeight - 8))}px`;
  });
  plane.addEventListener("pointerleave", leave);
  plane.addEventListener("pointercancel", leave);
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
