"""A method as verl's settings, and verl's settings as a method; needs no verl. docs/verl.md has the table.

Policy losses carry the names of `METHODS`, advantage estimators those of `ADVANTAGE_KINDS`; a name that verl 0.9 gives
to something of its own gets the prefix `kpo-`.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from kpo.advantages import ADVANTAGE_KINDS
from kpo.checks import check_integer, known
from kpo.methods import METHODS, Method

# Fixed, not read from the verl at hand, so that a name means the same on every machine; a test compares them.
VERL_LOSSES = set("vanilla dppo_tv dppo_kl gspo sapo gpg clip_cov kl_cov geo_mean dro cispo bypass_mode".split())
VERL_ESTIMATORS = set(
    "gae grpo grpo_vectorized gdpo grpo_passk reinforce_plus_plus_baseline rloo opo reinforce_plus_plus remax gpg "
    "rloo_vectorized optimal_token_baseline tir_optimal_token_baseline".split()
)
ACTOR = "actor_rollout_ref.actor"
SETTINGS = {  # field of Method -> setting of verl's actor
    "clip_low": "clip_ratio_low",
    "clip_high": "clip_ratio_high",
    "aggregation_length": "loss_scale_factor",
    "aggregation": "loss_agg_mode",
    "kl_weight": "kl_loss_coef",
}
ACTOR_FIELDS = (*SETTINGS.values(), "clip_ratio", "use_kl_loss")


def loss_names() -> dict[str, str]:
    """Name of the policy loss in verl -> name of the method."""
    return {f"kpo-{name}" if name in VERL_LOSSES else name: name for name in METHODS}


def estimator_names() -> dict[str, str]:
    """Name of the advantage estimator in verl -> name of the advantage kind."""
    return {f"kpo-{name}" if name in VERL_ESTIMATORS else name: name for name in ADVANTAGE_KINDS}


def loss_method(loss_mode: str, values: Mapping[str, Any], actor: Mapping[str, Any] | None = None) -> Method:
    """The method that a policy loss stands for. Its `kl_weight` is that of verl's trainer, which adds the KL term.

    values: `actor.policy_loss.kpo`: the ratio's parameters, and `clip` (false: no clip at all). actor: `ACTOR_FIELDS`
    of verl's actor, None to leave what they decide as declared. Raises ValueError or TypeError in one sentence.
    """
    names = loss_names()
    declared, values = METHODS[names[known(f"{ACTOR}.policy_loss.loss_mode", loss_mode, names)]], dict(values)
    clip = values.pop("clip", declared.clip is not None)
    if not isinstance(clip, bool):
        raise TypeError(f"policy_loss.kpo.clip must be true or false, found {clip!r}")
    for name in values.keys() & SETTINGS.keys():
        raise ValueError(f"policy_loss.kpo.{name}: verl has a setting of its own, use {ACTOR}.{SETTINGS[name]}")
    changes: dict[str, Any] = {"ratio_parameters": {**declared.ratio_parameters, **values}}
    if actor is not None:
        changes |= {field: actor[setting] for field, setting in SETTINGS.items()}
        for side in ("clip_low", "clip_high"):
            changes[side] = actor["clip_ratio"] if changes[side] is None else changes[side]
        if changes["aggregation"] != "seq-mean-token-sum-norm":
            changes["aggregation_length"] = None
        if not actor["use_kl_loss"]:
            changes["kl_weight"] = 0.0
            if declared.kl_weight:
                own = f"{ACTOR}.use_kl_loss=true {ACTOR}.kl_loss_coef={declared.kl_weight}"
                without = f"{ACTOR}.policy_loss.loss_mode=grpo to do without"
                raise ValueError(f"{loss_mode} has a KL weight; verl adds that term itself: set {own}, or {without}")
    if not clip:
        changes |= {"clip_low": None, "clip_high": None}
    try:
        method = dataclasses.replace(declared, **changes)
        method.try_once()
    except (TypeError, ValueError) as error:
        where = next((f" ({field}: {ACTOR}.{name})" for field, name in SETTINGS.items() if field in str(error)), "")
        raise type(error)(f"{error}{where}") from None
    return method


def advantage_method(estimator: str, values: Mapping[str, Any]) -> tuple[Method, int]:
    """A method with the estimator's advantage, and the seed of the order in which each group is filtered.

    values: `algorithm.kpo`: the kind's parameters, `seed` (0), and `state_is_lost: true` if the kind keeps a state.
    """
    kinds, values = estimator_names(), dict(values)
    kind = kinds[known("algorithm.adv_estimator", estimator, kinds)]
    if needs := ADVANTAGE_KINDS[kind].runtime - {"lengths", "generator"}:
        raise ValueError(f"{estimator} needs the {', '.join(needs)} of each reward, which verl does not pass on")
    seed = check_integer("algorithm.kpo.seed", values.pop("seed", 0), minimum=0)
    lost = values.pop("state_is_lost", False)
    method = Method(estimator, "", "", "", advantage=kind, advantage_parameters=values)
    method.try_once()
    keeps_state = method.make_estimator() is not None
    if keeps_state and lost is not True:
        remedy = "if a resumed run may start them again, set +algorithm.kpo.state_is_lost=true"
        raise ValueError(f"{estimator} keeps estimates that verl cannot put into a checkpoint; {remedy}")
    if not keeps_state and lost is not False:
        raise ValueError(f"{estimator} keeps no state; leave out algorithm.kpo.state_is_lost")
    return method, seed


def check_config(config: Any, losses: Collection[str], estimators: Collection[str]) -> bool:
    """Check verl's whole configuration; False if it uses nothing of kpo. losses, estimators: all that verl knows."""
    actor, algorithm = config.actor_rollout_ref.actor, config.algorithm
    loss_mode, values, target = (actor.policy_loss.get(name) for name in ("loss_mode", "kpo", "_target_"))
    estimator, own = algorithm.adv_estimator, algorithm.get("kpo")
    own_section = values is not None or target == "kpo.verl.PolicyLoss"
    if not own_section and own is None and loss_mode not in loss_names() and estimator not in estimator_names():
        return False
    if own_section or known(f"{ACTOR}.policy_loss.loss_mode", loss_mode, losses) in loss_names():
        loss_method(loss_mode, values or {}, {name: actor.get(name) for name in ACTOR_FIELDS})
    if own is not None or known("algorithm.adv_estimator", estimator, estimators) in estimator_names():
        advantage_method(estimator, own or {})
    return True


def overrides(loss: Method, advantage: Method) -> list[str]:
    """What to append to verl's command line for the loss of one method with the advantages of another."""
    modes, estimators = ({kpo: verl for verl, kpo in names.items()} for names in (loss_names(), estimator_names()))
    values = {SETTINGS[field]: getattr(loss, field) for field in SETTINGS}
    values |= {"policy_loss.loss_mode": modes[loss.name], "policy_loss._target_": "kpo.verl.PolicyLoss"}
    values |= {"use_kl_loss": str(loss.kl_weight > 0).lower(), "kl_loss_type": "low_var_kl"}
    own = {f"{ACTOR}.policy_loss.kpo.{name}": value for name, value in loss.ratio_parameters.items()}
    own |= {f"{ACTOR}.policy_loss.kpo.clip": str(loss.clip is not None).lower(), "algorithm.kpo.seed": 0}
    own |= {f"algorithm.kpo.{name}": value for name, value in advantage.advantage_parameters.items()}
    own |= {"algorithm.kpo.state_is_lost": "true"} if advantage.make_estimator() is not None else {}
    lines = ["actor_rollout_ref.model.external_lib=kpo.verl"]
    lines += [f"{ACTOR}.{name}={value}" for name, value in values.items() if value is not None]
    lines += [f"algorithm.adv_estimator={estimators[advantage.advantage]}"]
    return lines + [f"+{name}={value}" for name, value in own.items() if value is not None]
