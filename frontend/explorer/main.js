// Puts the page together, and draws again what a new choice changes.

import { drawDetails } from "explorer/details";
import { changesView, textView } from "explorer/diff";
import { byId, el } from "explorer/dom";
import { drawGraph, markGraph, rescale, toggleFold } from "explorer/graph";
import "explorer/keys";
import { memoryView } from "explorer/memory";
import { rooflineView } from "explorer/roofline";
import "explorer/search";
import { countMarks, drawStages, markStages } from "explorer/stages";
import { stepsView } from "explorer/steps";
import { choose, data, fromAddress, stages, state, subscribe, VIEWS } from "explorer/store";
import { many } from "explorer/units";

const DRAW = {
  changes: changesView,
  text: textView,
  memory: memoryView,
  roofline: rooflineView,
  steps: stepsView,
};
const LEGEND = ["product", "window", "pointwise", "move", "random"];
const LEGEND_NAMES = {
  window: "pool or sum",
  pointwise: "pointwise",
  move: "moves data",
  random: "makes values",
};

function drawHead() {
  byId("title").textContent = data.title;
  byId("facts").textContent = Object.entries(data.facts)
    .map(([key, value]) => `${key} ${value}`)
    .join(" · ");
  byId("legend").append(
    el("h2", {}, "Colours"),
    ...LEGEND.map((kind) => el("div", { class: `swatch ${kind}` }, LEGEND_NAMES[kind] ?? kind)),
    el("div", { class: "swatch mark new" }, "made by pass"),
    el("div", { class: "swatch mark changed" }, "changed by it"),
    el("div", { class: "swatch bar" }, "share of the time"),
  );
  byId("tabs").append(
    ...VIEWS.map((view) =>
      el(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${view}`,
          "aria-controls": "view",
          onclick: () => choose({ view }),
        },
        view,
      ),
    ),
  );
  byId("fold").addEventListener("click", toggleFold);
  byId("dim").addEventListener("click", () =>
    byId("dim").setAttribute("aria-pressed", byId("graph").classList.toggle("dim")),
  );
  byId("smaller").addEventListener("click", () => rescale(1 / 1.2));
  byId("larger").addEventListener("click", () => rescale(1.2));
  byId("fit").addEventListener("click", () => rescale());
  byId("tall").addEventListener("click", () => {
    byId("tall").setAttribute("aria-pressed", document.body.classList.toggle("tall"));
    drawView();
  });
}

function drawPass() {
  const stage = stages[state.stage];
  const nodes = stage.nodes.filter((n) => n.op !== "input").length;
  byId("pass").textContent = stage.name;
  byId("counts").replaceChildren(
    many(nodes, "node"),
    " ",
    ...(state.stage ? countMarks(stage) : []),
  );
}

function drawView() {
  for (const tab of byId("tabs").children) {
    const on = tab.id === `tab-${state.view}`;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
  }
  const view = byId("view");
  view.setAttribute("aria-labelledby", `tab-${state.view}`);
  view.replaceChildren(...DRAW[state.view](view));
  const chosen = view.querySelector("div.chosen, tr.chosen");
  view.scrollTo(0, chosen ? chosen.offsetTop - view.clientHeight / 2 : 0);
}

function draw(changed) {
  const stage = changed.includes("stage");
  if (stage) {
    markStages();
    drawPass();
    drawGraph();
  } else markGraph();
  if (stage || changed.includes("node") || changed.includes("layer")) drawDetails();
  drawView();
}

Object.assign(state, fromAddress(location.hash));
drawHead();
drawStages();
draw(["stage"]);
subscribe(draw);
addEventListener("hashchange", () => choose(fromAddress(location.hash)));
addEventListener("resize", () => {
  rescale();
  drawView();
});
document.body.dataset.ready = Math.round(performance.now());
