// The keyboard.

import { byId, el } from "explorer/dom";
import { rescale, step, toggleFold } from "explorer/graph";
import { choose, stages, state, VIEWS } from "explorer/store";

const KEYS = [
  ["[  ]", "the stage before, the next stage", { "[": () => stage(-1), "]": () => stage(1) }],
  ["arrows", "in the graph: the next node; in the list of stages: the next stage", {}],
  ["Tab", "from part to part of the page", {}],
  ["/", "search", { "/": () => byId("query").focus() }],
  ["Esc", "choose nothing", { Escape: () => choose({ node: null, layer: null }) }],
  [
    "1 … 5",
    "changes, text, memory, roofline, steps",
    Object.fromEntries(VIEWS.map((view, i) => [`${i + 1}`, () => choose({ view })])),
  ],
  ["u", "updates node by node", { u: toggleFold }],
  ["d", "only what the pass changed", { d: () => byId("dim").click() }],
  ["m", "taller view below", { m: () => byId("tall").click() }],
  [
    "+  −  0",
    "larger, smaller, fit the width",
    { "+": () => rescale(1.2), "-": () => rescale(1 / 1.2), 0: () => rescale() },
  ],
  ["?", "these keys", { "?": () => byId("help").click() }],
];
const COMMANDS = Object.assign({}, ...KEYS.map(([, , commands]) => commands));
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function stage(by) {
  choose({ stage: Math.min(stages.length - 1, Math.max(0, state.stage + by)) });
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  const arrow = ARROWS[event.key];
  if (arrow && byId("stages").contains(event.target)) stage(arrow[1] || arrow[0]);
  else if (arrow && (byId("graph").contains(event.target) || event.target === document.body))
    step(...arrow);
  else if (arrow && byId("tabs").contains(event.target)) nextView(arrow[0]);
  else if (!arrow && event.key in COMMANDS) COMMANDS[event.key]();
  else return;
  event.preventDefault();
});

function nextView(by) {
  choose({ view: VIEWS[(VIEWS.indexOf(state.view) + by + VIEWS.length) % VIEWS.length] });
  byId("tabs").querySelector("[aria-selected=true]").focus();
}

const help = byId("keys");
help.append(
  el("h2", {}, "Keys"),
  el(
    "dl",
    {},
    ...KEYS.flatMap(([key, about]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, about)]),
  ),
);
byId("help").addEventListener("click", () => (help.open ? help.close() : help.showModal()));
help.addEventListener("click", () => help.close());
