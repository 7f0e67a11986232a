"""For tests against numbers worked by hand."""

import torch
from torch.testing import assert_close


def near(found, expected, tolerance: float = 6e-5) -> None:
    """Fails unless the numbers are within `tolerance` of those expected, which are given to four digits by default."""
    numbers = (torch.as_tensor(values, dtype=torch.float64) for values in (found, expected))
    assert_close(*numbers, rtol=0, atol=tolerance)


def rows(*values) -> torch.Tensor:
    """The groups' numbers, a row each, in float64."""
    return torch.tensor(values, dtype=torch.float64)
