"""The family tree: what each method changes in GRPO, found from its declaration and from the file that explains it."""

import re
from collections.abc import Iterable
from pathlib import Path

from kpo.methods import METHODS
from reproduction.related.declarations import RELATED

BASELINE, RATIO = "what a response is worth: baseline and scale", "how far the policy has moved: ratio and clip"
IDEAS = {
    "positive_samples": "which rewards count at all",
    "selection": "which responses are learned from",
    "reward_components": "several rewards, kept apart",
    "length_weights": "how much a long response counts",
    "trust_region": "how far one token may move",
    "sequence_objectives": "a target for the whole response",
    "preference_pairs": "pairs, one right and one wrong",
    "value_model": "a learned value of each token",
    "drafts": "a draft of its own in the prompt",
}
"""By file of this folder, the question that its methods answer in another way than GRPO."""


def families(names: Iterable[str]) -> dict[str, list[str]]:
    """The methods of each idea. A method belongs to the file that names its paper, else to the part that it replaces.

    Raises ValueError for a name that is no method.
    """
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))}
    found: dict[str, list[str]] = {BASELINE: [], RATIO: [], **{idea: [] for idea in IDEAS.values()}}
    for name in names:
        method = RELATED.get(name) or METHODS.find(name)
        numbers = re.findall(r"\d{4}\.\d{5}", method.paper)
        named = (idea for stem, idea in IDEAS.items() if any(number in texts[stem] for number in numbers))
        found[next(named, BASELINE if method.advantage != "grpo" else RATIO)].append(name)
    return {idea: methods for idea, methods in found.items() if methods}
