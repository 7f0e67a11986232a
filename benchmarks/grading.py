"""Answers graded per second by kpo's pool and by math-verify: ``python -m benchmarks.grading``.

Answers of the kinds found in benchmarks are graded against golds that they equal in another form, or not. math-verify
parses and compares them one after another in this process, with its default timeouts; the pool does the same in
killable processes. Rounds alternate, and the grades are compared.
"""

import argparse
import random
import statistics
import time

import math_verify

from reproduction.rewards.grading_pool import GradingPool
from reproduction.rewards.math import grade_math_many


def answers(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """(response, gold): fractions, roots, intervals, tuples and polynomials; every second one is right."""
    draw = random.Random(seed)
    pairs = []
    for index in range(number):
        a, b, c = draw.randint(2, 99), draw.randint(2, 99), draw.randint(2, 9)
        off = index % 2
        answer, gold = [
            (rf"\frac{{{a * c}}}{{{b * c}}}", rf"\frac{{{a}}}{{{b + off}}}"),
            (rf"{c}\sqrt{{{a}}}", rf"\sqrt{{{a * c * c + off}}}"),
            (rf"({a}, {b})", rf"\left({a}, {b + off}\right)"),
            (rf"[{c}, {a + 10})", rf"\left[{c + off}, {a + 10}\right)"),
            (rf"x^2 + {a + b}x + {a * b}", rf"(x + {a})(x + {b + off})"),
        ][index % 5]
        pairs.append((rf"So the answer is \boxed{{{answer}}}.", gold))
    return pairs


def math_verify_grades(pairs: list[tuple[str, str]]) -> list[bool]:
    """math-verify as its documentation shows it."""
    return [
        bool(math_verify.verify(math_verify.parse(rf"\boxed{{{gold}}}"), math_verify.parse(text)))
        for text, gold in pairs
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    pairs = answers(options.answers)
    pool = GradingPool()
    graders = {
        "math-verify": math_verify_grades,
        f"kpo's pool, {pool.max_workers} workers": lambda pairs: [g.correct for g in grade_math_many(pairs, pool=pool)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in graders}
    said: dict[str, list[bool]] = {}
    for grade in graders.values():
        grade(pairs[:20])  # workers start, caches fill
    for _ in range(options.rounds):
        for name, grade in graders.items():
            started = time.perf_counter()
            said[name] = grade(pairs)
            seconds[name].append(time.perf_counter() - started)
    pool.close()
    for name in graders:
        print(f"{name}: {options.answers / statistics.median(seconds[name]):.0f} answers a second")
    first, second = said.values()
    print(f"{sum(a != b for a, b in zip(first, second, strict=True))} of {options.answers} graded differently")


if __name__ == "__main__":
    main()
