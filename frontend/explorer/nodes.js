// The boxes of the graph: nodes, folded updates, and the pills of inputs and constants.

import { hint, svg } from "explorer/dom";
import { choose, data, stages, state, steps } from "explorer/store";
import { bytes, many, percent, time } from "explorer/units";

const KINDS = [
  ["product", /matmul|conv2d|_grad$/],
  ["window", /pool|^sum$|^max$|correct|softmax/],
  ["move", /reshape|transpose|pad$|slice|broadcast|^item$|im2col|reverse|winograd_weights|cast/],
  ["random", /dropout_mask|one_hot|rows_reciprocal/],
];
const BADGES = { new: "+", changed: "~" };
export const total = data.steps.reduce((sum, step) => sum + (step.ms ?? 0), 0);

// What kind of work a node is, for its colour; of a fused one, the heaviest in it.
export function kindOf(told) {
  if (told.op === "input") return "input";
  const ops = [told.op, ...told.label];
  const heavy = KINDS.slice(0, 2).find(([, pattern]) => ops.some((op) => pattern.test(op)));
  return (heavy ?? KINDS.find(([, pattern]) => pattern.test(told.op)) ?? ["pointwise"])[0];
}

// The element of a box; `unfold` shows the nodes of a folded one.
export function drawBox(box, unfold) {
  if (box.kind === "pill") return pill(box);
  return box.kind === "fold" ? fold(box, unfold) : node(box);
}

function node(box) {
  const told = stages[state.stage].nodes[box.id];
  const group = frame(box, `node ${kindOf(told)} ${told.state}`, told.state);
  const about = `${told.name} ${told.op}, ${told.band} ${told.part}, ${told.state}`;
  group.setAttribute("aria-label", about);
  group.dataset.name = told.name;
  if (told.tile) {
    group.append(svg("text", { x: box.w - 6, y: 29, class: "tile" }, `↻${told.tile}`));
  }
  onClick(group, () => choose({ node: state.node === box.id ? null : box.id, layer: null }));
  return hint(group, () => hintOf(told));
}

function fold(box, unfold) {
  const changes = new Set(box.ids.map((id) => stages[state.stage].nodes[id].state));
  const change = ["new", "changed", "kept"].find((s) => changes.has(s));
  const group = frame(box, `node fold ${change}`, change);
  group.setAttribute("aria-label", box.title);
  onClick(group, unfold);
  return hint(group, () => [box.title, box.type, "Click to see them all ( u )"]);
}

// What nodes and folded updates have in common: two lines, the time, the badge of a change.
function frame(box, kind, change) {
  const group = svg(
    "g",
    { ...place(box), class: kind, role: "option" },
    svg("rect", { width: box.w, height: box.h, rx: 5, class: "frame" }),
    svg("rect", { width: 4, height: box.h - 10, x: 4, y: 5, rx: 2, class: "stripe" }),
    svg("text", { x: 14, y: 16, class: "op" }, box.title),
    svg("text", { x: 14, y: 29, class: "type" }, box.type),
  );
  const ms = timeOf(box);
  if (ms) {
    const width = Math.max(1.5, ((box.w - 18) * ms) / total);
    group.append(svg("rect", { x: 14, y: box.h - 5, width, height: 3, rx: 1.5, class: "time" }));
  }
  if (change in BADGES) {
    const look = { transform: `translate(${box.w - 3} 3)`, class: "badge" };
    group.append(svg("g", look, svg("circle", { r: 7 }), svg("text", { y: 3.5 }, BADGES[change])));
  }
  return group;
}

function pill(box) {
  const told = stages[state.stage].nodes[box.id];
  const group = svg(
    "g",
    { ...place(box), class: `pill ${told.op}` },
    svg("rect", { width: box.w, height: box.h, rx: 8.5, class: "frame" }),
    svg("text", { x: box.w / 2, y: 12, class: "type" }, box.title),
  );
  onClick(group, () => choose({ node: box.id, layer: null }));
  return hint(group, () => hintOf(told));
}

function place({ key, x, y, w, h }) {
  const [left, top] = [Math.round(x - w / 2), Math.round(y - h / 2)];
  return { id: `box-${key.replace(/\W/g, "-")}`, transform: `translate(${left} ${top})` };
}

function onClick(group, act) {
  group.addEventListener("click", (event) => {
    event.stopPropagation(); // the layer below is another choice
    act();
  });
}

function hintOf(told) {
  const ms = told.steps.reduce((sum, t) => sum + (steps.get(t).ms ?? 0), 0);
  const runs = `${many(told.steps.length, "step")}, ${time(ms)}, ${percent(ms / total)}`;
  return [
    `%${told.name} ${told.op}`,
    `${told.type}, ${bytes(told.bytes)}`,
    ...(told.band ? [`${told.band} · ${told.part}`] : []),
    ...(told.steps.length ? [runs] : []),
    ...(told.tile ? [`in a loop over tiles of ${told.tile} rows`] : []),
  ];
}

// The milliseconds of the steps that a box becomes. Of nodes that become one step together, the
// product has it all, or else the first.
function timeOf(box) {
  const { nodes } = stages[state.stage];
  const becomes = box.ids.flatMap((id) => nodes[id].steps);
  const owned = new Set(becomes.filter((t) => box.ids.includes(owner(t))));
  return [...owned].reduce((sum, t) => sum + (steps.get(t).ms ?? 0), 0);
}

const owners = new Map();

function owner(t) {
  const key = `${state.stage}:${t}`;
  if (!owners.has(key)) {
    const { nodes } = stages[state.stage];
    const runs = (n) => n.steps.includes(t) && n.op !== "input";
    const ids = nodes.flatMap((n, id) => (runs(n) ? [id] : []));
    owners.set(key, ids.find((id) => kindOf(nodes[id]) === "product") ?? ids[0]);
  }
  return owners.get(key);
}
