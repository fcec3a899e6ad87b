"""From a planned graph to machine code: targets, kernels, LLVM emission, JIT, linking."""
