// TensorBoard imports this module into an empty page and calls render().

import { element } from "./page.js";

export async function render() {
  const imported = import("./tab.js"); // in parallel with plotly, which is by far the largest file
  const plotly = loadPlotly();
  plotly.catch(() => {}); // the tab reports it, and tries again
  document.head.append(element("link", { rel: "stylesheet", href: "./style.css" }));
  document.documentElement.lang = "en";
  const { Tab } = await imported;
  const tab = new Tab(plotly, loadPlotly);
  await tab.start();
  return tab;
}

function loadPlotly() {
  return new Promise((resolve, reject) => {
    const script = element("script", { src: "./plotly.js" });
    script.onload = resolve;
    script.onerror = () => reject(new Error("plotly's script could not be loaded"));
    document.head.append(script);
  });
}
