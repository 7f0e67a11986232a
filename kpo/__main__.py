"""`python -m kpo` ran the reproduction's steps before the two were separated."""

import sys

sys.exit("kpo is a library without commands; run the steps from the repository: python -m reproduction <step>")
