"""Published benchmarks: their files, their problems, and the protocols that papers ask them by."""

from dlm.evals.benchmarks.protocols import Protocol, benchmark_items
from dlm.evals.benchmarks.published import BENCHMARKS, get_protocol

__all__ = ["BENCHMARKS", "Protocol", "benchmark_items", "get_protocol"]
