"""Sudoku 4x4: 256 or 100 puzzles; Apache-2.0, fetched.

    dlm eval fetch sudoku sudoku-grids
    python evals/sudoku.py --model MODEL --protocol NAME --limit 20

The same as `dlm eval sudoku`; `--help` lists the protocols' options.
"""

import sys

from dlm.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["eval", "sudoku", *sys.argv[1:]]))
