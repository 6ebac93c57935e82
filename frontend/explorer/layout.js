// Where the nodes of a stage stand. Rows are layers, columns what goes forward, comes backward,
// and updates; dagre lays out the nodes inside each cell of that table.
/* global dagre */

import { textWidth } from "explorer/dom";
import { stages } from "explorer/store";

const PARTS = ["forward", "backward", "update"];
const HEAD = 28; // pixels of a layer's headline
const GAP = { column: 32, band: 8, pad: 12, node: 12, rank: 20 };
const FOLDED = 4; // nodes of an update from which on it is one box
export const SANS = "600 12px system-ui, sans-serif";
export const MONO = "10.5px ui-monospace, 'DejaVu Sans Mono', monospace";

const made = new Map();

// Boxes, edges, bands and columns of a stage, made when first asked for.
export function layoutOf(stage, unfolded) {
  const key = `${stage}:${unfolded}`;
  if (!made.has(key)) made.set(key, table(stages[stage], unfolded));
  return made.get(key);
}

function table(stage, unfolded) {
  const cells = cellsOf(stage, unfolded);
  const parts = PARTS.filter((part) => [...cells.values()].some((c) => c.part === part));
  const bands = stage.bands.filter((band) => parts.some((part) => cells.has(`${band}|${part}`)));
  const far = link(stage, cells, parts, bands);
  for (const cell of cells.values()) arrange(cell);
  const columns = spread(parts, (part) => width(cells, bands, part), GAP.pad, GAP.column);
  const total = columns.at(-1).at + columns.at(-1).size + GAP.pad;
  const rows = spread(bands, (band) => height(cells, parts, band), 24, GAP.band);
  const boxes = new Map();
  const edges = [];
  for (const cell of cells.values()) put(cell, columns, rows, boxes, edges);
  for (const [from, to] of far) edges.push(bridge(boxes.get(from), boxes.get(to)));
  const low = rows.at(-1);
  return { boxes, edges, columns, rows, width: total, height: low.at + low.size + GAP.pad };
}

function cellsOf(stage, unfolded) {
  const cells = new Map();
  stage.nodes.forEach((node, id) => {
    if (isPill(node) || node.op === "item") return;
    const key = `${node.band}|${node.part}`;
    if (!cells.has(key)) cells.set(key, { key, band: node.band, part: node.part, ids: [] });
    cells.get(key).ids.push(id);
  });
  for (const cell of cells.values()) {
    cell.folded = cell.part === "update" && cell.ids.length > FOLDED && !unfolded;
    cell.boxes = cell.folded ? [foldBox(stage, cell)] : cell.ids.map((id) => nodeBox(stage, id));
    cell.edges = [];
  }
  return cells;
}

// The node that makes a value: an item is a part of what its operand makes.
function maker(stage, id) {
  while (stage.nodes[id].op === "item") [id] = stage.nodes[id].in;
  return id;
}

// Inputs and constants stand, small, beside each of their readers.
function isPill(node) {
  return node.op === "input" || node.op === "full";
}

function nodeBox(stage, id) {
  const node = stage.nodes[id];
  const title = clipped(node.label.join(" · ") || node.op, 30);
  const type = node.type.replace(/^\((.*?\]), .*\)$/, "$1 …");
  const tile = node.tile ? 30 : 0;
  const w = Math.max(textWidth(title, SANS), textWidth(type, MONO) + tile, 50) + 22;
  return {
    key: `${id}`,
    kind: "node",
    id,
    ids: [id, ...itemsOf(stage, id)],
    title,
    type,
    w,
    h: 38,
  };
}

function itemsOf(stage, id) {
  return stage.nodes.flatMap((n, i) => (n.op === "item" && maker(stage, i) === id ? [i] : []));
}

function foldBox(stage, cell) {
  const outputs = cell.ids
    .flatMap((id) => stage.nodes[id].out)
    .filter((name) => !/\.\w+\.\w+$/.test(name.slice(2)));
  const title = `update: ${cell.ids.length} nodes`;
  const type = clipped(outputs.length ? `→ ${outputs.join(", ")}` : "shared by all updates", 30);
  const w = Math.max(textWidth(title, SANS), textWidth(type, MONO)) + 24;
  return { key: `fold:${cell.key}`, kind: "fold", ids: cell.ids, title, type, w, h: 38 };
}

function pillBox(stage, cell, id) {
  const node = stage.nodes[id];
  const title = clipped(pillText(node, cell), 24);
  const w = textWidth(title, MONO) + 14;
  return { key: `${cell.key}:${id}`, kind: "pill", id, ids: [id], title, w, h: 17 };
}

function pillText(node, cell) {
  if (node.op === "full") return node.label[0];
  const own = `${cell.band.split(".")[0]}.`; // of parameters of the same layer
  return node.op === "input" ? node.name.replace(own, "") : `${node.op} %${node.name}`;
}

function clipped(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// Adds the edges and pills of each cell; gives back the edges from cell to cell, by box.
function link(stage, cells, parts, bands) {
  const home = new Map();
  for (const cell of cells.values()) for (const id of cell.ids) home.set(id, cell);
  const far = new Map();
  const boxKey = (cell, id) => (cell.folded ? cell.boxes[0].key : `${id}`);
  for (const cell of cells.values()) {
    const pills = new Map();
    for (const id of cell.ids) {
      for (const x of new Set(stage.nodes[id].in.map((i) => maker(stage, i)))) {
        const from = home.get(x);
        if (from === cell) {
          if (!cell.folded) cell.edges.push([`${x}`, `${id}`]);
        } else if (from && near(from, cell, cells, parts, bands)) {
          const pair = [boxKey(from, x), boxKey(cell, id)];
          far.set(pair.join(), pair);
        } else if (!cell.folded) {
          if (!pills.has(x)) pills.set(x, pillBox(stage, cell, x));
          cell.edges.push([pills.get(x).key, `${id}`]);
        }
      }
    }
    cell.boxes.push(...pills.values());
  }
  return far.values();
}

// Whether an edge between two cells crosses no third one.
function near(a, b, cells, parts, bands) {
  const rows = [bands.indexOf(a.band), bands.indexOf(b.band)];
  if (a.part !== b.part) return Math.abs(rows[0] - rows[1]) <= 1;
  const [low, high] = rows.sort((x, y) => x - y);
  if (a.part === "update") return false;
  return !bands.slice(low + 1, high).some((band) => cells.has(`${band}|${a.part}`));
}

function arrange(cell) {
  const g = new dagre.graphlib.Graph();
  g.setGraph({
    rankdir: cell.part === "backward" ? "BT" : "TB",
    nodesep: GAP.node,
    ranksep: GAP.rank,
  });
  g.setDefaultEdgeLabel(() => ({}));
  for (const box of cell.boxes) g.setNode(box.key, { width: box.w, height: box.h });
  for (const [from, to] of cell.edges) g.setEdge(from, to);
  dagre.layout(g);
  for (const box of cell.boxes) ({ x: box.x, y: box.y } = g.node(box.key));
  cell.lines = cell.edges.map(([from, to]) => ({ from, to, points: g.edge(from, to).points }));
  const { width: w, height: h } = g.graph();
  Object.assign(cell, { w, h });
}

function width(cells, bands, part) {
  return Math.max(...bands.map((band) => cells.get(`${band}|${part}`)?.w ?? 0));
}

function height(cells, parts, band) {
  return HEAD + GAP.pad + Math.max(...parts.map((part) => cells.get(`${band}|${part}`)?.h ?? 0));
}

function spread(names, size, begin, gap) {
  let at = begin;
  return names.map((name) => {
    const slot = { name, at, size: size(name) };
    at += slot.size + gap;
    return slot;
  });
}

function put(cell, columns, rows, boxes, edges) {
  const column = columns.find((c) => c.name === cell.part);
  const row = rows.find((r) => r.name === cell.band);
  const dx = column.at + (column.size - cell.w) / 2;
  const dy = row.at + HEAD + (row.size - HEAD - GAP.pad - cell.h) / 2;
  for (const box of cell.boxes)
    boxes.set(box.key, Object.assign(box, { cell, x: box.x + dx, y: box.y + dy }));
  for (const { from, to, points } of cell.lines) {
    const path = smooth(points.map(({ x, y }) => [x + dx, y + dy]));
    edges.push({ from: boxes.get(from), to: boxes.get(to), path, kind: "inside" });
  }
}

// A curve through the points that dagre gives an edge.
function smooth(points) {
  const [first, ...rest] = points;
  let path = `M${first.map(Math.round)}`;
  rest.forEach((p, i) => {
    const end =
      i === rest.length - 1 ? p : [(p[0] + rest[i + 1][0]) / 2, (p[1] + rest[i + 1][1]) / 2];
    path +=
      i === rest.length - 1 && i === 0
        ? `L${end.map(Math.round)}`
        : `Q${p.map(Math.round)} ${end.map(Math.round)}`;
  });
  return path;
}

// A curve from cell to cell: up or down in a column, sideways between columns.
function bridge(from, to) {
  const column = from.cell.part === to.cell.part;
  const kind = column ? "along" : "across";
  const down = to.y > from.y ? 1 : -1;
  const right = to.x > from.x ? 1 : -1;
  const a = column
    ? [from.x, from.y + (down * from.h) / 2]
    : [from.x + (right * from.w) / 2, from.y];
  const b = column ? [to.x, to.y - (down * to.h) / 2] : [to.x - (right * to.w) / 2, to.y];
  const bend = column
    ? [0, (b[1] - a[1]) / 2]
    : [Math.max(30, Math.abs(b[0] - a[0]) / 2) * right, 0];
  const points = [a, [a[0] + bend[0], a[1] + bend[1]], [b[0] - bend[0], b[1] - bend[1]], b];
  const [p, q, r, s] = points.map((point) => point.map(Math.round).join());
  return { from, to, path: `M${p}C${q} ${r} ${s}`, kind };
}
