"""Speed benchmarks: `python -m fusemix.benchmarks.speed BENCHMARK [--quick] [--out FILE]`.

Most put fusemix's code beside the plain way in one process, in turn, and print the ratio of the medians; no test
asserts a time.  Results worth keeping lie in `results/`.
"""
