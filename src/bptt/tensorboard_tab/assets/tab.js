// The tab "Gradient flow": controls, the data of the chosen view, and its chart.

import { Controls, tensorNames } from "./controls.js";
import { downloadText, toCsv } from "./csv.js";
import { readLink, writeLink } from "./link.js";
import { element } from "./page.js";
import { Chart } from "./chart.js";
import { Source } from "./source.js";
import { chosenRuns } from "./runs.js";
import { VIEWS } from "./views.js";

const POLL_MILLISECONDS = 15000;
const LINK_MILLISECONDS = 200; // after the last change
const PARALLEL = 3; // requests at a time

export class Tab {
  // plotly: a promise of its script. loadPlotly: makes another one, after a failure
  constructor(plotly, loadPlotly) {
    this.state = readLink();
    this.source = new Source();
    this.plotly = plotly;
    this.loadPlotly = loadPlotly;
    this.generation = 0; // number of the latest load; older loads stop
    this.pending = 0; // loads and frames that are not finished
    this.failed = false; // true if a request has failed since the last load began
  }

  async start() {
    this.controls = new Controls(this.state, {
      changed: (what) => this.changed(what),
      download: (format) => this.download(format),
    });
    document.body.replaceChildren(this.controls.root);
    followTheme(() => {
      if (this.chart) this.controls.showChosen(chosenRuns(this.source.runs, this.state));
      this.draw();
    });
    this.ready().catch(() => {}); // as soon as it is there; `load` reports a failure
    await this.update();
    setInterval(() => this.poll(), POLL_MILLISECONDS);
    window.addEventListener("resize", () => this.chart?.resize());
  }

  // Called when a control was used. what: "step" if only the look changed.
  changed(what) {
    // delayed, because browsers allow about seven URL changes per second
    clearTimeout(this.linkTimer);
    this.linkTimer = setTimeout(() => writeLink(this.state), LINK_MILLISECONDS);
    this.busy(what !== "step" ? this.load() : this.drawStep());
  }

  // Mark the chart as busy until the work is done and drawn, for screen readers and tests.
  async busy(work) {
    this.pending += 1;
    this.controls.setBusy(true);
    try {
      await work;
      await this.chart?.done;
    } finally {
      this.pending -= 1;
      this.controls.setBusy(this.pending > 0);
    }
  }

  // Draw at most once a frame: a slider can move faster than a chart is drawn.
  drawStep() {
    const frame = () => {
      this.frame = undefined;
      this.draw({ onlyStep: true });
    };
    this.frame ??= new Promise(requestAnimationFrame).then(frame);
    return this.frame;
  }

  async poll() {
    if (!document.hidden) await this.update();
  }

  // Read the list of runs again. Load the view's data if the list has changed, or if a request had failed.
  async update() {
    const retry = this.failed;
    let changed = false;
    const answered = await this.attempt(async () => (changed = await this.source.refresh()));
    if (!answered || !(changed || retry)) return;
    this.controls.setRuns(this.source.runs, this.source.without);
    await this.busy(this.load());
  }

  // Do some work with requests. Returns false if one failed, which is shown, and tried again by the next poll.
  async attempt(work) {
    try {
      await work();
      return true;
    } catch (error) {
      this.failed = true;
      this.controls.setProblem(`TensorBoard did not answer: ${error.message}`);
      return false;
    }
  }

  // Wait for plotly and the first chart; after a failure the next call loads plotly again.
  async ready() {
    const plotly = this.plotly ?? (this.plotly = this.loadPlotly());
    try {
      await plotly;
    } catch (error) {
      if (this.plotly === plotly) this.plotly = null;
      throw error;
    }
    if (this.chart) return;
    this.chart = new Chart(this.controls.chart);
    this.draw();
  }

  get view() {
    return VIEWS[this.state.view];
  }

  // Fetch the view's data: first the newest look of all runs in one request, then all looks, run by run.
  async load() {
    const generation = ++this.generation;
    const runs = chosenRuns(this.source.runs, this.state);
    this.controls.showChosen(runs);
    const wanted = this.view.tags(runs, this.state);
    const points = runs.length <= 4 ? 256 : runs.length <= 16 ? 128 : 64;
    const missing = wanted.filter((each) => !this.source.isComplete(each, points));
    this.controls.setProgress(0, missing.length);
    this.failed = false;
    if (!this.view.needsAllLooks) await this.attempt(() => this.source.loadNewest(wanted, points));
    if (generation !== this.generation) return;
    this.draw();
    // all looks take seconds and would delay the first chart
    if (await this.attempt(() => this.ready())) await this.loadLooks(missing, points, generation);
    if (generation !== this.generation) return;
    if (!this.failed) this.controls.setProblem("");
    this.controls.setProgress(0, 0);
    this.draw();
  }

  async loadLooks(missing, points, generation) {
    const total = missing.length;
    let done = 0;
    const worker = async () => {
      while (missing.length && generation === this.generation) {
        const each = missing.shift();
        await this.attempt(() => this.source.loadLooks(each, points));
        done += 1;
        if (generation === this.generation) this.controls.setProgress(done, total);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, worker));
  }

  // onlyStep: only the look changed, so the slider keeps its steps.
  draw({ onlyStep = false } = {}) {
    if (!this.chart || !this.source.answer) return;
    const runs = chosenRuns(this.source.runs, this.state);
    const wanted = this.view.tags(runs, this.state);
    if (!onlyStep) this.allSteps = this.source.steps(wanted);
    this.controls.setSteps(this.allSteps, this.view.hasSlider);
    const emptiness = this.emptiness(runs, wanted);
    this.controls.setEmpty(emptiness);
    if (emptiness || !wanted.some((each) => this.source.known(each.run, each.tag))) {
      this.figure = null;
      this.chart.clear();
      return;
    }
    this.figure = this.view.figure({ runs, state: this.state, source: this.source, all: this.source.runs });
    this.controls.setNote(this.figure.note);
    this.chart.show(this.figure);
  }

  emptiness(runs, wanted) {
    if (!this.source.runs.length) {
      const count = this.source.without.length;
      const old = count ? ` ${count === 1 ? "The run here holds" : `The ${count} runs here hold`} no curves.` : "";
      return `No gradient flow in these runs.${old} Train with callbacks=default, for example: python scripts/train.py`;
    }
    if (!runs.length) return "No run is chosen. Clear the filter, or choose runs on the left.";
    if (wanted.length) return "";
    const anyWith = (change) => this.view.tags(runs, { ...this.state, ...change }).length > 0;
    if (anyWith({ layers: null })) {
      return `None of the chosen runs has layer ${this.state.layers.join(" or ")}. Choose other layers or runs on the left.`;
    }
    if (tensorNames(runs).some((tensor) => anyWith({ layers: null, tensor }))) {
      return `None of the chosen runs has the state tensor ${this.state.tensor}. Choose another one, or other runs, on the left.`;
    }
    return this.view.empty;
  }

  async download(format) {
    if (!this.figure) return;
    const name = `gradient_flow_${this.state.view}`;
    if (format === "csv") downloadText(`${name}.csv`, toCsv(this.figure.table()), "text/csv");
    else await this.chart.download(format, name);
  }
}

// True if TensorBoard's page is dark. The tab is in a frame of the same origin and can read it.
function followTheme(changed) {
  const update = () => {
    document.documentElement.classList.toggle("dark", hostIsDark());
    changed();
  };
  update();
  try {
    new MutationObserver(update).observe(window.parent.document.body, { attributeFilter: ["class"] });
  } catch {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
  }
}

function hostIsDark() {
  try {
    return window.parent.document.body.classList.contains("dark-mode");
  } catch {
    return matchMedia("(prefers-color-scheme: dark)").matches;
  }
}
