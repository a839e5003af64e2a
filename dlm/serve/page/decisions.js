"use strict";
/* Decisions: typed questions about one input, answered as probabilities. */

(() => {
  const { make, choose, labelled, byId, counted } = globalThis.dlm;

  const EXAMPLES = [
    { type: "predicate", name: "positive", instructions: "The text is positive." },
    {
      type: "choice", name: "topic", instructions: "What is the text about?",
      lines: "animals\nweather\nfood",
    },
  ];
  const PLACEHOLDER = {
    choice: "one choice a line:\nvalue | description", score: "one level a line, lowest first:\nlabel | description",
  };

  /** The lines "name | description" of a text as objects, `key` naming the first part. */
  function options(text, key) {
    return text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
      const [name, ...rest] = line.split("|").map((part) => part.trim());
      return rest.length ? { [key]: name, description: rest.join(" | ") } : { [key]: name };
    });
  }

  /** One question's form: {element, read}. */
  function questionForm(given, onChange, onRemove) {
    const type = choose({ value: given.type }, ["predicate", "choice", "score"].map((t) => [t, t]));
    const name = make("input", { type: "text", value: given.name ?? "", oninput: onChange });
    const asked = make("input", { type: "text", value: given.instructions ?? "", oninput: onChange });
    const lines = make("textarea", { rows: 3, value: given.lines ?? "", oninput: onChange });
    const about = labelled("Options", lines);
    const adapt = () => {
      about.row.hidden = type.value === "predicate";
      lines.placeholder = PLACEHOLDER[type.value] ?? "";
      onChange();
    };
    type.value = given.type;
    type.addEventListener("change", adapt);
    const remove = make("button", { type: "button", class: "quiet", "aria-label": "Remove this question" }, "Remove");
    const element = make(
      "fieldset", { class: "question" },
      make("legend", {}, "Question"),
      labelled("Type", type).row, labelled("Name", name).row,
      labelled("Instructions", asked).row, about.row, remove,
    );
    const read = () => {
      const question = { type: type.value, instructions: asked.value };
      if (name.value) question.name = name.value;
      if (type.value === "choice") question.choices = options(lines.value, "value");
      if (type.value === "score") question.levels = options(lines.value, "label");
      return question;
    };
    const form = { element, read };
    remove.addEventListener("click", () => onRemove(form));
    adapt();
    return form;
  }

  /** A row of a bar chart: a name, a bar, a number. */
  function bar(name, share, best) {
    const fill = make("span", { class: "fill" });
    fill.style.setProperty("--share", share);
    return make(
      "div", { class: best ? "bar best" : "bar" },
      make("span", { class: "name" }, name),
      make("span", { class: "track", "aria-hidden": "true" }, fill),
      make("span", { class: "number" }, `${(100 * share).toFixed(1)} %`),
    );
  }

  /** One answer as bars. */
  function answerCard(answer, question) {
    const card = make("article", { class: "card answer" });
    const title = answer.name ?? question.name ?? question.instructions;
    card.append(make("h3", {}, title), make("p", { class: "hint" }, question.instructions));
    if (answer.type === "predicate") {
      const yes = answer.probability;
      card.append(bar("true", yes, yes >= 0.5), bar("false", 1 - yes, yes < 0.5));
    } else if (answer.type === "refusal") {
      card.append(make("p", {}, "The model declined to answer."));
    } else {
      const rows = answer.probabilities;
      const best = Math.max(...rows.map((row) => row.probability));
      const named = (row) => (answer.type === "score" ? `${row.value} ${row.label}` : String(row.value));
      rows.forEach((row) => card.append(bar(named(row), row.probability, row.probability === best)));
      const found = answer.type === "score" ? `score ${answer.score.toFixed(2)}` : String(answer.choice);
      card.append(make("p", { class: "told" }, `${found} · confidence ${answer.confidence.toFixed(3)}`));
    }
    const mass = answer.x_label_mass;
    if (typeof mass === "number") {
      const share = mass < 0.001 ? "under 0.1" : (100 * mass).toFixed(1);
      card.append(make("p", { class: "hint" }, `${share} % of the model's own mass was on these labels`));
    }
    return card;
  }

  /** The mode's form and its answers. */
  class Decisions {
    constructor(onChange) {
      this.forms = [];
      this.onChange = onChange;
      byId("add-question").addEventListener("click", () => this.add({ type: "predicate" }, true));
      byId("decision-input").addEventListener("input", onChange);
      EXAMPLES.forEach((example) => this.add(example));
    }

    add(given, focused = false) {
      const form = questionForm(given, this.onChange, (gone) => this.remove(gone));
      this.forms.push(form);
      byId("questions").append(form.element);
      if (focused) form.element.querySelector("select").focus();
      this.onChange();
    }

    remove(form) {
      this.forms = this.forms.filter((one) => one !== form);
      form.element.remove();
      byId("add-question").focus();
      this.onChange();
    }

    body(model) {
      const questions = this.forms.map((form) => form.read());
      return { model, input: byId("decision-input").value, questions };
    }

    show(answered, questions, seconds) {
      const cards = answered.answers.map((answer, at) => answerCard(answer, questions[at]));
      const { nfe } = answered.dlm ?? {};
      const parts = [counted(cards.length, "answer"), nfe && counted(nfe, "forward"), `${seconds.toFixed(2)} s`];
      byId("decided").replaceChildren(make("p", { class: "told" }, parts.filter(Boolean).join(" · ")), ...cards);
    }
  }

  Object.assign(globalThis.dlm, { Decisions });
})();
