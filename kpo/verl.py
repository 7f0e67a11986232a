"""Every method as a policy loss and every advantage kind as an advantage estimator of verl 0.9 (docs/verl.md).

Importing this module registers them. verl imports it in each of its processes: by the entry point `verl.plugins`, or if
`VERL_USE_EXTERNAL_MODULES` or `actor_rollout_ref.model.external_lib` name `kpo.verl`. verl's `validate_config` then
checks kpo's settings first, so that a wrong one stops the driver and not a worker after its first rollout.

verl does not keep the order in which a group was sampled, so each group is filtered in a random one.
"""

import argparse
import dataclasses
import functools
import itertools
import logging
import math
import os
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)
logger.setLevel(os.environ.get("VERL_LOGGING_LEVEL", "INFO"))
NEEDED = "pip install 'verl[verl-core]>=0.9,<0.10'"
# For a micro-batch that counts no token: verl averages metrics over micro-batches, and a NaN would spread.
NEUTRAL = {"mean_ratio": 1.0, "effective_sample_size": 1.0}


def register() -> None:
    """Tell verl every loss and estimator; may be called again. ImportError without a verl of a supported version."""
    try:
        import verl
    except ImportError as error:
        raise ImportError(f"kpo.verl needs verl, which cannot be imported ({error}): {NEEDED}") from error
    if verl.__version__.split(".")[:2] != ["0", "9"]:
        raise ImportError(f"kpo.verl is written for verl 0.9, and this is {verl.__version__}: {NEEDED}")
    from verl.trainer.ppo import core_algos
    from verl.utils import config

    from kpo.verl_settings import estimator_names, loss_names

    for name in loss_names():
        core_algos.register_policy_loss(name)(policy_loss_function(name))
    for name in estimator_names():
        core_algos.register_adv_est(name)(estimator_function(name))
    if not hasattr(config.validate_config, "without_kpo"):
        config.validate_config = _checked(config.validate_config)


@functools.cache
def _say_once(level: int, message: str) -> None:
    logger.log(level, message)


@functools.cache
def policy_loss_function(loss_mode: str) -> Callable:
    """verl's policy loss of that name."""

    def loss(
        old_log_prob, log_prob, advantages, response_mask, loss_agg_mode=None, config=None, rollout_is_weights=None
    ):
        """(this micro-batch's share of the minibatch's loss, times the number of ranks; metrics), tensors (B, T)."""
        from kpo.losses import policy_loss
        from kpo.verl_settings import ACTOR_FIELDS

        fields = {name: config.get(name) for name in ACTOR_FIELDS} | {"loss_agg_mode": loss_agg_mode}
        values = config.policy_loss.get("kpo") or {}
        method = _resolved_method(loss_mode, tuple(sorted(values.items())), tuple(fields.items()))
        if log_prob.dtype in (torch.bfloat16, torch.float16):
            why = "near -4 such values lie up to 0.03 apart, and KPO clips ratios at 0.0003"
            remedy = "set actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32, or install flash-attn"
            what = f"{loss_mode}: verl passes log-probabilities in {log_prob.dtype}. The loss is computed in float32"
            _say_once(logging.WARNING, f"{what}, but {why}; for float32 {remedy}")
        totals = [config.global_batch_info.get(name) for name in ("global_batch_size", "batch_num_tokens", "dp_size")]
        if None in totals:
            raise ValueError(f"{loss_mode} needs the totals of the minibatch, which verl 0.9 passes; found {totals}")
        num_sequences, num_tokens, ranks = map(int, totals)
        given = {"sampler_weights": rollout_is_weights, "num_sequences": num_sequences, "num_tokens": num_tokens}
        with torch.autocast(log_prob.device.type, enabled=False):
            result = policy_loss(method, log_prob, old_log_prob, advantages, response_mask, **given)
        metrics = {name: x if math.isfinite(x) else NEUTRAL.get(name, 0.0) for name, x in result.metrics.items()}
        change_BT = torch.where(response_mask.bool(), old_log_prob.float() - log_prob.detach().float(), 0.0)
        named = {"actor/pg_clipfrac": metrics.pop("clip_share")}  # verl's names for what verl's losses report
        named["actor/ppo_kl"] = (change_BT.sum() / response_mask.sum().clamp(min=1)).item()
        return result.loss * ranks, named | {f"actor/{name}": x for name, x in metrics.items()}

    return loss


@functools.lru_cache
def _resolved_method(loss_mode: str, values: tuple, fields: tuple) -> Any:
    """The method of these settings, without the KL term that verl adds; said once in the log of each process."""
    from kpo.methods import METHODS
    from kpo.verl_settings import loss_method, loss_names

    method, declared = loss_method(loss_mode, dict(values), dict(fields)), METHODS[loss_names()[loss_mode]]
    names = ("ratio_parameters", "clip", "aggregation", "kl_weight")
    used, published = ({name: getattr(m, name) for name in names} for m in (method, declared))
    text = ", ".join(f"{name} {value}" for name, value in used.items())
    other = ", ".join(f"{name} {published[name]}" for name in names if used[name] != published[name])
    _say_once(logging.WARNING if other else logging.INFO, f"{loss_mode}: {text}; published: {other or 'the same'}")
    return dataclasses.replace(method, kl_weight=0.0)


@functools.cache
def estimator_function(estimator: str) -> Callable:
    """verl's advantage estimator of that name. It counts its calls, so that orders differ between steps."""
    calls, noise = itertools.count(), {}

    def advantages(token_level_rewards, response_mask, config=None, index=None, **_):
        """(advantages, returns), the same tensor (N, T): each response's advantage at its counted tokens.

        A response's reward is the sum over its tokens, NaN if ungraded. index: the uid of each prompt; rows that verl
        adds as padding (uid `pad...`) get 0.
        """
        from kpo.verl_settings import advantage_method

        if index is None:
            raise ValueError(f"{estimator} needs to know the prompt of each response, and verl passed no uid")
        method, seed = advantage_method(estimator, (config or {}).get("kpo") or {})
        order = f"each group in a random order (seed {seed}), because verl does not keep the sampled one"
        _say_once(logging.INFO, f"{estimator}: {dict(method.advantage_parameters)}, {order}")
        rewards_N, lengths_N = token_level_rewards.sum(dim=-1), response_mask.sum(dim=-1)
        places_PG = group_places(rewards_N, lengths_N, index, seed, next(calls))
        advantages_N = torch.zeros_like(rewards_N)
        if places_PG.numel():
            present_PG = places_PG >= 0
            rewards_PG = torch.where(present_PG, rewards_N[places_PG], torch.nan)
            lengths_PG = torch.where(present_PG, lengths_N[places_PG], 0)
            state = noise.setdefault(str(method), method.make_estimator())
            advantages_PG = method.advantages(rewards_PG, lengths_PG=lengths_PG, estimator=state)
            advantages_N[places_PG[present_PG]] = advantages_PG[present_PG]
        advantages_NT = advantages_N[:, None] * response_mask
        return advantages_NT, advantages_NT

    return advantages


def group_places(rewards_N, lengths_N, index, seed: int, call: int):
    """Rows of each group in the order in which to filter them, (P, G); -1 fills up smaller groups.

    Members are sorted by reward and length, and groups by their members, so that arrival plays no part; then each group
    is shuffled by a generator seeded with (seed, call).
    """
    content = list(zip(rewards_N.nan_to_num(nan=math.inf).tolist(), lengths_N.tolist(), strict=True))
    groups: dict[str, list[int]] = {}
    for row, uid in enumerate(map(str, index)):
        if not uid.startswith("pad"):
            groups.setdefault(uid, []).append(row)
    members = [sorted(group, key=content.__getitem__) for group in groups.values()]
    members.sort(key=lambda group: [content[row] for row in group])
    places_PG = torch.full((len(members), max(map(len, members), default=0)), -1, device=rewards_N.device)
    generator = np.random.default_rng([seed, call])
    for place_G, group in zip(places_PG, members, strict=True):
        place_G[: len(group)] = torch.from_numpy(generator.permutation(group))
    return places_PG


def _checked(validate: Callable) -> Callable:
    """verl's `validate_config`, preceded by kpo's own check."""

    def validate_config(config, *args, **kwargs):
        from verl.trainer.ppo import core_algos
        from verl.utils.import_utils import import_external_libs

        from kpo.verl_settings import check_config

        library = config.actor_rollout_ref.model.get("external_lib")
        import_external_libs(library)
        plugin = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto") == "auto" and any(
            entry.value == __name__ for entry in metadata.entry_points(group="verl.plugins")
        )
        used = check_config(config, core_algos.POLICY_LOSS_REGISTRY, core_algos.ADV_ESTIMATOR_REGISTRY)
        if used and not plugin and library != __name__:
            cluster = "A Ray cluster that was started before VERL_USE_EXTERNAL_MODULES was set does not import kpo.verl"
            logger.warning(f"{cluster}: add actor_rollout_ref.model.external_lib=kpo.verl")
        return validate(config, *args, **kwargs)

    checked: Any = functools.wraps(validate)(validate_config)
    checked.without_kpo = validate
    return checked


@functools.cache
def __getattr__(name: str) -> Any:
    """`PolicyLoss`, built on demand: its base class may be half imported when this module is."""
    if name != "PolicyLoss":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from verl.workers.config import PolicyLossConfig

    from kpo.verl_settings import loss_method

    def check(self):
        loss_method(self.loss_mode, self.kpo)

    # verl's `policy_loss` section with one more field, `kpo`: the ratio's parameters, and `clip: false` for no clip.
    fields = [("kpo", dict, dataclasses.field(default_factory=dict))]
    section = dataclasses.make_dataclass(name, fields, bases=(PolicyLossConfig,), namespace={"__post_init__": check})
    section.__module__ = __name__
    return section


def main(arguments: list[str] | None = None) -> None:
    """Print the overrides for verl of a pair of methods."""
    from kpo.methods import get_method
    from kpo.verl_settings import overrides

    parser = argparse.ArgumentParser(prog="python -m kpo.verl", description=main.__doc__)
    parser.add_argument("loss", help="method with the policy loss, such as kpo-clipped")
    parser.add_argument("advantage", nargs="?", help="method with the advantages, such as krpo (default: the same)")
    given = parser.parse_args(arguments)
    try:
        print(" \\\n".join(overrides(get_method(given.loss), get_method(given.advantage or given.loss))))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
else:
    try:
        register()
    except Exception as error:
        # verl hides what goes wrong in a plugin; if it was told to import this module, the error itself follows.
        warnings.warn(f"kpo is not registered with verl: {error}", stacklevel=2)
        raise
