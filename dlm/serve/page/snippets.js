"use strict";
/* A request written down: as JSON, as a curl command, as Python. */

(() => {
  const { address, apiKey } = globalThis.dlm;

  /** A value as a Python literal, indented by `depth` levels. */
  function python(value, depth = 0) {
    if (value === null) return "None";
    if (value === true) return "True";
    if (value === false) return "False";
    if (typeof value !== "object") return JSON.stringify(value);
    const pad = "    ".repeat(depth + 1);
    const isList = Array.isArray(value);
    const items = isList
      ? value.map((item) => python(item, depth + 1))
      : Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${python(item, depth + 1)}`);
    const [left, right] = isList ? "[]" : "{}";
    const line = `${left}${items.join(", ")}${right}`;
    if (line.length < 72 && !line.includes("\n")) return line;
    return `${left}\n${items.map((item) => `${pad}${item},\n`).join("")}${"    ".repeat(depth)}${right}`;
  }

  /** A text as one word of a POSIX shell. */
  function shell(text) {
    return `'${text.replaceAll("'", "'\\''")}'`;
  }

  function curl(path, body) {
    const key = apiKey.get() ? ' -H "Authorization: Bearer $DLM_API_KEY" \\\n ' : "";
    const json = shell(JSON.stringify(body, null, 2));
    return `curl ${address(path)} \\\n ${key} -H 'Content-Type: application/json' -d ${json}`;
  }

  /* Arguments of the SDK's methods; all else goes into `extra_body`. */
  const OWN = new Set([
    "model", "messages", "input", "questions", "max_tokens", "temperature", "seed", "reasoning_effort",
  ]);

  function sdk(path, body) {
    const isChat = path.endsWith("chat/completions");
    const own = Object.entries(body).filter(([name]) => OWN.has(name));
    const extra = Object.entries(body).filter(([name]) => !OWN.has(name));
    const lines = own.map(([name, value]) => `    ${name}=${python(value, 1)},\n`);
    if (extra.length) lines.push(`    extra_body=${python(Object.fromEntries(extra), 1)},\n`);
    const key = apiKey.get() ? 'os.environ["DLM_API_KEY"]' : '"none"';
    return [
      apiKey.get() ? "import os\n\n" : "",
      "from openai import OpenAI\n\n",
      `client = OpenAI(base_url=${JSON.stringify(address("v1"))}, api_key=${key})\n`,
      `answer = client.${isChat ? "chat.completions" : "decisions"}.create(\n`,
      ...lines,
      ")\n",
      isChat ? "print(answer.choices[0].message.content)\n" : "print(answer.answers)\n",
    ].join("");
  }

  /** {json, curl, python}: the body, and two calls that send it. */
  function snippets(path, body) {
    return { json: JSON.stringify(body, null, 2), curl: curl(path, body), python: sdk(path, body) };
  }

  Object.assign(globalThis.dlm, { snippets });
})();
