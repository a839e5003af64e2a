"use strict";
/* The stage: one or two sides, the scrubber and the legend they share, saved traces. */

(() => {
  const { make, byId, calm, ramp, readTrace, writeTrace, download, Side, Player } = globalThis.dlm;

  const PARTS = ["range", "play", "back", "next", "speed", "told"];
  const CUES = {
    confidence: [["low", "under 0.5"], ["middle", "under 0.9"], ["high", "0.9 and over"]],
    step: [["none", "its number stands below"]],
  };

  class Stage {
    constructor() {
      this.sides = [new Side("A"), new Side("B")];
      byId("sides").append(...this.sides.map((side) => side.element));
      const parts = Object.fromEntries(PARTS.map((id) => [id, byId(id)]));
      this.player = new Player(parts, (step, moving) => this.show(step, moving));
      this.due = false; // whether a redraw has been asked for
      if (calm.matches) byId("speed").value = "0";
      document.querySelectorAll("input[name=colour]").forEach((one) => {
        one.addEventListener("change", () => this.recolour());
      });
      byId("show-prompt").addEventListener("change", () => this.show(this.player.step, false));
      byId("save").addEventListener("click", () => this.save());
      this.arrange(false);
      this.recolour();
    }

    get shown() {
      return this.sides.filter((side) => !side.element.hidden);
    }

    get colour() {
      return document.querySelector("input[name=colour]:checked").value;
    }

    arrange(isPair) {
      this.sides[1].element.hidden = !isPair;
      byId("sides").classList.toggle("pair", isPair);
    }

    show(step, moving) {
      const options = { colour: this.colour, prompt: byId("show-prompt").checked, moving };
      this.shown.forEach((side) => side.show(step, options));
      byId("save").disabled = this.sides.every((side) => side.empty);
      byId("stage").classList.toggle("no-canvas", this.shown.every((side) => side.searched));
    }

    redraw() {
      this.player.extend(Math.max(...this.shown.map((side) => side.steps)));
      this.show(this.player.step, false);
    }

    /** Draw what has come in, at most once a frame. */
    refresh() {
      if (this.due) return;
      this.due = true;
      requestAnimationFrame(() => {
        this.due = false;
        this.redraw();
      });
    }

    recolour() {
      const byStep = this.colour === "step";
      const scale = make("span", { class: "scale", "aria-hidden": "true" });
      const colours = Array.from({ length: 9 }, (_, at) => ramp(at / 8));
      scale.style.setProperty("--scale", `linear-gradient(90deg, ${colours.join(", ")})`);
      const cues = [...CUES[this.colour], ["back", "taken back"], ["block", "block"]];
      byId("legend").replaceChildren(
        make("span", {}, byStep ? "first step" : "0"), scale,
        make("span", {}, byStep ? "last" : "1"),
        ...cues.map(([name, text]) => {
          return make("span", {}, make("span", { class: `cue ${name}`, "aria-hidden": "true" }), text);
        }),
      );
      this.show(this.player.step, false);
    }

    /**
     * Run one body on each side, at once or one after the other (`inTurn`).
     *
     * Throws the first error of a request.
     */
    async run(bodies, inTurn, signal) {
      this.arrange(bodies.length > 1);
      this.sides.forEach((side) => side.reset());
      const behavior = calm.matches ? "auto" : "smooth";
      byId("stage").scrollIntoView({ behavior, block: "nearest" });
      this.player.start();
      const runs = [];
      for (const [at, side] of this.shown.entries()) {
        runs.push(side.run(bodies[at], signal, () => this.refresh()));
        if (inTurn) await Promise.allSettled(runs);
      }
      const ends = await Promise.allSettled(runs);
      this.redraw();
      this.player.finish();
      const failed = ends.find((end) => end.status === "rejected");
      if (failed) throw failed.reason;
    }

    /** Show a saved trace, its choice `row` first. Throws an Error if the text is none. */
    load(text, row) {
      const trace = readTrace(text);
      this.arrange(false);
      this.sides[1].reset();
      this.sides[0].load(trace, row, () => this.begin());
      this.begin();
      return trace.model;
    }

    /** Play the recorded steps of the first side from their start. */
    begin() {
      const { player, sides: [side] } = this;
      player.start();
      player.extend(side.steps);
      player.finish();
      if (calm.matches) player.jump(side.steps);
      else this.show(0, false);
    }

    /** Save each side as a file. */
    save() {
      const full = this.shown.filter((side) => !side.empty);
      for (const side of full) {
        const mark = full.length > 1 ? `-${side.name.toLowerCase()}` : "";
        const recordings = side.rows ? [...side.rows.values()] : [side.recording];
        download(`run${mark}.jsonl`, writeTrace(side.model, recordings));
      }
    }
  }

  Object.assign(globalThis.dlm, { Stage });
})();
