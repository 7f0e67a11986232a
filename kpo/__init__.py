"""Kalman filters, importance ratios, advantages and losses of KPO (arXiv 2602.10609) and KRPO (arXiv 2505.07527).

Suffixes give shapes: B sequences, T tokens, P prompts, G group members, K reward components, M models, N counted tokens
of all sequences (in `kpo.verl`: responses of all groups).
"""

import importlib
import importlib.abc
import sys

__version__ = "0.2.0"

# Imported when first asked for, so that `import kpo` loads no PyTorch and the losses load no compiler.
_NAMES = {
    "advantages": "group_advantages",
    "checks": "NonFiniteError",
    "kalman": "fit_variances kalman_filter kalman_filter_group kalman_gains log_likelihood",
    "losses": "policy_loss",
    "methods": "METHODS Method get_method",
    "ratios": "log_importance_ratio",
    "structure": "low_frequency_energy run_lengths switch_frequency",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = list(_MODULE_OF)


def __getattr__(name: str):
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"kpo.{_MODULE_OF[name]}"), name)
    if name in {"adaptive", *_NAMES}:
        return importlib.import_module(f"kpo.{name}")
    raise AttributeError(f"module 'kpo' has no attribute {name!r}")


class _Moved(importlib.abc.MetaPathFinder):
    """Names the new place of a module that was in `kpo` before the reproduction had a package of its own."""

    places = {
        "kpo.adaptive": "reward_noise",
        "kpo.checks": "masked_rows",
        "reproduction.jobs": "allocator checksums devices files launch plan progress provenance sizing",
        "reproduction.settings": "config config_files pretrained study",
        "reproduction.data": "data hub steps tasks",
        "reproduction.publish": "publish published",
        "reproduction.verify": "verify verify_derived verify_run",
        "reproduction.training (MethodTrainer for your own training: kpo.trl)": "training",
        **{f"reproduction.{same}": same for same in "claims cli evaluation notebook report rewards workflow".split()},
    }
    moved = {f"kpo.{name}": place for place, names in places.items() for name in names.split()}

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname in cls.moved:
            raise ModuleNotFoundError(f"{fullname} moved to {cls.moved[fullname]}", name=fullname)


# First, because a folder that an old version left behind would pass for a package.
sys.meta_path.insert(0, _Moved())
