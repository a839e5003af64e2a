"""HumanEval: 164 functions to complete; MIT, ships with the package.

    python evals/humaneval.py --model MODEL --protocol NAME --limit 20

The same as `dlm eval humaneval`; `--help` lists the protocols' options.
"""

import sys

from dlm.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["eval", "humaneval", *sys.argv[1:]]))
