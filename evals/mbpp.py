"""MBPP: 500 tasks of the test split, or the 427 sanitized ones; CC-BY-4.0, fetched.

    dlm eval fetch mbpp mbpp-sanitized
    python evals/mbpp.py --model MODEL --protocol NAME --limit 20

The same as `dlm eval mbpp`; `--help` lists the protocols' options.
"""

import sys

from dlm.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["eval", "mbpp", *sys.argv[1:]]))
