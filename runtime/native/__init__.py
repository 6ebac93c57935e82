"""The native runtime: a plan compiled with LLVM, loops generated around the products of a BLAS."""
