"""Graders: pure functions from a text to the answer that stands in it, and whether that is right.

Rules that find an answer in a text have names with a version, which stand in every run's header.
"""
