"""`python -m gemmc.bench`: the benchmark of `step.py`."""

import sys

from .step import main

if __name__ == "__main__":
    sys.exit(main())
