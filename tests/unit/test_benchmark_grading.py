"""benchmarks.grading runs, and its answers are right and wrong in turn."""

from benchmarks import grading


def test_it_prints_both_speeds_and_no_difference(capsys):
    grading.main(["--answers", "10", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1].split()[1:] for line in lines[:2]] == [["answers", "a", "second"]] * 2
    assert lines[2] == "0 of 10 graded differently"


def test_every_second_answer_is_right():
    assert grading.math_verify_grades(grading.answers(10)) == [True, False] * 5
