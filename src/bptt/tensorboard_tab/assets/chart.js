// Grid of panels as a plotly figure, in the colours of TensorBoard's theme.

const GAP = 0.045; // between panels, of the chart's width and height
const MAX_GAPS = 0.5; // all gaps together: panels have at least the other half

// Escape text for plotly, which interprets some HTML in every text.
export function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

export function theme() {
  const dark = document.documentElement.classList.contains("dark");
  return dark
    ? { text: "#e3e6ea", faint: "#9aa4b0", grid: "#3a4149", line: "#59636e", paper: "#22262b", plot: "#22262b", over: "#ffffff" }
    : { text: "#1f2933", faint: "#616e7c", grid: "#e6e9ed", line: "#b6bec7", paper: "#ffffff", plot: "#ffffff", over: "#111111" };
}

export function faded(colour, opacity) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
  return `rgba(${red},${green},${blue},${opacity})`;
}

// Axes of rows × columns panels, numbered from the top left. Only the left and bottom panels have axis titles.
export class Panels {
  constructor(rows, columns, { gapX = GAP, gapY = rows > 2 ? GAP : 0.09 } = {}) {
    this.rows = rows;
    this.columns = columns;
    this.gapX = columns > 1 ? Math.min(gapX, MAX_GAPS / columns) : 0;
    this.gapY = rows > 1 ? Math.min(gapY, MAX_GAPS / rows) : 0;
    this.layout = { annotations: [], shapes: [] };
    this.count = 0;
  }

  // x, y: options of the axes. Returns the names of the axes for traces, and the panel's domain.
  add(row, column, { title = "", x = {}, y = {} } = {}) {
    const colours = theme();
    const number = ++this.count === 1 ? "" : String(this.count);
    const width = (1 - this.gapX * (this.columns - 1)) / this.columns;
    const height = (1 - this.gapY * (this.rows - 1)) / this.rows;
    const left = column * (width + this.gapX);
    const top = 1 - row * (height + this.gapY);
    const common = {
      gridcolor: colours.grid,
      linecolor: colours.line,
      zeroline: false,
      showline: true,
      ticks: "outside",
      tickcolor: colours.line,
      ticklen: 4,
      automargin: true,
      title: { standoff: 8 },
    };
    const bottom = row === this.rows - 1;
    this.layout[`xaxis${number}`] = axis({ ...common, domain: [left, left + width], anchor: `y${number}` }, x, bottom);
    this.layout[`yaxis${number}`] = axis({ ...common, domain: [top - height, top], anchor: `x${number}` }, y, column === 0 || y.own);
    if (title) {
      this.layout.annotations.push({
        text: plain(title),
        x: left,
        y: top,
        xref: "paper",
        yref: "paper",
        xanchor: "left",
        yanchor: "bottom",
        showarrow: false,
        font: { size: 13, color: colours.text },
      });
    }
    return { xaxis: `x${number}`, yaxis: `y${number}`, number, left, top, width, height };
  }
}

function axis(common, own, titled) {
  const { title, own: _, ...rest } = own;
  return { ...common, ...rest, title: { ...common.title, text: titled ? title ?? "" : "" } };
}

// A logarithmic axis over a range in decades, with at most eight ticks: 1, 10⁻², 10⁻⁴, … or 0.2, 0.5, 1, 2, …
export function logAxis(range) {
  const [low, high] = [Math.ceil(range[0]), Math.floor(range[1])];
  const decades = high - low + 1;
  let tickvals;
  if (decades > 2) {
    const every = Math.ceil(decades / 7);
    tickvals = [];
    for (let power = high - (((high % every) + every) % every); power >= low; power -= every) tickvals.push(10 ** power);
    return { type: "log", range, tickvals, ticktext: tickvals.map((value) => powerText(Math.round(Math.log10(value)))) };
  }
  tickvals = [];
  for (let power = low - 1; power <= high; power++) {
    for (const factor of [1, 2, 5]) {
      const value = Number((factor * 10 ** power).toPrecision(1));
      if (Math.log10(value) >= range[0] && Math.log10(value) <= range[1]) tickvals.push(value);
    }
  }
  if (tickvals.length < 2) return { type: "log", range, exponentformat: "power" }; // plotly finds ticks between them
  return { type: "log", range, tickvals, ticktext: tickvals.map(String) };
}

function powerText(power) {
  if (power === 0) return "1";
  if (power === 1) return "10";
  return `10${String(power).replace(/./g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"[sign === "-" ? 0 : Number(sign) + 1])}`;
}

export class Chart {
  constructor(root) {
    this.root = root;
    this.shown = null;
  }

  show(figure) {
    this.shown = figure;
    this.root.style.minHeight = `${Math.max(300, (figure.panelRows ?? 1) * 240)}px`;
    const { width, height } = this.root.getBoundingClientRect();
    const colours = theme();
    const layout = {
      paper_bgcolor: colours.paper,
      plot_bgcolor: colours.plot,
      font: { family: "Roboto, system-ui, sans-serif", size: 12, color: colours.text },
      margin: { l: 64, r: 16, t: 30, b: 46 },
      showlegend: false,
      hovermode: "closest",
      hoverlabel: { namelength: -1, font: { size: 12 } },
      width,
      height,
      uirevision: figure.key, // plotly keeps the zoom while this is unchanged
      ...figure.layout,
    };
    const config = { responsive: false, displaylogo: false, displayModeBar: false, doubleClick: "reset", plotGlPixelRatio: 2 };
    this.done = window.Plotly.react(this.root, figure.data, layout, config);
  }

  resize() {
    if (this.shown) this.show(this.shown);
  }

  clear() {
    this.shown = null;
    window.Plotly.purge(this.root);
  }

  async download(format, filename) {
    const { width, height } = this.root.getBoundingClientRect();
    await window.Plotly.downloadImage(this.root, { format, filename, width, height, scale: format === "png" ? 2 : 1 });
  }
}
