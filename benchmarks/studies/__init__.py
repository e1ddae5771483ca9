"""Studies of the method, one factor at a time: `python -m fusemix.benchmarks.studies run|report`.

Each level of a factor is trained with several seeds and measured on the same items, so that differences are paired.
What was found is committed: figures and pictures in `results/`, and a page of them in `benchmarks/FINDINGS.md`.
"""
