"""The reward of tests/verl/test_main_ppo.py: the share of vowels, 0 or 1 when rounded."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    letters = [letter for letter in solution_str if letter.isalpha()]
    return float(sum(letter in "aeiou" for letter in letters) > 0.2 * len(letters))
