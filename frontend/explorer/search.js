// Finding nodes of the chosen stage by name, op, type or layer.

import { byId, el } from "explorer/dom";
import { choose, stages, state } from "explorer/store";

const MOST = 12;
const query = byId("query");
const hits = byId("hits");
let at = 0;

query.addEventListener("input", () => {
  at = 0;
  show();
});
query.addEventListener("focus", show);
query.addEventListener("blur", () => setTimeout(hide, 150));
query.addEventListener("keydown", (event) => {
  const found = find(query.value);
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    at = (at + (event.key === "ArrowDown" ? 1 : found.length - 1)) % Math.max(1, found.length);
    show();
  } else if (event.key === "Enter" && found.length) {
    take(found[at]);
  } else if (event.key === "Escape") {
    query.value = "";
    hide();
    byId("graph").focus();
  } else return;
  event.preventDefault();
  event.stopPropagation();
});

function find(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  return stages[state.stage].nodes
    .flatMap((n, id) => {
      const about =
        `%${n.name} ${n.op} ${n.label.join(" ")} ${n.type} ${n.band} ${n.part} ${n.out.join(" ")}`.toLowerCase();
      return words.every((word) => about.includes(word)) ? [id] : [];
    })
    .slice(0, MOST);
}

function show() {
  const found = find(query.value);
  hits.replaceChildren(
    ...found.map((id, i) => {
      const n = stages[state.stage].nodes[id];
      return el(
        "li",
        { role: "option", "aria-selected": i === at, onpointerdown: () => take(id) },
        el("b", {}, `%${n.name} ${n.label.join(" · ") || n.op}`),
        el("span", {}, `${n.band} ${n.part} ${n.type}`),
      );
    }),
  );
  if (query.value && !found.length)
    hits.append(el("li", { class: "faint" }, "nothing in this stage"));
  hits.hidden = !query.value;
  query.setAttribute("aria-expanded", !hits.hidden);
}

function take(id) {
  choose({ node: id });
  query.value = "";
  hide();
  byId("graph").focus();
}

function hide() {
  hits.hidden = true;
  query.setAttribute("aria-expanded", "false");
}
