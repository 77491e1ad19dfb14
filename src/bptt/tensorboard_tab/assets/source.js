// Runs and curves from the server, cached while they are up to date.

const RUNS_IN_A_REQUEST = 40;

export class Source {
  constructor() {
    this.runs = []; // {name, tags: {tag: newest step}, hparams: {name: value}}
    this.without = []; // names of runs without curves
    this.series = new Map(); // key of run and tag -> {points, newest, complete, looks}
  }

  // Update the list of runs. Returns true if anything has changed.
  async refresh() {
    const answer = await getJson("./runs");
    const changed = JSON.stringify(answer) !== this.answer;
    this.answer = JSON.stringify(answer);
    this.runs = answer.runs;
    this.without = answer.without;
    return changed;
  }

  // Fetch the newest look of many {run, tag, newest} in few requests.
  async loadNewest(wanted, points) {
    const missing = wanted.filter((each) => !this.find(each, points));
    const requests = [];
    for (const tag of new Set(missing.map((each) => each.tag))) {
      const those = missing.filter((each) => each.tag === tag);
      for (let start = 0; start < those.length; start += RUNS_IN_A_REQUEST) {
        requests.push(this.loadNewestPart(tag, those.slice(start, start + RUNS_IN_A_REQUEST), points));
      }
    }
    await Promise.all(requests);
  }

  async loadNewestPart(tag, part, points) {
    const query = [["tag", tag], ["points", points], ...part.map((each) => ["run", each.run])];
    const answer = await getJson(`./look?${new URLSearchParams(query)}`);
    for (const each of part) {
      const look = answer.curves[each.run];
      if (!look) continue;
      const before = this.known(each.run, tag)?.looks.filter((known) => known.step < look.step) ?? [];
      this.keep(each, { points, complete: false, looks: [...before, extended(look)] });
    }
  }

  async loadLooks(each, points) {
    const answer = await getJson(`./looks?${new URLSearchParams({ tag: each.tag, run: each.run, points })}`);
    this.keep(each, { points, complete: true, looks: answer.looks.map(extended) });
  }

  keep(each, series) {
    const over = (choose, value) => series.looks.reduce((best, look) => choose(best, value(look)), choose());
    series.newest = each.newest;
    series.end = over(Math.max, (look) => look.places.at(-1));
    for (const part of ["line", "band"]) {
      series[part] = {
        top: over(Math.max, (look) => look[part].top),
        bottom: over(Math.min, (look) => look[part].bottom),
        relativeTop: over(Math.max, (look) => look[part].top / look.reference),
        relativeBottom: over(Math.min, (look) => look[part].bottom / look.reference),
      };
    }
    this.series.set(key(each), series);
  }

  find(each, points) {
    const found = this.series.get(key(each));
    return found && found.newest === each.newest && found.points >= points ? found : null;
  }

  isComplete(each, points) {
    return this.find(each, points)?.complete ?? false;
  }

  // All cached looks of a run and tag.
  known(run, tag) {
    return this.series.get(key({ run, tag }));
  }

  // The last look that is not after `step`, or the first look; the newest one if step is null.
  look(run, tag, step) {
    const looks = this.known(run, tag)?.looks;
    if (!looks?.length) return null;
    if (step === null) return looks.at(-1);
    let low = 0;
    let high = looks.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (looks[middle].step <= step) low = middle;
      else high = middle - 1;
    }
    return looks[low];
  }

  steps(wanted) {
    const found = new Set();
    for (const each of wanted) for (const look of this.known(each.run, each.tag)?.looks ?? []) found.add(look.step);
    return [...found].sort((left, right) => left - right);
  }
}

function key({ run, tag }) {
  return `${tag}\n${run}`;
}

// Add to a look its reference value and, for the axes, the range of its first column, alone and with its band.
function extended(look) {
  const [first] = Object.values(look.columns);
  const { low = [], high = [] } = look.columns;
  look.line = positiveRange(first);
  look.band = positiveRange([...first, ...low, ...high]);
  look.reference = look.facts.reference > 0 ? look.facts.reference : first[0] > 0 ? first[0] : 1;
  return look;
}

function positiveRange(values) {
  const positive = values.filter((value) => value > 0);
  return { top: Math.max(...positive), bottom: Math.min(...positive) };
}

async function getJson(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return answer.json();
}
