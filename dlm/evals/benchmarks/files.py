"""The files of benchmarks: their sources and digests.

Nothing but HumanEval ships with the package; the rest is fetched once into a cache folder, or
pointed to. Every file is known by its sha256.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.error import URLError

from dlm.errors import InvalidRequest, unknown_name

SHIPPED: Final = Path(__file__).parents[1] / "data"
RAW: Final = "https://raw.githubusercontent.com"
GRADE_SCHOOL: Final = f"{RAW}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
D1: Final = f"{RAW}/dllm-reasoning/d1/837888f22c21a5da91a0af2b0d7b19e81d9b47ec"
DREAM: Final = f"{RAW}/DreamLM/Dream/fac0a7f2664b4adf0925fe682b7866923fa2d62b"
SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of problems: `count` of them, under a licence, from `url`."""

    path: str
    count: int
    sha256: str
    licence: str
    url: str


FILES: Final[Mapping[str, DataFile]] = MappingProxyType(
    {
        "humaneval": DataFile(
            "humaneval/HumanEval.jsonl.gz",
            164,
            "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
            "MIT",
            f"{RAW}/openai/human-eval/6d43fb980f9fee3c892a914eda09951f772ad10d/data/"
            "HumanEval.jsonl.gz",
        ),
        "mbpp": DataFile(
            "mbpp/mbpp.jsonl",
            974,
            "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
            "CC-BY-4.0",
            f"{RAW}/google-research/google-research/master/mbpp/mbpp.jsonl",
        ),
        "mbpp-sanitized": DataFile(
            "mbpp/sanitized-mbpp.json",
            427,
            "ca95deaa9a01ef0a6f439f88bcf0dd3db3563d22f22aad6cae04ebb9a8d8c8e9",
            "CC-BY-4.0",
            f"{RAW}/google-research/google-research/master/mbpp/sanitized-mbpp.json",
        ),
        "math500": DataFile(
            "math500/test.jsonl",
            500,
            "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
            "MIT",
            f"{RAW}/MobileLLM/BudgetThinker/f0466b9d37595f46603387baa5930e312fefb7f5/evaluation/"
            "data/math500/test_ori.jsonl",
        ),
        "gsm8k": DataFile(
            "gsm8k/test.jsonl",
            1319,
            "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
            "MIT",
            f"{GRADE_SCHOOL}/grade_school_math/data/test.jsonl",
        ),
        "gsm8k-train": DataFile(
            "gsm8k/train.jsonl",
            7473,
            "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
            "MIT",
            f"{GRADE_SCHOOL}/grade_school_math/data/train.jsonl",
        ),
        "countdown": DataFile(
            "countdown/countdown_cd3_test.jsonl",
            256,
            "9916f614621e26fb2b035ed4ea641e35e4fff0d533bb9b9c7bcaaa61017d88c6",
            "Apache-2.0",
            f"{D1}/dataset/countdown_cd3_test.jsonl",
        ),
        "countdown-chains": DataFile(
            "countdown/cd3_test.jsonl",
            1000,
            "14f727ff203f34f7ddcc05108c95f06414ff1baaa6f8e268c6c72699ec08e389",
            "Apache-2.0",
            f"{DREAM}/eval/data/cd3_test.jsonl",
        ),
        "sudoku": DataFile(
            "sudoku/4x4_test_sudoku.csv",
            500,
            "ef86c7c28ebef88484d85fda59b3909a7b621241aa1abf36343437dbc4a3ffb6",
            "Apache-2.0",
            f"{D1}/dataset/4x4_test_sudoku.csv",
        ),
        "sudoku-grids": DataFile(
            "sudoku/sudoku_4x4_10.jsonl",
            108,
            "3f5ceb59a1b2ebca3fa1ca4e4b6c2cfee2818c274e1c66a030148799413151cc",
            "Apache-2.0",
            f"{DREAM}/eval/data/sudoku_4x4_10.jsonl",
        ),
    }
)


def data_file(name: str) -> DataFile:
    """A file by its name. Raises `InvalidRequest` with the choices."""
    if name not in FILES:
        raise unknown_name("data", name, FILES)
    return FILES[name]


def cache_folder() -> Path:
    """Folder of fetched files: `$DLM_DATA`, else `dlm/evals` in the user's cache folder."""
    if given := os.environ.get("DLM_DATA"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlm" / "evals"


def locate(name: str, given: Path | None = None) -> Path:
    """The file of this name: `given`, or the one that ships or was fetched; its hash is checked.

    Raises `InvalidRequest` if there is none, and where it is another one.
    """
    file = data_file(name)
    places = [SHIPPED / file.path, cache_folder() / file.path] if given is None else [given]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InvalidRequest(
            "data-file",
            f"{name} is not here: `dlm eval fetch {name}` brings it ({file.licence}), or name the "
            f"file; looked for {places[-1]}",
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != file.sha256:
        raise InvalidRequest(
            "data-file", f"{path} is not the published {name}: sha256 {found}, not {file.sha256}"
        )
    return path


def fetch(name: str) -> Path:
    """Bring a file into the cache folder. Raises `InvalidRequest` when it cannot be had."""
    file = data_file(name)
    path = cache_folder() / file.path
    try:
        with urllib.request.urlopen(file.url, timeout=SECONDS) as answer:
            content = answer.read()
    except (URLError, OSError) as error:
        raise InvalidRequest("data", f"{file.url} cannot be fetched: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise InvalidRequest(
            "data", f"{file.url} is another file now: sha256 {found}, not {file.sha256}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
