// Controls around the chart: views above, options on the left, training time below.

import { address, DEFAULTS } from "./link.js";
import { element, labelled, select, toggle } from "./page.js";
import { colourBy, colours, matcher, shortName, sweptValues, valueText } from "./runs.js";
import { Steps } from "./steps.js";
import { VIEWS } from "./views.js";

export class Controls {
  constructor(state, { changed, download }) {
    this.state = state;
    this.changed = changed;
    this.runs = [];
    this.chart = element("div", { id: "chart" });
    this.note = element("p", { id: "note" });
    this.empty = element("p", { id: "empty", hidden: true });
    this.problem = element("p", { id: "problem", role: "alert", hidden: true });
    this.progress = element("progress", { id: "progress", hidden: true });
    this.steps = new Steps((step) => this.set({ step }, "step"));
    this.tabs = element("nav", { id: "views", role: "tablist" }, ...this.viewButtons());
    this.sections = element("div", { id: "choices" });
    this.runList = element("ul", { id: "runs" });
    this.count = element("span", { id: "count" });
    this.filterProblem = element("p", { className: "problem", id: "filter-problem", hidden: true });
    this.root = element(
      "div",
      { id: "tab" },
      element("header", {}, this.tabs, this.progress, this.downloads(download)),
      element("aside", {}, this.runSection(), this.sections),
      element("main", {}, this.note, this.problem, this.empty, this.chart, this.steps.root),
    );
    this.showView();
  }

  set(change, what = "all") {
    Object.assign(this.state, change);
    if (what !== "step") this.showView();
    this.changed(what);
  }

  viewButtons() {
    return Object.entries(VIEWS).map(([key, view]) =>
      element("button", { role: "tab", "data-view": key, onclick: () => this.set({ view: key }) }, view.title),
    );
  }

  showView() {
    for (const button of this.tabs.children) {
      button.setAttribute("aria-selected", String(button.dataset.view === this.state.view));
    }
    this.choices();
  }

  downloads(download) {
    const copy = element("button", { id: "copy-link", title: "Copy a link to this view", onclick: () => this.copyLink(copy) }, "Copy link");
    const buttons = ["png", "svg", "csv"].map((format) =>
      element("button", { id: `download-${format}`, title: `Download as ${format.toUpperCase()}`, onclick: () => download(format) }, format.toUpperCase()),
    );
    return element("div", { id: "downloads" }, ...buttons, copy);
  }

  async copyLink(button) {
    try {
      await navigator.clipboard.writeText(address());
      button.textContent = "Copied";
    } catch {
      button.textContent = "It is in the address bar"; // a browser gives its clipboard to secure pages only
    }
    setTimeout(() => (button.textContent = "Copy link"), 1500);
  }

  runSection() {
    const filter = element("input", {
      id: "filter",
      type: "search",
      placeholder: "Filter runs (regular expression)",
      value: this.state.filter,
      spellcheck: false,
      oninput: () => this.set({ filter: filter.value }),
    });
    const all = element("button", { className: "link", onclick: () => this.set({ hidden: [], where: {}, filter: (filter.value = "") }) }, "all");
    const none = element("button", { className: "link", onclick: () => this.set({ hidden: this.runs.map((run) => run.name) }) }, "none");
    const title = element("h2", {}, "Runs ", this.count, element("span", { className: "spring" }), all, none);
    this.without = element("p", { id: "without", hidden: true });
    return element("section", { id: "run-section" }, title, filter, this.filterProblem, this.runList, this.without);
  }

  setRuns(runs, without) {
    this.runs = runs;
    const count = without.length;
    this.without.hidden = !count;
    this.without.textContent = `${count} more ${count === 1 ? "run holds" : "runs hold"} no curves.`;
    this.without.title = without.slice(0, 40).join("\n");
    this.choices();
  }

  // Entries of the list of runs, without runs that the filters exclude.
  showChosen(chosen) {
    const { test, error } = matcher(this.state.filter);
    this.filterProblem.hidden = !error;
    this.filterProblem.textContent = error;
    const shown = new Set(chosen.map((run) => run.name));
    const colour = colours(this.runs, this.state);
    this.count.textContent = `${chosen.length} of ${this.runs.length}`;
    const listed = this.runs.filter((run) => test.test(run.name));
    this.runList.replaceChildren(...listed.map((run) => this.runEntry(run, shown.has(run.name), colour.get(run.name))));
  }

  runEntry(run, shown, colour) {
    const change = (checked) => {
      const others = this.state.hidden.filter((name) => name !== run.name);
      this.set({ hidden: checked ? others : [...others, run.name] });
    };
    const box = element("input", { type: "checkbox", checked: shown, onchange: () => change(box.checked) });
    box.style.accentColor = colour;
    const hparams = Object.entries(run.hparams).map(([name, value]) => `${name} = ${value}`);
    const entry = element("label", { title: [run.name, "", ...hparams].join("\n") }, box, element("span", {}, run.name));
    return element("li", { className: shown ? "" : "off" }, entry);
  }

  // Options of the current view.
  choices() {
    const { state, runs } = this;
    const swept = sweptValues(runs);
    const view = VIEWS[state.view];
    const byName = [...swept.keys()].map((name) => [name, shortName(name)]);
    const parts = [];
    if (swept.size) {
      const chips = [...swept].map(([name, values]) => this.valueChips(name, values));
      parts.push(element("section", { id: "swept" }, element("h2", {}, "Swept values"), ...chips));
    }
    const fields = [];
    const layers = layerNumbers(runs);
    if (view.hasLayers && layers.length > 1) fields.push(this.layerChips(layers));
    const tensors = tensorNames(runs);
    if (view.hasTensor && tensors.length > 1) {
      fields.push(labelled("State tensor", select(tensors.map((name) => [name, name]), state.tensor, (tensor) => this.set({ tensor }), { id: "tensor" })));
    }
    if (swept.size) {
      if (view.hasSplit) fields.push(labelled("Small multiples", select([["", "none"], ...byName], state.split, (split) => this.set({ split }), { id: "split" })));
      fields.push(labelled("Colour by", select([["", "run"], ...byName], colourBy(runs, state), (colour) => this.set({ colour }), { id: "colour" })));
    }
    if (view.hasEpsilon) fields.push(this.epsilonField());
    for (const [name, text] of view.toggles) fields.push(toggle(text, state[name], (checked) => this.set({ [name]: checked }), { id: name }));
    if (fields.length) parts.push(element("section", { id: "display" }, element("h2", {}, "Display"), ...fields));
    // do not replace the field while a number is being typed
    if (!this.sections.contains(document.activeElement) || document.activeElement.id !== "epsilon") this.sections.replaceChildren(...parts);
  }

  valueChips(name, values) {
    const hidden = this.state.where[name] ?? [];
    const flip = (value) => {
      const rest = hidden.includes(value) ? hidden.filter((each) => each !== value) : [...hidden, value];
      const where = { ...this.state.where, [name]: rest };
      if (!rest.length) delete where[name];
      this.set({ where });
    };
    const chips = values.map((value) =>
      element("button", { className: "chip", "aria-pressed": String(!hidden.includes(value)), onclick: () => flip(value) }, valueText(value)),
    );
    return element("div", { className: "field", title: name }, element("span", {}, shortName(name)), element("span", { className: "chips" }, ...chips));
  }

  layerChips(layers) {
    const chosen = this.state.layers ?? layers;
    const flip = (layer) => {
      const next = layers.filter((each) => (each === layer) !== chosen.includes(each));
      this.set({ layers: next.length === layers.length || !next.length ? null : next });
    };
    const chips = layers.map((layer) =>
      element("button", { className: "chip", "aria-pressed": String(chosen.includes(layer)), onclick: () => flip(layer) }, String(layer)),
    );
    return element("div", { className: "field", id: "layers" }, element("span", {}, "Layers"), element("span", { className: "chips" }, ...chips));
  }

  epsilonField() {
    const field = element("input", {
      id: "epsilon",
      type: "number",
      min: "0",
      max: "1",
      step: "any",
      placeholder: "as logged",
      value: this.state.epsilon ?? "",
      oninput: () => {
        const epsilon = field.value === "" ? null : Number(field.value);
        if (epsilon === null || (epsilon > 0 && epsilon <= 1)) this.set({ epsilon });
      },
    });
    return labelled("Horizon at ε =", field);
  }

  setSteps(steps, wanted) {
    this.steps.show(steps, this.state.step, wanted);
  }

  setNote(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }

  setEmpty(text) {
    this.empty.textContent = text;
    this.empty.hidden = !text;
    this.chart.hidden = Boolean(text);
    if (text) this.setNote("");
  }

  setProblem(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
  }

  setBusy(busy) {
    this.chart.setAttribute("aria-busy", String(busy));
  }

  setProgress(done, total) {
    this.progress.hidden = done >= total;
    this.progress.max = Math.max(1, total);
    this.progress.value = done;
  }
}

export function layerNumbers(runs) {
  const found = new Set();
  for (const run of runs) for (const tag of Object.keys(run.tags)) if (/^layer\d+\//.test(tag)) found.add(Number(/\d+/.exec(tag)[0]));
  return [...found].sort((left, right) => left - right);
}

export function tensorNames(runs) {
  const found = new Set();
  for (const run of runs) for (const tag of Object.keys(run.tags)) if (tag.endsWith("/by_lag")) found.add(tag.split("/")[1]);
  return [...found].sort((left, right) => (left === DEFAULTS.tensor ? -1 : right === DEFAULTS.tensor ? 1 : left < right ? -1 : 1));
}
