// The roofline: each product by how much it does with a byte and how fast it is, under what this
// machine can do; beside it the steps without products, by what they touch.
// Source: Williams, Waterman, Patterson, "Roofline", CACM 52 (2009).

import { el, hint, svg } from "explorer/dom";
import { total } from "explorer/nodes";
import { chooseStep, chosenSteps, data, nodeOfStep, last, stages } from "explorer/store";
import { bytes, count, many, percent, short, time } from "explorer/units";

const EDGE = { left: 52, right: 14, top: 20, bottom: 36 };

export function rooflineView(room) {
  if (!data.roof)
    return [
      el(
        "p",
        { class: "note" },
        "Nothing was timed: the roofline needs a trained model on the native or blas runtime.",
      ),
    ];
  const [w, h] = [room.clientWidth - 16, Math.max(190, room.clientHeight - 38)];
  const timed = data.steps.filter((s) => s.ms);
  const products = timed.filter((s) => s.flops);
  const others = timed.filter((s) => !s.flops);
  const picture = svg("svg", {
    width: w,
    height: h,
    class: "roofline",
    role: "img",
    "aria-label": "Roofline",
  });
  const cut = Math.round(w * 0.58);
  compute(picture, products, cut, h);
  traffic(picture, others, cut + 16, w, h);
  const { roof } = data;
  const above = products.some((s) => s.gflops > roof.gflops)
    ? "; above it, less is done than counted"
    : "";
  return [
    el(
      "p",
      { class: "note" },
      `at most ${short(roof.gflops)} GFLOP/s with ${many(roof.workers, "worker")}, measured${above}`,
      ...["forward", "backward", "update"].map((part) =>
        el("span", { class: `key dot ${part}` }, part),
      ),
    ),
    picture,
  ];
}

function compute(picture, products, w, h) {
  const { gflops, levels } = data.roof;
  const xs = products.map((s) => s.flops / s.nbytes);
  const x = log(
    [...xs, gflops / levels[0].gbps, gflops / levels.at(-1).gbps],
    EDGE.left,
    w - EDGE.right,
  );
  const y = log(
    [...products.map((s) => s.gflops), gflops, gflops * 1.6],
    h - EDGE.bottom,
    EDGE.top,
  );
  axes(picture, x, y, h, w, "FLOP a byte", "GFLOP/s", EDGE.left);
  for (const level of levels) {
    const ridge = gflops / level.gbps;
    const low = Math.max(x.low, y.low / level.gbps);
    picture.append(
      svg("path", {
        d: `M${x(low)} ${y(low * level.gbps)}L${x(ridge)} ${y(gflops)}H${x(x.high)}`,
        class: "roof",
      }),
    );
    const at = Math.min(ridge / 1.15, low * 3);
    picture.append(
      svg(
        "text",
        {
          x: x(at) + 4,
          y: y(at * level.gbps) - 5,
          class: "tick",
          transform: turned(x, y, at, level.gbps),
        },
        level.name,
      ),
    );
  }
  picture.append(
    svg(
      "text",
      { x: x(x.high), y: y(gflops) - 5, class: "tick end strong" },
      `peak ${short(gflops)} GFLOP/s`,
    ),
  );
  points(picture, products, (s) => [x(s.flops / s.nbytes), y(s.gflops)]);
}

function turned(x, y, at, gbps) {
  const [a, b] = [at, at * 2];
  const angle = (Math.atan2(y(b * gbps) - y(a * gbps), x(b) - x(a)) * 180) / Math.PI;
  return `rotate(${angle.toFixed(1)} ${x(at).toFixed(1)} ${y(at * gbps).toFixed(1)})`;
}

function traffic(picture, others, left, w, h) {
  const begin = left + 44;
  const x = log([...others.map((s) => s.nbytes), 1024, 1 << 20], begin, w - EDGE.right - 46);
  const y = log(
    [...others.map((s) => s.gbps), ...data.roof.levels.map((l) => l.gbps * 1.5)],
    h - EDGE.bottom,
    EDGE.top,
  );
  x.ticks = range(0, 9)
    .map((i) => 16 ** i)
    .filter((v) => v > x.low && v < x.high);
  axes(picture, x, y, h, w - 46, "bytes touched", "GB/s of steps without products", begin, bytes);
  let above = -Infinity;
  for (const { name, gbps } of data.roof.levels) {
    above = Math.max(y(gbps) + 4, above + 10);
    picture.append(svg("path", { d: `M${begin} ${y(gbps)}H${x(x.high)}`, class: "roof" }));
    picture.append(svg("text", { x: x(x.high) + 4, y: above, class: "tick" }, name));
  }
  points(picture, others, (s) => [x(s.nbytes), y(s.gbps)]);
}

// Draws steps, the longest with their layer's name where there is room for it.
function points(picture, timed, place) {
  const taken = [];
  for (const s of timed.toSorted((a, b) => b.ms - a.ms)) {
    const [cx, cy] = place(s);
    const { band, part } = stages[last].nodes[nodeOfStep(s.time)];
    const label = part === "backward" ? `${band}′` : band;
    const box = { cx, cy: cy - radius(s), w: label.length * 6.5 };
    const free = taken.every(
      (b) => Math.abs(b.cx - cx) > (b.w + box.w) / 2 || Math.abs(b.cy - box.cy) > 12,
    );
    const named = free && s.ms / total > 0.05;
    if (named) taken.push(box);
    picture.append(point(s, cx, cy, named ? label : ""));
  }
}

function radius(s) {
  return 3.5 + 13 * Math.sqrt(s.ms / total);
}

function point(s, cx, cy, label) {
  const told = stages[last].nodes[nodeOfStep(s.time)];
  const r = radius(s);
  const on = chosenSteps().includes(s.time);
  const group = svg(
    "g",
    { class: `point ${told.part} ${on ? "chosen" : ""}` },
    svg("circle", { cx, cy, r }),
  );
  if (label) group.append(svg("text", { x: cx, y: cy - r - 3 }, label));
  group.addEventListener("click", () => chooseStep(s.time));
  const rate = s.flops
    ? `${short(s.gflops)} GFLOP/s at ${short(s.flops / s.nbytes)} FLOP a byte`
    : `${short(s.gbps)} GB/s`;
  const work = s.flops ? [`${count(s.flops)}FLOP, ${bytes(s.nbytes)}`] : [bytes(s.nbytes)];
  return hint(group, () => [
    `step ${s.time} ${told.label.join(" · ")}`,
    `${told.band} · ${told.part}`,
    `${time(s.ms)}, ${percent(s.ms / total)}`,
    rate,
    ...work,
    `${percent(s.fraction)} of its limit, bound by ${s.bound}`,
  ]);
}

// A logarithmic scale from the least to the most of `values`, onto pixels.
function log(values, from, to) {
  const given = values.filter((v) => v > 0).map(Math.log10);
  const [low, high] = [Math.min(...given) - 0.15, Math.max(...given) + 0.15];
  const scale = (v) => from + ((to - from) * (Math.log10(Math.max(v, 1e-12)) - low)) / (high - low);
  return Object.assign(scale, {
    low: 10 ** low,
    high: 10 ** high,
    ticks: range(Math.ceil(low), Math.floor(high)).map((d) => 10 ** d),
  });
}

function range(from, to) {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => from + i);
}

function axes(picture, x, y, h, right, across, up, left, shown = short) {
  for (const v of x.ticks) {
    picture.append(
      svg("path", { d: `M${x(v)} ${EDGE.top}V${h - EDGE.bottom}`, class: "grid" }),
      svg("text", { x: x(v), y: h - EDGE.bottom + 13, class: "tick middle" }, shown(v)),
    );
  }
  for (const v of y.ticks) {
    picture.append(
      svg("path", { d: `M${left} ${y(v)}H${right - EDGE.right}`, class: "grid" }),
      svg("text", { x: left - 6, y: y(v) + 4, class: "tick end" }, short(v)),
    );
  }
  picture.append(
    svg("text", { x: (left + right) / 2, y: h - 6, class: "tick middle" }, across),
    svg("text", { x: left, y: 11, class: "tick" }, up),
  );
}
