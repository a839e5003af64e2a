"""The decoding engine: from a bound request to events.

`Request` (request) makes one *ticket* (admission) for each choice. The `Scheduler` gives it pages
(memory) and a row, and puts rows whose parts are of the same classes into one *cohort* (cohort);
the numbers in which their parts differ are stacked into *knobs*. `IterationManager.run` plans
(planning), steps and catches up (sync): the *window* of a plan is what a step shows, a view
(viewing) is the window with statistics, what rules answer is resolved (apply) and written. What a
step has done comes back as a `RowStep`, from which the ticket is told (telling): bills (ledger),
events (events), settled text for its *watch*, and the reason why it ended (generation).
"""
