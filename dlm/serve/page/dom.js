"use strict";
/* Elements made without markup: every text is set as text, never as HTML. */

(() => {
  /**
   * An element with properties and children.
   *
   * `class`, `for`, names with a dash and `role` are set as attributes, functions as listeners
   * (`onclick`), all else as properties; texts among the children stay texts.
   */
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value === undefined || value === null) continue;
      if (typeof value === "function") element.addEventListener(name.slice(2), value);
      else if (/^(class|for|role|list)$|-/.test(name)) element.setAttribute(name, value);
      else element[name] = value;
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  const byId = (id) => document.getElementById(id);

  /** A select of [value, text] pairs. */
  function choose(properties, pairs) {
    const options = pairs.map(([value, text]) => make("option", { value, textContent: text }));
    return make("select", properties, ...options);
  }

  let made = 0;

  /** A labelled control: {row: the element to insert, control}. */
  function labelled(text, control, hint = "") {
    made += 1;
    control.id ||= `field-${made}`;
    const label = make("label", { for: control.id, title: hint }, text);
    return { row: make("div", { class: "field" }, label, control), control };
  }

  /** "1 token", "2 tokens". */
  function counted(number, noun) {
    return `${number} ${noun}${number === 1 ? "" : "s"}`;
  }

  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  Object.assign(globalThis.dlm, { make, byId, choose, labelled, counted, calm });
})();
