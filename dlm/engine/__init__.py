"""The loop: iteration manager, scheduler, ledger, events, and the engine that people call."""
