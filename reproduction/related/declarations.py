"""The related methods that a configuration can name, as declarations like those of `kpo.methods`.

They are declared when one of them is first looked up, so that the library's own table stays that of the two papers.
"""

from typing import Any

from kpo.methods import METHODS, Method, declare
from reproduction.related import length_weights, positive_samples, selection, trust_region

KINDS = (length_weights, positive_samples, selection, trust_region)
"""Importing these registers the kinds that the declarations name."""

_CLIP: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.2}
_RAFT: dict[str, Any] = {"paper": "arXiv 2504.11343", "aggregation": "token-mean"}
_PODS: dict[str, Any] = {"paper": "arXiv 2504.13818", **_CLIP}
_FILTRATION: dict[str, Any] = {
    "paper": "arXiv 2409.06957",
    "section": "policy filtration, on GRPO's advantages",
    **_CLIP,
}
_LENGTHS: dict[str, Any] = {
    "paper": "arXiv 2510.06870",
    "aggregation": "token-mean",
    "advantage": "length-weighted",
    **_CLIP,
}
_DPPO: dict[str, Any] = {
    "paper": "arXiv 2602.04879",
    "section": "divergence trust region; values of the release",
    "advantage": "mean",
    "aggregation": "seq-mean-token-sum-norm",
    "aggregation_length": 4096,
}

RELATED = {
    method.name: method
    for method in (
        Method(
            name="raft",
            section="RAFT",
            description="Positive rewards only, no baseline, no ratio.",
            advantage="positive",
            ratio="unit",
            **_RAFT,
        ),
        Method(
            name="raft-plus-plus",
            section="RAFT++",
            description="As raft, with the token ratio and its clip.",
            advantage="positive",
            **_RAFT,
            **_CLIP,
        ),
        Method(
            name="reinforce-rej",
            section="Reinforce-Rej",
            description="The reward itself, without even groups; wrong answers with reward 0 push nothing.",
            advantage="uneven-groups",
            **_RAFT,
            **_CLIP,
        ),
        Method(
            name="reinforce-rej-signed",
            section="Reinforce-Rej, rewards of -1 and 1",
            description="As reinforce-rej on rewards of -1 and 1.",
            advantage="uneven-groups-signed",
            **_RAFT,
            **_CLIP,
        ),
        Method(
            name="opo-on-policy",
            paper="arXiv 2505.23585",
            section="length-weighted optimal baseline; exact on-policy REINFORCE",
            description="OPO as published: no ratio, no clip. Train it with one minibatch.",
            advantage="opo",
            ratio="unit",
        ),
        Method(
            name="pods",
            section="max-variance rule; 64 -> 16 in the release",
            description="GRPO on the half of each group whose rewards vary most.",
            advantage="max-variance",
            **_PODS,
        ),
        Method(
            name="pods-random",
            section="control of the release",
            description="GRPO on a random half of each group.",
            advantage="random-subset",
            **_PODS,
        ),
        Method(
            name="pods-highest",
            section="control of the release",
            description="GRPO on the half of each group with the highest rewards.",
            advantage="highest-rewards",
            **_PODS,
        ),
        Method(
            name="pf-best-worst",
            description="The best and the worst response of each group.",
            advantage="best-and-worst",
            **_FILTRATION,
        ),
        Method(
            name="pf-best-random",
            description="The best response of each group and one at random.",
            advantage="best-and-random",
            **_FILTRATION,
        ),
        Method(
            name="unbiased-pruning",
            paper="arXiv 2303.04947",
            section="InfoBatch's rule on responses; not the unpublished one of arXiv 2603.04135",
            description="Responses with a small advantage are dropped at random, the survivors weigh more.",
            advantage="unbiased-pruning",
            **_CLIP,
        ),
        Method(
            name="lambda-grpo-short",
            section="control: lambda fixed at -1",
            description="Short responses weigh more.",
            advantage_parameters={"exponent": -1.0},
            **_LENGTHS,
        ),
        Method(
            name="lambda-grpo-long",
            section="control: lambda fixed at 1",
            description="Long responses weigh more.",
            advantage_parameters={"exponent": 1.0},
            **_LENGTHS,
        ),
        Method(name="dppo-tv", description="Trust region by total variation.", ratio="divergence-tv", **_DPPO),
        Method(name="dppo-kl", description="Trust region by binary KL divergence.", ratio="divergence-kl", **_DPPO),
    )
}


def declare_related(name: str) -> bool:
    """Add the related method `name` to the library's table, unless it is there; False if there is no such method."""
    if name in RELATED and name not in METHODS:
        declare(RELATED[name])
    return name in METHODS
