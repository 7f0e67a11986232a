"""Rewards of arithmetic completions: right or wrong, and KRPO's graded rule (arXiv 2505.07527, released code)."""


def extract_tagged(completion: str, open_tag: str = "<answer>", close_tag: str = "</answer>") -> str | None:
    """Content of the first `open_tag` ... `close_tag` pair, unstripped; None if there is none.

    The first of several pairs counts, as with the regular-expression search in KRPO's release.
    """
    if not open_tag or not close_tag:
        raise ValueError(f"open_tag and close_tag must be non-empty strings, got {open_tag!r} and {close_tag!r}")
    start = completion.find(open_tag)
    if start < 0:
        return None
    start += len(open_tag)
    end = completion.find(close_tag, start)
    return None if end < 0 else completion[start:end]


def exact_reward(completion: str, answer: str, open_tag: str = "<answer>", close_tag: str = "</answer>") -> float:
    """1 if the first tag pair holds exactly `answer`, spaces around it aside, else 0."""
    content = extract_tagged(completion, open_tag, close_tag)
    return float(content is not None and content.strip() == _checked(answer))


def krpo_reward(completion: str, answer: str, open_tag: str = "<answer>", close_tag: str = "</answer>") -> float:
    """KRPO's reward of an arithmetic completion.

    1.0 if the first tag pair holds exactly `answer`; 0.5 if `answer` is a part of what it holds (so a space next to the
    right number halves the reward, as in the release, which strips nothing); 0.01 if the pair holds anything else; 0
    without a pair.
    """
    content = extract_tagged(completion, open_tag, close_tag)
    answer = _checked(answer)
    if content is None:
        return 0.0
    if content == answer:
        return 1.0
    return 0.5 if answer in content else 0.01


def krpo_tagged(completion: str, answer: str, open_tag: str = "<answer>", close_tag: str = "</answer>") -> float:
    """1 if there is a tag pair, else 0."""
    return float(krpo_reward(completion, answer, open_tag, close_tag) > 0.0)


def krpo_contained(completion: str, answer: str, open_tag: str = "<answer>", close_tag: str = "</answer>") -> float:
    """1 if `answer` is a part of what the first tag pair holds, else 0."""
    return float(krpo_reward(completion, answer, open_tag, close_tag) >= 0.5)


def krpo_exact(completion: str, answer: str, open_tag: str = "<answer>", close_tag: str = "</answer>") -> float:
    """1 if the first tag pair holds exactly `answer`, else 0."""
    return float(krpo_reward(completion, answer, open_tag, close_tag) == 1.0)


KRPO_PARTS = {
    "krpo-tagged": (krpo_tagged, 0.01),
    "krpo-contained": (krpo_contained, 0.49),
    "krpo-exact": (krpo_exact, 0.5),
}
"""KRPO's reward as nested tests with their weights: the sum of those passed is 0.01, 0.5 or 1."""


def _checked(answer: str) -> str:
    # The empty string is a part of every completion, so an empty answer would reward them all.
    if not isinstance(answer, str) or not answer:
        raise ValueError(f"answer must be a non-empty string, got {answer!r}")
    return answer
