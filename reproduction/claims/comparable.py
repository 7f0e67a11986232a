"""Which runs may be compared: those whose difference can come from nothing but what is compared."""

from typing import Any

from reproduction.claims.one_run import ClaimsError, Run, differing


def check_comparable(runs: list[Run], *, timed: bool, graded: bool = False) -> None:
    """Refuse runs whose difference could come from something other than what is compared.

    timed: whether times are compared; graded: whether what an evaluation found is. Runs that were measured before the
    code of their evaluation was recorded are taken without it. Raises ClaimsError naming two runs and what differs.
    """
    if not runs:
        return
    by_grader = list({run.graded_by: run for run in runs if run.graded_by}.values())
    if graded and len(by_grader) > 1:
        raise ClaimsError(
            f"{by_grader[0].name} and {by_grader[1].name} are compared but were evaluated by different code; "
            "evaluate both again with one version"
        )
    first = runs[0]
    for run in runs[1:]:
        for what, own, other in (
            ("code", run.code, first.code),
            ("versions", run.versions, first.versions),
            ("sampling of the evaluation", run.sampling, first.sampling),
            ("samples per problem", run.samples, first.samples),
            ("number of held-out problems", _sizes(run), _sizes(first)),
            *([("hardware", _deciding_time(run), _deciding_time(first))] if timed else []),
        ):
            if own != other:
                raise ClaimsError(
                    f"{run.name} and {first.name} are compared but differ in {what}: {differing(own, other)}; "
                    "make both again with one version"
                )


def _deciding_time(run: Run) -> dict[str, Any]:
    """The hardware without its memory, whose size in bytes changes by a little with every start of a machine."""
    return {key: value for key, value in run.hardware.items() if key != "memory_bytes"}


def _sizes(run: Run) -> dict[str, int]:
    return {split: len(counts) for split, counts in run.correct.items()}
