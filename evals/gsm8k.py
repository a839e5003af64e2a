"""GSM8K: 1,319 word problems; MIT, fetched.

    dlm eval fetch gsm8k
    python evals/gsm8k.py --model MODEL --protocol NAME --limit 20

The same as `dlm eval gsm8k`; `--help` lists the protocols' options.
"""

import sys

from dlm.cli.app import run

if __name__ == "__main__":
    sys.exit(run(["eval", "gsm8k", *sys.argv[1:]]))
