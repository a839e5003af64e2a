"""KV-cache policies: which positions a step computes and which stored keys it reuses.

A policy is a frozen dataclass with one pure method, `plan(rows)`; each file holds one family of
policies. A refresh is a plan with more queries, and its logits are used like any other's.
"""
