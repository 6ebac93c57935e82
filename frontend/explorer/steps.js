// The plan's steps as a table: what each is, what it took, what bounds it.

import { el } from "explorer/dom";
import { total } from "explorer/nodes";
import { chooseStep, chosenSteps, data, last, nodeOfStep, stages } from "explorer/store";
import { bytes, percent, short, time } from "explorer/units";

const HEADS = [
  "step",
  "layer",
  "part",
  "work",
  "form",
  "time",
  "share",
  "GFLOP/s",
  "GB/s",
  "traffic",
  "of limit",
  "bound by",
];

export function stepsView() {
  const chosen = new Set(chosenSteps());
  const rows = data.steps.map((s) => row(s, chosen.has(s.time)));
  const head = el("thead", {}, el("tr", {}, ...HEADS.map((h) => el("th", {}, h))));
  return [el("table", { class: "steps" }, head, el("tbody", {}, ...rows))];
}

function row(s, on) {
  const told = stages[last].nodes[nodeOfStep(s.time)];
  const share = total ? (s.ms ?? 0) / total : 0;
  const cells = [
    s.time,
    told.band,
    told.part,
    told.label.join(" · "),
    s.form ?? "",
    s.ms ? time(s.ms) : "",
    s.ms
      ? el("span", { class: "meter" }, el("i", { style: `--share:${share}` }), percent(share))
      : "",
    s.gflops ? short(s.gflops) : "",
    s.gbps ? short(s.gbps) : "",
    bytes(s.nbytes),
    s.fraction ? percent(s.fraction) : "",
    s.bound ?? "",
  ];
  const numbers = new Set([0, 5, 7, 8, 9, 10]);
  return el(
    "tr",
    { class: on ? "chosen" : "", onclick: () => chooseStep(s.time) },
    ...cells.map((cell, i) =>
      el("td", { class: numbers.has(i) ? "number" : "", title: i === 3 ? cell : null }, cell),
    ),
  );
}
