"""Results in compact form in `results_published/`, and back."""
