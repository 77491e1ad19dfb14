// Quantities computed in the browser, because they depend on controls of the page.

const DECADES = 12; // shown below the largest value; smaller values are rounding errors

// Horizon: the largest lag at which half of the samples still have ε of their own peak; 0 if there is none.
// reach: for every lag, the largest ε for which this holds. Between the lags of a thinned curve, its logarithm is
// interpolated. exact: no lag from the horizon on is left out.
export function horizon(places, reach, epsilon) {
  const index = reach.findLastIndex((value) => value >= epsilon);
  if (index === -1) return { lag: 0, exact: places.at(-1) === places.length - 1 };
  const exact = places.at(-1) - places[index] === places.length - 1 - index;
  if (exact) return { lag: places[index], exact };
  const [before, after] = [Math.log(reach[index]), Math.log(reach[index + 1])];
  const share = (before - Math.log(epsilon)) / (before - after);
  return { lag: Math.floor(places[index] + share * (places[index + 1] - places[index])), exact };
}

// Horizon of a look by lag, with the logged interval if ε is unchanged. capped: it may be beyond the end of the curve.
export function horizonOf(look, epsilon) {
  const { facts } = look;
  if (epsilon === null || epsilon === facts.epsilon) {
    const [lag, low, high] = [facts.horizon, facts.horizon_low, facts.horizon_high].map((fact) => fact ?? null);
    return { lag, low, high, capped: Boolean(facts.capped), exact: true };
  }
  const found = horizon(look.places, look.columns.reach, epsilon);
  return { ...found, low: null, high: null, capped: found.lag === look.places.at(-1) };
}

// Sign before a horizon: a lower bound, or computed between points.
export function signOf({ capped, exact }) {
  if (capped) return "≥ ";
  return exact ? "" : "≈ ";
}

// Value of a curve at a place: between two positive points interpolated on a logarithmic axis, or else the nearest one.
export function valueAt(places, values, place) {
  let low = 0;
  let high = places.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (places[middle] <= place) low = middle;
    else high = middle;
  }
  const share = Math.min(1, (place - places[low]) / (places[high] - places[low] || 1));
  if (values[low] > 0 && values[high] > 0) return values[low] ** (1 - share) * values[high] ** share;
  return share <= 0.5 ? values[low] : values[high];
}

// Range of a logarithmic axis, in decades, for values from bottom to top.
export function decades(bottom, top) {
  if (!(top > 0)) return [-1, 1];
  const high = Math.log10(top);
  const low = Math.max(Math.log10(Math.min(bottom, top)), high - DECADES);
  const margin = 0.04 * Math.max(high - low, 1);
  return [low - margin, high + margin];
}

export function round(value, digits = 4) {
  return value === null || value === undefined ? null : Number(value.toPrecision(digits));
}
