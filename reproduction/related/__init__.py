"""The systems around KRPO, each one short file a family: equations, values with their source, what differs here.

Source marks in docstrings: [V] read in released code or on a primary page, [2H] second-hand, [C] computed here,
[NF] looked for and not found. Shape suffixes: P prompts, G members of a group, K reward components, B sequences,
T tokens.
"""
