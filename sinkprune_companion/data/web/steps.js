// Moves through the steps of generation: the text so far, and the attention that every token receives.
// `sinkSteps(root, data)` fills the element `root`. `data` is what figures/step_views.py writes: several
// views (one model, one prompt), shown together or, where `data.pick` is true, two models beside each other,
// with menus.

function sinkSteps(root, data) {
  "use strict";
  const LEVELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const RED = "#d9002b";
  const BLUE = "#0072b2";
  const MILLISECONDS = 500; // that a step is shown while it plays

  const css = `
    .sink-steps { font-size: 0.9rem; line-height: 1.7; margin: 1em 0; }
    .sink-steps .controls { display: flex; flex-wrap: wrap; gap: 0.4em 1.2em; align-items: center; }
    .sink-steps label { display: flex; gap: 0.5em; align-items: center; max-width: 100%; }
    .sink-steps select { max-width: 100%; min-width: 0; font: inherit; }
    .sink-steps .step { flex: 1 1 16em; }
    .sink-steps input { flex: 1; min-width: 6em; accent-color: ${BLUE}; }
    .sink-steps button { font: inherit; padding: 0 0.8em; cursor: pointer; }
    .sink-steps .panels.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20em), 1fr)); }
    .sink-steps .panels.pair { gap: 0 1.5em; }
    .sink-steps .panels section { min-width: 0; }
    .sink-steps .panels.pair section { display: grid; grid-row: span 5; grid-template-rows: subgrid; }
    .sink-steps .title { margin: 0.8em 0 0.2em; font-weight: bold; }
    .sink-steps .text { color: oklch(from currentColor round(l) 0 0); } /* black or white, whatever the theme */
    .sink-steps .text { margin: 0.3em 0; overflow-wrap: anywhere; white-space: pre-wrap; }
    .sink-steps .text span { display: inline-block; line-height: 1.2; border: 2px solid transparent; }
    .sink-steps .text span { border-radius: 3px; box-shadow: inset 0 0 0 0.5px #8884; }
    .sink-steps .text .prompt { text-decoration: underline; text-decoration-color: #888; }
    .sink-steps .text .mask { color: transparent; box-shadow: inset 0 0 0 1px #888; user-select: none; }
    .sink-steps .text .later { visibility: hidden; }
    .sink-steps .text .sink { border-color: ${RED}; }
    .sink-steps .text .here { border-color: currentColor; }
    .sink-steps .bars .here { outline: 2px solid currentColor; }
    .sink-steps .bars { position: relative; display: flex; align-items: flex-end; height: 6em; }
    .sink-steps .bars { border-bottom: 1px solid #888; }
    .sink-steps .bars i { flex: 1 1 0; min-width: 0; background: ${BLUE}; margin-right: 0.5px; }
    .sink-steps .bars .sink { background: ${RED}; }
    .sink-steps .bars hr { position: absolute; left: 0; right: 0; margin: 0; border: 0; }
    .sink-steps .bars hr { border-top: 1px dashed currentColor; opacity: 0.5; }
    .sink-steps .map { position: relative; cursor: crosshair; margin: 0.5em 0 0; }
    .sink-steps canvas { display: block; width: 100%; height: 9em; image-rendering: pixelated; }
    .sink-steps .row { position: absolute; left: 0; right: 0; pointer-events: none; }
    .sink-steps .row { outline: 2px solid currentColor; }
    .sink-steps .note { font-size: 0.85em; opacity: 0.8; line-height: 1.4; margin: 0.2em 0 0; }
    .sink-steps output { display: block; font-size: 0.9em; line-height: 1.5; min-height: 3em; }`;

  function element(name, className, parent, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  // Attention of every key at every step, from the letters of one layer.
  function massOf(view, layer) {
    const ratio = data.most / data.least;
    return Array.from(layer.mass, (letter) =>
      data.least * Math.pow(ratio, LEVELS.indexOf(letter) / (LEVELS.length - 1)));
  }

  // What stands at every position at every step: indices into the view's tokens, -1 for a mask.
  function statesOf(view) {
    const states = [view.first];
    for (const change of view.changes) {
      const state = states[states.length - 1].slice();
      for (const [position, token] of change) state[position] = token;
      states.push(state);
    }
    return states;
  }

  // From 0 (a tenth of the mean or less) to 1 (a hundred times the mean, or as much as there can be).
  function share(mass) {
    return Math.min(1, Math.max(0, Math.log10(mass * 10) / Math.log10(Math.min(100, data.most) * 10)));
  }

  // A token as it is printed; one that is nothing but spaces is seen, too.
  function shown(token) {
    const seen = /^ +$/.test(token) ? token.replace(/ /g, "␣") : token;
    return seen.replace(/\n/g, "⏎").replace(/\t/g, "⇥");
  }

  function named(view, token) {
    return token < 0 ? "a mask" : `“${shown(view.tokens[token]).trim()}”`;
  }

  // One view on the page. `draw(view, layer, step)` shows it; `onStep` is told where the map is clicked.
  function panelIn(parent, onStep) {
    const title = element("p", "title", parent);
    const text = element("p", "text", parent);
    const said = element("output", "", parent);
    const bars = element("div", "bars", parent);
    bars.setAttribute("role", "img");
    const map = element("div", "map", parent);
    const canvas = element("canvas", "", map);
    const row = element("div", "row", map);
    let current = null;

    map.addEventListener("click", (event) => {
      const box = map.getBoundingClientRect();
      onStep(Math.floor(((event.clientY - box.top) / box.height) * current.states.length));
    });

    function drawMap() {
      const { view, mass, sinks, states } = current;
      const length = view.first.length;
      canvas.width = length;
      canvas.height = states.length;
      const context = canvas.getContext("2d");
      states.forEach((state, step) => {
        for (let key = 0; key < view.visible[step]; key += 1) {
          context.fillStyle = sinks[step].has(key) ? RED : `rgba(0, 114, 178, ${share(mass[step * length + key])})`;
          context.fillRect(key, step, 1, 1);
        }
      });
      row.style.height = `${100 / states.length}%`;
    }

    function mark(key, on) {
      for (const place of [text, bars]) place.children[key].classList.toggle("here", on);
    }

    function drawStep(step) {
      const { view, mass, sinks, states } = current;
      const length = view.first.length;
      text.replaceChildren();
      bars.replaceChildren();
      const last = states[states.length - 1];
      for (let key = 0; key < length; key += 1) {
        const isThere = key < view.visible[step];
        const token = states[step][key];
        const isMask = token < 0;
        const kinds = [sinks[step].has(key) && "sink", key < view.prompt_length && "prompt", isMask && "mask"];
        if (!isThere) kinds.push("later");

        // What is still to come takes its place already, so that nothing moves when it comes.
        const printed = isMask || !isThere ? last[key] : token;
        const says = printed < 0 ? "□" : shown(view.tokens[printed]);
        const word = element("span", kinds.filter(Boolean).join(" "), text, says);
        const bar = element("i", kinds[0] || "", bars);
        if (isMask) word.setAttribute("aria-hidden", "true");
        if (!isThere) {
          bar.style.visibility = "hidden";
          continue;
        }

        const value = mass[step * length + key];
        word.style.backgroundColor = `rgba(230, 159, 0, ${share(value).toFixed(2)})`;
        if (share(value) > 0.65 && !isMask) word.style.color = "#000"; // on orange, whatever the theme
        bar.style.height = `${100 * share(value)}%`;
        word.title = bar.title = `${named(view, token)} at ${key}: ${value.toPrecision(2)} times the mean`;
        for (const one of [word, bar]) {
          one.addEventListener("pointerenter", () => mark(key, true));
          one.addEventListener("pointerleave", () => mark(key, false));
        }
      }
      element("hr", "", bars).style.bottom = `${100 * share(1)}%`;
      row.style.top = `${(100 * step) / states.length}%`;
      const names = [...sinks[step]].map((key) => `${named(view, states[step][key])} at ${key}`);
      said.textContent = `Sinks at this step: ${names.join(", ") || "none"}.`;
      bars.setAttribute("aria-label", `Attention by position. ${said.textContent}`);
    }

    return function draw(view, layer, step) {
      if (!current || current.view !== view || current.layer !== layer) {
        const sinks = layer.sinks.map((keys) => new Set(keys));
        current = { view, layer, mass: massOf(view, layer), sinks, states: statesOf(view) };
        title.textContent = `${view.title}, ${layer.name}`;
        drawMap();
      }
      drawStep(step);
    };
  }

  function menu(parent, label, names, onChange) {
    const holder = element("label", "", parent, label);
    const select = element("select", "", holder);
    names.forEach((name) => element("option", "", select, name));
    select.addEventListener("change", onChange);
    return select;
  }

  function unique(names) {
    return [...new Set(names)];
  }

  root.classList.add("sink-steps");
  root.replaceChildren();
  element("style", "", root, css);
  const controls = element("div", "controls", root);
  const prompts = unique(data.views.map((view) => view.prompt));
  const titles = unique(data.views.map((view) => view.title));
  const shownTitles = []; // a menu per panel
  let prompt, layer;
  if (data.pick) {
    prompt = menu(controls, "prompt", prompts, draw);
    titles.slice(0, 2).forEach((_, place) => {
      const chosenTitle = menu(controls, place ? "beside" : "model", titles, draw);
      chosenTitle.selectedIndex = place;
      shownTitles.push(chosenTitle);
    });
    layer = menu(controls, "attention of", data.views[0].layers.map((one) => one.name), draw);
  }
  const label = element("label", "step", controls, "step");
  const slider = element("input", "", label);
  slider.type = "range";
  slider.min = 1;
  slider.max = data.steps.length;
  slider.value = Math.ceil(data.steps.length / 2); // half of the text is written, and sinks have moved
  const number = element("span", "", label);
  const play = element("button", "", controls, "play");
  play.type = "button";
  const panels = [];
  const panelCount = data.pick ? shownTitles.length : data.views.length;
  const holder = element("div", data.pick ? "panels pair" : "panels", root);
  for (let place = 0; place < panelCount; place += 1) {
    panels.push(panelIn(element("section", "", holder), (step) => goTo(step)));
  }
  element("p", "note", root, "Text: the stronger the orange behind a token, the more attention it receives; red " +
    "frames are attention sinks, underlined is the prompt, and an empty box is a mask, as wide as the token that " +
    "will fill it. Bars: attention by position, on a logarithmic scale, red where it is a sink; dashed is the mean " +
    "of all positions. Below: all steps, position across and step down; click to go to a step.");

  function chosen() {
    if (!data.pick) return data.views;
    const ofPrompt = data.views.filter((view) => view.prompt === prompts[prompt.selectedIndex]);
    return shownTitles.map((one) => ofPrompt.find((view) => view.title === titles[one.selectedIndex]));
  }

  function draw() {
    const step = Number(slider.value) - 1;
    number.textContent = `${data.steps[step]} of ${data.steps[data.steps.length - 1]}`;
    slider.setAttribute("aria-valuetext", number.textContent);
    chosen().forEach((view, place) => {
      panels[place](view, view.layers[layer ? layer.selectedIndex : 0], step);
    });
  }

  function goTo(step) {
    slider.value = step + 1;
    draw();
  }

  let timer = 0;
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "play";
  }
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === data.steps.length) goTo(0);
    play.textContent = "stop";
    timer = setInterval(() => {
      goTo(Number(slider.value));
      if (Number(slider.value) === data.steps.length) stop();
    }, MILLISECONDS);
  });
  slider.addEventListener("input", () => {
    stop();
    draw();
  });
  root.hidden = false;
  draw();
}
