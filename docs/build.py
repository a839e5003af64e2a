"""Build the site in build/docs/site: `make docs`, or `python docs/build.py` where zensical is.

The pages are linked into build/docs/pages at their places in the repository. Ends with 1 at a dead
link or a reference without an aim.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build/docs/pages"
SHOWN = ("README.md", "CHANGELOG.md", "LICENSE", "docs/*.md", "docs/*.png")
EXAMPLES = ("examples/*.py", "examples/*.png")
KEPT = ("evals/results/*/*.md", "evals/results/*/*.png", "evals/results/training/run.json")
CARDS = ("dlm/model/bundled/*/README.md",)


def main() -> int:
    """Link the pages and run the generator over them."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for pattern in (*SHOWN, *EXAMPLES, *KEPT, *CARDS):
        for file in sorted(ROOT.glob(pattern)):
            page = PAGES / file.relative_to(ROOT)
            page.parent.mkdir(parents=True, exist_ok=True)
            page.symlink_to(file)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run([*command, "--config-file", ROOT / "zensical.toml"]).returncode


if __name__ == "__main__":
    sys.exit(main())
