"""The real server with an engine whose thread dies: `python -m tests.serve.dying_server`."""

import sys

import dlm
from dlm.serve import ServerSettings, run

STEPS = 50
"""Steps that the engine takes before it dies: more than warming up takes."""


def main():
    engine, steps = dlm.load(), 0
    take_step = engine.step

    def step():
        nonlocal steps
        steps += 1
        if steps > STEPS:
            raise SystemExit("the end of this thread")
        return take_step()

    engine.step = step
    return run(engine, ServerSettings(port=0))


if __name__ == "__main__":
    sys.exit(main())
