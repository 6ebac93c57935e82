"""How a plan runs: `reference` interprets, `blas` calls BLAS and NumPy. Imports ir, passes."""
