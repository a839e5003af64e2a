"use strict";
/* Requests to the server: JSON, and streams of server-sent events. */

(() => {
  const KEY = "dlm-api-key";

  /** An answer of the server that is an error; `param` names the field (null: none). */
  class ApiError extends Error {
    constructor(status, error) {
      super(typeof error?.message === "string" ? error.message : `the server answered ${status}`);
      this.status = status;
      this.param = typeof error?.param === "string" ? error.param : null;
    }
  }

  /**
   * A parser of server-sent events: bytes in any pieces in, the data of each event out.
   *
   * Characters and line ends may be cut anywhere; lines end with CR, LF or both; comments and
   * fields other than `data` are skipped.
   */
  class EventParser {
    constructor() {
      this.decoder = new TextDecoder();
      this.rest = "";
      this.data = [];
    }

    /** The data of the events that `bytes` complete. */
    push(bytes) {
      this.rest += this.decoder.decode(bytes, { stream: true });
      const found = [];
      for (;;) {
        const end = this.rest.search(/[\r\n]/);
        // A CR at the very end may be half of a CRLF.
        if (end < 0 || (this.rest[end] === "\r" && end === this.rest.length - 1)) return found;
        const line = this.rest.slice(0, end);
        this.rest = this.rest.slice(end + (this.rest.startsWith("\r\n", end) ? 2 : 1));
        const event = this.line(line);
        if (event !== null) found.push(event);
      }
    }

    /** The data of the event that an empty line ends; null for every other line. */
    line(line) {
      if (line === "") {
        const data = this.data.join("\n");
        const any = this.data.length > 0;
        this.data = [];
        return any ? data : null;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") this.data.push(value);
      return null;
    }
  }

  /** The API key that this tab remembers. */
  const apiKey = {
    get: () => sessionStorage.getItem(KEY) ?? "",
    set: (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)),
  };

  /** The whole address of a path of the server. */
  function address(path) {
    return new URL(path, location.href.replace(/[?#].*$/, "")).href;
  }

  /** What a promise of the network gives; the browser's own words for a lost one say nothing. */
  async function reached(promise) {
    try {
      return await promise;
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("the server cannot be reached", { cause: error });
    }
  }

  async function call(path, body, signal) {
    const headers = {};
    if (apiKey.get()) headers.Authorization = `Bearer ${apiKey.get()}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const method = body === undefined ? "GET" : "POST";
    const text = body === undefined ? undefined : JSON.stringify(body);
    const response = await reached(fetch(address(path), { method, headers, body: text, signal }));
    if (response.ok) return response;
    const told = await response.json().catch(() => null);
    throw new ApiError(response.status, told?.error);
  }

  /** The JSON that the server answers; POST if there is a body. */
  async function callJson(path, body, signal) {
    return (await call(path, body, signal)).json();
  }

  /** The chunks of a streamed answer, until `[DONE]`. Throws `ApiError` for an error among them. */
  async function* streamJson(path, body, signal) {
    const response = await call(path, body, signal);
    const reader = response.body.getReader();
    const parser = new EventParser();
    try {
      for (;;) {
        const { value, done } = await reached(reader.read());
        if (done) throw new Error("the stream ended before its end was told");
        for (const data of parser.push(value)) {
          if (data === "[DONE]") return;
          const chunk = JSON.parse(data);
          if (chunk.error) throw new ApiError(response.status, chunk.error);
          yield chunk;
        }
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  Object.assign(globalThis.dlm, { ApiError, EventParser, apiKey, address, callJson, streamJson });
})();
