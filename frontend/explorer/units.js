// Numbers as people read them.

// Milliseconds, as µs or ns where that reads better.
export function time(ms) {
  if (!ms) return "0 ms";
  if (ms < 1e-3) return `${short(ms * 1e6)} ns`;
  return ms < 1 ? `${short(ms * 1e3)} µs` : `${short(ms)} ms`;
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${i ? short(n) : n} ${units[i]}`;
}

// A big number with the prefix of the unit that follows: "2.44 M", "24 ".
export function count(n) {
  const units = [" ", " k", " M", " G", " T"];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return `${i ? short(n) : n}${units[i]}`;
}

export function percent(share) {
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;
}

// Three digits.
export function short(x) {
  return x >= 100 ? x.toFixed(0) : x.toPrecision(x >= 1 ? 3 : 2).replace(/\.?0+$/, "");
}

// The number and plural of a word.
export function many(n, word) {
  return `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
}
