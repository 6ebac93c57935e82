// The text of a stage, and how it came from the text of the stage before.

import { el } from "explorer/dom";
import { choose, data, stages, state } from "explorer/store";
import { many } from "explorer/units";

const CONTEXT = 2; // lines around a change that did not change

// What the chosen pass changed, line by line; nodes that only have another number are the same.
export function changesView() {
  const stage = stages[state.stage];
  if (!stage.diff)
    return [
      el("p", { class: "note" }, "The graph as traced: there is nothing before it."),
      ...textView(),
    ];
  const before = stages[state.stage - 1];
  const { codes, left, came } = stage.diff;
  if (codes.every(([tag]) => tag === "equal"))
    return [el("p", { class: "note" }, `${stage.name} changed nothing.`)];
  const [gone, arrived] = [new Set(left), new Set(came)];
  const block = el("div", { class: "code", role: "list" });
  codes.forEach(([tag, a, b, c, d], k) => {
    if (tag === "equal")
      return block.append(...context(stage, c, d, k === 0, k === codes.length - 1));
    for (let i = a; i < b; i++)
      block.append(line("−", before.lines[i], gone.has(i) ? "moved" : "minus"));
    for (let i = c; i < d; i++)
      block.append(line("+", stage.lines[i], arrived.has(i) ? "moved" : "plus", nodeAt(stage, i)));
  });
  return [block];
}

function context(stage, begin, end, first, final) {
  const [head, tail] = [first ? begin : begin + CONTEXT, final ? end : end - CONTEXT];
  const all = head >= tail - 1;
  const lines = [];
  for (let i = begin; i < end; i++) {
    if (all || i < head || i >= tail) lines.push(line(" ", stage.lines[i], "", nodeAt(stage, i)));
    else if (i === head)
      lines.push(el("div", { class: "skipped" }, `⋯ ${many(tail - head, "line")} as before`));
  }
  return lines;
}

// The whole text of the chosen stage.
export function textView() {
  const stage = stages[state.stage];
  return [
    el(
      "div",
      { class: "code", role: "list" },
      ...stage.lines.map((text, i) => line(" ", text, "", nodeAt(stage, i))),
    ),
  ];
}

// The plan's text, step by step.
export function planText() {
  return [el("div", { class: "code" }, ...data.plan.map((text) => line(" ", text, "")))];
}

function line(mark, text, kind, id) {
  const [, code, loc] = text.match(/^(.*?)(  # .*)?$/);
  const chosen = id !== undefined && id === state.node;
  const row = el(
    "div",
    { class: `line ${kind} ${chosen ? "chosen" : ""}`, role: "listitem" },
    el("span", { class: "mark" }, mark),
    code,
    loc ? el("span", { class: "loc" }, loc) : null,
  );
  if (id !== undefined) {
    row.classList.add("of-node");
    row.addEventListener("click", () => choose({ node: id }));
  }
  return row;
}

const owners = new Map();

function nodeAt(stage, at) {
  if (!owners.has(stage)) {
    const found = [];
    stage.nodes.forEach(({ lines: [first, length] }, id) => {
      for (let i = first; i < first + length; i++) found[i] = id;
    });
    owners.set(stage, found);
  }
  return owners.get(stage)[at];
}
