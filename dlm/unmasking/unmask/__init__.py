"""Unmaskers: the open positions that a step commits."""
