"""Kernels, one file per algorithm, written in the kernel language."""
