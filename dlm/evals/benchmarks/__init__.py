"""Published benchmarks: their files, their problems, and the protocols that papers ask them by."""

from dlm.evals.benchmarks.protocols import BENCHMARKS, Protocol, benchmark_items, get_protocol

__all__ = ["BENCHMARKS", "Protocol", "benchmark_items", "get_protocol"]
