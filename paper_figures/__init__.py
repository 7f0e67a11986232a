"""Figures of the reproduction: one script a figure, each reads a results folder and writes a PDF and a PNG.

`python -m paper_figures --results results/laptop --output results/laptop/figures` draws all of them. Nothing here
trains or samples a model: every number comes from the files that the runs left, or is computed from them by a function
of `kpo`.
"""

FIGURES = (
    "training_curves",
    "entropy_gradient_norm",
    "final_accuracy",
    "pass_at_k",
    "response_log_ratio",
    "group_advantages",
    "structure",
)
