// Elements, made in one call.

// An HTML element: attributes, listeners under `on...`, children (elements or text).
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// The same for SVG.
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

const tip = byId("tip");

// Shows `lines()` beside the pointer while it is over an element.
export function hint(node, lines) {
  node.addEventListener("pointermove", (event) => {
    const [head, ...rest] = lines();
    tip.replaceChildren(el("b", {}, head), ...rest.map((line) => el("div", {}, line)));
    tip.hidden = false;
    const { offsetWidth: w, offsetHeight: h } = tip;
    const x = event.clientX + 14 + w > innerWidth ? event.clientX - w - 10 : event.clientX + 14;
    const y = event.clientY + 16 + h > innerHeight ? event.clientY - h - 10 : event.clientY + 16;
    tip.style.translate = `${Math.max(4, x)}px ${Math.max(4, y)}px`;
  });
  node.addEventListener("pointerleave", hideHint);
  return node;
}

export function hideHint() {
  tip.hidden = true;
}

const canvas = document.createElement("canvas").getContext("2d");

// The width in pixels of a text in a CSS font.
export function textWidth(text, font) {
  canvas.font = font;
  return canvas.measureText(text).width;
}
