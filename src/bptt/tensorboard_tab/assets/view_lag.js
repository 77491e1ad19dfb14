// By lag: how much gradient of a single loss arrives k timesteps before it.

import { faded, logAxis, theme } from "./chart.js";
import { Lines, Marks, Ticks, band } from "./curves.js";
import { bandsFit, flowTag, flowTags, grid, groups, layersOf, panelTitle } from "./grouping.js";
import { decades, horizonOf, signOf, valueAt } from "./measures.js";
import { colours, runLabels } from "./runs.js";

const KIND = "by_lag";

export const lag = {
  title: "By lag",
  hasSlider: true,
  hasLayers: true,
  hasTensor: true,
  hasSplit: true,
  hasEpsilon: true,
  toggles: [
    ["relative", "Relative to the peak"],
    ["logLag", "Logarithmic lag"],
    ["band", "Band from 5 to 95 % of sequences"],
  ],
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
  const traces = { bands: [], lines: [], marks: [] };
  const rows = [];
  const everything = layers.flatMap((layer) => runs.map((run) => source.known(run.name, flowTag(layer, state, KIND)))).filter(Boolean);
  const axis = axes(everything, state, bands ? "band" : "line");
  layers.forEach((layer, row) => {
    columns.forEach((group, column) => {
      const place = panels.add(...placeAt(row, column), { title: panelTitle(group, layer, layers), ...axis });
      const at = { xaxis: place.xaxis, yaxis: place.yaxis };
      const lines = new Lines(at, group.runs.length, "lag %{x}: %{y:.3g}");
      const horizons = new Marks(at, "diamond", { size: 10, hover: "horizon: lag %{customdata}%{x}" });
      const cuts = new Ticks(at, axis.y.range, "gradient cut beyond lag %{x}");
      for (const run of group.runs) {
        const look = source.look(run.name, flowTag(layer, state, KIND), state.step);
        if (!look) continue;
        const label = labels.get(run.name);
        const shade = colour.get(run.name);
        const factor = state.relative ? 1 / look.reference : 1;
        const scaled = (name) => look.columns[name].map((value) => (value === null ? null : value * factor));
        const median = scaled("median");
        if (bands) traces.bands.push(band(at, look.places, scaled("low"), scaled("high"), shade));
        lines.add(look.places, median, shade, label);
        const reach = horizonOf(look, state.epsilon);
        if (reach.lag !== null) {
          const height = valueAt(look.places, median, reach.lag);
          horizons.add(reach.lag, height, shade, label, signOf(reach));
          if (bands && reach.low !== null) traces.marks.push(interval(at, reach, height, shade));
        }
        if (look.facts.cut) cuts.add(look.places.at(-1), median.at(-1), shade);
        rows.push({ run, layer, look, reach, epsilon: state.epsilon ?? look.facts.epsilon });
      }
      traces.lines.push(...lines.traces());
      traces.marks.push(...cuts.traces(), horizons.trace);
      const epsilon = state.epsilon ?? commonEpsilon(group.runs, layer, state, source);
      if (state.relative && epsilon) panels.layout.shapes.push(threshold(place, epsilon));
    });
  });
  return {
    key: `lag ${state.relative} ${state.logLag}`,
    data: [...traces.bands, ...traces.lines, ...traces.marks],
    layout: panels.layout,
    panelRows: panels.rows,
    note:
      "Gradient of one loss alone at the state k timesteps earlier; median over losses and sequences. " +
      "◆ horizon: the largest lag that still gets ε of the peak. ┃ the gradient is cut here." +
      (rows.every(({ reach }) => reach.exact) ? "" : " ≈ horizons at this ε are interpolated between the points of the curve."),
    table: () => table(rows),
  };
}

// part: "band" or "line", whichever the axes must show in full.
function axes(everything, state, part) {
  const end = Math.max(1, ...everything.map((series) => series.end));
  const tops = everything.map((series) => (state.relative ? series[part].relativeTop : series[part].top));
  const bottoms = everything.map((series) => (state.relative ? series[part].relativeBottom : series[part].bottom));
  const range = decades(Math.min(...bottoms), Math.max(...tops));
  const x = state.logLag
    ? { type: "log", range: [-0.05, Math.log10(end + 1) + 0.02] }
    : { range: [-0.015 * end, 1.015 * end] };
  return {
    x: { ...x, title: "lag k (timesteps)" },
    y: { ...logAxis(range), title: state.relative ? `‖∂L/∂${state.tensor}ₛ₋ₖ‖ / peak` : `‖∂L/∂${state.tensor}ₛ₋ₖ‖` },
  };
}

function commonEpsilon(runs, layer, state, source) {
  const found = new Set(runs.map((run) => source.look(run.name, flowTag(layer, state, KIND), state.step)?.facts.epsilon).filter(Boolean));
  return found.size === 1 ? [...found][0] : null;
}

function threshold({ number }, epsilon) {
  return {
    type: "line",
    xref: `x${number} domain`,
    yref: `y${number}`,
    x0: 0,
    x1: 1,
    y0: epsilon,
    y1: epsilon,
    line: { color: theme().faint, width: 1, dash: "dot" },
  };
}

function interval(at, reach, height, colour) {
  return {
    type: "scatter",
    mode: "lines",
    ...at,
    x: [reach.low, reach.high],
    y: [height, height],
    line: { color: faded(colour, 0.55), width: 5 },
    hoverinfo: "skip",
  };
}

function table(rows) {
  const header = ["run", "layer", "timesteps_trained", "update", "lag", "median", "low", "high", "horizon", "horizon_exact", "epsilon", "cut"];
  const points = rows.flatMap(({ run, layer, look, reach, epsilon }) => {
    const { median, low, high } = look.columns;
    const common = [reach.lag, reach.exact ? 1 : 0, epsilon, look.facts.cut];
    return look.places.map((place, index) =>
      [run.name, layer, look.step, look.facts.update, place, median[index], low[index], high[index], ...common]);
  });
  return { header, rows: points };
}
