// What the page shows: the data, and which stage, node or layer, and view are chosen.
// The choice is kept in the address: #stage=fuse&node=12&view=diff.

export const data = JSON.parse(document.getElementById("data").textContent);
export const stages = data.stages;
export const steps = new Map(data.steps.map((step) => [step.time, step]));
export const VIEWS = ["changes", "text", "memory", "roofline", "steps"];

export const state = { stage: 0, node: null, layer: null, view: "changes" };
const listeners = [];

// Calls `listener(changed keys)` whenever something else is chosen.
export function subscribe(listener) {
  listeners.push(listener);
}

// Chooses; a node and a layer exclude each other. What was chosen already changes nothing.
export function choose(wanted) {
  const next = { ...state, ...wanted };
  if (wanted.stage !== undefined && wanted.node === undefined && state.node !== null) {
    next.node = followed(state.stage, state.node, wanted.stage);
  }
  if (wanted.node != null) next.layer = null;
  if (wanted.layer != null) next.node = null;
  const changed = Object.keys(next).filter((key) => next[key] !== state[key]);
  if (!changed.length) return;
  Object.assign(state, next);
  history.replaceState(null, "", address());
  listeners.forEach((listener) => listener(changed));
}

function address() {
  const parts = new URLSearchParams({ stage: stages[state.stage].name });
  if (state.node !== null) parts.set("node", stages[state.stage].nodes[state.node].name);
  if (state.layer !== null) parts.set("layer", state.layer);
  if (state.view !== VIEWS[0]) parts.set("view", state.view);
  return `#${parts}`;
}

// What an address asks for; what it names and is not there is left out.
export function fromAddress(hash) {
  const parts = new URLSearchParams(hash.slice(1));
  const stage = Math.max(
    0,
    stages.findIndex((s) => s.name === parts.get("stage")),
  );
  const node = stages[stage].nodes.findIndex((n) => n.name === parts.get("node"));
  const known = data.layers.some((layer) => layer.name === parts.get("layer"));
  return {
    stage,
    node: node < 0 ? null : node,
    layer: known ? parts.get("layer") : null,
    view: VIEWS.includes(parts.get("view")) ? parts.get("view") : VIEWS[0],
  };
}

const children = new Map();

// The nodes of the next stage that were made from node `id` of a stage.
export function becomes(stage, id) {
  if (!children.has(stage)) {
    const made = stages[stage].nodes.map(() => []);
    stages[stage + 1]?.nodes.forEach((n, i) => n.from.forEach((x) => made[x].push(i)));
    children.set(stage, made);
  }
  return children.get(stage)[id];
}

// What nodes of one stage are in another, earlier or later.
export function traced(from, ids, to) {
  let found = new Set(ids);
  for (let s = from; s < to; s++) found = union(found, (id) => becomes(s, id));
  for (let s = from; s > to; s--) found = union(found, (id) => stages[s].nodes[id].from);
  return [...found];
}

function union(ids, next) {
  return new Set([...ids].flatMap(next));
}

// The one node that a chosen node is followed to: of the same op if there is one.
function followed(from, id, to) {
  const found = traced(from, [id], to);
  const op = stages[from].nodes[id].op;
  return found.find((i) => stages[to].nodes[i].op === op) ?? found[0] ?? null;
}

export const last = stages.length - 1;
const byStep = new Map();
stages[last].nodes.forEach((n, i) => n.steps.forEach((time) => byStep.set(time, i)));

// The node of the last stage that a step of the plan runs.
export function nodeOfStep(time) {
  return byStep.get(time);
}

// The milliseconds of a layer's steps.
export function timeOf(layer) {
  return stepsOf(layer).reduce((ms, step) => ms + (step.ms ?? 0), 0);
}

// The steps of the plan that belong to a layer.
export function stepsOf(layer) {
  return data.steps.filter((step) => stages[last].nodes[byStep.get(step.time)].band === layer);
}

// Chooses the node of a step, in the stage shown if it can be traced there, else in the last.
export function chooseStep(time) {
  const found = traced(last, [byStep.get(time)], state.stage);
  if (found.length) choose({ node: found[0] });
  else choose({ stage: last, node: byStep.get(time) });
}

// The steps that what is chosen becomes.
export function chosenSteps() {
  const { nodes } = stages[state.stage];
  if (state.node !== null) return nodes[state.node].steps;
  if (state.layer === null) return [];
  return stepsOf(state.layer).map((step) => step.time);
}
