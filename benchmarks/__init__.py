"""Measurements of cnnc beside other systems. `python -m benchmarks` from the top of the repository."""
