"use strict";
/* The finished answers of a search, as a list with their scores beside the canvas. */

(() => {
  const { make, counted } = globalThis.dlm;

  /** A score as it is shown; null where an answer was not judged, or its judgement failed. */
  function spelled(score) {
    return typeof score === "number" ? score.toPrecision(3) : "–";
  }

  /**
   * The candidates of one search, told one by one.
   *
   * element: shows them, hidden where there are none
   * best: the data of the one with the highest score; of equals the first
   * nfe: forwards that the search had spent when the last one was told
   */
  class Candidates {
    constructor(name) {
      this.title = make("h3");
      this.list = make("ol", { class: "candidates", "aria-label": `Answers of the search ${name}` });
      const columns = ["score", "forwards", "answer"].map((word) => make("span", {}, word));
      const head = make("div", { class: "candidates-head", "aria-hidden": "true" }, ...columns);
      this.element = make("div", {}, this.title, head, this.list);
      this.reset();
    }

    reset() {
      Object.assign(this, { count: 0, best: null, nfe: 0 });
      this.list.replaceChildren();
      this.element.hidden = true;
    }

    /** Show the data of an event `candidate`. */
    add(data) {
      this.count += 1;
      this.nfe = data.nfe;
      const row = make(
        "li", {},
        make("span", { class: "score", title: "score" }, spelled(data.score)),
        make("span", { class: "at", title: "forwards of the search so far" }, String(data.nfe)),
        make("span", { class: "text" }, data.text ?? ""),
      );
      this.list.append(row);
      if (this.isBetter(data)) {
        this.list.querySelector(".best")?.classList.remove("best");
        row.classList.add("best");
        this.best = data;
      }
      this.title.textContent = `${counted(this.count, "answer")} · best ${spelled(this.best.score)}`;
      this.element.hidden = false;
    }

    isBetter({ score }) {
      if (this.best === null) return true;
      return typeof score === "number" && !(score <= this.best.score && this.best.score !== null);
    }
  }

  Object.assign(globalThis.dlm, { Candidates });
})();
