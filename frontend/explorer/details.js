// The panel on the right: the chosen node, from its layer to its loop; else a layer; else the model.

import { byId, el } from "explorer/dom";
import { kindOf, total } from "explorer/nodes";
import {
  choose,
  data,
  nodeOfStep,
  last,
  stages,
  state,
  steps,
  stepsOf,
  timeOf,
  traced,
} from "explorer/store";
import { bytes, count, many, percent, short, time } from "explorer/units";

const panel = byId("details");
const STATES = { new: "made it", changed: "changed it", kept: "left it as it was" };

export function drawDetails() {
  panel.replaceChildren(
    ...(state.node !== null ? ofNode() : state.layer !== null ? ofLayer() : ofModel()),
  );
  panel.scrollTop = 0;
}

function ofNode() {
  const told = stages[state.stage].nodes[state.node];
  const layer = data.layers.find((l) => l.name === told.band);
  return [
    el("h2", { class: `title ${kindOf(told)}` }, el("code", {}, `%${told.name}`), ` ${told.op}`),
    facts([
      ...(told.label.length > 1 ? [["does", told.label.join(" · ")]] : []),
      ["type", el("code", {}, told.type)],
      ["bytes", `${bytes(told.bytes)} for the batch`],
      [
        "layer",
        layer
          ? link(`${layer.name}(${layer.arguments})`, { layer: layer.name })
          : told.band || "an input",
      ],
      ["part", told.part || "given"],
      ...(state.stage ? [["pass", `${stages[state.stage].name} ${STATES[told.state]}`]] : []),
      ...(told.of.length ? [["gradient of", nodeLinks(state.stage - 1, told.of)]] : []),
      ...(told.tile ? [["loop", `with others, ${told.tile} rows at a time`]] : []),
      ...(told.out.length ? [["output", told.out.join(", ")]] : []),
    ]),
    ...(told.lines[1]
      ? [el("h3", {}, "IR"), text(irOf(told), told.lines[1] > 1 ? "ir block" : "ir")]
      : []),
    ...runs(told),
    el("h3", {}, "Through the passes"),
    history(),
  ];
}

function irOf(told) {
  const [first, many] = told.lines;
  const lines = stages[state.stage].lines.slice(first, first + many);
  const indent = lines[0].match(/^ */)[0].length;
  return lines.map((line) => line.slice(indent)).join("\n");
}

function runs(told) {
  if (told.op === "input") return [];
  if (!told.steps.length) return [el("h3", {}, "Runs as"), el("p", {}, whyNoStep(told))];
  return told.steps.slice(0, 6).flatMap((t) => stepParts(steps.get(t)));
}

function whyNoStep(told) {
  if (["reshape", "item"].includes(told.op)) return "Nothing: it is another name for a value.";
  if (state.stage === last) return "Nothing of its own.";
  return "Nothing: a later pass made it superfluous, or took it into others.";
}

function stepParts(step) {
  const node = stages[last].nodes[nodeOfStep(step.time)];
  const label = node.label.join(" · ");
  const parts = [
    el("h3", {}, `Runs as step ${step.time}`),
    facts([
      ["step", link(`${step.op}: ${label}`, { stage: last, node: nodeOfStep(step.time) })],
      ...(step.form ? [["form", step.form]] : []),
      ...(step.ms
        ? [["time", meter(step.ms / total, `${time(step.ms)}, ${percent(step.ms / total)}`)]]
        : []),
      ...(step.flops
        ? [
            [
              "work",
              `${count(step.flops)}FLOP${step.gflops ? `, ${short(step.gflops)} GFLOP/s` : ""}`,
            ],
          ]
        : []),
      ["traffic", `${bytes(step.nbytes)}${step.gbps ? `, ${short(step.gbps)} GB/s` : ""}`],
      ...(step.bound
        ? [
            [
              "bound by",
              `${step.bound}${step.fraction ? `, ${percent(step.fraction)} of its limit` : ""}`,
            ],
          ]
        : []),
      ...places(step.time),
    ]),
  ];
  if (step.loop) parts.push(text(step.loop, "loop"));
  return [...parts, ...notFused(step.time)];
}

// Why a step was not fused with those that it reads from and that read from it.
function notFused(t) {
  const rows = data.apart.flatMap(({ producer, consumer, reason }) => {
    const other = producer.includes(t) ? consumer : consumer.includes(t) ? producer : [];
    return other
      .filter((o) => o !== t && steps.has(o))
      .slice(0, 1)
      .map((o) =>
        el(
          "li",
          {},
          link(`step ${o} ${stages[last].nodes[nodeOfStep(o)].label.join(" · ")}`, {
            stage: last,
            node: nodeOfStep(o),
          }),
          `: ${reason}`,
        ),
      );
  });
  return rows.length ? [el("h3", {}, "Not fused with"), el("ul", { class: "apart" }, ...rows)] : [];
}

function places(t) {
  const found = data.memory.buffers.filter((b) => b.writers.includes(t));
  return found.map((b) => [
    "place",
    link(
      `${b.kind === "own" ? "own " : ""}@${b.offset.toLocaleString("en")}, ${bytes(b.room)}, steps ${b.start}–${b.end}`,
      { view: "memory" },
    ),
  ]);
}

function history() {
  const list = el("ol", { class: "history" });
  stages.forEach((stage, s) => {
    const ids = traced(state.stage, [state.node], s);
    const here = s === state.stage;
    list.append(
      el(
        "li",
        { class: here ? "here" : "" },
        el("span", {}, stage.name),
        ids.length ? nodeLinks(s, ids) : el("i", {}, "–"),
      ),
    );
  });
  return list;
}

function nodeLinks(stage, ids, most = 4) {
  const links = ids.slice(0, most).map((id) => {
    const told = stages[stage].nodes[id];
    return link(`%${told.name} ${told.op}`, { stage, node: id }, told.state);
  });
  const rest = ids.length > most ? [el("span", {}, `and ${ids.length - most} more`)] : [];
  return el("span", { class: "links" }, ...links, ...rest);
}

function ofLayer() {
  const layer = data.layers.find((l) => l.name === state.layer);
  const [own, ms] = [stepsOf(layer.name), timeOf(layer.name)];
  return [
    el("h2", { class: "title" }, layer.name),
    facts([
      ["written", el("code", {}, `${layer.name.replace(/^\d+\./, "")}(${layer.arguments})`)],
      ...(layer.output ? [["output", el("code", {}, layer.output)]] : []),
      ...(layer.parameters ? [["parameters", layer.parameters.toLocaleString("en")]] : []),
      ...(layer.flops ? [["work", `${count(layer.flops)}FLOP a row, forward`]] : []),
      ["time", meter(ms / total, `${time(ms)}, ${percent(ms / total)}`)],
    ]),
    el("h3", {}, `${many(own.length, "step")} of the plan`),
    own.length ? stepList(own) : el("p", {}, "None of its own: other layers' steps do its work."),
  ];
}

function stepList(list) {
  const rows = list.map((s) => {
    const id = nodeOfStep(s.time);
    const told = stages[last].nodes[id];
    return el(
      "tr",
      {},
      el("td", {}, link(`${s.time} ${told.label.join(" · ")}`, { stage: last, node: id })),
      el("td", {}, told.part),
      el("td", { class: "number" }, time(s.ms)),
    );
  });
  return el("table", {}, ...rows);
}

function ofModel() {
  const rows = data.layers.slice(0, -1).map((layer) => {
    const share = total ? timeOf(layer.name) / total : 0;
    return el(
      "tr",
      {},
      el(
        "td",
        {},
        link(layer.name, { layer: layer.name }),
        el("div", { class: "faint" }, layer.arguments),
      ),
      el("td", {}, el("code", {}, layer.output?.replace("[N,", "[") ?? "")),
      el("td", { class: "number" }, layer.parameters ? layer.parameters.toLocaleString("en") : ""),
      el("td", { class: "number share", style: `--share:${share}` }, share ? percent(share) : ""),
    );
  });
  const sums = data.layers.at(-1);
  return [
    el("h2", { class: "title" }, "The model"),
    facts([
      ["parameters", sums.parameters.toLocaleString("en")],
      ["work", `${count(sums.flops)}FLOP a row, forward`],
      [
        "a step",
        data.step_ms
          ? `${time(data.step_ms)}: ${many(data.steps.length, "step")} of the plan`
          : many(data.steps.length, "step"),
      ],
      [
        "arena",
        link(`${bytes(data.memory.arena)}, lower bound ${bytes(data.memory.bound)}`, {
          view: "memory",
        }),
      ],
    ]),
    el(
      "table",
      { class: "layers" },
      el(
        "thead",
        {},
        el("tr", {}, ...["layer", "output", "params", "time"].map((h) => el("th", {}, h))),
      ),
      el("tbody", {}, ...rows),
    ),
    el("p", { class: "faint" }, "Choose a stage on the left, a node or a layer in the graph."),
  ];
}

function facts(pairs) {
  return el("dl", {}, ...pairs.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]));
}

function meter(share, label) {
  return el(
    "span",
    { class: "meter" },
    el("i", { style: `--share:${Math.min(1, share || 0)}` }),
    label,
  );
}

function text(content, kind) {
  return el(
    "pre",
    { class: kind, tabindex: 0, "aria-label": kind === "loop" ? "Generated loop" : "IR text" },
    content,
  );
}

function link(label, wanted, kind = "") {
  return el(
    "button",
    { type: "button", class: `link ${kind}`, onclick: () => choose(wanted) },
    label,
  );
}
