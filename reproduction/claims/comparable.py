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
    if graded:
        graders = [(run.name, run.graded_by) for run in runs if run.graded_by]
        _check_one_code(graders, "were evaluated by different code", "the evaluation.json of")
    _check_one_code([(run.name, run.code) for run in runs], "differ in code", "the folders of")
    first = runs[0]
    for run in runs[1:]:
        for what, own, other in (
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


def _check_one_code(made_by: list[tuple[str, str]], what: str, removed: str) -> None:
    """Refuse results of more than one code, naming all that have to go so that the others can stay."""
    by_code: dict[str, list[str]] = {}
    for name, code in dict.fromkeys(made_by):
        by_code.setdefault(code, []).append(name)
    if len(by_code) > 1:
        kept, *others = sorted(by_code.values(), key=len, reverse=True)
        fewer = [name for group in others for name in group]
        raise ClaimsError(
            f"{kept[0]} and {fewer[0]} are compared but {what}; remove {removed} {', '.join(fewer)} from the results, "
            "and the same command makes them again"
        )


def _deciding_time(run: Run) -> dict[str, Any]:
    """The hardware without its memory, whose size in bytes changes by a little with every start of a machine."""
    return {key: value for key, value in run.hardware.items() if key != "memory_bytes"}


def _sizes(run: Run) -> dict[str, int]:
    return {split: len(counts) for split, counts in run.correct.items()}
