// The state of the tab, stored in the URL of TensorBoard's page: #gradient_flow&p.gradient_flow.KEY=JSON.

const PREFIX = "p.gradient_flow.";

export const DEFAULTS = {
  view: "lag",
  filter: "", // regular expression for names of shown runs
  hidden: [], // names of hidden runs
  where: {}, // hyperparameter -> hidden values
  layers: null, // numbers of shown layers; null: all
  tensor: "h",
  split: "", // hyperparameter of the small multiples
  colour: null, // hyperparameter that determines the colour; "": the run; null: chosen automatically
  epsilon: null, // null: the run's own
  logLag: false,
  relative: true,
  band: true,
  step: null, // null: the newest
};

function hash() {
  try {
    return window.parent.location.hash;
  } catch {
    return window.location.hash; // TensorBoard is in a frame of another origin: the state cannot be stored in its URL
  }
}

export function readLink() {
  const state = structuredClone(DEFAULTS);
  for (const part of hash().replace(/^#/, "").split("&")) {
    const [key, value] = part.split(/=(.*)/s);
    const name = key.startsWith(PREFIX) ? key.slice(PREFIX.length) : "";
    if (!(name in DEFAULTS)) continue;
    try {
      state[name] = JSON.parse(decodeURIComponent(value));
    } catch {
      continue; // truncated link: use the keys that can be parsed
    }
  }
  return state;
}

export function writeLink(state) {
  const others = hash().replace(/^#/, "").split("&").filter((part) => part && !part.startsWith(PREFIX));
  const own = Object.keys(DEFAULTS)
    .map((name) => [name, JSON.stringify(state[name])])
    .filter(([name, value]) => value !== JSON.stringify(DEFAULTS[name]))
    .map(([name, value]) => `${PREFIX}${name}=${encodeURIComponent(value)}`);
  try {
    const host = window.parent;
    host.history.replaceState(host.history.state, "", `#${[...others, ...own].join("&")}`);
  } catch {
    // see above
  }
}

export function address() {
  try {
    return window.parent.location.href;
  } catch {
    return window.location.href;
  }
}
