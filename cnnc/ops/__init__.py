"""The ops, one file per layer family: type rule, NumPy reference, derivative, samples."""
