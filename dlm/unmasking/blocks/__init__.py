"""Block schedulers: where blocks of a canvas open, end and close."""
