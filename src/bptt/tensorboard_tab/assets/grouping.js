// Rows and columns of panels: layers, and the values of one hyperparameter.

import { Panels } from "./chart.js";
import { shortName, sweptValues, valueText } from "./runs.js";

const MAX_COLUMNS = 6;

// Numbers of the chosen layers for which a run has a tag layerN/…/KIND.
export function layersOf(runs, state, kind) {
  const found = new Set();
  for (const run of runs) {
    for (const tag of Object.keys(run.tags)) {
      const [layer, ...rest] = tag.split("/");
      if (rest.at(-1) === kind && (kind === "jacobian" || rest[0] === state.tensor)) found.add(Number(layer.replace("layer", "")));
    }
  }
  const chosen = state.layers ? new Set(state.layers) : null;
  return [...found].filter((layer) => !chosen || chosen.has(layer)).sort((left, right) => left - right);
}

// {run, tag, newest step} of every chosen run and layer.
export function flowTags(runs, state, kind) {
  const tags = layersOf(runs, state, kind).map((layer) => flowTag(layer, state, kind));
  return runs.flatMap((run) =>
    tags.filter((tag) => tag in run.tags).map((tag) => ({ run: run.name, tag, newest: run.tags[tag] })),
  );
}

export function flowTag(layer, state, kind) {
  return `layer${layer}/${state.tensor}/${kind}`;
}

// Groups of runs for the small multiples: one for each value of the hyperparameter `split`, or a single one.
export function groups(runs, all, state) {
  const values = state.split ? sweptValues(all).get(state.split) : null;
  if (!values) return [{ title: "", runs }];
  return values
    .map((value) => ({
      title: `${shortName(state.split)} = ${valueText(value)}`,
      runs: runs.filter((run) => (run.hparams[state.split] ?? null) === value),
    }))
    .filter((group) => group.runs.length);
}

// Panels of `rows` quantities for each group: a column of `rows` panels each, at most MAX_COLUMNS of them side by side.
// at: row and column of a group's panel.
export function grid(groups, rows) {
  const blocks = Math.ceil(groups.length / MAX_COLUMNS);
  const columns = Math.ceil(groups.length / blocks);
  const at = (row, index) => [Math.floor(index / columns) * rows + row, index % columns];
  return { panels: new Panels(blocks * rows, columns), at };
}

export function panelTitle(group, layer, layers) {
  const parts = [group.title, layers.length > 1 ? `layer ${layer}` : ""];
  return parts.filter(Boolean).join(" · ");
}

// True if bands are drawn: with many runs, bands would hide each other.
export function bandsFit(runs, state) {
  return state.band && runs.length <= 8;
}
