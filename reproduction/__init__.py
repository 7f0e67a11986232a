"""Everything that reproduces the papers, run from the repository as `python -m reproduction <step>`."""
