// The memory map: the plan's steps across, the arena down, a rectangle a buffer.

import { el, hint, svg } from "explorer/dom";
import { chooseStep, chosenSteps, data } from "explorer/store";
import { bytes, percent } from "explorer/units";

const { memory } = data;
const KINDS = ["input", "forward", "backward", "update", "scratch", "own"];
const EDGE = { left: 62, right: 12, top: 42, bottom: 22 };
const OWN = 0.22; // of the height, for what each worker has for itself

export function memoryView(room) {
  const own = memory.buffers.filter((b) => b.kind === "own");
  const shared = memory.buffers.filter((b) => b.kind !== "own");
  const [w, h] = [room.clientWidth - 16, Math.max(190, room.clientHeight - 38)];
  const split = own.length ? h * (1 - OWN) - 12 : h - EDGE.bottom;
  const x = (t) => EDGE.left + ((w - EDGE.left - EDGE.right) * t) / (memory.last + 1);
  const picture = svg("svg", {
    width: w,
    height: h,
    class: "memory",
    role: "img",
    "aria-label": "Memory map",
  });
  picture.append(hatch());
  const arena = lane(picture, shared, memory.arena, x, EDGE.top, split);
  if (own.length) lane(picture, own, memory.private, x, split + 18, h - EDGE.bottom, "a worker");
  steps(picture, x, h);
  loops(picture, x);
  peak(picture, x, split, arena);
  return [head(), picture];
}

function head() {
  const saved = 1 - memory.arena / memory.without;
  const over = memory.arena / memory.bound - 1;
  const kinds = KINDS.filter((kind) => memory.buffers.some((b) => b.kind === kind));
  const words = [
    `arena ${bytes(memory.arena)}`,
    over > 0.0005 ? `${percent(over)} above the lower bound` : "the least possible",
    `reuse saves ${percent(saved)}`,
  ];
  return el(
    "p",
    { class: "note" },
    words.join(" · "),
    ...kinds.map((kind) =>
      el("span", { class: `key ${kind}` }, kind === "own" ? "a worker's own" : kind),
    ),
  );
}

function lane(picture, buffers, size, x, top, bottom, name = "") {
  const y = (offset) => top + ((bottom - top) * offset) / Math.max(1, size);
  picture.append(
    svg("rect", {
      x: x(0),
      y: top,
      width: x(memory.last + 1) - x(0),
      height: bottom - top,
      class: "lane",
    }),
  );
  for (const part of bottom - top > 60 ? [0, 0.5, 1] : [1]) {
    picture.append(
      svg(
        "text",
        { x: EDGE.left - 6, y: y(size * part) + 4, class: "tick end" },
        bytes(Math.round(size * part)),
      ),
    );
  }
  if (name)
    picture.append(
      svg(
        "text",
        { x: EDGE.left, y: top - 4, class: "tick" },
        `${name}'s own: ${bytes(memory.private)}`,
      ),
    );
  const chosen = new Set(chosenSteps());
  for (const b of buffers) picture.append(buffer(b, x, y, chosen));
  return y;
}

function buffer(b, x, y, chosen) {
  const on = b.writers.some((t) => chosen.has(t));
  const [left, top] = [x(b.start), y(b.offset)];
  const [width, height] = [x(b.end + 1) - left, Math.max(0.75, y(b.offset + b.room) - top)];
  const group = svg(
    "g",
    { class: `buffer ${b.kind} ${on ? "chosen" : ""}` },
    svg("rect", { x: left, y: top, width, height }),
  );
  const label = [`${b.label} ${b.loc}`.trim(), b.label].find(
    (text) => text.length * 6.2 < width - 6,
  );
  if (label && height > 12)
    group.append(svg("text", { x: left + width / 2, y: top + height / 2 + 3.5 }, label));
  group.addEventListener("click", () => b.writers.length && chooseStep(b.writers[0]));
  return hint(group, () => [
    `${b.label} ${b.loc}`,
    ...b.tensors,
    `${bytes(b.room)} at ${b.offset.toLocaleString("en")}, alive from step ${b.start} to ${b.end}`,
  ]);
}

function steps(picture, x, h) {
  const every = Math.ceil(memory.last / 20);
  for (let t = 0; t <= memory.last; t += every) {
    picture.append(svg("text", { x: x(t + 0.5), y: h - 8, class: "tick middle" }, t));
  }
  picture.append(svg("text", { x: EDGE.left - 6, y: h - 8, class: "tick end" }, "step"));
  for (const t of chosenSteps()) {
    picture.append(
      svg("rect", { x: x(t), y: h - 20, width: x(t + 1) - x(t), height: 16, rx: 3, class: "now" }),
    );
  }
}

function loops(picture, x) {
  for (const { tile, first, last } of memory.loops) {
    const [a, b] = [x(first), x(last + 1)];
    picture.append(svg("path", { d: `M${a} 4H${b}`, class: "loop" }));
    picture.append(
      hint(
        svg("text", { x: (a + b) / 2, y: 18, class: "tick middle" }, `${tile} rows at a time`),
        () => [`steps ${first} to ${last}`, `a loop over tiles of ${tile} rows`],
      ),
    );
  }
}

function peak(picture, x, bottom) {
  const middle = x(memory.peak + 0.5);
  const late = memory.peak > memory.last / 2;
  picture.append(
    svg("path", { d: `M${middle} ${EDGE.top - 4}V${bottom}`, class: "peak" }),
    svg(
      "text",
      { x: middle + (late ? -5 : 5), y: EDGE.top - 5, class: `tick strong ${late ? "end" : ""}` },
      `peak: ${bytes(memory.bound)} at step ${memory.peak}`,
    ),
  );
}

function hatch() {
  const look = {
    id: "hatch",
    width: 5,
    height: 5,
    patternUnits: "userSpaceOnUse",
    patternTransform: "rotate(45)",
  };
  return svg(
    "pattern",
    look,
    svg("rect", { width: 5, height: 5, class: "hatch-ground" }),
    svg("path", { d: "M0 0V5", class: "hatch-line" }),
  );
}
