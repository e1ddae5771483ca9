"""Speed benchmarks: `python -m fusemix.benchmarks.speed loss|ranks [--quick] [--out FILE]`.

Each puts fusemix's code beside the plain way in one process, in turn, and prints the ratio of the medians; no test
asserts a time.  Results worth keeping lie in `results/`.
"""
