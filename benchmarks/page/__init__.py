"""The page of results, RESULTS.md: `python -m fusemix.benchmarks.page [FILE ...]`.

What was measured here is committed as it was written, in `results/`; what others published is in `published.json`.
"""
