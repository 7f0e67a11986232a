"""verl on a CPU, small and quiet: set before anything imports it. Without verl these tests fail and are not skipped."""

import os

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})

import verl  # noqa: E402, F401  (first, so that its plugins are loaded as in training)
