"""KV-cache managers: which positions a step computes, which stored keys it reuses. One file a
policy family.

A policy is a frozen dataclass with one pure method, `plan(rows)`. A refresh is a plan with more
queries, and its logits are used like any other's.
"""
