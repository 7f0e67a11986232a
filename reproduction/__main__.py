"""`python -m reproduction <step>`: every step of the workflow."""

import sys

from reproduction.cli import main

if __name__ == "__main__":
    sys.exit(main())
