// Traces of plotly for curves with bands and marks.

import { faded, plain } from "./chart.js";

export function line(axes, x, y, { colour, label, width = 1.8, dash = "solid", hover = "" }) {
  return {
    type: "scatter",
    mode: x.length > 1 ? "lines" : "markers",
    ...axes,
    x,
    y,
    line: { color: colour, width, dash },
    marker: { color: colour, size: 5 },
    name: plain(label),
    hovertemplate: `${hover || "%{x}: %{y:.3g}"}<extra>${plain(label)}</extra>`,
  };
}

// The area between two curves; only where both are above 0, because the axis is logarithmic.
export function band(axes, x, low, high, colour) {
  const kept = x.map((_, index) => index).filter((index) => low[index] > 0 && high[index] > 0);
  return {
    type: "scatter",
    mode: "lines",
    ...axes,
    x: [...kept.map((index) => x[index]), ...kept.toReversed().map((index) => x[index])],
    y: [...kept.map((index) => high[index]), ...kept.toReversed().map((index) => low[index])],
    fill: "toself",
    fillcolor: faded(colour, 0.16),
    line: { width: 0 },
    hoverinfo: "skip",
  };
}

// Many single points of one kind in one trace.
export class Marks {
  constructor(axes, symbol, { size = 9, line: outline = 1.5, hover }) {
    this.trace = {
      type: "scatter",
      mode: "markers",
      ...axes,
      x: [],
      y: [],
      text: [],
      marker: { symbol, size, color: [], line: { width: outline, color: [] } },
      hovertemplate: `${hover}<extra>%{text}</extra>`,
    };
  }

  add(x, y, colour, label) {
    this.trace.x.push(x);
    this.trace.y.push(y);
    this.trace.text.push(plain(label));
    this.trace.marker.color.push(colour);
    this.trace.marker.line.color.push(colour);
  }
}
