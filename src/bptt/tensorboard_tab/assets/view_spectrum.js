// Spectrum: singular values of the Jacobian product by lag, and the largest Lyapunov exponent over training.

import { Panels, faded, logAxis, theme } from "./chart.js";
import { Marks, line } from "./curves.js";
import { layersOf } from "./grouping.js";
import { decades } from "./measures.js";
import { colours, runLabels } from "./runs.js";

const KIND = "jacobian";
const NORM = "frobenius_norm"; // logged instead of singular values for wide layers
const MAX_RUNS_IN_FULL = 4; // with more runs, only the largest singular value is drawn

export const spectrum = {
  title: "Spectrum",
  hasSlider: true,
  hasLayers: true,
  hasTensor: false,
  hasSplit: false,
  hasEpsilon: false,
  toggles: [],
  empty:
    "No Jacobian spectrum in these runs yet. It is looked at every 1000 updates; sooner with callbacks.jacobian_spectrum.every_n_updates=100.",
  tags,
  figure,
};

function tags(runs, state) {
  const names = layersOf(runs, state, KIND).map((layer) => `layer${layer}/${KIND}`);
  return runs.flatMap((run) => names.filter((tag) => tag in run.tags).map((tag) => ({ run: run.name, tag, newest: run.tags[tag] })));
}

function figure({ runs, all, state, source }) {
  const layers = layersOf(runs, state, KIND);
  const panels = new Panels(layers.length, 2, { gapX: 0.09 });
  const colour = colours(all, state);
  const labels = runLabels(all);
  const table = { header: ["run", "layer", "timesteps_trained", "update", "lag", "quantity", "value", "lyapunov_exponent"], rows: [] };
  const data = [];
  const everything = layers.flatMap((layer) => runs.map((run) => source.known(run.name, `layer${layer}/${KIND}`))).filter((series) => series?.looks.length);
  const inFull = runs.length <= MAX_RUNS_IN_FULL;
  const bottoms = everything.map((series) => (inFull ? Math.min(...series.looks.map(smallest)) : series.line.bottom));
  const range = decades(Math.min(...bottoms), Math.max(...everything.map((series) => series.line.top)));
  const norms = everything.map((series) => NORM in series.looks.at(-1).columns);
  const values = norms.includes(false) ? [inFull ? "singular values" : "largest singular value"] : [];
  const drawn = [...values, ...(norms.includes(true) ? ["Frobenius norm"] : [])].join(" or ");
  layers.forEach((layer, row) => {
    const title = layers.length > 1 ? `layer ${layer}` : "";
    const place = panels.add(row, 0, {
      title,
      x: { title: "T − t (timesteps)" },
      y: { ...logAxis(range), title: `${drawn} of ∂h<sub>T</sub>/∂h<sub>t</sub>`, own: true },
    });
    const exponents = panels.add(row, 1, { title, x: { title: "timesteps trained" }, y: { title: "largest Lyapunov exponent (nats)", own: true } });
    panels.layout.shapes.push(zero(exponents));
    for (const run of runs) {
      const tag = `layer${layer}/${KIND}`;
      const look = source.look(run.name, tag, state.step);
      if (!look) continue;
      const [label, shade] = [labels.get(run.name), colour.get(run.name)];
      const names = Object.keys(look.columns).slice(0, inFull ? undefined : 1);
      names.forEach((name, index) => {
        const style = { colour: index ? faded(shade, 0.75 - (0.45 * index) / names.length) : shade, width: index ? 1.1 : 2.2, label };
        const at = { xaxis: place.xaxis, yaxis: place.yaxis };
        data.push(line(at, look.places, look.columns[name], { ...style, hover: `${quantity(name)} at lag %{x}: %{y:.3g}` }));
        look.places.forEach((lag, each) => {
          table.rows.push([run.name, layer, look.step, look.facts.update, lag, name, look.columns[name][each], look.facts.lyapunov]);
        });
      });
      data.push(...exponentLine(exponents, source.known(run.name, tag).looks, look, shade, label));
    }
  });
  return {
    key: "spectrum",
    data,
    layout: panels.layout,
    panelRows: layers.length,
    note:
      `${drawn.replace(/^./, (letter) => letter.toUpperCase())} of the Jacobian product along one sequence` +
      `${values.length && inFull ? "; thick: the largest" : ""}. ` +
      "The largest Lyapunov exponent is the mean growth per timestep: " +
      "above 0 gradients explode, below they vanish.",
    table: () => table,
  };
}

function exponentLine(place, looks, look, colour, label) {
  const at = { xaxis: place.xaxis, yaxis: place.yaxis };
  const steps = looks.map((each) => each.step);
  const drawn = line(at, steps, looks.map((each) => each.facts.lyapunov ?? null), { colour, label, hover: "%{x} timesteps: %{y:.4f}" });
  const now = new Marks(at, "circle", { size: 8, hover: "%{x} timesteps: %{y:.4f}" });
  now.add(look.step, look.facts.lyapunov ?? null, colour, label);
  return [drawn, now.trace];
}

function smallest(look) {
  const last = Object.values(look.columns).at(-1);
  return last.reduce((best, value) => (value > 0 ? Math.min(best, value) : best), Infinity);
}

function quantity(name) {
  return name.replace("singular_value_", "singular value ").replace(NORM, "Frobenius norm");
}

function zero({ number }) {
  const line = { color: theme().faint, width: 1, dash: "dot" };
  return { type: "line", xref: `x${number} domain`, yref: `y${number}`, x0: 0, x1: 1, y0: 0, y1: 0, line };
}
