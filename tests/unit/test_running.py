"""Commands in tests are bounded by their progress, not by the clock."""

import sys

import pytest

from tests.running import Command


def test_a_slow_command_that_goes_on_saying_something_is_let_alone():
    script = "import time\nfor _ in range(12): print('.', flush=True); time.sleep(0.25)"
    done = Command([sys.executable, "-c", script], quiet=2.0).finish()
    assert done.returncode == 0 and done.stdout.count(".") == 12


def test_a_silent_one_is_given_up_with_what_it_said_and_with_its_processes(tmp_path):
    script = "import subprocess, sys, time\nprint('begun', flush=True)\nsubprocess.run(['sleep', '1000'])"
    command = Command([sys.executable, "-c", script], quiet=1.0)
    with pytest.raises(AssertionError, match="nothing new for 1 s(.|\n)*begun"):
        command.finish()
    assert command.process.poll() is not None


def test_until_a_condition_or_the_end(tmp_path):
    command = Command([sys.executable, "-c", f"open({str(tmp_path / 'a')!r}, 'w'); input()"])
    assert command.until((tmp_path / "a").exists) or command.process.poll() is not None
    command.kill()
    assert not Command([sys.executable, "-c", ""]).until(lambda: False)
