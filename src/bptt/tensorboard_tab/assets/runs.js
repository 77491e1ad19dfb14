// Selection, labels and colours of runs.

const LIGHT = ["#2f6fde", "#e0620d", "#1b9156", "#cf3030", "#8250df", "#0b8a99", "#bf2f8a", "#8a6914", "#566573", "#5d960b"];
const DARK = ["#6ea8fe", "#ff9f5a", "#4fd08c", "#ff7b72", "#b794ff", "#4fd3e0", "#ff85cf", "#dbb956", "#a9b7c6", "#a5d653"];
const SCALE_LIGHT = ["#440154", "#414487", "#2a788e", "#22a884", "#5ebd4f", "#b5ae0a"];
const SCALE_DARK = ["#8f6fd6", "#6f8be0", "#45a7bd", "#3fcf9e", "#96dc5a", "#fde725"];
const MAX_VALUES = 24; // hyperparameters with more values are ignored: they differ in every run, such as a seed

export function matcher(filter) {
  try {
    return { test: filter ? new RegExp(filter) : /^/, error: "" };
  } catch (error) {
    return { test: /^/, error: error.message };
  }
}

export function chosenRuns(runs, state) {
  const { test } = matcher(state.filter);
  const hidden = new Set(state.hidden);
  return runs.filter(
    (run) =>
      test.test(run.name) &&
      !hidden.has(run.name) &&
      Object.entries(state.where).every(([name, values]) => !values.includes(run.hparams[name] ?? null)),
  );
}

// Hyperparameters that differ between runs, with their values in order.
export function sweptValues(runs) {
  const names = new Set(runs.flatMap((run) => Object.keys(run.hparams)));
  const swept = new Map();
  for (const name of [...names].sort()) {
    const values = [...new Set(runs.map((run) => run.hparams[name] ?? null))].sort(inOrder);
    if (values.length > 1 && values.length <= MAX_VALUES) swept.set(name, values);
  }
  return swept;
}

function inOrder(left, right) {
  if (typeof left === "number" && typeof right === "number") return left - right;
  return String(left) < String(right) ? -1 : 1;
}

export function shortName(name) {
  return name.split(".").at(-1);
}

export function valueText(value) {
  return value === null ? "none" : String(value);
}

// The hyperparameter that determines colours, or "" for one colour per run. If none is chosen and there are more runs
// than colours, the first swept hyperparameter with words as values, or else with numbers.
export function colourBy(all, state) {
  const swept = sweptValues(all);
  if (state.colour !== null) return swept.has(state.colour) ? state.colour : "";
  if (all.length <= LIGHT.length || !swept.size) return "";
  const words = [...swept].find(([, values]) => values.some((value) => typeof value === "string"));
  return words ? words[0] : [...swept.keys()][0];
}

// Colour of every run by name.
export function colours(all, state) {
  const dark = document.documentElement.classList.contains("dark");
  const palette = dark ? DARK : LIGHT;
  const by = colourBy(all, state);
  const values = by ? sweptValues(all).get(by) : null;
  if (!values) return new Map(all.map((run, index) => [run.name, palette[index % palette.length]]));
  const numeric = values.every((value) => typeof value === "number" || value === null);
  const scale = dark ? SCALE_DARK : SCALE_LIGHT;
  const pick = (index) =>
    numeric ? scale[Math.round((index * (scale.length - 1)) / Math.max(1, values.length - 1))] : palette[index % palette.length];
  return new Map(all.map((run) => [run.name, pick(values.indexOf(run.hparams[by] ?? null))]));
}

// Label of a run: the hyperparameters in which it differs from the others, or its name if that is shorter.
export function runLabels(all) {
  const swept = [...sweptValues(all).keys()];
  const label = (run) => {
    const values = swept.map((name) => `${shortName(name)}=${valueText(run.hparams[name] ?? null)}`).join(" ");
    return values && values.length < run.name.length ? values : run.name;
  };
  const labels = new Map(all.map((run) => [run.name, label(run)]));
  const unique = new Set(labels.values()).size === labels.size;
  return unique ? labels : new Map(all.map((run) => [run.name, run.name]));
}
