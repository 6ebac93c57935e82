// The list of stages on the left: what each pass took and how many nodes it changed.

import { byId, el } from "explorer/dom";
import { choose, data, last, stages, state } from "explorer/store";
import { time } from "explorer/units";

const list = byId("stages");
const slowest = Math.max(...stages.map((s) => data.ms[s.name] ?? 0));

export function drawStages() {
  list.replaceChildren(...stages.map(entry), ...behind());
  const ms = Object.values(data.ms).reduce((a, b) => a + b, 0);
  byId("compiled").textContent = time(ms);
}

// How many nodes of a stage its pass made, changed, and dropped.
export function counts(stage) {
  const states = stage.nodes.map((n) => n.state);
  const of = (wanted) => states.filter((s) => s === wanted).length;
  return { new: of("new"), changed: of("changed"), gone: stage.gone.length };
}

// The counts as coloured words: +12 ~3 −4.
export function countMarks(stage) {
  const { new: made, changed, gone } = counts(stage);
  const marks = [
    ["new", "+", made],
    ["changed", "~", changed],
    ["gone", "−", gone],
  ].filter(([, , n]) => n);
  return marks.map(([kind, mark, n]) =>
    el("span", { class: `count ${kind}`, title: `${n} nodes ${kind}` }, `${mark}${n}`),
  );
}

function entry(stage, i) {
  const on = i === state.stage;
  const ms = data.ms[stage.name] ?? 0;
  const marks = i ? countMarks(stage) : [];
  return el(
    "li",
    {
      role: "option",
      id: `stage-${stage.name}`,
      "data-stage": stage.name,
      "aria-selected": on,
      tabindex: on ? 0 : -1,
      class: on ? "chosen" : "",
      onclick: () => choose({ stage: i }),
      style: `--share:${ms / slowest}`,
    },
    el("b", {}, stage.name),
    el("span", { class: "ms" }, time(ms)),
    el(
      "span",
      { class: "marks" },
      ...(i && !marks.length
        ? [
            el(
              "span",
              { class: "faint" },
              stage.diff.codes.every(([tag]) => tag === "equal")
                ? "nothing changed"
                : "another order",
            ),
          ]
        : marks.length
          ? marks
          : [el("span", { class: "faint" }, `${stage.nodes.length} nodes`)]),
    ),
  );
}

// What comes behind the passes: the plan, and the loops that LLVM compiles.
function behind() {
  const rows = [
    ["plan", "memory", "places and lifetimes"],
    ["loops", "steps", "loops and LLVM"],
  ];
  return rows
    .filter(([name]) => name in data.ms)
    .map(([name, view, about]) =>
      el(
        "li",
        { class: "behind", onclick: () => choose({ stage: last, view }) },
        el("b", {}, name),
        el("span", { class: "ms" }, time(data.ms[name])),
        el("span", { class: "marks faint" }, about),
      ),
    );
}

// Marks the chosen stage, with the focus where it was in the list.
export function markStages() {
  const inside = list.contains(document.activeElement);
  for (const item of list.querySelectorAll("[data-stage]")) {
    const on = item.dataset.stage === stages[state.stage].name;
    item.classList.toggle("chosen", on);
    item.setAttribute("aria-selected", on);
    item.tabIndex = on ? 0 : -1;
    if (on && inside) item.focus();
    if (on) item.scrollIntoView({ block: "nearest" });
  }
}
