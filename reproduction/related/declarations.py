"""The related methods that a configuration can name, as declarations like those of `kpo.methods`.

They have a table of their own, so that the library's stays that of the two papers.
"""

from typing import Any

from kpo.methods import Method
from reproduction.related import (
    length_weights,
    positive_samples,
    preference_pairs,
    reward_components,
    selection,
    sequence_objectives,
    trust_region,
)
from reproduction.related.method import RelatedMethod

KINDS = (
    length_weights, positive_samples, preference_pairs, reward_components, selection, sequence_objectives, trust_region,
)  # fmt: skip
"""Importing these registers the kinds that the declarations name."""

_CLIP: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.2}
_RAFT: dict[str, Any] = {"paper": "arXiv 2504.11343", "aggregation": "token-mean"}
_PODS: dict[str, Any] = {"paper": "arXiv 2504.13818", "objective": "selection", **_CLIP}
_FILTRATION: dict[str, Any] = {
    "paper": "arXiv 2409.06957",
    "section": "policy filtration, on GRPO's advantages",
    "objective": "selection",
    **_CLIP,
}
_COMPONENTS: dict[str, Any] = {"needs_components": True, **_CLIP}
_LENGTHS: dict[str, Any] = {"paper": "arXiv 2510.06870", "aggregation": "token-mean", **_CLIP}
_PAIRS: dict[str, Any] = {"advantage": "preference-pair", "ratio": "unit"}
_RPO: dict[str, Any] = {"paper": "arXiv 2405.16436", **_PAIRS}
_DRAFTS: dict[str, Any] = {"paper": "arXiv 2602.09000", **_CLIP}
_DVPO: dict[str, Any] = {"paper": "arXiv 2502.16944", "advantage": "reward", "aggregation": "token-mean", **_CLIP}
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
        RelatedMethod(
            name="pods",
            section="max-variance rule; 64 -> 16 in the release",
            description="GRPO on the half of each group whose rewards vary most.",
            advantage="max-variance",
            **_PODS,
        ),
        RelatedMethod(
            name="pods-random",
            section="control of the release",
            description="GRPO on a random half of each group.",
            advantage="random-subset",
            **_PODS,
        ),
        RelatedMethod(
            name="pods-highest",
            section="control of the release",
            description="GRPO on the half of each group with the highest rewards.",
            advantage="highest-rewards",
            **_PODS,
        ),
        RelatedMethod(
            name="pf-best-worst",
            description="The best and the worst response of each group.",
            advantage="best-and-worst",
            **_FILTRATION,
        ),
        RelatedMethod(
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
            advantage="length-weighted",
            advantage_parameters={"exponent": -1.0},
            **_LENGTHS,
        ),
        Method(
            name="lambda-grpo-long",
            section="control: lambda fixed at 1",
            description="Long responses weigh more.",
            advantage="length-weighted",
            advantage_parameters={"exponent": 1.0},
            **_LENGTHS,
        ),
        RelatedMethod(
            name="multi-objective",
            paper="arXiv 2503.21819",
            section="several rewards, one GRPO; weights not published; the control of GDPO",
            description="GRPO on the weighted sum of several reward functions.",
            **_COMPONENTS,
        ),
        RelatedMethod(
            name="gdpo",
            paper="arXiv 2601.05242",
            section="reward-decoupled normalisation, as in TRL",
            description="Each reward is normalised in its group before the sum, and the sum over the batch.",
            advantage="gdpo",
            **_COMPONENTS,
        ),
        RelatedMethod(
            name="gdpo-tokens",
            paper="arXiv 2601.05242",
            section="reward-decoupled normalisation, as in verl",
            description="As gdpo, with the sum whitened over tokens, so that long responses weigh more.",
            advantage="gdpo-tokens",
            **_COMPONENTS,
        ),
        RelatedMethod(
            name="lambda-grpo",
            section="learned lambda; start and learning rate not published",
            description="Responses are weighted by length, with a learned exponent.",
            objective="learned-length-weights",
            **_LENGTHS,
        ),
        RelatedMethod(
            name="sppo",
            paper="arXiv 2405.00675",
            section="all members of a group; eta of the scripts",
            description="Regression of each response's log-ratio on eta times (its win rate - 1/2).",
            advantage="win-rate",
            ratio="unit",
            objective="regression",
        ),
        RelatedMethod(
            name="rebel",
            paper="arXiv 2404.16767",
            section="all pairs of a group; eta of TL;DR and chat",
            description="Regression of differences of log-ratios on differences of rewards.",
            advantage="scaled-reward",
            ratio="unit",
            objective="all-pairs",
        ),
        RelatedMethod(
            name="a-star-po",
            paper="arXiv 2505.20686",
            section="A*-PO on groups",
            description="Regression on the reward minus the base model's optimal value.",
            advantage="reward",
            ratio="unit",
            objective="optimal-value",
        ),
        RelatedMethod(
            name="rpo",
            section="sum of the chosen log-probabilities; online use is this project's",
            description="DPO on pairs of a group, with likelihood of the chosen response.",
            objective="rpo-sum",
            **_RPO,
        ),
        RelatedMethod(
            name="rpo-mean",
            section="mean of the chosen log-probabilities; online use is this project's",
            description="As rpo, with the likelihood divided by the number of tokens.",
            objective="rpo-mean",
            **_RPO,
        ),
        RelatedMethod(
            name="alpha-dpo",
            paper="arXiv 2410.10148",
            section="values of llama v2; online use is this project's",
            description="SimPO with a margin adapted to the gap between policy and reference.",
            objective="alpha-dpo",
            **_PAIRS,
        ),
        RelatedMethod(
            name="simpo",
            paper="arXiv 2410.10148",
            section="alpha 0: the control of alpha-dpo",
            description="Preference for the chosen response by mean log-probability, with a fixed margin.",
            objective="simpo",
            **_PAIRS,
        ),
        RelatedMethod(
            name="igrpo",
            section="drafts and refinements, half of a group each",
            description="GRPO on responses to the prompt with the best of the policy's own drafts.",
            objective="refinement",
            **_DRAFTS,
        ),
        RelatedMethod(
            name="igrpo-first-draft",
            section="control of igrpo",
            description="As igrpo, with the first draft in place of the best.",
            objective="random-refinement",
            **_DRAFTS,
        ),
        RelatedMethod(
            name="dvpo",
            section="as released, without its reward for staying near the reference",
            description="Advantages from a frozen value model, without a terminal reward.",
            objective="frozen-value",
            **_DVPO,
        ),
        RelatedMethod(
            name="dvpo-terminal",
            section="control of dvpo, with the terminal reward",
            description="Advantages from a frozen value model and the reward.",
            objective="frozen-value-with-reward",
            **_DVPO,
        ),
        RelatedMethod(
            name="ppo",
            paper="arXiv 1707.06347",
            section="actor and critic of one architecture; loss as grpo",
            description="A value model trained along with the policy as its baseline.",
            advantage="reward",
            aggregation="token-mean",
            objective="critic",
            **_CLIP,
        ),
        Method(name="dppo-tv", description="Trust region by total variation.", ratio="divergence-tv", **_DPPO),
        Method(name="dppo-kl", description="Trust region by binary KL divergence.", ratio="divergence-kl", **_DPPO),
    )
}
