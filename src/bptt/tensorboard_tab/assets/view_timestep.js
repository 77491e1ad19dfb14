// By timestep: how much gradient arrives at every timestep of the update, with the borders at which it is cut.

import { faded, logAxis, theme } from "./chart.js";
import { Lines, band } from "./curves.js";
import { bandsFit, flowTag, flowTags, grid, groups, layersOf, panelTitle } from "./grouping.js";
import { decades } from "./measures.js";
import { colours, runLabels } from "./runs.js";

const KIND = "by_timestep";

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
  const { panels, at: placeAt } = grid(columns, layers.length);
  const colour = colours(all, state);
  const labels = runLabels(all);
  const bands = bandsFit(runs, state);
  const rows = [];
  const behind = [];
  const lines = [];
  const everything = layers.flatMap((layer) => runs.map((run) => source.known(run.name, flowTag(layer, state, KIND)))).filter(Boolean);
  const ranges = everything.map((series) => (bands ? series.band : series.line));
  const range = decades(Math.min(...ranges.map((each) => each.bottom)), Math.max(...ranges.map((each) => each.top)));
  layers.forEach((layer, row) => {
    columns.forEach((group, column) => {
      const place = panels.add(...placeAt(row, column), {
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
    panelRows: panels.rows,
    note:
      "Gradient of the whole loss at every timestep of one update, per sequence; median over sequences. " +
      "┊ chunk borders: no gradient passes from right to left.",
    table: () => table(rows),
  };
}

// A border between the points of a thinned curve has a row without a value.
function table(rows) {
  const header = ["run", "layer", "timesteps_trained", "update", "timestep", "median", "low", "high", "border"];
  const points = rows.flatMap(({ run, layer, look }) => {
    const borders = new Set(look.facts.borders ?? []);
    const places = [...new Set([...look.places, ...borders])].sort((left, right) => left - right);
    const index = new Map(look.places.map((place, each) => [place, each]));
    const values = (place) => ["median", "low", "high"].map((name) => look.columns[name][index.get(place)]);
    return places.map((place) =>
      [run.name, layer, look.step, look.facts.update, place, ...values(place), borders.has(place) ? 1 : 0]);
  });
  return { header, rows: points };
}

// Lines at the borders, in the run's colour, or grey if several runs share the border. All lines of a colour are one
// shape: plotly is much faster with few shapes.
function borderLines({ number }, borders) {
  const paths = new Map(); // colour -> lines
  for (const [border, shades] of borders) {
    const colour = new Set(shades).size === 1 ? faded(shades[0], 0.8) : theme().faint;
    paths.set(colour, `${paths.get(colour) ?? ""}M${border - 0.5},0V1`);
  }
  return [...paths].map(([color, path]) => ({
    type: "path",
    path,
    xref: `x${number}`,
    yref: `y${number} domain`,
    layer: "below",
    line: { width: 1.2, dash: "dot", color },
  }));
}
