"""Rows to row steps: the loop that plans a forward, runs it, decides on its logits and writes.

Knows no request, no text and no configuration: everything it decodes is a `Rows` with bound parts.
"""
