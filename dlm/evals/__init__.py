"""Evaluation: tasks, protocols, graders, statistics and reports."""
