// By timestep: how much gradient arrives at every timestep of the update, with the borders at which it is cut.

import { Panels, faded, logAxis, theme } from "./chart.js";
import { Lines, band } from "./curves.js";
import { bandsFit, flowTag, flowTags, groups, layersOf, panelTitle } from "./grouping.js";
import { decades } from "./measures.js";
import { colours, runLabels } from "./runs.js";

const KIND = "by_timestep";
const MAX_BORDERS = 150; // per panel; more are drawn as a grey area

export const timestep = {
  title: "By timestep",
  hasSlider: true,
  hasLayers: true,
  hasTensor: true,
  hasSplit: true,
  hasEpsilon: false,
  toggles: [["band", "Band from 5 to 95 % of sequences"]],
  empty: "No gradient flow in these runs. Train with callbacks=default.",
  tags: (runs, state) => flowTags(runs, state, KIND),
  figure,
};

function figure({ runs, all, state, source }) {
  const layers = layersOf(runs, state, KIND);
  const columns = groups(runs, all, state);
  const panels = new Panels(layers.length, columns.length);
  const colour = colours(all, state);
  const labels = runLabels(all);
  const bands = bandsFit(runs, state);
  const rows = [];
  const behind = [];
  const lines = [];
  const everything = layers.flatMap((layer) => runs.map((run) => source.known(run.name, flowTag(layer, state, KIND)))).filter(Boolean);
  const range = decades(Math.min(...everything.map((each) => each.bottom)), Math.max(...everything.map((each) => each.top)));
  layers.forEach((layer, row) => {
    columns.forEach((group, column) => {
      const place = panels.add(row, column, {
        title: panelTitle(group, layer, layers),
        x: { title: "timestep t of the batch" },
        y: { ...logAxis(range), title: `‖dL/d${state.tensor}ₜ‖` },
      });
      const at = { xaxis: place.xaxis, yaxis: place.yaxis };
      const drawn = new Lines(at, group.runs.length, "t = %{x}: %{y:.3g}");
      const borders = new Map(); // timestep -> colours of the runs that are cut there
      for (const run of group.runs) {
        const look = source.look(run.name, flowTag(layer, state, KIND), state.step);
        if (!look) continue;
        const label = labels.get(run.name);
        const shade = colour.get(run.name);
        const { median, low, high } = look.columns;
        if (bands) behind.push(band(at, look.places, low, high, shade));
        drawn.add(look.places, median, shade, label);
        for (const border of look.facts.borders ?? []) borders.set(border, [...(borders.get(border) ?? []), shade]);
        rows.push({ run, layer, look });
      }
      lines.push(...drawn.traces());
      panels.layout.shapes.push(...borderLines(place, borders));
    });
  });
  return {
    key: "timestep",
    data: [...behind, ...lines],
    layout: panels.layout,
    panelRows: layers.length,
    note:
      "Gradient of the whole loss at every timestep of one update, per sequence; median over sequences. " +
      "┊ chunk borders: no gradient passes from right to left.",
    table: () => table(rows),
  };
}

function table(rows) {
  const header = ["run", "layer", "timesteps_trained", "update", "timestep", "median", "low", "high", "border"];
  const points = rows.flatMap(({ run, layer, look }) => {
    const { median, low, high } = look.columns;
    const borders = new Set(look.facts.borders ?? []);
    return look.places.map((place, index) =>
      [run.name, layer, look.step, look.facts.update, place, median[index], low[index], high[index], borders.has(place) ? 1 : 0]);
  });
  return { header, rows: points };
}

// One line per border, in the run's colour, or grey if several runs share the border.
function borderLines({ number }, borders) {
  return [...borders].slice(-MAX_BORDERS).map(([border, shades]) => ({
    type: "line",
    xref: `x${number}`,
    yref: `y${number} domain`,
    x0: border - 0.5,
    x1: border - 0.5,
    y0: 0,
    y1: 1,
    layer: "below",
    line: { width: 1.2, dash: "dot", color: new Set(shades).size === 1 ? faded(shades[0], 0.8) : theme().faint },
  }));
}
