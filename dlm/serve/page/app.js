"use strict";
/* The page: reads the forms, runs requests, shows them on the stage. */

(() => {
  const {
    make, byId, counted, calm, apiKey, callJson, readTrace, writeTrace, download,
    Side, Player, StrategyForm, Decisions, snippets, ramp,
  } = globalThis.dlm;

  const CHAT = "v1/chat/completions";
  const DECIDE = "v1/decisions";
  const radio = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  const sides = [new Side("A"), new Side("B")];
  let catalogue = { model: { id: "" } };
  let strategies = [];
  let running = null; // the AbortController of the run in progress
  let touched = 0; // the strategy whose request is shown
  let due = false; // whether a redraw has been asked for

  const player = new Player(
    { ...Object.fromEntries(["range", "play", "back", "next", "speed", "told"].map((id) => [id, byId(id)])) },
    (step, moving) => show(step, moving),
  );
  const decisions = new Decisions(() => tellRequest());

  /* The stage */

  function shownSides() {
    return sides.filter((side) => !side.element.hidden);
  }

  function show(step, moving) {
    const options = { colour: radio("colour"), prompt: byId("show-prompt").checked, moving };
    shownSides().forEach((side) => side.show(step, options));
    byId("save").disabled = sides.every((side) => side.empty);
  }

  /** Draw what has come in, at most once a frame. */
  function refresh() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      redraw();
    });
  }

  function redraw() {
    player.extend(Math.max(...shownSides().map((side) => side.steps)));
    show(player.step, false);
  }

  function arrange(isPair) {
    sides[1].element.hidden = !isPair;
    byId("strategy-b").hidden = !isPair;
    byId("sides").classList.toggle("pair", isPair);
    tellRequest();
  }

  function drawLegend() {
    const byStep = radio("colour") === "step";
    const scale = make("span", { class: "scale", "aria-hidden": "true" });
    const colours = Array.from({ length: 9 }, (_, at) => ramp(at / 8));
    scale.style.setProperty("--scale", `linear-gradient(90deg, ${colours.join(", ")})`);
    const cues = byStep
      ? [["none", "its number is below a token"]]
      : [["low", "under 0.5"], ["middle", "under 0.9"], ["high", "0.9 and over"]];
    cues.push(["back", "taken back"], ["block", "block"]);
    byId("legend").replaceChildren(
      make("span", {}, byStep ? "first step" : "0"), scale,
      make("span", {}, byStep ? "last" : "1"),
      ...cues.map(([name, text]) => {
        return make("span", {}, make("span", { class: `cue ${name}`, "aria-hidden": "true" }), text);
      }),
    );
  }

  /* Requests */

  function number(id) {
    return byId(id).value === "" ? undefined : Number(byId(id).value);
  }

  /** The body of a side's request, without the fields of streams. */
  function chatBody(strategy) {
    const isInfill = radio("mode") === "infill";
    const { dlm, effort } = strategy.read();
    if (isInfill) dlm.infill = byId("template").value;
    const body = {
      model: catalogue.model.id,
      messages: [{ role: "user", content: byId(isInfill ? "instruction" : "prompt").value }],
      max_tokens: isInfill ? undefined : number("length"),
      temperature: number("temperature"),
      seed: number("seed"),
      reasoning_effort: effort || undefined,
      dlm: Object.keys(dlm).length ? dlm : undefined,
    };
    return JSON.parse(JSON.stringify(body)); // without what is undefined
  }

  function currentBody() {
    return radio("mode") === "decide"
      ? [DECIDE, decisions.body(catalogue.model.id)]
      : [CHAT, chatBody(strategies[touched])];
  }

  function tellRequest() {
    if (!strategies.length) return;
    if (!byId("compare").checked) touched = 0;
    byId("whose").textContent = byId("compare").checked ? ` of ${"AB"[touched]}` : "";
    byId("snippet").textContent = snippets(...currentBody())[radio("form")];
  }

  async function run() {
    if (running) return;
    complain(null);
    running = new AbortController();
    setRunning(true);
    try {
      await (radio("mode") === "decide" ? runDecisions(running.signal) : runSides(running.signal));
      byId("said").textContent = "Finished.";
    } catch (error) {
      if (error.name !== "AbortError") complain(error);
      else byId("said").textContent = "Stopped.";
    } finally {
      running = null;
      setRunning(false);
    }
  }

  async function runSides(signal) {
    arrange(byId("compare").checked);
    const pairs = shownSides().map((side, at) => [side, chatBody(strategies[at])]);
    sides.forEach((side) => side.reset());
    byId("stage").scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "nearest" });
    player.start();
    const runs = pairs.map(([side, body]) => {
      const asked = { stream: true, stream_options: { include_usage: true } };
      return side.run({ ...body, ...asked, dlm: { ...body.dlm, events: true } }, signal, refresh);
    });
    const ends = await Promise.allSettled(runs);
    redraw();
    player.finish();
    const failed = ends.find((end) => end.status === "rejected");
    if (failed) throw failed.reason;
  }

  async function runDecisions(signal) {
    const body = decisions.body(catalogue.model.id);
    const began = performance.now();
    const answered = await callJson(DECIDE, body, signal);
    decisions.show(answered, body.questions, (performance.now() - began) / 1000);
  }

  function setRunning(isRunning) {
    byId("run").disabled = isRunning;
    byId("stop").disabled = !isRunning;
    byId("ask").setAttribute("aria-busy", isRunning);
    document.body.classList.toggle("running", isRunning);
  }

  /** Show an error beside the field that it names; null takes the last one away. */
  function complain(error) {
    document.querySelectorAll("[aria-invalid]").forEach((one) => one.removeAttribute("aria-invalid"));
    const place = byId(document.body.dataset.server === "ready" ? "alert" : "complaint");
    place.hidden = !error;
    if (!error) return;
    const isNamed = !error.param || error.message.includes(error.param);
    place.replaceChildren(...(isNamed ? [] : [make("code", {}, error.param), ": "]), error.message);
    const named = error.param && document.querySelector(`[data-field="${CSS.escape(error.param)}"]`);
    if (named) named.setAttribute("aria-invalid", "true");
    if (error.status === 401) askForKey();
  }

  function askForKey() {
    byId("connection").open = true;
    byId("key").focus();
  }

  /* Saved traces */

  function showTrace(text, row = 0) {
    try {
      const trace = readTrace(text);
      running?.abort();
      complain(null);
      setMode("generate");
      arrange(false);
      sides[1].reset();
      sides[0].load(trace, row, () => startTrace());
      byId("model").textContent = trace.model || "a saved run";
      startTrace();
    } catch (error) {
      complain(new Error(`This is no trace: ${error.message}`));
    }
  }

  function startTrace() {
    player.start();
    player.extend(sides[0].steps);
    player.finish();
    if (calm.matches) player.jump(sides[0].steps);
    else show(0, false);
  }

  async function openFile(file) {
    if (file) showTrace(await file.text());
  }

  function saveRun() {
    const full = shownSides().filter((side) => !side.empty);
    for (const side of full) {
      const name = full.length > 1 ? `run-${side.element.dataset.side.toLowerCase()}.jsonl` : "run.jsonl";
      const recordings = side.rows ? [...side.rows.values()] : [side.recording];
      download(name, writeTrace(side.model, recordings));
    }
  }

  /* The server */

  function setServer(state) {
    document.body.dataset.server = state;
  }

  async function connect() {
    try {
      catalogue = await callJson("v1/dlm/strategies");
      setServer("ready");
      complain(null);
      byId("model").textContent = [
        catalogue.model.id, catalogue.model.attention && `${catalogue.model.attention} attention`,
        catalogue.model.max_length && `up to ${counted(catalogue.model.max_length, "token")}`,
      ].filter(Boolean).join(" · ");
      strategies = ["A", "B"].map((name, at) => {
        const root = byId(`strategy-${name.toLowerCase()}`);
        return new StrategyForm(root, catalogue, `Strategy ${name}`, () => {
          touched = at;
          tellRequest();
        });
      });
      tellRequest();
    } catch (error) {
      setServer(error.status === 401 ? "ready" : "none");
      if (error.status === 401) complain(error);
    }
  }

  function setMode(mode) {
    document.querySelector(`input[name=mode][value=${mode}]`).checked = true;
    document.body.dataset.mode = mode;
    tellRequest();
  }

  function insertHole() {
    const template = byId("template");
    const size = Math.max(1, Math.floor(number("hole-size") ?? 8));
    template.setRangeText(`[[mask:${size}]]`, template.selectionStart, template.selectionEnd, "end");
    template.focus();
    tellRequest();
  }

  function listen() {
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      run();
    });
    byId("ask").addEventListener("input", tellRequest);
    byId("stop").addEventListener("click", () => running?.abort());
    byId("hole").addEventListener("click", insertHole);
    byId("compare").addEventListener("change", () => arrange(byId("compare").checked));
    byId("show-prompt").addEventListener("change", () => show(player.step, false));
    byId("open").addEventListener("click", () => byId("file").click());
    byId("pick").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", () => openFile(byId("file").files[0]));
    byId("save").addEventListener("click", saveRun);
    byId("copy").addEventListener("click", () => navigator.clipboard?.writeText(byId("snippet").textContent));
    byId("connect").addEventListener("submit", (event) => {
      event.preventDefault();
      apiKey.set(byId("key").value);
      connect();
    });
    for (const [name, act] of [["mode", () => setMode(radio("mode"))], ["form", tellRequest], ["colour", recolour]]) {
      document.querySelectorAll(`input[name=${name}]`).forEach((one) => one.addEventListener("change", act));
    }
    document.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
      if (event.key === "Escape") running?.abort();
    });
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      openFile(event.dataTransfer.files[0]);
    });
  }

  function recolour() {
    drawLegend();
    show(player.step, false);
  }

  function start() {
    byId("sides").append(...sides.map((side) => side.element));
    sides[1].element.hidden = true;
    byId("key").value = apiKey.get();
    if (calm.matches) byId("speed").value = "0";
    listen();
    drawLegend();
    const saved = byId("saved-trace");
    if (location.protocol === "file:" || saved.textContent.trim()) setServer("none");
    else connect();
    if (saved.textContent.trim()) showTrace(saved.textContent, Number(saved.dataset.row));
  }

  start();
})();
