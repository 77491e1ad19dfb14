// Slider over training, with a play button.

import { element } from "./page.js";

const FRAME_MILLISECONDS = 120;

export class Steps {
  constructor(chosen) {
    this.chosen = chosen;
    this.steps = [];
    this.timer = null;
    this.playButton = element("button", { id: "play", title: "Play over training", onclick: () => this.toggle() }, "▶");
    this.slider = element("input", { id: "step", type: "range", min: "0", max: "0", oninput: () => this.moved() });
    this.slider.setAttribute("aria-label", "Timesteps trained");
    this.label = element("output", { id: "step-label" });
    this.root = element("footer", { id: "steps" }, this.playButton, this.slider, this.label);
  }

  // step: null for the newest look.
  show(steps, step, wanted) {
    this.steps = steps;
    this.root.hidden = !wanted || !steps.length;
    if (this.root.hidden) this.stop();
    const last = Math.max(0, steps.length - 1);
    let index = last;
    if (step !== null) index = Math.max(0, steps.filter((each) => each <= step).length - 1);
    this.slider.max = String(last);
    this.slider.value = String(index);
    this.slider.disabled = this.playButton.disabled = last === 0;
    const shown = steps[index] ?? 0;
    this.label.textContent = `${shown.toLocaleString("en").replaceAll(",", "\u2009")} timesteps trained${index === last ? " (newest)" : ""}`;
  }

  moved() {
    const index = Number(this.slider.value);
    this.chosen(index >= this.steps.length - 1 ? null : this.steps[index]);
  }

  toggle() {
    if (this.timer !== null) return this.stop();
    if (Number(this.slider.value) >= this.steps.length - 1) this.slider.value = "0";
    else this.slider.value = String(Number(this.slider.value) + 1);
    this.moved();
    this.playButton.textContent = "❚❚";
    this.timer = setInterval(() => {
      const next = Number(this.slider.value) + 1;
      if (next >= this.steps.length) return this.stop();
      this.slider.value = String(next);
      return this.moved();
    }, FRAME_MILLISECONDS);
    return undefined;
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.playButton.textContent = "▶";
  }
}
