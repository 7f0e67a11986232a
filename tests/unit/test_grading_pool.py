"""The processes that compare answers: killed, dead or hungry for memory, they cost one answer and outlive nobody."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import kpo
from reproduction.rewards import (
    GradingPool,
    grade_math,
    grade_math_many,
)
from tests.running import QUIET


@pytest.fixture(scope="module")
def pool():
    pool = GradingPool(max_workers=1)
    yield pool
    pool.close()


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    # A killed child that nobody has waited for yet still has an id.
    return "State:\tZ" not in Path(f"/proc/{process_id}/status").read_text()


def test_a_timeout_kills_the_worker_and_another_takes_over(pool):
    assert pool.compare("1", "2", 30).outcome == "unequal"
    (first,) = pool.worker_ids()
    # Without an end to it this comparison would never return.
    assert pool.compare("9^{9^{9^9}}", "5", 0.5).outcome == "timeout"
    assert not alive(first)
    assert pool.compare("1.0", "1", 30).outcome == "equal"
    (second,) = pool.worker_ids()
    assert second != first


def test_a_worker_that_dies_is_an_error_and_replaced(pool):
    pool.compare("1", "2", 30)
    (victim,) = pool.worker_ids()
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(pool.compare("9^{9^{9^9}}", "5", 30)))
    thread.start()
    time.sleep(0.3)
    os.kill(victim, signal.SIGKILL)
    thread.join(timeout=10)
    assert outcomes[0].outcome == "error" and "died" in outcomes[0].detail
    assert [pool.compare(answer, "1", 30).outcome for answer in ("1.0", "2", "\\frac{2}{2}")] == [
        "equal", "unequal", "equal",
    ]  # fmt: skip
    (other,) = pool.worker_ids()
    assert other != victim and not alive(victim)


def test_a_worker_that_dies_costs_only_the_answer_it_was_at():
    """Eight answers are graded by two workers while the one that is at the endless answer is killed."""
    two = GradingPool(max_workers=2)
    try:
        two.compare("1", "2", 60)
        with ThreadPoolExecutor(4) as threads:
            endless = threads.submit(two.compare, "9^{9^{9^9}}", "5", 60)
            time.sleep(0.3)
            (victim,) = two.worker_ids()
            others = [threads.submit(two.compare, str(number), str(number % 4), 60) for number in range(8)]
            os.kill(victim, signal.SIGKILL)
            assert endless.result(timeout=60).outcome == "error"
            found = [one.result(timeout=60).outcome for one in others]
        assert found == ["equal"] * 4 + ["unequal"] * 4
        assert victim not in two.worker_ids()
    finally:
        two.close()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="needs /proc")
def test_workers_are_limited(pool):
    pool.compare("1", "2", 30)
    limits = Path(f"/proc/{pool.worker_ids()[0]}/limits").read_text()
    assert re.search(rf"Max address space +{pool.memory_limit} ", limits)
    assert re.search(r"Max file size +0 ", limits)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_bounded():
    limit = 1 << 28
    small = GradingPool(max_workers=1, memory_limit=limit)
    try:
        assert small.compare("1", "2", 60).outcome == "unequal"
        # A number of 3 * 10^9 bits does not fit. The library may swallow the failure and call the answers unequal.
        assert small.compare("2^{3000000000}", "5", 60).outcome in ("unequal", "error")
        status = Path(f"/proc/{small.worker_ids()[0]}/status").read_text() if small.worker_ids() else "VmPeak: 0"
        assert int(re.search(r"VmPeak:\s+(\d+)", status)[1]) * 1024 <= limit
        assert small.compare("1.0", "1", 60).outcome == "equal"
    finally:
        small.close()


def test_threads_share_a_pool_and_no_alarm_is_set_in_this_process():
    handler = signal.getsignal(signal.SIGALRM)
    pairs = [(f"\\boxed{{{number}.0}}", str(number + number % 2)) for number in range(60)]
    with ThreadPoolExecutor(8) as threads:
        grades = list(threads.map(lambda pair: grade_math(*pair, timeout=30), pairs))
    assert [bool(grade) for grade in grades] == [number % 2 == 0 for number in range(60)]
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_many_keeps_the_order():
    pairs = [(r"\boxed{0.5}", r"\frac12"), ("nothing", "1"), (r"\boxed{2}", "3"), (r"\boxed{9^{9^{9^9}}}", "1")] * 3
    grades = grade_math_many(pairs, timeout=0.7)
    assert [grade.reason for grade in grades] == ["equal", "no answer", "unequal", "timeout"] * 3
    assert grade_math_many([]) == []


def test_where_the_two_graders_differ():
    pairs = [
        ("\\boxed{\\dfrac12}", "\\frac{1}{2}"),  # both right
        ("\\boxed{7, 5, 3}", "3, 5, 7"),  # equal in any order, but the second grader compares lists as strings
        ("\\boxed{\\frac{3}{4}}", "\\frac{6}{8}"),  # equal, but the second grader wants fractions written alike
        ("\\boxed{5}", "6"),
        ("I do not know", "6"),
        ("#### 5", "5"),  # the marker does not count here
    ]
    first, second = (grade_math_many(pairs, markers=("boxed",), method=method) for method in ("latex", "strings"))
    none = ["no answer"] * 2
    assert [grade.reason for grade in first] == ["equal", "equal", "equal", "unequal", *none]
    assert [grade.reason for grade in second] == ["equal", "unequal", "unequal", "unequal", *none]
    assert first[1].answer == "7, 5, 3"


def run_script(script: str) -> subprocess.Popen:
    root = str(Path(kpo.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {root!r})\n" + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_no_worker_outlives_the_program():
    process = run_script(
        r"""
        from reproduction.rewards import grade_math
        from reproduction.rewards.math import _shared_pool
        grade_math(r"\boxed{1/2}", "0.5", timeout=60)
        print(*_shared_pool.worker_ids())
        """
    )
    output, errors = process.communicate(timeout=QUIET)
    assert process.returncode == 0 and errors == ""
    assert output.split() and not any(alive(int(process_id)) for process_id in output.split())


def test_no_worker_outlives_a_program_that_is_killed():
    process = run_script(
        r"""
        import threading
        from reproduction.rewards import grade_math
        from reproduction.rewards.math import _shared_pool
        grade_math(r"\boxed{1/2}", "0.5", timeout=60)
        print(*_shared_pool.worker_ids(), flush=True)
        # At work when the program dies, so that the end of its input goes unread.
        grade_math(r"\boxed{9^{9^{9^9}}}", "0.5", timeout=1.0)
        """
    )
    worker = int(process.stdout.readline())
    process.kill()
    process.communicate()
    deadline = time.monotonic() + QUIET
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(worker)


def test_a_forked_process_grades_with_workers_of_its_own():
    process = run_script(
        r"""
        import json, os
        from reproduction.rewards import grade_math
        from reproduction.rewards.math import _shared_pool
        assert grade_math(r"\boxed{1/2}", "0.5", timeout=60)
        parents = _shared_pool.worker_ids()
        child = os.fork()
        if child == 0:
            right = bool(grade_math(r"\boxed{1/4}", "0.25", timeout=60))
            own = not set(parents) & set(_shared_pool.worker_ids())
            _shared_pool.close()
            os._exit(0 if right and own else 1)
        right = bool(grade_math(r"\boxed{1/8}", "0.125", timeout=60))
        print(json.dumps([os.waitpid(child, 0)[1], right, parents == _shared_pool.worker_ids()]))
        """
    )
    output, errors = process.communicate(timeout=QUIET)
    assert errors == "" and json.loads(output) == [0, True, True]


def test_importing_starts_no_process_and_loads_no_heavy_library():
    process = run_script(
        """
        import reproduction.rewards
        from reproduction.rewards.math import _shared_pool
        print(_shared_pool.worker_ids(), sorted({"sympy", "math_verify", "torch", "transformers"} & set(sys.modules)))
        """
    )
    output, errors = process.communicate(timeout=60)
    assert output.strip() == "[] []" and errors == ""


def test_pool_refuses():
    with pytest.raises(ValueError, match="max_workers"):
        GradingPool(max_workers=0)
    with pytest.raises(ValueError, match="memory_limit"):
        GradingPool(memory_limit=1000)
    closed = GradingPool(max_workers=1)
    closed.close()
    with pytest.raises(RuntimeError, match="closed"):
        closed.compare("1", "2", 1)
