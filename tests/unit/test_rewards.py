"""KRPO's reward rule and the exact one, by hand."""

import pytest

from reproduction.rewards import exact_reward, extract_tagged, krpo_reward


@pytest.mark.parametrize(
    ("completion", "krpo", "exact"),
    [
        ("<think>1+1</think><answer>42</answer>", 1.0, 1.0),
        ("<answer> 42 </answer>", 0.5, 1.0),
        ("<answer>42\n</answer>", 0.5, 1.0),
        ("<answer>the answer is 42.</answer>", 0.5, 0.0),
        ("<answer>-42</answer>", 0.5, 0.0),
        ("<answer>142</answer>", 0.5, 0.0),
        ("<answer>41</answer>", 0.01, 0.0),
        ("<answer></answer>", 0.01, 0.0),
        ("<answer>+42</answer>", 0.5, 0.0),
        ("42", 0.0, 0.0),
        ("", 0.0, 0.0),
        ("<answer>42", 0.0, 0.0),
        ("</answer>42<answer>", 0.0, 0.0),
        ("</answer><answer>42</answer>", 1.0, 1.0),
        ("<answer>41</answer><answer>42</answer>", 0.01, 0.0),
        ("<answer>42</answer><answer>41</answer>", 1.0, 1.0),
        ("<ANSWER>42</ANSWER>", 0.0, 0.0),
    ],
)
def test_rules_by_hand(completion, krpo, exact):
    assert krpo_reward(completion, "42") == krpo
    assert exact_reward(completion, "42") == exact


def test_other_tags():
    assert krpo_reward("8+9=7c,=137;<137>", "137", "<", ">") == 1.0
    assert exact_reward("8+9=7c,=137;<137>", "137", "<", ">") == 1.0
    assert krpo_reward("<136>", "137", "<", ">") == 0.01
    assert krpo_reward("=137;", "137", "<", ">") == 0.0


def test_the_tag_holds_everything_up_to_the_first_end():
    assert extract_tagged("<answer>a\nb <answer>c</answer>d</answer>") == "a\nb <answer>c"


@pytest.mark.parametrize("rule", [krpo_reward, exact_reward])
def test_an_empty_answer_is_refused(rule):
    # It is a substring of everything, and would pay half for any tag.
    with pytest.raises(ValueError, match="answer"):
        rule("<answer>1</answer>", "")
    with pytest.raises(ValueError, match="open_tag"):
        rule("<answer>1</answer>", "1", "", ">")
