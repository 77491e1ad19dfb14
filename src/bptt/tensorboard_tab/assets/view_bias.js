// Truncation bias: bias of the gradient for each chunk size.

import { logAxis } from "./chart.js";
import { Marks, line } from "./curves.js";
import { grid, groups } from "./grouping.js";
import { decades, valueAt } from "./measures.js";
import { colours, runLabels } from "./runs.js";

const TAG = "truncation_bias";
const NOTHING = 1e-6; // relative biases below it are rounding errors

export const bias = {
  title: "Truncation bias",
  hasSlider: true,
  hasLayers: false,
  hasTensor: false,
  hasSplit: true,
  hasEpsilon: false,
  toggles: [],
  empty: "No truncation bias in these runs. Train with callbacks=bias, for example: python scripts/train.py callbacks=bias",
  tags: (runs) => runs.filter((run) => TAG in run.tags).map((run) => ({ run: run.name, tag: TAG, newest: run.tags[TAG] })),
  figure,
};

function figure({ runs, all, state, source }) {
  const columns = groups(runs.filter((run) => TAG in run.tags), all, state);
  const { panels, at: placeAt } = grid(columns, 2);
  const colour = colours(all, state);
  const labels = runLabels(all);
  const table = { header: ["run", "timesteps_trained", "update", "chunk_size", "relative_bias", "cosine", "norm_ratio", "in_use"], rows: [] };
  const data = [];
  const everything = runs.map((run) => source.known(run.name, TAG)).filter(Boolean);
  const looks = everything.flatMap((series) => series.looks);
  const relative = looks.flatMap((look) => look.columns.relative).filter((value) => value > NOTHING);
  const range = decades(relative.reduce(smaller, 1), relative.reduce(larger, 1));
  const floor = 10 ** (range[0] + 0.02 * (range[1] - range[0]));
  const lowest = looks.flatMap((look) => look.columns.cosine).reduce(smaller, 0);
  const kinds = [
    ["relative", { ...logAxis(range), title: "relative bias ‖ĝ − g‖ / ‖g‖" }],
    ["cosine", { range: [lowest - 0.05, 1.05], title: "cosine of ĝ and g" }],
  ];
  kinds.forEach(([name, y], row) => {
    columns.forEach((group, column) => {
      const place = panels.add(...placeAt(row, column), {
        title: row === 0 ? group.title : "",
        x: { type: "log", title: "chunk size (timesteps)", ...powersOfTwo(looks) },
        y,
      });
      const at = { xaxis: place.xaxis, yaxis: place.yaxis };
      const used = new Marks(at, "circle", { size: 10, hover: "chunk size in use: %{x}" });
      for (const run of group.runs) {
        const look = source.look(run.name, TAG, state.step);
        if (!look) continue;
        const [label, shade] = [labels.get(run.name), colour.get(run.name)];
        const measured = look.columns[name];
        const values = name === "relative" ? measured.map((value) => (value === null || value > NOTHING ? value : floor)) : measured;
        const drawn = line(at, look.places, values, { colour: shade, label, hover: `chunks of %{x}: ${name} %{customdata:.3g}` });
        data.push({ ...drawn, mode: "lines+markers", customdata: measured });
        const size = look.facts.chunk_size;
        if (size) used.add(size, valueAt(look.places, values, size), shade, label);
        if (row === 0) addRows(table, run, look);
      }
      data.push(used.trace);
    });
  });
  return {
    key: "bias",
    data,
    layout: panels.layout,
    panelRows: panels.rows,
    note:
      "Gradient ĝ of disjoint chunks against the exact gradient g, over all parameters, on one batch at the weights of that moment. " +
      "Large dots: the chunk size in use. A bias of 0 is drawn at the lower edge.",
    table: () => table,
  };
}

// For reduce: a call such as Math.min(...values) has room for about 100 000 values only.
function smaller(left, right) {
  return Math.min(left, right);
}

function larger(left, right) {
  return Math.max(left, right);
}

function powersOfTwo(looks) {
  const sizes = [...new Set(looks.flatMap((look) => look.places))].filter((size) => (size & (size - 1)) === 0).sort((left, right) => left - right);
  const every = Math.ceil(sizes.length / 8);
  const ticks = sizes.filter((_, index) => index % every === 0);
  return { tickvals: ticks, ticktext: ticks.map(String) };
}

function addRows(table, run, look) {
  const { relative, cosine, norm_ratio: ratio } = look.columns;
  look.places.forEach((size, index) => {
    const used = size === look.facts.chunk_size ? 1 : 0;
    table.rows.push([run.name, look.step, look.facts.update, size, relative[index], cosine[index], ratio[index], used]);
  });
}
