"use strict";
/* One side of the stage: a canvas, its figures, its answer. */

(() => {
  const {
    KIND, make, Candidates, Recording, CanvasView, answerOf, filled, readEvent, streamJson,
  } = globalThis.dlm;

  const FIGURES = [
    ["forwards", "forwards", "Forwards of the model (NFE)"],
    ["tokens", "tokens", "Tokens before the end of the answer"],
    ["rate", "per forward", "Tokens for each forward"],
    ["speed", "tokens/s", "Tokens for each second that the engine took"],
    ["finish", "finish", "The reason of the end"],
  ];

  class Side {
    constructor(name) {
      Object.assign(this, { name, figures: {} });
      const list = make("dl", { class: "figures" });
      for (const [key, label, title] of FIGURES) {
        this.figures[key] = make("dd", { "data-figure": key }, "–");
        list.append(make("div", { title }, make("dt", {}, label), this.figures[key]));
      }
      const canvas = make("div", { class: "canvas", "aria-label": `Canvas ${name}` });
      this.inspector = make("p", { class: "inspector" });
      this.answer = make("output", { class: "answer-text", "aria-live": "polite" });
      this.choices = make("select", { class: "choices", "aria-label": "Choice of the trace", hidden: true });
      const copy = make("button", { type: "button", class: "quiet", onclick: () => this.copy() }, "Copy");
      this.title = make("h2", {}, name);
      this.found = new Candidates(name);
      this.element = make(
        "article", { class: "side card", "data-side": name },
        make("div", { class: "side-head" }, this.title, this.choices, list),
        canvas, this.inspector, this.found.element,
        make("div", { class: "answer-row" }, make("h3", {}, "Answer"), copy), this.answer,
      );
      this.view = new CanvasView(canvas, (words) => this.inspect(words));
      this.reset();
    }

    reset(model = "") {
      Object.assign(this, { recording: new Recording(), text: "", stats: null, model });
      Object.assign(this, { running: false, finish: null, rows: null });
      this.view.clear();
      this.found.reset();
      this.element.classList.remove("searched");
      this.choices.hidden = true;
      this.answer.textContent = "";
      this.inspect(null);
      Object.values(this.figures).forEach((figure) => (figure.textContent = "–"));
    }

    inspect(words) {
      this.inspector.textContent = words ?? "Point at a token, or focus the canvas and use the arrow keys.";
      this.inspector.classList.toggle("hint", words === null);
    }

    copy() {
      navigator.clipboard?.writeText(this.answer.textContent).catch(() => {});
    }

    get steps() {
      return this.recording.steps;
    }

    /** True while it shows the answers of a search, which has no canvas. */
    get searched() {
      return this.empty && this.found.count > 0;
    }

    get empty() {
      return this.recording.events.length === 0;
    }

    /** Decode on the server; `onEvent` is called after each event. Throws what the request throws. */
    async run(body, signal, onEvent) {
      this.reset(body.model);
      this.running = true;
      const { recording } = this; // a trace may take its place before the request has ended
      try {
        for await (const chunk of streamJson("v1/chat/completions", body, signal)) {
          this.take(chunk);
          onEvent();
        }
      } catch (error) {
        if (this.recording === recording) {
          this.finish = error.name === "AbortError" ? "stopped" : "error";
        }
        throw error;
      } finally {
        if (this.recording === recording) this.running = false;
        onEvent();
      }
    }

    take(chunk) {
      const choice = chunk.choices?.[0];
      if (choice?.delta?.content) this.text += choice.delta.content;
      if (choice?.finish_reason) this.finish = choice.finish_reason;
      const { event, ...stats } = chunk.dlm ?? {};
      if (event?.type === "candidate") {
        this.found.add(event.data);
        this.element.classList.add("searched");
      } else if (event) this.recording.add(readEvent(event));
      if ("nfe" in stats) this.stats = stats;
    }

    /** Show a saved trace: {model, rows}. */
    load(trace, row, onChoose) {
      this.reset(trace.model);
      this.rows = trace.rows;
      const rows = [...trace.rows.keys()].sort((a, b) => a - b);
      this.choices.replaceChildren(
        ...rows.map((at) => make("option", { value: at, textContent: `choice ${at}` })),
      );
      this.choices.hidden = rows.length < 2;
      this.choices.onchange = () => {
        this.pick(Number(this.choices.value));
        onChoose();
      };
      this.pick(trace.rows.has(row) ? row : rows[0]);
    }

    pick(row) {
      this.choices.value = row;
      this.view.clear();
      this.recording = this.rows.get(row);
      const { canvas } = this.recording.at(this.steps);
      this.text = answerOf(canvas, this.recording.texts);
      this.finish = canvas.reason;
    }

    /** Show the canvas after `step`, or after the last step so far; its figures with it. */
    show(step, options) {
      if (this.empty) {
        if (this.searched) this.showSearch();
        return;
      }
      const at = Math.min(step, this.steps);
      const frame = this.recording.at(at);
      this.view.show(frame, this.recording.texts, { ...options, steps: this.steps });
      const ended = !this.running && at >= this.steps;
      const { kinds } = frame.canvas;
      const texts = filled(frame.canvas, this.recording.texts);
      const tokens = texts.filter((pos) => kinds[pos] === KIND.COMMITTED).length;
      const nfe = (ended && this.stats?.nfe) || at;
      const seconds = this.stats?.seconds;
      this.tell("forwards", nfe);
      this.tell("tokens", tokens);
      this.tell("rate", nfe ? (tokens / nfe).toFixed(2) : "–");
      this.tell("speed", ended && seconds > 0 ? Math.round(tokens / seconds) : "–");
      this.tell("finish", ended ? this.stats?.finish_reason ?? this.finish ?? frame.canvas.reason ?? "–" : "–");
      const text = ended ? this.text : "";
      if (this.answer.textContent !== text) this.answer.textContent = text;
    }

    /** The figures and the answer of a search, which shows no canvas. */
    showSearch() {
      const ended = !this.running;
      this.tell("forwards", this.stats?.nfe ?? this.found.nfe);
      this.tell("rate", this.stats ? this.stats.tokens_per_forward.toFixed(2) : "–");
      this.tell("finish", ended ? this.stats?.search?.reason ?? this.finish ?? "–" : "–");
      this.answer.textContent = ended ? this.text : "";
    }

    tell(figure, value) {
      this.figures[figure].textContent = value;
    }
  }

  Object.assign(globalThis.dlm, { Side });
})();
