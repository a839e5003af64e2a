"""Countdown: 256 or 992 puzzles of three numbers; Apache-2.0, fetched.

    dlm eval fetch countdown countdown-chains
    python evals/countdown.py --model MODEL --protocol NAME --limit 20

The same as `dlm eval countdown`; `--help` lists the protocols' options.
"""

import sys

from dlm.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["eval", "countdown", *sys.argv[1:]]))
