"use strict";
/* The page: reads the forms, asks the server, and gives what comes back to the stage. */

(() => {
  const {
    make, byId, counted, apiKey, callJson, Stage, StrategyForm, Decisions, snippets,
  } = globalThis.dlm;

  const CHAT = "v1/chat/completions";
  const DECIDE = "v1/decisions";
  const stage = new Stage();
  let catalogue = { model: { id: "" } }; // of /v1/dlm/strategies
  let strategies = []; // the forms of A and B
  let touched = 0; // the strategy whose request is shown
  let running = null; // the AbortController of the run in progress
  const decisions = new Decisions(() => tellRequest());

  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  const isPair = () => byId("compare").checked;

  /* Requests */

  function number(id) {
    return byId(id).value === "" ? undefined : Number(byId(id).value);
  }

  /** The body of a side's request, without the fields of streams. */
  function chatBody(strategy) {
    const isInfill = chosen("mode") === "infill";
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

  function streamed(body) {
    return {
      ...body, stream: true, stream_options: { include_usage: true }, dlm: { ...body.dlm, events: true },
    };
  }

  function tellRequest() {
    if (!strategies.length) return;
    if (!isPair()) touched = 0;
    const isChat = chosen("mode") !== "decide";
    byId("whose").textContent = isChat && isPair() ? ` of ${"AB"[touched]}` : "";
    const body = isChat ? chatBody(strategies[touched]) : decisions.body(catalogue.model.id);
    byId("snippet").textContent = snippets(isChat ? CHAT : DECIDE, body)[chosen("form")];
  }

  /** True if all numbers of the shown mode are ones; else the browser tells which is not. */
  function areNumbersRight() {
    const fields = [...byId("ask").querySelectorAll("input[data-field]")];
    return fields.filter((one) => one.checkVisibility()).every((one) => one.reportValidity());
  }

  async function run() {
    if (running || !strategies.length) return;
    complain(null);
    if (!areNumbersRight()) return;
    running = new AbortController();
    setRunning(true);
    try {
      await (chosen("mode") === "decide" ? decide(running.signal) : generate(running.signal));
      byId("said").textContent = "Finished.";
    } catch (error) {
      if (error.name === "AbortError") byId("said").textContent = "Stopped.";
      else complain(error);
    } finally {
      running = null;
      setRunning(false);
    }
  }

  function generate(signal) {
    const used = isPair() ? strategies : strategies.slice(0, 1);
    return stage.run(used.map((strategy) => streamed(chatBody(strategy))), byId("in-turn").checked, signal);
  }

  async function decide(signal) {
    const body = decisions.body(catalogue.model.id);
    const began = performance.now();
    const answered = await callJson(DECIDE, body, signal);
    decisions.show(answered, body.questions, (performance.now() - began) / 1000);
  }

  function setRunning(isRunning) {
    byId("run").disabled = isRunning;
    byId("stop").disabled = !isRunning;
    byId("ask").setAttribute("aria-busy", isRunning);
  }

  /** Show an error beside the field that it names; null takes the last one away. */
  function complain(error) {
    document.querySelectorAll("[aria-invalid]").forEach((one) => one.removeAttribute("aria-invalid"));
    const place = byId("alert");
    place.hidden = !error;
    if (!error) return;
    const { param, message } = error;
    const isNamed = !param || message.includes(param);
    place.replaceChildren(...(isNamed ? [] : [make("code", {}, param), ": "]), message);
    place.scrollIntoView({ block: "nearest" });
    const field = param && document.querySelector(`[data-field="${CSS.escape(param)}"]`);
    if (field) field.setAttribute("aria-invalid", "true");
    if (error.status === 401) {
      byId("connection").open = true;
      byId("key").focus();
    }
  }

  /* Saved traces */

  function showTrace(text, row = 0) {
    running?.abort();
    complain(null);
    try {
      byId("model").textContent = stage.load(text, row) || "a saved run";
      setMode("generate");
      document.body.dataset.shows = "trace";
    } catch (error) {
      complain(new Error(`This is no trace: ${error.message}`));
    }
  }

  async function openFile(file) {
    if (file) showTrace(await file.text());
    byId("file").value = ""; // the same file may be opened again
  }

  /* The server */

  async function connect() {
    const { body } = document;
    try {
      catalogue = await callJson("v1/dlm/strategies");
    } catch (error) {
      body.dataset.server = error.status === 401 ? "locked" : "none";
      if (error.status === 401) complain(error);
      return;
    }
    body.dataset.server = "ready";
    complain(null);
    const { id, attention, max_length: most } = catalogue.model;
    const traits = [id, attention && `${attention} attention`, most && `up to ${counted(most, "token")}`];
    byId("model").textContent = traits.filter(Boolean).join(" · ");
    strategies = ["A", "B"].map((name, at) => {
      const root = byId(`strategy-${name.toLowerCase()}`);
      return new StrategyForm(root, catalogue, `Strategy ${name}`, () => {
        touched = at;
        edited();
      });
    });
    tellRequest();
  }

  /** Something of the request has changed: what was told of the last one no longer holds. */
  function edited() {
    complain(null);
    tellRequest();
  }

  function setMode(mode) {
    complain(null);
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

  function compare() {
    for (const id of ["strategy-b", "turns"]) byId(id).hidden = !isPair();
    stage.arrange(isPair());
    tellRequest();
  }

  function on(id, type, act) {
    byId(id).addEventListener(type, (event) => {
      if (type === "submit") event.preventDefault();
      act();
    });
  }

  function listen() {
    on("ask", "submit", run);
    on("ask", "input", edited);
    on("stop", "click", () => running?.abort());
    on("hole", "click", insertHole);
    on("compare", "change", compare);
    for (const id of ["open", "pick"]) on(id, "click", () => byId("file").click());
    on("file", "change", () => openFile(byId("file").files[0]));
    on("copy", "click", () => navigator.clipboard?.writeText(byId("snippet").textContent));
    on("connect", "submit", () => {
      apiKey.set(byId("key").value);
      connect();
    });
    for (const one of document.querySelectorAll("input[name=mode]")) {
      one.addEventListener("change", () => setMode(one.value));
    }
    for (const one of document.querySelectorAll("input[name=form]")) {
      one.addEventListener("change", tellRequest);
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

  function start() {
    listen();
    byId("key").value = apiKey.get();
    const saved = byId("saved-trace");
    const hasTrace = saved.textContent.trim() !== "";
    if (hasTrace || location.protocol === "file:") document.body.dataset.server = "none";
    else connect();
    if (hasTrace) showTrace(saved.textContent, Number(saved.dataset.row));
  }

  start();
})();
