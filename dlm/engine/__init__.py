"""From requests to events and generations.

`Engine` binds a prompt and its options into a `Request` with one `RowState` for each choice. The
`Scheduler` admits rows as pages get free, puts rows whose parts are of the same classes into one
group, and runs the steps of `dlm.decode` over all groups. A `RowState` records each `RowStep` that
comes back: costs, events, settled text, and the reason why the row ended.
"""
