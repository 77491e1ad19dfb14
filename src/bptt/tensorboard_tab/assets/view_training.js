// Over training: gradient by lag as a heat map, with the horizon and the decay rate over it.

import { Panels, theme } from "./chart.js";
import { flowTag, flowTags, layersOf } from "./grouping.js";
import { horizonOf, signOf, valueAt } from "./measures.js";
import { runLabels } from "./runs.js";

const KIND = "by_lag";
const MAX_RUNS = 4;
const ROWS = 120; // largest number of rows of the heat map
const DECADES = 8; // range of the colour scale below the peak

export const training = {
  title: "Over training",
  hasSlider: false,
  hasLayers: true,
  hasTensor: true,
  hasSplit: false,
  hasEpsilon: true,
  needsAllLooks: true,
  toggles: [["logLag", "Logarithmic lag"]],
  empty: "No gradient flow in these runs. Train with callbacks=default.",
  tags: (runs, state) => flowTags(withCurves(runs, state).slice(0, MAX_RUNS), state, KIND),
  figure,
};

function withCurves(runs, state) {
  return runs.filter((run) => flowTags([run], state, KIND).length);
}

function figure({ runs, all, state, source }) {
  const found = withCurves(runs, state);
  const shown = found.slice(0, MAX_RUNS);
  const layers = layersOf(shown, state, KIND);
  const labels = runLabels(all);
  const places = shown.flatMap((run) => layers.filter((layer) => flowTag(layer, state, KIND) in run.tags).map((layer) => ({ run, layer })));
  const columns = Math.min(places.length, layers.length > 2 ? layers.length : 2);
  const panels = new Panels(Math.ceil(places.length / columns), columns, { gapX: 0.09, gapY: 0.11 });
  const data = [];
  const table = { header: ["run", "layer", "timesteps_trained", "update", "horizon", "horizon_exact", "epsilon", "decay_rate"], rows: [] };
  places.forEach(({ run, layer }, index) => {
    const looks = source.known(run.name, flowTag(layer, state, KIND))?.looks ?? [];
    const title = `${shortened(labels.get(run.name), Math.round(90 / columns))}${layers.length > 1 ? ` · layer ${layer}` : ""}`;
    const [row, column] = [Math.floor(index / columns), index % columns];
    const end = Math.max(1, ...looks.map((look) => look.places.at(-1)));
    const lags = lagAxis(end, state.logLag);
    const place = panels.add(row, column, {
      title,
      x: { title: "timesteps trained" },
      y: { title: "lag k", own: true, ...(state.logLag ? { type: "log" } : {}) },
    });
    const at = { xaxis: place.xaxis, yaxis: place.yaxis };
    const steps = looks.map((look) => look.step);
    data.push(heatMap(at, steps, lags, looks, { tensor: state.tensor, first: index === 0 }));
    const horizons = looks.map((look) => horizonOf(look, state.epsilon));
    const rates = looks.map((look) => look.facts.decay_rate ?? null);
    data.push(...outlined(at, steps, horizons));
    data.push(decayRate(panels, place, steps, rates));
    looks.forEach((look, each) => {
      const { lag, exact } = horizons[each];
      table.rows.push([run.name, layer, look.step, look.facts.update, lag, exact ? 1 : 0, state.epsilon ?? look.facts.epsilon, rates[each]]);
    });
  });
  return {
    key: `training ${state.logLag}`,
    data,
    layout: { ...panels.layout, margin: { l: 64, r: 110, t: 30, b: 46 } },
    panelRows: panels.rows,
    note:
      "Gradient by lag relative to its peak, from look to look. White line: horizon. Dotted line, right axis: decay rate, the factor per lag." +
      (found.length > MAX_RUNS ? ` The first ${MAX_RUNS} of ${found.length} runs; choose others on the left.` : ""),
    table: () => table,
  };
}

function shortened(text, length) {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

function lagAxis(end, logarithmic) {
  const count = Math.min(ROWS, end + 1);
  if (!logarithmic) return Array.from({ length: count }, (_, index) => Math.round((index * end) / Math.max(1, count - 1)));
  return [...new Set(Array.from({ length: count }, (_, index) => Math.round((end + 1) ** (index / Math.max(1, count - 1)))))].filter((lag) => lag <= end);
}

function heatMap(at, steps, lags, looks, { tensor, first }) {
  const column = (look) => {
    return (lag) => {
      if (lag > look.places.at(-1)) return null;
      const value = valueAt(look.places, look.columns.median, lag) / look.reference;
      return value > 0 ? Math.max(-DECADES, Math.log10(value)) : -DECADES;
    };
  };
  const read = looks.map(column);
  return {
    type: "heatmap",
    ...at,
    x: steps,
    y: lags,
    z: lags.map((lag) => read.map((value) => value(lag))),
    zmin: -DECADES,
    zmax: 0,
    colorscale: "Viridis",
    showscale: first,
    colorbar: {
      title: { text: `‖∂L/∂${tensor}ₛ₋ₖ‖<br>/ peak`, side: "top" },
      tickvals: [0, -2, -4, -6, -8],
      ticktext: ["1", "10⁻²", "10⁻⁴", "10⁻⁶", "≤10⁻⁸"],
      thickness: 12,
      outlinewidth: 0,
      x: 1.05,
    },
    hoverongaps: false,
    hovertemplate: "%{x} timesteps, lag %{y}: 10^%{z:.2f}<extra></extra>",
  };
}

// White line on a dark one, visible on every colour of the map.
function outlined(at, x, horizons) {
  const common = { type: "scatter", mode: "lines", ...at, x, y: horizons.map((each) => each.lag) };
  return [
    { ...common, line: { color: "rgba(0,0,0,0.55)", width: 4.5, shape: "hv" }, hoverinfo: "skip" },
    { ...common, line: { color: "#ffffff", width: 2, shape: "hv" }, customdata: horizons.map(signOf), hovertemplate: "horizon: lag %{customdata}%{y}<extra></extra>" },
  ];
}

function decayRate(panels, place, x, y) {
  const number = 100 + Number(place.number || 1);
  panels.layout[`yaxis${number}`] = {
    overlaying: place.yaxis,
    side: "right",
    anchor: place.xaxis,
    range: [0, 1.1 * Math.max(1, ...y)],
    tickmode: "auto", // not those of the lag axis below it, plotly's default
    nticks: 4,
    showgrid: false,
    zeroline: false,
    tickfont: { color: theme().faint, size: 10 },
  };
  return {
    type: "scatter",
    mode: "lines",
    xaxis: place.xaxis,
    yaxis: `y${number}`,
    x,
    y,
    line: { color: "#ff8c42", width: 2, dash: "dot" },
    hovertemplate: "decay rate: %{y:.4f}<extra></extra>",
  };
}
