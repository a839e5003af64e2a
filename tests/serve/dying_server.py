"""The real server with an engine whose thread dies, or hangs: `python -m tests.serve.dying_server`.

With the argument `hang` the model's forward blocks instead.
"""

import sys
import threading

import dlm
from dlm.serve import ServerSettings, run

STEPS = 50
"""Steps that the engine takes before: more than warming up takes."""
MAX_STEP = 2.0
"""Seconds after which a step hangs."""


def main(hangs):
    engine, steps = dlm.load(device="cpu"), 0
    take_step = engine.step

    def step():
        nonlocal steps
        steps += 1
        if steps > STEPS:
            raise SystemExit("the end of this thread")
        return take_step()

    def block(*_):
        nonlocal steps
        steps += 1
        if steps > STEPS:
            threading.Event().wait()

    if hangs:
        engine.model.register_forward_pre_hook(block)
    else:
        engine.step = step
    return run(engine, ServerSettings(port=0, max_step=MAX_STEP))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["hang"]))
