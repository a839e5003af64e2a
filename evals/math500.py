"""MATH-500: 500 competition problems; MIT, fetched.

    dlm eval fetch math500
    python evals/math500.py --model MODEL --protocol NAME --limit 20

The same as `dlm eval math500`; `--help` lists the protocols' options.
"""

import sys

from dlm.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["eval", "math500", *sys.argv[1:]]))
