"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...inside) => {
    const space = ["svg", "polyline", "line"].includes(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...inside);
    return element;
  };

  // light, dark, or what the system says
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const themed = () => { $("theme").textContent = isDark() ? "Light" : "Dark"; if (state.model) paint(); };
  $("theme").addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; themed(); });
  system.addEventListener("change", themed);

  const page = JSON.parse($("data").textContent);
  const state = { model: null, set: 0, stat: "mass", view: "now", moment: 0, head: null, sorted: false };
  themed();
  if (!page.models.length) return; else $("map").hidden = false;

  // numbers as report/quantised.py packs them
  const base = page.alphabet.length;
  const at = Object.fromEntries([...page.alphabet].map((character, place) => [character, place]));
  const unpack = ({ text, low, step, moves }, moments) => {
    const values = [], value = (whole) => Math.round(1e9 * (low + step * whole)) / 1e9;
    let last = 0;
    for (let i = 0; i < text.length; ) {
      const place = at[text[i++]];
      if (place === 83) last = at[text[i++]] * base + at[text[i++]];
      else if (place < 83) last += place - 41;
      if (place !== 85) values.push(place === 84 ? NaN : value(last));
      else for (let more = at[text[i++]]; more >= 0; more--) values.push(values.at(-1));
    }
    return (head, moment) => values[moves ? head * moments + moment : head];
  };

  const opened = (place) => {
    const model = page.models[place];
    if (model.read) return model;
    model.read = {};
    for (const [name, stat] of Object.entries(model.stats)) model.read[name] = unpack(stat, model.moments.length);
    if (model.moments.length > 1 && model.stats.mass.moves) {
      model.stats.drift = { label: "drift: |change of mass|", unit: "", digits: 3, scale: "range", moves: true };
      const mass = model.read.mass;
      model.read.drift = (head, moment) => Math.abs(mass(head, moment) - mass(head, 0));
    }
    model.heads = [...Array(model.shape[0] * model.shape[1]).keys()];
    for (const [name, stat] of Object.entries(model.stats)) {
      const moments = stat.moves ? [...model.moments.keys()] : [0];
      const largest = (of) => model.heads.reduce((most, head) => moments.reduce((m, moment) => Math.max(m, Math.abs(of(head, moment)) || 0), most), 1e-9);
      stat.most = largest(model.read[name]);
      stat.moved = largest((head, moment) => model.read[name](head, moment) - model.read[name](head, 0));
    }
    return model;
  };
  const nameOf = (head) => `L${Math.floor(head / state.model.shape[1])}H${head % state.model.shape[1]}`;
  const shown = (value, digits) => Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : "–";
  const verdict = (head, moment) => {
    const { mass, entropy } = state.model.read, [sink, dead, low] = state.model.limits, value = mass(head, moment);
    if (Number.isNaN(value)) return "no attention";
    if (value > sink) return value > dead ? "dead" : "sink";
    return entropy && entropy(head, moment) < low ? "low-entropy" : "healthy";
  };
  const isSick = (head, moment) => state.model.read.mass(head, moment) > state.model.limits[0];
  const role = (head) => state.model.operated.includes(head) ? "operated" : state.model.watched.includes(head) ? "watched" : "outside";

  // colours
  const mixed = (stops, share) => {
    const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1), below = Math.min(Math.floor(place), stops.length - 2);
    const part = (stop, i) => parseInt(stop.slice(1 + 2 * i, 3 + 2 * i), 16);
    return [0, 1, 2].map((i) => Math.round(part(stops[below], i) + (place - below) * (part(stops[below + 1], i) - part(stops[below], i))));
  };
  const scale = () => {
    const stat = state.model.stats[state.stat], difference = state.view === "difference" && stat.moves;
    const read = state.model.read[state.stat], value = (head) => read(head, momentShown()) - (difference ? read(head, 0) : 0);
    const signed = stat.scale === "signed" || difference, most = difference ? stat.moved : stat.scale === "share" ? 1 : stat.most;
    return { stat, difference, value, stops: page.scales[(signed ? "diverging" : "sequential") + (isDark() ? "_dark" : "")], most, low: signed ? -most : 0 };
  };
  const coloured = (element, value, { low, most, stops }) => {
    const [red, green, blue] = Number.isFinite(value) ? mixed(stops, (value - low) / (most - low)) : isDark() ? [52, 56, 66] : [217, 220, 227];
    element.style.backgroundColor = `rgb(${red},${green},${blue})`;
    element.style.color = 0.299 * red + 0.587 * green + 0.114 * blue < 128 ? "#fff" : "#1f2430";
  };

  // the map
  const build = () => {
    const [layers, heads] = state.model.shape, order = [...Array(heads).keys()], grid = $("grid"), slopes = state.model.read.slope;
    if (state.sorted && slopes) order.sort((a, b) => slopes(b) - slopes(a));
    grid.style.setProperty("--heads", heads);
    grid.className = heads <= 12 ? "few" : "";
    grid.setAttribute("aria-rowcount", layers + 1);
    grid.setAttribute("aria-colcount", heads + 1);
    const top = make("div", { role: "row", class: "row" }, make("span", { role: "columnheader", class: "corner" }, "head"));
    for (const head of order) {
      const slope = slopes?.(head);
      top.append(make("span", { role: "columnheader", ...(slope ? { title: `slope ${shown(slope, 4)}` } : {}) }, String(head)));
    }
    const button = (head) => make("button", { role: "gridcell", type: "button", tabindex: -1, "data-head": head, class: role(head) });
    const row = (layer) => make("div", { role: "row", class: "row" }, make("span", { role: "rowheader" }, `L${layer}`), ...order.map((column) => button(layer * heads + column)));
    grid.replaceChildren(top, ...[...Array(layers).keys()].map(row));
    (cell(state.head ?? 0) || grid.querySelector("button")).tabIndex = 0;
  };
  const cell = (head) => $("grid").querySelector(`[data-head="${head}"]`);
  const momentShown = () => state.view === "before" ? 0 : state.moment;
  const paint = () => {
    const colours = scale(), moment = momentShown();
    for (const button of $("grid").querySelectorAll("button")) {
      const head = Number(button.dataset.head), value = colours.value(head), said = verdict(head, moment);
      coloured(button, value, colours);
      button.textContent = { sink: "S", dead: "D", "low-entropy": "E", "no attention": "·" }[said] || "";
      button.setAttribute("aria-label", `${nameOf(head)} ${said}, ${role(head)}, ${colours.stat.label} ${shown(value, colours.stat.digits)}`);
      button.setAttribute("aria-selected", head === state.head);
    }
    $("legend").querySelector("i").style.backgroundImage = `linear-gradient(to right,${colours.stops.join(",")})`;
    const ends = $("legend").querySelectorAll("b"), digits = colours.most < 0.1 ? 3 : colours.stat.digits > 1 ? 2 : 0;
    [colours.low, colours.most].forEach((value, end) => { ends[end].textContent = shown(value, digits); });
    const against = colours.difference ? ", difference from untouched" : "", unit = colours.stat.unit && ` (${colours.stat.unit})`;
    $("legend").querySelector("span").textContent = colours.stat.label + against + unit;
    const [label, , remark] = state.model.moments[moment];
    $("moment").textContent = [label, `${state.model.heads.filter((head) => isSick(head, moment)).length} sick`, remark].filter(Boolean).join(" · ");
    $("step").setAttribute("aria-valuetext", $("moment").textContent);
    zones();
    detail();
    if ($("all").open) table();
    if (!playing) link();
  };
  const zones = () => {
    const { mass } = state.model.read, fixed = new Set(state.model.fixed), moment = momentShown();
    const rows = ["operated", "watched", "outside"].map((zone) => {
      const all = state.model.heads.filter((head) => role(head) === zone && !Number.isNaN(mass(head, 0)));
      const free = all.filter((head) => !fixed.has(head)), change = (head) => Math.abs(mass(head, moment) - mass(head, 0));
      const mean = (heads) => heads.length ? shown(heads.reduce((sum, head) => sum + change(head), 0) / heads.length, 3) : "–";
      const drifted = free.filter((head) => change(head) > 0.05 + 1e-9).length;
      const count = (was, is) => all.filter((head) => isSick(head, 0) === was && isSick(head, moment) === is).length;
      const sick = [count(true, true) + count(false, true), count(false, true), count(true, false)];
      return all.length && [zone, all.length, free.length, ...sick, `${drifted} of ${free.length} (${all.length})`, `${mean(free)} (${mean(all)})`];
    }).filter(Boolean);
    const heading = ["zone", "heads", "can change", "sick", "fell sick", "woke", "drifted > 0.05", "mean |change|"];
    const columns = state.model.stats.mass.moves ? 8 : 4;
    $("zones").replaceChildren(tableOf(heading.slice(0, columns), rows.map((row) => row.slice(0, columns))));
  };
  const tableOf = (heading, rows) => {
    const cellOf = (value, i) => i ? make("td", { class: "right" }, String(value)) : make("th", { scope: "row", class: "left" }, value);
    return make("table", {}, make("thead", {}, make("tr", {}, ...heading.map((name, i) => make("th", { scope: "col", class: i ? "right" : "left" }, name)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cellOf)))));
  };
  const table = () => {
    const stats = Object.entries(state.model.stats), moment = momentShown();
    const row = (head) => [nameOf(head), role(head), verdict(head, moment), ...stats.map(([name, stat]) => shown(state.model.read[name](head, moment), stat.digits))];
    $("heads-table").replaceChildren(tableOf(["head", "zone", "verdict", ...stats.map(([, stat]) => stat.label)], state.model.heads.map(row)));
  };

  // one head
  const curve = (name, head) => {
    const stat = state.model.stats[name], read = state.model.read[name], count = state.model.moments.length;
    const values = [...Array(count).keys()].map((moment) => read(head, moment)), most = stat.scale === "share" ? 1 : stat.most;
    const x = (moment) => 4 + (292 * moment) / (count - 1), y = (value) => 60 - (54 * value) / most;
    const said = `${stat.label} over time: ${shown(values[0], stat.digits)} at first, ${shown(values.at(-1), stat.digits)} at the end`;
    const svg = make("svg", { viewBox: "0 0 300 64", role: "img", "aria-label": said });
    const line = (x1, x2, y1, y2, kind) => svg.append(make("line", { x1, x2, y1, y2, class: kind }));
    if (name === "mass") {
      for (const limit of state.model.limits.slice(0, 2)) line(4, 296, y(limit), y(limit), "limit");
      const none = state.model.read.null?.(head);
      if (none) line(4, 296, y(none), y(none), "null");
    }
    line(x(momentShown()), x(momentShown()), 4, 62, "cursor");
    const points = values.map((value, i) => Number.isFinite(value) ? `${x(i).toFixed(1)},${y(value).toFixed(1)}` : "").join(" ");
    svg.append(make("polyline", { points }));
    return make("figure", {}, make("figcaption", {}, stat.label, make("b", {}, `${shown(values[momentShown()], stat.digits)} ${stat.unit}`)), svg);
  };
  const why = (head) => {
    const { mass, entropy } = state.model.read, [sink, dead, low] = state.model.limits, moment = momentShown(), value = mass(head, moment);
    const none = state.model.read.null?.(head), lines = [{
      dead: `Dead: its mass ${shown(value, 3)} is above ${dead}.`,
      sink: `A sink: its mass ${shown(value, 3)} lies above ${sink} and not above ${dead}.`,
      "low-entropy": `Low entropy: ${shown(entropy?.(head, moment), 2)} nats is below ${low}, and its mass ${shown(value, 3)} is not above ${sink}.`,
      healthy: `Healthy: its mass ${shown(value, 3)} is not above ${sink}.`,
    }[verdict(head, moment)] || "This layer has no attention."];
    if (none) lines.push(`An untrained head would have a mass of ${shown(none, 3)} here${isSick(head, moment) ? "" : ", so a low mass alone proves nothing"}.`);
    if (state.model.fixed.includes(head)) lines.push("It cannot change: neither it nor anything it reads was touched.");
    if (state.model.recovered[nameOf(head)]) lines.push(`In the end: ${state.model.recovered[nameOf(head)]}`);
    for (const name of ["cost_zero", "cost_mean"]) {
      const cost = state.model.read[name]?.(head);
      if (Number.isFinite(cost)) lines.push(`Ablating it alone in the untouched model (${name.slice(5)}) costs ${shown(cost, 4)} nats per token.`);
    }
    return lines;
  };
  const attention = (sample, name) => {
    const bytes = Uint8Array.from(atob(sample.maps[name]), (character) => character.charCodeAt(0)), count = sample.tokens.length;
    const label = `attention of ${name}, ${sample.name}, on ${count} tokens of ${sample.about}`, stops = page.scales[isDark() ? "sequential_dark" : "sequential"];
    const canvas = make("canvas", { width: count, height: count, role: "img", "aria-label": label });
    const context = canvas.getContext("2d"), drawn = context.createImageData(count, count);
    for (let row = 0, i = 0; row < count; row++) for (let key = 0; key <= row; key++, i++)
      drawn.data.set([...mixed(stops, Math.sqrt(bytes[i] / 255)), 255], 4 * (row * count + key));
    context.putImageData(drawn, 0, 0);
    const said = make("p", { class: "note" }, `${sample.name}; rows look at columns`);
    canvas.addEventListener("mousemove", (event) => {
      const row = Math.floor((count * event.offsetY) / canvas.clientHeight), key = Math.floor((count * event.offsetX) / canvas.clientWidth);
      const share = shown(bytes[(row * (row + 1)) / 2 + key] / 255, 2);
      if (key >= 0 && key <= row && row < count) said.textContent = `“${sample.tokens[row]}” → “${sample.tokens[key]}”: ${share}`;
    });
    return make("div", {}, canvas, said);
  };
  const detail = () => {
    if (state.head === null) return;
    const head = state.head, name = nameOf(head), stats = Object.entries(state.model.stats).filter(([key]) => key !== "drift");
    const still = stats.filter(([, stat]) => !stat.moves).map(([key, stat]) => [stat.label, `${shown(state.model.read[key](head, 0), stat.digits)} ${stat.unit}`]);
    const maps = state.model.samples.filter((sample) => sample.maps[name]).map((sample) => attention(sample, name));
    const was = verdict(head, 0), is = verdict(head, momentShown());
    $("head").replaceChildren(
      make("h3", {}, name, " ", make("small", {}, was === is ? is : `${was} → ${is}`), " ", make("small", {}, role(head))),
      ...why(head).map((line) => make("p", {}, line)),
      ...(maps.length ? [make("div", { class: "maps" }, ...maps)] : []),
      ...stats.filter(([, stat]) => stat.moves).map(([key]) => curve(key, head)),
      make("dl", {}, ...still.flatMap(([label, value]) => [make("dt", {}, label), make("dd", {}, value)])));
  };

  // controls
  const link = () => {
    const [, step] = state.model.moments[state.moment], last = state.moment === state.model.moments.length - 1;
    const place = { head: state.head !== null && nameOf(state.head), model: state.set, step: !last && String(step ?? "untouched") };
    const chosen = { ...place, stat: state.stat !== "mass" && state.stat, view: state.view !== "now" && state.view };
    const parts = Object.entries(chosen).filter(([, value]) => value).map(([name, value]) => `${name}=${value}`);
    if (parts.length || /[=]/.test(location.hash)) history.replaceState(null, "", `#${parts.join("&")}`);
  };
  const choose = (set) => {
    state.set = set;
    state.model = opened(set);
    state.moment = state.model.moments.length - 1;
    if (state.head !== null && state.head >= state.model.heads.length) state.head = null;
    if (!state.model.stats[state.stat]) state.stat = "mass";
    $("stat").replaceChildren(...Object.entries(state.model.stats).map(([name, stat]) => make("option", { value: name }, stat.label)));
    $("step").max = state.moment;
    for (const id of ["time", "view"]) $(id).hidden = state.moment === 0;
    $("sorting").hidden = !state.model.stats.slope;
    $("about").textContent = state.model.about;
    for (const update of [sync, build, paint]) update();
  };
  const sync = () => {
    for (const [id, value] of [["set", state.set], ["stat", state.stat], ["step", state.moment]]) $(id).value = value;
    for (const input of document.getElementsByName("view")) input.checked = input.value === state.view;
  };
  const open = (head, focus = true) => {
    state.head = head;
    for (const button of $("grid").querySelectorAll("[tabindex='0']")) button.tabIndex = -1;
    cell(head).tabIndex = 0;
    if (focus) cell(head).focus();
    paint();
  };
  const go = (moment) => { state.moment = moment; if (state.view === "before") state.view = "now"; sync(); paint(); };
  let playing = 0;
  const stop = () => { clearInterval(playing); playing = 0; $("play").textContent = "Play"; link(); };
  $("play").addEventListener("click", () => {
    if (playing) return stop();
    const last = state.model.moments.length - 1, pause = Math.min(500, Math.max(80, 6000 / last));
    playing = setInterval(() => state.moment < last ? go(state.moment + 1) : stop(), pause);
    $("play").textContent = "Stop";
    if (state.moment === last) go(0);
  });
  $("step").addEventListener("input", () => go(Number($("step").value)));
  $("stat").addEventListener("change", () => { state.stat = $("stat").value; paint(); });
  $("set").addEventListener("change", () => choose(Number($("set").value)));
  $("sorted").addEventListener("change", () => { state.sorted = $("sorted").checked; build(); paint(); });
  $("all").addEventListener("toggle", () => { if ($("all").open) table(); });
  $("view").addEventListener("change", (event) => { state.view = event.target.value; paint(); });
  $("grid").addEventListener("click", (event) => { if (event.target.dataset.head) open(Number(event.target.dataset.head)); });
  $("grid").addEventListener("keydown", (event) => {
    const width = state.model.shape[1], buttons = [...$("grid").querySelectorAll("button")], place = buttons.indexOf(event.target);
    const row = place - (place % width), moved = { ArrowLeft: place - 1, ArrowRight: place + 1, ArrowUp: place - width, ArrowDown: place + width };
    const to = { ...moved, Home: row, End: row + width - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (buttons[to]) { event.target.tabIndex = -1; buttons[to].tabIndex = 0; buttons[to].focus(); }
  });
  const tip = (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const head = Number(button.dataset.head), one = ([name, stat]) => `${stat.label} ${shown(state.model.read[name](head, momentShown()), stat.digits)}`;
    $("tip").textContent = [`${nameOf(head)}: ${verdict(head, momentShown())}, ${role(head)}`, ...Object.entries(state.model.stats).map(one)].join(" · ");
  };
  for (const kind of ["mouseover", "focusin"]) $("grid").addEventListener(kind, tip);
  $("set").replaceChildren(...page.models.map((model, place) => make("option", { value: place }, model.name)));
  $("models").hidden = page.models.length < 2;

  const follow = () => {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    choose(page.models[given.model] ? Number(given.model) : state.set);
    if (state.model.stats[given.stat]) state.stat = given.stat;
    if (["now", "before", "difference"].includes(given.view)) state.view = given.view;
    const moment = state.model.moments.findIndex(([, step]) => String(step ?? "untouched") === given.step);
    if (moment >= 0) state.moment = moment;
    const [, layer, head] = /^L(\d+)H(\d+)$/.exec(given.head || "") || [], place = Number(layer) * state.model.shape[1] + Number(head);
    sync();
    if (place < state.model.heads.length) open(place, false); else paint();
  };
  addEventListener("hashchange", follow); follow();
})();
