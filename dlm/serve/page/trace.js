"use strict";
/* Saved traces: JSONL, a header with the text of every id, then a line for each event. */

(() => {
  const { readEvent, Recording } = globalThis.dlm;
  const VERSION = 1;

  /**
   * The rows of a saved trace: {model, rows: Map of row to Recording}.
   *
   * Throws an Error that names the line that is wrong.
   */
  function readTrace(text) {
    const texts = new Map();
    const rows = new Map();
    let model = "";
    text.split(/\r?\n/).forEach((line, at) => {
      if (!line.trim()) return;
      try {
        const record = JSON.parse(line);
        if (record.type === "trace") {
          model = String(record.model ?? "");
          for (const [id, piece] of Object.entries(record.texts ?? {})) {
            texts.set(Number(id), String(piece));
          }
          return;
        }
        const event = readEvent(record);
        if (!rows.has(event.row)) rows.set(event.row, new Recording(texts));
        rows.get(event.row).add(event);
        rows.get(event.row).at(event.step);
      } catch (error) {
        throw new Error(`line ${at + 1} is no event that can follow: ${error.message}`);
      }
    });
    if (!rows.size) throw new Error("the file holds no events");
    return { model, rows };
  }

  /** The text of a trace file, as `dlm generate --trace` writes it. */
  function writeTrace(model, recordings) {
    const events = recordings.flatMap((recording) => recording.events);
    const used = new Set(events.flatMap((event) => event.ids));
    const texts = {};
    for (const recording of recordings) {
      for (const [id, text] of recording.texts) if (used.has(id)) texts[id] = text;
    }
    const header = { v: VERSION, type: "trace", model, texts };
    const lines = [header, ...events.map(plain)];
    return lines.map((line) => `${asciiJson(line)}\n`).join("");
  }

  /** JSON in ASCII: no reader takes a character in a text for the end of a line. */
  function asciiJson(value) {
    return JSON.stringify(value).replace(/[\u007f-\uffff]/g, (unit) => {
      return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
    });
  }

  /** An event without empty fields and without the texts, which the header holds. */
  function plain(event) {
    const { v, type, row, step } = event;
    const line = { v, type, row, step };
    for (const name of ["pos", "ids", "conf", "drawn"]) {
      if (event[name].length) line[name] = event[name];
    }
    if (Object.keys(event.data).length) line.data = event.data;
    return line;
  }

  /** Hand a text to the browser as a file to save. */
  function download(name, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  Object.assign(globalThis.dlm, { readTrace, writeTrace, download });
})();
