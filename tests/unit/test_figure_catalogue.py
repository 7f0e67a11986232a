"""Which figures are drawn from which results, and which claims each shows."""

import os
import subprocess
import sys
from pathlib import Path

from paper_figures import ENTRIES, FIGURES, figures_for
from reproduction.claims import CLAIMS
from reproduction.claims.kpo_training import COLLAPSES, LADDER
from reproduction.settings.configuration import load

ROOT = Path(__file__).resolve().parents[2]
FULL = load({"study": "full"}).experiments
PLAIN = load({"study": None}).experiments


def methods_of(experiments) -> dict:
    return {name: settings.methods for name, settings in experiments.items()}


class TestCatalogue:
    def test_every_claim_has_a_figure_of_its_own_under_the_full_study(self):
        drawable = figures_for(methods_of(FULL))
        assert drawable == [name for name in FIGURES if name != "related_methods"]
        assert {claim for entry in ENTRIES.values() for claim in entry.claims} == {claim.id for claim in CLAIMS}
        for claim in CLAIMS:
            shown = [name for name in drawable if claim.id in ENTRIES[name].claims]
            assert f"verdicts_{claim.id.split('-')[0]}" in shown and len(shown) > 1, claim.id

    def test_figures_for_says_what_is_drawn(self):
        drawn = figures_for(methods_of(PLAIN))
        assert {"training_curves", "overhead", "krpo_parts", "stress_ladder"} <= set(drawn)
        assert not {"stress_curves", "smoothing", "krpo_group_size", "noisy_rewards"} & set(drawn)
        assert figures_for({"kpo": {"gmpo": {}}}) == [
            "verdicts_kpo", "verdicts_krpo", "training_curves", "entropy_gradient_norm", "final_accuracy", "pass_at_k",
        ]  # fmt: skip
        assert figures_for({"another": {"grpo": {}}}) == []

    def test_asking_costs_neither_matplotlib_nor_torch(self):
        code = (
            "import sys; from paper_figures import figures_for, FIGURES; figures_for({}); "
            "print(sorted({'torch', 'matplotlib', 'numpy', 'scipy'} & set(sys.modules)))"
        )
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == "[]", done.stderr

    def test_the_curves_of_the_ladder_read_the_runs_of_its_rungs(self):
        assert tuple(ENTRIES["stress_curves"].runs) == (*LADDER, COLLAPSES)

    def test_figures_say_which_claims_they_show(self):
        for entry in ENTRIES.values():
            assert len(set(entry.claims)) == len(entry.claims)
            assert {"measures.json", "claims.json", "related_methods.json"} & set(entry.files) or entry.runs, entry.name

    def test_a_figure_reads_what_its_claims_compare(self):
        """A figure of measures or runs shows a claim only if it needs an experiment that the claim compares."""
        claims = {claim.id: set(claim.experiments) for claim in CLAIMS}
        for entry in ENTRIES.values():
            if entry.files == ("claims.json",):
                continue
            needed = {experiment for needs in entry.needs for experiment in needs}
            for claim in entry.claims:
                assert needed & claims[claim], f"{entry.name} shows {claim}"


def test_all_drawable_figures_are_drawn_and_the_others_named(plain, tmp_path, capsys, monkeypatch):
    from paper_figures import __main__ as all_figures

    names = ("gain_schedule", "noisy_rewards")
    monkeypatch.setattr(all_figures, "FIGURES", names)
    assert all_figures.main(["--results", str(plain.folder), "--output", str(tmp_path / "out")]) == 0
    drawn = {path.stem for path in (tmp_path / "out").iterdir()}
    assert drawn == set(names) & set(figures_for(methods_of(plain.experiments)))
    skipped = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert skipped == ["noisy_rewards"]
