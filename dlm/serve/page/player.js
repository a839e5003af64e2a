"use strict";
/* The scrubber: plays recorded steps at a pace, while they come in and afterwards. */

(() => {
  class Player {
    /**
     * parts: the elements `range`, `play`, `back`, `next`, `speed`, `told`
     * onShow(step, moving): shows a step; `moving` unless it was jumped to
     */
    constructor(parts, onShow) {
      Object.assign(this, { ...parts, onShow, length: 0, step: 0, playing: false });
      Object.assign(this, { following: false, credit: 0, last: 0 });
      this.range.addEventListener("input", () => this.jump(Number(this.range.value)));
      this.play.addEventListener("click", () => this.toggle());
      this.back.addEventListener("click", () => this.jump(this.step - 1));
      this.next.addEventListener("click", () => this.jump(this.step + 1));
      this.draw();
    }

    /** Begin a new run: nothing is recorded yet, and what comes is played. */
    start() {
      Object.assign(this, { length: 0, step: 0, credit: 0, following: true });
      this.run();
    }

    /** Let the last recorded step be `length`. */
    extend(length) {
      this.length = Math.max(this.length, length);
      this.draw();
    }

    /** No more steps will come. */
    finish() {
      this.following = false;
    }

    /** Show a step at once and stay there. */
    jump(step) {
      Object.assign(this, { playing: false, following: false });
      this.step = Math.min(this.length, Math.max(0, step));
      this.draw();
      this.onShow(this.step, false);
    }

    toggle() {
      if (this.playing) {
        this.playing = false;
        this.draw();
        return;
      }
      if (this.step >= this.length && !this.following) this.step = 0;
      this.onShow(this.step, false);
      this.run();
    }

    run() {
      if (this.playing) return;
      this.playing = true;
      this.last = performance.now();
      this.draw();
      requestAnimationFrame((now) => this.tick(now));
    }

    /** Steps a second; 0: all that there are at once. */
    get pace() {
      return Number(this.speed.value);
    }

    tick(now) {
      if (!this.playing) return;
      this.credit = Math.min(this.credit + ((now - this.last) / 1000) * this.pace, 60);
      this.last = now;
      const due = this.pace ? Math.floor(this.credit) : this.length - this.step;
      const by = Math.min(due, this.length - this.step);
      if (this.pace) this.credit = by < due ? 0 : this.credit - by;
      if (by > 0) {
        this.step += by;
        this.onShow(this.step, true);
      }
      if (this.step >= this.length && !this.following) this.playing = false;
      else requestAnimationFrame((next) => this.tick(next));
      this.draw();
    }

    draw() {
      const { range, play, back, next, told } = this;
      range.max = this.length;
      range.value = this.step;
      range.setAttribute("aria-valuetext", `step ${this.step} of ${this.length}`);
      play.setAttribute("aria-label", this.playing ? "Pause" : "Play");
      play.dataset.state = this.playing ? "playing" : "paused";
      back.disabled = this.step <= 0;
      next.disabled = this.step >= this.length;
      range.disabled = play.disabled = this.length === 0;
      told.textContent = `${this.step} / ${this.length}`;
    }
  }

  Object.assign(globalThis.dlm, { Player });
})();
