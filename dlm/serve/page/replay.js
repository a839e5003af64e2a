"use strict";
/* Canvases built by replaying events; the twin of dlm.HostCanvas in Python. */

globalThis.dlm ??= {};

(() => {
  const KIND = Object.freeze({ PROMPT: 0, COMMITTED: 1, PAD: 2, MASK: 3, NOISE: 4 });
  const NAMES = Object.keys(KIND);
  const VERSION = 1;

  /**
   * One row's canvas, built by applying its events in order.
   *
   * `ids`, `kinds`, `conf`, `drawn` run over the positions as in Python; `born` holds the step of
   * each last commit (null: none that is known).
   */
  class HostCanvas {
    constructor() {
      Object.assign(this, { ids: [], kinds: [], conf: [], drawn: [], born: [] });
      Object.assign(this, { openKind: KIND.MASK, prompt: 0, settled: 0, reason: null });
    }

    /** Take one event. Throws an Error for one that cannot follow what came before. */
    apply(event) {
      const take = TAKERS[event.type];
      if (!take) throw new Error(`cannot replay an event of type ${JSON.stringify(event.type)}`);
      take(this, event);
    }

    require(pos, event, isOpen) {
      const kind = this.kinds[pos];
      if (kind === undefined) throw new Error(`${event.type} at ${pos}, outside of the canvas`);
      if (isOpen ? kind < KIND.MASK : kind !== KIND.COMMITTED) {
        throw new Error(`${event.type} in step ${event.step} at ${pos}, which is ${NAMES[kind]}`);
      }
    }
  }

  function open(canvas, event) {
    const { ids, data } = event;
    const blank = () => new Array(ids.length).fill(null);
    if (!Array.isArray(data.kinds) || data.kinds.length !== ids.length) {
      throw new Error("an open event must hold one kind for each id");
    }
    canvas.ids = [...ids];
    canvas.kinds = [...data.kinds];
    Object.assign(canvas, { conf: blank(), drawn: blank(), born: blank() });
    canvas.openKind = canvas.kinds.includes(KIND.NOISE) ? KIND.NOISE : KIND.MASK;
    Object.assign(canvas, { prompt: data.prompt, settled: data.settled, reason: null });
  }

  function write(canvas, event) {
    event.pos.forEach((pos, at) => {
      canvas.require(pos, event, event.type === "commit");
      canvas.ids[pos] = event.ids[at];
      canvas.kinds[pos] = KIND.COMMITTED;
      canvas.conf[pos] = event.conf[at];
      canvas.drawn[pos] = event.drawn.length ? event.drawn[at] : 1;
      canvas.born[pos] = event.step;
    });
  }

  function reopen(canvas, event) {
    event.pos.forEach((pos, at) => {
      canvas.require(pos, event, event.type === "renoise");
      canvas.ids[pos] = event.ids[at];
      canvas.kinds[pos] = canvas.openKind;
    });
  }

  const TAKERS = Object.freeze({
    open,
    commit: write,
    replace: write,
    remask: reopen,
    renoise: reopen,
    block: () => {},
    settle: (canvas, event) => {
      canvas.settled = event.pos[0];
    },
    done: (canvas, event) => {
      canvas.reason = String(event.data.reason);
      canvas.kinds = canvas.kinds.map((kind) => (kind >= KIND.MASK ? KIND.PAD : kind));
    },
  });

  /** An event with all its fields, of a plain record. Throws an Error if it is none. */
  function readEvent(record) {
    if (record?.v !== VERSION) {
      throw new Error(`event version must be ${VERSION}, got ${JSON.stringify(record?.v)}`);
    }
    if (typeof record.type !== "string") throw new Error("an event needs a type");
    for (const name of ["row", "step"]) {
      if (!Number.isInteger(record[name])) throw new Error(`${name} must be an integer`);
    }
    const event = { pos: [], ids: [], conf: [], drawn: [], data: {}, ...record };
    for (const name of ["pos", "ids", "conf", "drawn"]) {
      if (!Array.isArray(event[name])) throw new Error(`${name} must be a list`);
    }
    return event;
  }

  /** The final canvas of every row that the events tell of, as a Map. */
  function replay(events) {
    const canvases = new Map();
    for (const event of events) {
      if (!canvases.has(event.row)) canvases.set(event.row, new HostCanvas());
      canvases.get(event.row).apply(event);
    }
    return canvases;
  }

  /**
   * The events of one row as they come, and the canvas after any of its steps.
   *
   * texts: the text of each id that was seen
   * steps: the largest step so far
   */
  class Recording {
    constructor(texts = new Map()) {
      Object.assign(this, { events: [], texts, steps: 0 });
      this.rewind();
    }

    add(event) {
      this.events.push(event);
      this.steps = Math.max(this.steps, event.step);
      event.text?.forEach((text, at) => this.texts.set(event.ids[at], String(text)));
    }

    rewind() {
      this.taken = 0;
      this.frame = {
        canvas: new HostCanvas(), step: 0, blocks: [],
        fresh: new Set(), replaced: new Set(), reopened: new Set(),
      };
    }

    /** The canvas after `step`, its opened blocks, and the positions that the step has changed. */
    at(step) {
      if (step < this.frame.step) this.rewind();
      while (this.taken < this.events.length && this.events[this.taken].step <= step) {
        this.advance(this.events[this.taken++]);
      }
      if (this.frame.step < step) this.begin(step);
      return this.frame;
    }

    begin(step) {
      this.frame.step = step;
      for (const name of ["fresh", "replaced", "reopened"]) this.frame[name] = new Set();
    }

    advance(event) {
      const { frame } = this;
      if (event.step > frame.step) this.begin(event.step);
      frame.canvas.apply(event);
      if (event.type === "block") frame.blocks.push(event.pos);
      if (event.type === "commit") event.pos.forEach((pos) => frame.fresh.add(pos));
      if (event.type === "replace") event.pos.forEach((pos) => frame.replaced.add(pos));
      if (event.type === "remask" || event.type === "renoise") {
        event.pos.forEach((pos) => frame.reopened.add(pos));
      }
    }
  }

  /** The filled positions before the first token without text, which ends an answer. */
  function filled(canvas, texts) {
    const positions = [];
    for (let pos = canvas.prompt; pos < canvas.ids.length; pos += 1) {
      if (canvas.kinds[pos] > KIND.COMMITTED) continue;
      if (canvas.kinds[pos] === KIND.COMMITTED && texts.get(canvas.ids[pos]) === "") break;
      positions.push(pos);
    }
    return positions;
  }

  /** The text of a token; its number if it is not known. */
  function textOf(texts, id) {
    return texts.get(id) ?? `${id} `;
  }

  /** The text of a canvas up to its end. */
  function answerOf(canvas, texts) {
    return filled(canvas, texts).map((pos) => textOf(texts, canvas.ids[pos])).join("");
  }

  Object.assign(globalThis.dlm, {
    KIND, HostCanvas, Recording, readEvent, replay, filled, textOf, answerOf,
  });
})();
