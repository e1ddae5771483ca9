"""Retrieval benchmarks with intervals, comparisons of methods, and speed benchmarks."""

from __future__ import annotations

if __name__ != "fusemix.benchmarks":
    raise ImportError("this folder is the package fusemix.benchmarks: import fusemix.benchmarks")
