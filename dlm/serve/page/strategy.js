"use strict";
/* The form of a strategy, built from the server's list of parts. */

(() => {
  const { make, choose, labelled } = globalThis.dlm;

  const KINDS = [
    ["unmask", "Unmask"], ["blocks", "Blocks"], ["cache", "Cache"], ["edit", "Edit"],
  ];
  const NO_PART = "as set above";

  /* What is sent as it was typed: numbers, lists, True, False, None. All else is a text. */
  const LITERAL = /^\s*([-+]?[.\d][\w.+-]*|[[(].*[\])]|True|False|None)\s*$/;

  /** A Python literal of a text. */
  function quoted(text) {
    return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'").replaceAll("\n", "\\n")}'`;
  }

  /** The names that a type such as "Literal['a', 'b'] | None" allows; null if it is no such. */
  function literals(type) {
    const list = /Literal\[([^\]]*)\]/.exec(type);
    return list && [...list[1].matchAll(/'([^']*)'|"([^"]*)"/g)].map((found) => found[1] ?? found[2]);
  }

  /**
   * The input for one argument: {row, read}, `read` giving its Python literal.
   *
   * An argument that is left alone reads as "" and is not sent.
   */
  function argumentField(argument, onChange) {
    const { name, type = "", default: standard } = argument;
    const required = !("default" in argument);
    const shown = standard === null || standard === undefined ? "" : String(standard);
    const placeholder = required ? "required" : shown || "none";
    const control = controlFor(type, standard, { placeholder, onchange: onChange, oninput: onChange });
    control.dataset.argument = name;
    const { row } = labelled(name.replaceAll("_", " "), control, type);
    const read = () => {
      if (control.value === "") return "";
      return LITERAL.test(control.value) ? control.value : quoted(control.value);
    };
    return { row, read, name };
  }

  /** The control for a type; left alone it stands for the default. */
  function controlFor(type, standard, properties) {
    const names = literals(type);
    if (names) {
      const others = names.filter((name) => name !== standard).map((name) => [name, name]);
      return choose(properties, [["", String(standard ?? "none")], ...others]);
    }
    if (type === "bool") {
      return choose(properties, standard ? [["", "yes"], ["False", "no"]] : [["", "no"], ["True", "yes"]]);
    }
    if (/\b(int|float)\b/.test(type) && !/tuple|str|bool/.test(type)) {
      const step = /float/.test(type) ? "any" : "1";
      return make("input", { ...properties, type: "number", step, inputMode: "decimal" });
    }
    return make("input", { ...properties, type: "text", spellcheck: false, autocomplete: "off" });
  }

  /** The choice of one part and its arguments: {element, spec}. */
  function partField(kind, label, parts, onChange, none = NO_PART) {
    const body = make("div", { class: "arguments" });
    const summary = make("p", { class: "hint" });
    let fields = [];
    const select = choose({}, [["", none], ...parts.map((part) => [part.name, part.name])]);
    select.dataset.field = `dlm.${kind}`;
    select.addEventListener("change", () => {
      const part = parts.find((one) => one.name === select.value);
      fields = (part?.arguments ?? []).map((argument) => argumentField(argument, onChange));
      body.replaceChildren(...fields.map((field) => field.row));
      summary.textContent = part ? aboutPart(part) : "";
      onChange();
    });
    const { row } = labelled(label, select);
    const spec = () => {
      const given = fields.map((field) => [field.name, field.read()]).filter(([, value]) => value);
      if (!select.value || !given.length) return select.value;
      return `${select.value}(${given.map((pair) => pair.join("=")).join(", ")})`;
    };
    return { element: make("div", { class: "part" }, row, summary, body), spec };
  }

  function aboutPart(part) {
    const known = (part.summary ?? "").replaceAll("`", "");
    const missing = (part.papers ?? []).filter((paper) => !known.includes(paper));
    return missing.length ? `${known} arXiv ${missing.join(", ")}.` : known;
  }

  /**
   * The form of one strategy in `root`; `read()` gives {dlm, effort}: the part of the extension
   * object that the form sets, and the reasoning effort ("" if none).
   */
  class StrategyForm {
    constructor(root, catalogue, name, onChange) {
      const { presets = {}, effort = {}, kinds = {}, policies = [], verifiers = [] } = catalogue;
      this.about = make("p", { class: "hint" });
      this.preset = choose({ onchange: () => this.tell(presets, effort, onChange) }, [
        ["", "the server's defaults"], ...Object.keys(presets).map((key) => [key, key]),
      ]);
      this.preset.dataset.field = "dlm.preset";
      this.effort = choose({ onchange: () => this.tell(presets, effort, onChange) }, [
        ["", "not set"], ...Object.entries(effort).map(([key, preset]) => [key, `${key} (${preset})`]),
      ]);
      this.effort.dataset.field = "reasoning_effort";
      this.steps = make("input", { type: "number", min: 1, step: 1, placeholder: "by the strategy", oninput: onChange });
      this.steps.dataset.field = "dlm.steps";
      this.parts = KINDS.filter(([kind]) => kinds[kind]?.length).map(([kind, label]) => {
        return [kind, partField(kind, label, kinds[kind], onChange)];
      });
      this.search = partField("search", "Search", policies, onChange, "none");
      this.verifier = partField("verifier", "Verifier", verifiers, onChange, "as the search needs");
      this.budget = make("input", { type: "number", min: 1, step: 1, placeholder: "as the server allows", oninput: onChange });
      this.budget.dataset.field = "dlm.budget.nfe";
      const [search, verifier] = [this.search, this.verifier].map((part) => part.element.querySelector("select"));
      const follow = () => {
        verifier.disabled = this.budget.disabled = !search.value;
        const temperature = document.getElementById("temperature");
        const chance = policies.find((one) => one.name === search.value)?.chance;
        if (!chance || Number(temperature.value)) return;
        temperature.value = "1"; // at 0 all answers would be the same
        onChange();
      };
      search.addEventListener("change", follow);
      follow();
      const legend = make("legend", {}, name);
      root.replaceChildren(
        legend,
        labelled("Preset", this.preset).row,
        labelled("Effort", this.effort).row,
        this.about,
        ...this.parts.map(([, part]) => part.element),
        labelled("Steps", this.steps, "denoising steps for the whole answer").row,
        this.search.element,
        this.verifier.element,
        labelled("Budget", this.budget, "forwards that the search may spend").row,
      );
    }

    tell(presets, effort, onChange) {
      const name = this.preset.value || effort[this.effort.value];
      const preset = presets[name];
      const options = Object.entries(preset?.options ?? {}).map((pair) => pair.join(" "));
      const lines = preset ? [`${name}: ${preset.use}.`, options.join(" · "), preset.evidence] : [];
      this.about.textContent = lines.filter(Boolean).join("\n");
      onChange();
    }

    read() {
      const dlm = {};
      if (this.preset.value) dlm.preset = this.preset.value;
      for (const [kind, part] of this.parts) if (part.spec()) dlm[kind] = part.spec();
      if (this.steps.value) dlm.steps = Number(this.steps.value);
      if (!this.search.spec()) return { dlm, effort: this.effort.value };
      dlm.search = this.search.spec();
      if (this.verifier.spec()) dlm.verifier = this.verifier.spec();
      if (this.budget.value) dlm.budget = { nfe: Number(this.budget.value) };
      return { dlm, effort: this.effort.value };
    }
  }

  Object.assign(globalThis.dlm, { StrategyForm });
})();
