"""`python -m kpo` is the `kpo` command."""

import sys

from kpo.cli import main

if __name__ == "__main__":
    sys.exit(main())
