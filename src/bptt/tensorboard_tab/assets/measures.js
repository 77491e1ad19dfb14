// Quantities computed in the browser, because they depend on controls of the page.

const DECADES = 12; // shown below the largest value; smaller values are rounding errors

// Horizon: the largest lag at which half of the samples still have ε of their own peak; 0 if there is none.
// reach: for every lag, the largest ε for which this holds.
export function horizon(places, reach, epsilon) {
  for (let index = places.length - 1; index >= 0; index--) {
    if (reach[index] >= epsilon) return places[index];
  }
  return 0;
}

// Horizon of a look by lag, with the logged interval if ε is unchanged. capped: it may be beyond the end of the curve.
export function horizonOf(look, epsilon) {
  const { facts } = look;
  if (epsilon === null || epsilon === facts.epsilon) {
    return { lag: facts.horizon ?? null, low: facts.horizon_low ?? null, high: facts.horizon_high ?? null, capped: Boolean(facts.capped) };
  }
  const lag = horizon(look.places, look.columns.reach, epsilon);
  return { lag, low: null, high: null, capped: lag === look.places.at(-1) };
}

// Value of a curve at the point nearest to a place.
export function valueAt(places, values, place) {
  let low = 0;
  let high = places.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (places[middle] <= place) low = middle;
    else high = middle;
  }
  return place - places[low] <= places[high] - place ? values[low] : values[high];
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
