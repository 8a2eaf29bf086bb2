"""python -m contracts: print the data dictionary."""

import sys

from contracts.dictionary import markdown

if __name__ == "__main__":
    sys.stdout.write(markdown())
