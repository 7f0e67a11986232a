"""A study: what is added to a scale's configuration, written as differences so that nothing is said twice.

A study's file holds top-level values that replace the scale's, and under `experiments`

    name of an experiment of the scale    its `methods` are added; its other keys replace what the scale says
    any other name, with `like: other`    a copy of `other` (of the scale, or earlier in the study); `methods` are
                                          replaced, `training` is merged key by key, other keys replace

so that a sweep follows the experiment that it varies when that one changes.
"""

from typing import Any

from kpo.checks import unknown_name


def add_study(scale: dict[str, Any], study: dict[str, Any]) -> dict[str, Any]:
    """The raw configuration of a scale with a study's differences; neither argument is changed.

    Raises ValueError naming the key for a study that is not of the module's form. Values are left to validation.
    """
    experiments = dict(scale["experiments"])
    for name, settings in _mapping("experiments", study.get("experiments", {})).items():
        settings = dict(_mapping(f"experiments.{name}", settings))
        known = name in scale["experiments"]
        if known == ("like" in settings):
            problem = (
                "is of the scale already; leave `like` out" if known else "is new; say `like: NAME` to copy another"
            )
            raise ValueError(f"experiments.{name}: this experiment {problem}")
        origin = settings.pop("like", name)
        if origin not in experiments:
            raise ValueError(f"experiments.{name}.like: {unknown_name('experiment', origin, experiments)}")
        parent = experiments[origin]
        merged = {**parent, **settings}
        for part in ("training", *(["methods"] if known else [])):
            if part in settings:
                merged[part] = {**parent[part], **_mapping(f"experiments.{name}.{part}", settings[part])}
        experiments[name] = merged
    return {**scale, **study, "experiments": experiments}


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a mapping, found {value!r}")
    return value
