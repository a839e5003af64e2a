"""Answer a file of prompts, a line each, as JSONL: `python examples/batch.py FILE > answers.jsonl`.

Prompts are read as they are needed and answered together; memory does not grow with the file.
"""

import json
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import track

import dlm


def prompts(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8") as lines:
        yield from (line.strip() for line in lines if line.strip())


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/batch.py FILE > answers.jsonl")
    path = sys.argv[1]
    engine = dlm.load(max_rows=16)
    total = sum(1 for _ in prompts(path))
    answers = engine.map(prompts(path), max_new_tokens=64, unmask="threshold(0.9)", cache="dual")
    forwards = tokens = 0
    shown = track(answers, "answering", total, console=Console(stderr=True), transient=True)
    for prompt, answer in zip(prompts(path), shown, strict=True):
        forwards, tokens = forwards + answer.stats.nfe, tokens + answer.stats.tokens
        print(json.dumps({"prompt": prompt, "text": answer.text, "nfe": answer.stats.nfe}))
    print(f"{tokens} tokens in {forwards} forwards", file=sys.stderr)


if __name__ == "__main__":
    main()
