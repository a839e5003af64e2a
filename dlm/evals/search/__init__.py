"""Accuracy of searches against the forwards that they spend, those of verifiers included."""
