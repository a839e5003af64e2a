"""Stop rules and budgets: when a row ends before all of its canvas is filled."""
