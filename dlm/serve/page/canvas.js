"use strict";
/* The view of a canvas: one cell for each position, wrapped as text. */

(() => {
  const { KIND, textOf, make, calm } = globalThis.dlm;

  /* Anchors of the viridis colours, from little to much. */
  const VIRIDIS = [
    [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
    [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
  ];
  const CHANGES = ["fresh", "replaced", "reopened"]; // sets of a frame, and classes of cells
  const PULSE = {
    fresh: [{ transform: "translateY(-3px)", opacity: 0.2 }, { transform: "none", opacity: 1 }],
    replaced: [{ backgroundColor: "var(--flash)", color: "#fff" }, {}],
    reopened: [{ backgroundColor: "var(--flash)", color: "#fff", opacity: 1 }, {}],
  };

  /** The colour of a share in 0..1. */
  function ramp(share) {
    const at = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
    const low = Math.min(VIRIDIS.length - 2, Math.floor(at));
    const mixed = VIRIDIS[low].map((part, i) => {
      return Math.round(part + (VIRIDIS[low + 1][i] - part) * (at - low));
    });
    return `rgb(${mixed.join(" ")})`;
  }

  /** The sign beside the colour: how a token is underlined. */
  function level(conf) {
    return conf < 0.5 ? "low" : conf < 0.9 ? "middle" : "high";
  }

  class CanvasView {
    /** `onInspect` is told the words for the cell that is pointed at or focused (null: none). */
    constructor(root, onInspect) {
      Object.assign(this, { root, onInspect, cells: [], shown: [], active: -1, frame: null });
      root.setAttribute("role", "listbox");
      root.tabIndex = 0;
      root.addEventListener("pointerover", (event) => this.point(event.target));
      root.addEventListener("pointerleave", () => this.inspect(-1));
      root.addEventListener("keydown", (event) => this.move(event));
      root.addEventListener("focus", () => this.inspect(Math.max(0, this.active)));
      root.addEventListener("blur", () => this.inspect(-1));
    }

    clear() {
      Object.assign(this, { cells: [], shown: [], active: -1, frame: null });
      this.root.replaceChildren();
      this.root.removeAttribute("aria-activedescendant");
    }

    /**
     * Show a frame of a recording.
     *
     * options: `colour` ("confidence" or "step"), `steps` (the last one, for the colours),
     * `prompt` (whether the prompt is shown), `moving` (whether changes pulse)
     */
    show(frame, texts, options) {
      const { canvas } = frame;
      if (this.cells.length !== canvas.ids.length) this.build(canvas.ids.length);
      Object.assign(this, { frame, texts });
      this.root.classList.toggle("by-step", options.colour === "step");
      const starts = new Set(frame.blocks.map(([start]) => start));
      let ended = false;
      canvas.ids.forEach((id, pos) => {
        const state = this.state(pos, options, ended);
        ended ||= state.kind === "end" || state.kind === "after";
        state.border = starts.has(pos) && pos > canvas.prompt;
        this.draw(pos, state, options);
      });
      if (this.active >= 0) this.inspect(this.active);
    }

    build(length) {
      this.clear();
      const mark = Math.random().toString(36).slice(2);
      this.cells = Array.from({ length }, (_, pos) => {
        const cell = make("span", { role: "option", id: `cell-${mark}-${pos}` });
        cell.dataset.pos = pos;
        return cell;
      });
      this.shown = new Array(length).fill("");
      this.root.replaceChildren(...this.cells);
    }

    /** What a cell shows: {kind, text, change, share, level, step, border}. */
    state(pos, options, ended) {
      const { canvas } = this.frame;
      const kind = canvas.kinds[pos];
      const change = CHANGES.find((name) => this.frame[name].has(pos)) ?? "";
      if (pos < canvas.prompt) {
        return { kind: options.prompt ? "prompt" : "hidden", text: this.token(pos), change: "" };
      }
      if (kind === KIND.PAD) return { kind: "hidden", text: "", change: "" };
      if (kind >= KIND.MASK) return { kind: "mask", text: "·", change };
      const text = this.token(pos);
      if (kind === KIND.PROMPT) return { kind: "given", text, change: "" };
      if (text === "") return { kind: ended ? "after" : "end", text, change };
      const [conf, born] = [canvas.conf[pos], canvas.born[pos]];
      const byStep = options.colour === "step";
      const share = byStep ? born === null ? null : born / Math.max(1, options.steps) : conf;
      return {
        kind: ended ? "after" : "filled", text, change, share,
        level: byStep || conf === null ? "" : level(conf), step: byStep ? born ?? "" : "",
      };
    }

    token(pos) {
      return textOf(this.texts, this.frame.canvas.ids[pos]);
    }

    draw(pos, state, options) {
      const key = JSON.stringify(state);
      if (this.shown[pos] === key) return;
      this.shown[pos] = key;
      const cell = this.cells[pos];
      cell.textContent = state.text;
      const names = ["cell", state.kind, state.change, state.level];
      if (/[\n\r]/.test(state.text)) names.push("newline");
      if (state.border) names.push("border");
      cell.className = names.filter(Boolean).join(" ");
      const coloured = state.share !== undefined && state.share !== null;
      cell.classList.toggle("coloured", coloured);
      cell.style.setProperty("--c", coloured ? ramp(state.share) : "transparent");
      if (state.step) cell.dataset.step = state.step;
      else delete cell.dataset.step;
      cell.setAttribute("aria-label", this.words(pos));
      if (options.moving && state.change && !calm.matches) {
        const duration = state.change === "fresh" ? 320 : 700;
        cell.animate(PULSE[state.change], { duration, easing: "ease-out" });
      }
    }

    /** A cell in words: token, step, confidence, position. */
    words(pos) {
      const { canvas } = this.frame;
      const kind = canvas.kinds[pos];
      const place = pos < canvas.prompt ? `prompt ${pos}` : `position ${pos - canvas.prompt}`;
      if (kind >= KIND.MASK) return `open · ${place}`;
      const token = this.token(pos);
      const isGiven = kind === KIND.PROMPT;
      const parts = [JSON.stringify(token)];
      if (token === "") parts[0] = isGiven ? "control token" : "end of the text";
      if (isGiven) parts.push("given");
      if (kind === KIND.COMMITTED && canvas.born[pos] !== null) {
        parts.push(`step ${canvas.born[pos]}`, `confidence ${canvas.conf[pos].toFixed(3)}`);
      }
      if (canvas.drawn[pos] !== null && canvas.drawn[pos] !== 1) {
        parts.push(`drawn with ${canvas.drawn[pos].toFixed(3)}`);
      }
      return [...parts, place].join(" · ");
    }

    point(target) {
      const pos = target.dataset?.pos;
      if (pos !== undefined) this.inspect(Number(pos));
    }

    visible(pos) {
      return this.cells[pos] && !this.cells[pos].classList.contains("hidden");
    }

    move(event) {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by || !this.cells.length) return;
      event.preventDefault();
      let pos = this.active + by;
      while (pos >= 0 && pos < this.cells.length && !this.visible(pos)) pos += by;
      if (this.visible(pos)) this.inspect(pos);
    }

    inspect(pos) {
      this.cells[this.active]?.classList.remove("active");
      if (pos >= 0 && !this.visible(pos)) pos = this.cells.findIndex((_, at) => this.visible(at));
      this.active = pos;
      const cell = this.cells[pos];
      if (cell) {
        cell.classList.add("active");
        this.root.setAttribute("aria-activedescendant", cell.id);
      }
      this.onInspect(cell ? this.words(pos) : null);
    }
  }

  Object.assign(globalThis.dlm, { CanvasView, ramp });
})();
