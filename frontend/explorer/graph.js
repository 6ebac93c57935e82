// The graph of the chosen stage: layers as bands, forward beside backward beside update.

import { byId, hideHint, hint, svg } from "explorer/dom";
import { layoutOf } from "explorer/layout";
import { drawBox, total } from "explorer/nodes";
import { choose, data, state, timeOf } from "explorer/store";
import { percent, time } from "explorer/units";

const LEAST = 0.8; // of full size, at which a graph is fitted to the width
const MOST = 1.15;
const ARROWS = { forward: "↓", backward: "↑" };

const holder = byId("graph");
let shown = null; // the layout on the screen
let elements = new Map(); // box key -> element
let edges = [];
let scale = null; // null fits the width
let unfolded = false;

// Draws the chosen stage; scrolls to what is chosen.
export function drawGraph() {
  hideHint();
  shown = layoutOf(state.stage, unfolded);
  edges = shown.edges.map(edge);
  elements = new Map([...shown.boxes].map(([key, box]) => [key, drawBox(box, toggleFold)]));
  const picture = svg("svg", { viewBox: `0 0 ${shown.width} ${shown.height}` }, arrowHead());
  picture.append(...shown.rows.map(band), ...edges.map(({ line }) => line));
  picture.append(...elements.values(), ...shown.columns.map(columnHead));
  holder.replaceChildren(picture);
  resize();
  markGraph();
}

// Marks what is chosen, and what it reads and is read by.
export function markGraph() {
  const near = new Set();
  for (const { line, from, to } of edges) {
    const touches = holds(from) || holds(to);
    line.classList.toggle("on", touches);
    if (touches) near.add(from.key).add(to.key);
  }
  holder.removeAttribute("aria-activedescendant");
  for (const [key, element] of elements) {
    const box = shown.boxes.get(key);
    element.classList.toggle("chosen", holds(box));
    element.classList.toggle("near", !holds(box) && near.has(key));
    if (box.kind === "pill") continue;
    element.setAttribute("aria-selected", holds(box));
    if (holds(box)) holder.setAttribute("aria-activedescendant", element.id);
  }
  for (const head of holder.querySelectorAll(".band")) {
    head.classList.toggle("chosen", head.dataset.layer === state.layer);
  }
  reveal();
}

function holds(box) {
  return state.node !== null && box.ids.includes(state.node);
}

function reveal() {
  const box = chosenBox();
  const row = shown.rows.find((r) => r.name === state.layer);
  if (box) elements.get(box.key).scrollIntoView({ block: "nearest", inline: "nearest" });
  else if (row) holder.scrollTo({ top: row.at * zoom() - 40 });
}

function chosenBox() {
  const boxes = [...shown.boxes.values()].filter(holds);
  return boxes.find((box) => box.kind !== "pill") ?? boxes[0];
}

function edge({ path, kind, from, to }) {
  const line = svg("path", { d: path, class: `edge ${kind}`, "marker-end": "url(#arrow)" });
  return { line, from, to };
}

function arrowHead() {
  const size = { viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 6, markerHeight: 6 };
  const head = svg("path", { d: "M0 1 7 4 0 7z", class: "head" });
  return svg("marker", { id: "arrow", orient: "auto", ...size }, head);
}

function columnHead({ name, at, size }) {
  const text = `${name} ${ARROWS[name] ?? ""}`;
  return svg("text", { x: at + size / 2, y: 16, class: "column" }, text);
}

function band({ name, at, size }) {
  const layer = data.layers.find((l) => l.name === name);
  const written = layer?.arguments ? `(${layer.arguments})` : "";
  const ms = timeOf(name);
  const group = svg(
    "g",
    { class: "band", "data-layer": name },
    svg("rect", { x: 4, y: at, width: shown.width - 8, height: size, rx: 6, class: "ground" }),
    svg(
      "text",
      { x: 14, y: at + 17, class: "name" },
      name,
      svg("tspan", { class: "written" }, ` ${written}`),
      svg("tspan", { class: "share" }, ms ? `  ${percent(ms / total)}` : ""),
    ),
  );
  group.addEventListener("click", () => choose({ layer: layer ? name : null, node: null }));
  const runs = ms ? `${time(ms)}, ${percent(ms / total)} of the step` : "no step of its own";
  return hint(group, () => [`${name}${written}`, runs]);
}

// Shows the nodes of updates one by one, or as one box a layer.
export function toggleFold() {
  unfolded = !unfolded;
  byId("fold").setAttribute("aria-pressed", unfolded);
  drawGraph();
}

// Makes the graph larger or smaller by a factor; without one it fits the width.
export function rescale(factor) {
  scale = factor ? Math.min(3, Math.max(0.2, zoom() * factor)) : null;
  resize();
}

function zoom() {
  const fitting = (holder.clientWidth - 16) / shown.width;
  return scale ?? Math.min(MOST, Math.max(LEAST, fitting));
}

// The names of layers and columns stay in sight.
holder.addEventListener("scroll", followScroll);

function followScroll() {
  holder.style.setProperty("--left", `${holder.scrollLeft / zoom()}px`);
  holder.style.setProperty("--top", `${holder.scrollTop / zoom()}px`);
}

function resize() {
  const picture = holder.firstElementChild;
  picture.setAttribute("width", Math.round(shown.width * zoom()));
  picture.setAttribute("height", Math.round(shown.height * zoom()));
  followScroll();
}

// Chooses the nearest node in a direction, (dx, dy) of which one is 0; the first if none is chosen.
export function step(dx, dy) {
  const boxes = [...shown.boxes.values()].filter((box) => box.kind === "node");
  const from = chosenBox();
  if (!from) return choose({ node: boxes.sort((a, b) => a.y - b.y || a.x - b.x)[0].id });
  const away = (box) => {
    const along = (box.x - from.x) * dx + (box.y - from.y) * dy;
    const aside = Math.abs((box.x - from.x) * dy) + Math.abs((box.y - from.y) * dx);
    return along > 4 ? along + 2 * aside : Infinity;
  };
  const best = boxes.reduce((a, b) => (away(b) < away(a) ? b : a));
  if (away(best) < Infinity) choose({ node: best.id });
}
