/* The dashboard of one SAE. Data come as scripts that call `dashboard.receive`, so that it works from a file, without a
   server. All text goes into the page as text nodes: tokens are arbitrary code. */
"use strict";

const dashboard = (() => {
  const PAGE = 60; // lines that are added to the list at a time
  const BEFORE = 18, AFTER = 6; // tokens shown around the active one
  const ASKED = {query: "", where: "all", order: "number"}; // what the form asks, with its usual values
  const CONTEXT = ["kind", "block", "position", "document", "value", "active", "removed", "random"];
  const QUARTERS = ["lowest", "second", "third", "highest"];
  const parts = {}, waiting = {};
  let meta, order = [], shown = 0;

  const byId = (id) => document.getElementById(id);

  // Elements: make("p", {class: "x"}, "text", element, ...)
  function make(name, attributes, ...children) {
    const svg = name === "svg" || name === "rect" || name === "title";
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  // Data

  function receive(name, data) {
    parts[name] = data;
    (waiting[name] || []).forEach((resolve) => resolve(data));
  }

  function load(name) {
    if (parts[name]) return Promise.resolve(parts[name]);
    return new Promise((resolve, reject) => {
      if (waiting[name]) return waiting[name].push(resolve);
      waiting[name] = [resolve];
      const script = make("script", {src: `${name}.js`});
      script.onerror = () => {
        delete waiting[name];
        reject(new Error(`${name}.js cannot be read: it belongs beside this page`));
      };
      document.head.append(script);
    });
  }

  // Names of latents: 17 is one of the trained SAE, u17 one of the untrained SAE.
  const isUntrained = (name) => name.startsWith("u");

  async function latent(name) {
    if (isUntrained(name)) return meta.untrained.find((one) => `u${one.number}` === name);
    if (!(Number(name) < meta.n)) return undefined;
    const chunk = Math.floor(Number(name) / meta.chunk);
    const found = await load(`latents-${String(chunk).padStart(4, "0")}`);
    return found[Number(name) % meta.chunk];
  }

  async function block(number) {
    const text = await load("text");
    if (!text.tokens) {
      const raw = Uint8Array.from(atob(text.data), (character) => character.charCodeAt(0));
      text.tokens = text.bytes === 2 ? new Uint16Array(raw.buffer) : new Uint32Array(raw.buffer);
    }
    return text.tokens.subarray(number * meta.context, (number + 1) * meta.context);
  }

  // Numbers and tokens

  const percent = (share) => `${Number((100 * share).toPrecision(2))} %`;
  const signed = (value) => (value === null ? "–" : `${Number(value.toFixed(2)) < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`);
  const plain = (value) => Number(value.toPrecision(2)).toString();

  // White space made visible; `whole` keeps real line breaks and spaces, for reading code.
  function visible(text, whole) {
    const marked = text.replace(/\t/g, whole ? "⇥\t" : "⇥").replace(/\r/g, "␍").replace(/\n/g, whole ? "↵\n" : "↵");
    const spaces = whole ? marked : marked.replace(/^ +$|  +/g, (run) => "·".repeat(run.length));
    return spaces.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
      (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`);
  }

  const token = (number) => meta.vocabulary[number];
  const chip = (text, after) => make("span", {class: "token"}, make("code", {}, visible(text, false)), after);

  // One latent

  function tokensOf(ids, context, largest, from, to, whole) {
    const levels = new Map();
    for (let i = 0; i < context.active.length; i += 2) levels.set(context.active[i], context.active[i + 1] / meta.levels);
    const line = make("code", {class: whole ? "tokens whole" : "tokens"});
    for (let at = from; at < to; at += 1) {
      const text = visible(token(ids[at]), whole), level = levels.get(at);
      if (level === undefined) {
        line.append(text);
        continue;
      }
      const look = {title: `activation ${plain(level * largest)}`, style: `background: rgba(245, 130, 32, ${level.toFixed(2)})`};
      line.append(at === context.position ? make("mark", look, text) : make("span", {class: "on", ...look}, text));
    }
    return line;
  }

  async function contextOf(context, largest) {
    const ids = await block(context.block);
    const effect = context.removed === null ? "" :
      `; without the latent ${signed(context.removed)} nats (random direction ${signed(context.random)})`;
    const where = `${plain(context.value)} in ${meta.files[context.document]}${effect}`;
    const from = Math.max(0, context.position - BEFORE), to = Math.min(ids.length, context.position + AFTER + 1);
    const whole = make("details", {}, make("summary", {}, "whole block"));
    whole.addEventListener("toggle", () => {
      if (whole.children.length < 2) whole.append(tokensOf(ids, context, largest, 0, ids.length, true));
    });
    return make("li", {class: "context"}, make("span", {class: "where"}, where),
      tokensOf(ids, context, largest, from, to, false), whole);
  }

  function bars(counts, here, caption, alt) {
    const most = Math.max(1, ...counts), width = 320 / counts.length;
    const chart = make("svg", {viewBox: "0 0 320 60", preserveAspectRatio: "none", role: "img", "aria-label": alt});
    counts.forEach((count, i) => {
      const height = count ? Math.max(1, (58 * count) / most) : 0;
      chart.append(make("rect", {x: i * width, y: 60 - height, width: width - 2, height, class: i === here ? "here" : ""},
        make("title", {}, String(count))));
    });
    return make("figure", {}, chart, make("figcaption", {}, caption));
  }

  function charts(one, largestOfAll) {
    const active = Math.round(one.density * meta.tokens), low = largestOfAll * 2 ** (-one.histogram.length / 2);
    const first = bars(one.histogram, -1,
      `Its ${active} active tokens by activation, from ${plain(low)} or less to ${plain(largestOfAll)} (log scale)`,
      `Histogram of activations; the largest is ${plain(one.largest)}`);
    const place = meta.densities.edges.findLastIndex((edge) => one.density >= edge);
    const second = bars(meta.densities.counts, one.density ? place + 1 : 0,
      `All ${meta.n} latents by density: never active, then from ${percent(meta.densities.edges[0])} or less to 100 % (log scale); this one marked`,
      `Histogram of the densities of all latents; this latent has ${percent(one.density)}`);
    return make("div", {class: "charts"}, first, second);
  }

  function patternOf([value, pattern]) {
    const line = make("li", {class: "context"}, make("span", {class: "where"}, `${plain(value)} after`));
    for (const key of pattern) {
      if (key === "*") line.append(make("span", {class: "token"}, "any token"));
      else if (key === "^") line.append(make("span", {class: "token"}, "start of text"));
      else line.append(chip(token(key), ""));
    }
    return line;
  }

  const section = (title, children) => (children.length ? [make("h3", {}, title), make("ol", {}, ...children)] : []);
  const named = (name) => (isUntrained(name) ? `Latent ${name.slice(1)} of the untrained SAE (control)` : `Latent ${name}`);

  function follows(one) {
    if (!one.label) return "Follows none of the known properties of the text.";
    const [label, f1, chance, precision, recall] = one.label, {name, share} = meta.labels[label];
    return `Of the known properties of the text it follows “${name}” best: F1 ${f1.toFixed(2)}, by chance ` +
      `${chance.toFixed(2)}; ${percent(precision)} of its active tokens have it (of all tokens ${percent(share)}), ` +
      `and it is active on ${percent(recall)} of those that have it.`;
  }

  function costs(one) {
    if (one.removed === null) return "";
    return ` Taken away at its largest activations, it adds ${signed(one.removed)} nats to the loss of the next token; ` +
      `a random direction of equal length adds ${signed(one.random)}.`;
  }

  async function show(name, focus) {
    const article = byId("latent");
    let one;
    try {
      one = await latent(name);
      if (!one) throw new Error(`There is no latent ${name}.`);
      const largestOfAll = isUntrained(name) ? meta.largest.untrained : meta.largest.sae;
      const places = one.contexts.map((values) => Object.fromEntries(CONTEXT.map((key, i) => [key, values[i]])));
      const contexts = await Promise.all(places.map((place) => contextOf(place, one.largest)));
      const kind = (wanted) => contexts.filter((_, i) => places[i].kind === wanted);
      const at = order.indexOf(name), step = (to, text) => (to === undefined ? [] : [make("a", {href: `#latent=${to}`}, text)]);
      const written = (pairs) => pairs.map(([number, score]) => make("li", {class: "token"},
        make("code", {}, visible(token(number), false)), ` ${signed(score)}`));
      article.replaceChildren(
        make("h2", {}, named(name)),
        make("p", {class: "steps"}, ...step(order[at - 1], "← previous"), ...step(order[at + 1], "next →")),
        make("p", {}, `Active on ${percent(one.density)} of ${meta.tokens.toLocaleString("en")} held-out tokens, at most ` +
          `${plain(one.largest)}.${costs(one)}`),
        ...(meta.labels.length ? [make("p", {}, follows(one))] : []),
        charts(one, largestOfAll),
        ...section("Largest activations", kind(0)),
        ...QUARTERS.flatMap((quarter, i) => section(`Random, from the ${quarter} quarter of its activations`, kind(i + 1))),
        ...section("Tokens it promotes, in standard deviations over the vocabulary", written(one.promoted)),
        ...section("Tokens it suppresses", written(one.suppressed)),
        ...section("Explanation by patterns of tokens (N2G)", one.patterns.map(patternOf)),
      );
    } catch (error) {
      article.replaceChildren(make("h2", {}, error.message));
    }
    document.querySelectorAll("#results [aria-current]").forEach((link) => link.removeAttribute("aria-current"));
    document.querySelector(`#results [data-latent="${CSS.escape(name)}"]`)?.setAttribute("aria-current", "true");
    if (focus) {
      article.focus({preventScroll: true});
      article.scrollIntoView({block: "start"});
    }
  }

  // The list

  // Numbers of the tokens that a query means: those equal to it but for white space around, else those that hold it.
  function tokensFor(query) {
    const all = meta.vocabulary.map((text, number) => [text, number]);
    const equal = all.filter(([text]) => text.trim() === query);
    const found = equal.length ? equal : all.filter(([text]) => text.toLowerCase().includes(query.toLowerCase()));
    return new Set(found.map(([, number]) => number));
  }

  function matching(query, where) {
    const {index, labels} = meta, names = meta.names;
    if (!query) return names.map((_, i) => i);
    const tokens = tokensFor(query), wanted = query.toLowerCase();
    const tests = {
      number: (i) => names[i] === wanted,
      label: (i) => index.label[i] !== null && labels[index.label[i]].name.toLowerCase().includes(wanted),
      on: (i) => index.on[i].some((number) => tokens.has(number)),
      promoted: (i) => index.promoted[i].some((number) => tokens.has(number)),
    };
    const used = where === "all" ? Object.values(tests) : [tests[where]];
    return names.map((_, i) => i).filter((i) => used.some((test) => test(i)));
  }

  function list() {
    const query = byId("query").value.trim(), where = byId("where").value, key = byId("order").value;
    const {index, names} = meta, found = matching(query, where);
    if (key !== "number") found.sort((a, b) => (index[key][b] ?? -Infinity) - (index[key][a] ?? -Infinity));
    order = found.map((i) => names[i]);
    byId("count").textContent = `${found.length} of ${names.length} latents` + (query ? ` for “${query}”` : "") +
      `; u before a number: a control, from the untrained SAE`;
    byId("lines").replaceChildren();
    shown = 0;
    more();
    remember();
  }

  // Writes what is asked and shown into the address, so that it can be kept or sent.
  function remember() {
    const state = new URLSearchParams();
    const latent = new URLSearchParams(location.hash.slice(1)).get("latent");
    if (latent !== null) state.set("latent", latent);
    for (const [key, usual] of Object.entries(ASKED)) if (byId(key).value !== usual) state.set(key, byId(key).value);
    history.replaceState(null, "", `#${state}`);
  }

  function more() {
    const {index, labels, names} = meta, current = new URLSearchParams(location.hash.slice(1)).get("latent");
    for (const name of order.slice(shown, shown + PAGE)) {
      const i = names.indexOf(name), label = index.label[i];
      const link = make("a", {href: `#latent=${name}`, "data-latent": name, ...(name === current && {"aria-current": "true"})}, name);
      byId("lines").append(make("tr", {}, make("td", {}, link), make("td", {}, percent(index.density[i])),
        make("td", {}, plain(index.largest[i])), make("td", {}, signed(index.removed[i])),
        make("td", {}, label === null ? "–" : labels[label].name)));
    }
    shown += PAGE;
    byId("more").hidden = shown >= order.length;
  }

  // The address says what to show: #latent=17, #query=import&where=on&order=density, or both.
  async function fromAddress(focus) {
    const state = new URLSearchParams(location.hash.slice(1));
    if (!focus || Object.keys(ASKED).some((key) => state.has(key))) {
      for (const [key, usual] of Object.entries(ASKED)) byId(key).value = state.get(key) ?? usual;
      list();
    }
    await show(state.get("latent") ?? order[0] ?? meta.names[0], focus);
    remember();
  }

  async function start() {
    meta = await load("meta");
    byId("form").addEventListener("submit", (event) => event.preventDefault());
    byId("query").addEventListener("input", list);
    for (const id of ["where", "order"]) byId(id).addEventListener("change", list);
    byId("more").addEventListener("click", more);
    byId("random").addEventListener("click", () => {
      const among = order.length ? order : meta.names;
      location.hash = `#latent=${among[Math.floor(Math.random() * among.length)]}`;
    });
    addEventListener("hashchange", () => fromAddress(true));
    await fromAddress(false);
  }

  return {receive, start};
})();
