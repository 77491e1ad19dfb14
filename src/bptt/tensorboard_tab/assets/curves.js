// plotly traces of curves, bands and marks.

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
    hovertemplate: hover || "%{x}: %{y:.3g}", // plotly adds the name; in a template, "%{" in a name would be replaced
  };
}

// Lines of many runs. If there are more than a dozen, all lines of a colour form one trace with gaps: plotly is much
// faster with few traces.
export class Lines {
  constructor(axes, count, hover) {
    this.axes = axes;
    this.hover = hover;
    this.apart = count <= 12;
    this.found = [];
    this.joined = new Map(); // colour -> trace
  }

  add(x, y, colour, label) {
    if (this.apart) {
      this.found.push(line(this.axes, x, y, { colour, label, hover: this.hover }));
      return;
    }
    let trace = this.joined.get(colour);
    if (!trace) {
      trace = line(this.axes, [], [], { colour, label: "", width: 1.2 });
      Object.assign(trace, { mode: "lines", text: [], hovertemplate: `${this.hover}<extra>%{text}</extra>` });
      this.joined.set(colour, trace);
    }
    const text = plain(label);
    for (let index = 0; index < x.length; index++) {
      trace.x.push(x[index]);
      trace.y.push(y[index]);
      trace.text.push(text);
    }
    trace.x.push(null);
    trace.y.push(null);
    trace.text.push("");
  }

  traces() {
    return [...this.found, ...this.joined.values()];
  }
}

// Area between two curves, restricted to places where both are positive, because the axis is logarithmic.
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

// Short vertical strokes on a logarithmic axis over `range` decades, one trace for each colour.
export class Ticks {
  constructor(axes, range, hover) {
    this.axes = axes;
    this.factor = 10 ** (0.03 * (range[1] - range[0]));
    this.hover = hover;
    this.byColour = new Map();
  }

  add(x, y, colour) {
    let trace = this.byColour.get(colour);
    if (!trace) {
      trace = line(this.axes, [], [], { colour, label: "", width: 2.5, hover: this.hover });
      trace.mode = "lines";
      this.byColour.set(colour, trace);
    }
    trace.x.push(x, x, null);
    trace.y.push(y / this.factor, y * this.factor, null);
  }

  traces() {
    return [...this.byColour.values()];
  }
}

// Points of one kind in a single trace.
export class Marks {
  constructor(axes, symbol, { size = 9, line: outline = 1.5, hover }) {
    this.trace = {
      type: "scatter",
      mode: "markers",
      ...axes,
      x: [],
      y: [],
      text: [],
      customdata: [],
      marker: { symbol, size, color: [], line: { width: outline, color: [] } },
      hovertemplate: `${hover}<extra>%{text}</extra>`,
    };
  }

  add(x, y, colour, label, prefix = "") {
    this.trace.customdata.push(prefix);
    this.trace.x.push(x);
    this.trace.y.push(y);
    this.trace.text.push(plain(label));
    this.trace.marker.color.push(colour);
    this.trace.marker.line.color.push(colour);
  }
}
