"""Claims at the scales with Hugging Face models: a finished one gets verdicts, on its own cells and benchmarks."""

import dataclasses
import random

import pytest
import yaml

from reproduction.claims.declare import along, cell, difference
from reproduction.claims.design import SINGLE, design_of
from reproduction.claims.judge import evaluate_claims
from reproduction.claims.measures import MEASURES, mean_of_benchmarks
from reproduction.claims.one_run import METHOD_FIELDS, ClaimsError, Run, measure_run
from reproduction.claims.resolve import resolve
from reproduction.claims.runs import Study
from reproduction.claims.scales import other_scales, published_scales, side_by_side, side_by_side_lines
from reproduction.claims.verdict import INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED
from reproduction.jobs.files import write_json
from reproduction.settings.configuration import load

PROBLEMS, SAMPLES = 8, 8
LEVELS = ("easy", "normal", "hard")


def study_of(scale: str, **changes) -> Study:
    """Every run of a scale, with made-up measures: a method's accuracy, late reward and the rest are around 0.5."""
    configuration = load({"scale": scale, **changes})
    cells, configured = {}, {}
    for experiment, label, seed in configuration.runs():
        chance = random.Random(f"{experiment}/{label}/{seed}")
        sets = configuration.experiments[experiment].pretrained.evaluation_sets
        splits = [level for name in sets for level in (LEVELS if name == "arithmetic" else (name,))]
        correct = {split: [chance.randint(3, 5) for _ in range(PROBLEMS)] for split in splits}
        accuracies = {split: sum(counts) / PROBLEMS / SAMPLES for split, counts in correct.items()}
        measures = (name for name in MEASURES if not name.startswith(("accuracy.", "late_")))
        values = {name: 0.5 + 0.01 * chance.random() for name in measures}
        values["collapse"] = 0.0
        values |= {f"accuracy.{split}": value for split, value in accuracies.items()}
        if mean_of_benchmarks(accuracies) is not None:
            values["accuracy.benchmarks"] = mean_of_benchmarks(accuracies)
        cells.setdefault((experiment, label), {})[seed] = Run(
            experiment, label, seed, values, correct, dict.fromkeys(correct, SAMPLES), "code", {}, {}, {}, {},
            f"{experiment}/{label}/{seed}",
        )  # fmt: skip
        configured.setdefault((experiment, label), []).append(seed)
    return Study(scale, cells, configured)


@pytest.fixture(scope="module")
def paper():
    return {
        result.claim.id: result for result in evaluate_claims(study_of("paper", experiments={"kpo": {"seeds": None}}))
    }


def test_accuracies_at_the_paper_s_scale_are_the_benchmarks(paper):
    for baseline in ("grpo", "gspo", "gmpo"):
        found = paper[f"kpo-4-over-{baseline}"]
        assert [side["measure"] for side in found.compared.sides] == ["accuracy.benchmarks"] * 2
        assert found.compared.effect.num_seeds == 3
        # Close to no difference, with the problems' own chance in the interval.
        assert found.compared.effect.high - found.compared.effect.low > 0.02


def test_levels_and_settings_are_compared_with_the_runs_of_their_level(paper):
    for level in LEVELS:
        sides = paper[f"krpo-1-{level}"].compared.sides
        assert [side["cells"] for side in sides] == [[f"krpo-{level}/krpo"], [f"krpo-{level}/grpo"]]
    assert paper["krpo-3-reward"].compared.sides[0]["cells"] == ["krpo-normal/krpo"]
    assert paper["krpo-5-random"].compared.sides[1]["cells"] == ["krpo-normal/krpo"]
    assert paper["kpo-5-smoothing"].compared.sides[1]["cells"] == ["kpo-q/kpo-q1e-2"]
    assert paper["krpo-5-advantages"].compared.effect is not None


def test_a_finished_paper_scale_is_judged_or_says_what_it_lacks(paper):
    open_or_judged = {name for name, found in paper.items() if found.verdict.verdict != NOT_TESTED}
    # Every claim but those on collapses, on clips, on the parts and on noise, whose runs the scale does not have.
    not_there = ("kpo-3-collapse", "kpo-4-tuned", "krpo-6", "krpo-8", "krpo-9")
    lacking = {name for name in paper if name.startswith(not_there)}
    assert set(paper) - open_or_judged == lacking
    for name in lacking:
        assert paper[name].verdict.reason.startswith("the configuration of these runs has no ")
    assert paper["krpo-1-easy"].verdict.verdict in (NOT_REPRODUCED, INCONCLUSIVE)
    assert paper["krpo-3-safe"].verdict.verdict != NOT_TESTED


def test_the_gpu_scale_has_benchmarks_and_arithmetic():
    study = study_of("gpu")
    found = {result.claim.id: result for result in evaluate_claims(study)}
    assert found["kpo-4-over-grpo"].compared.sides[0]["measure"] == "accuracy.benchmarks"
    assert found["krpo-1-hard"].compared.sides[0]["cells"] == ["krpo/krpo"]
    # Made but not measured is another thing than not made, or not configured.
    runs = {**study.runs, ("kpo", "gmpo"): {}}
    without = dataclasses.replace(study, runs=runs)
    found = {result.claim.id: result for result in evaluate_claims(without)}
    assert found["kpo-4-over-gmpo"].verdict.reason == "the runs kpo/gmpo are missing"
    assert found["kpo-5-smoothing"].verdict.reason.startswith("the configuration of these runs has no")


def test_single_seeds_decide_nothing():
    found = {result.claim.id: result for result in evaluate_claims(study_of("paper"))}
    assert found["kpo-4-over-grpo"].verdict.reason == "1 of at least 3 seeds"


def test_stand_ins_are_taken_together_or_not_at_all():
    study = study_of("paper")
    normal = {"krpo": "krpo-normal"}
    comparison = difference("reward_late", cell("krpo", "krpo"), cell("krpo-qr", "krpo-r1e-3"))

    def cells(study, comparison, stand_ins=normal):
        return [cells for *_, cells in resolve(study, comparison, stand_ins).terms]

    assert cells(study, comparison) == [(("krpo-normal", "krpo"),), (("krpo-qr", "krpo-r1e-3"),)]
    both = dataclasses.replace(study, configured={**study.configured, ("krpo", "krpo"): [42]})
    assert cells(both, comparison) == [(("krpo", "krpo"),), (("krpo-qr", "krpo-r1e-3"),)]
    assert cells(study, comparison, {"krpo": "krpo-elsewhere"})[0] == ()
    ladder = difference("collapse", along(("kpo", "kpo-stress-2"), "gspo"), along(("kpo", "kpo-stress-2"), "grpo"))
    assert cells(study, ladder) == [(("kpo", "gspo"),), (("kpo", "grpo"),)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda section: section["model"].update(revision="0" * 40), "made with pretrained.model .*0000"),
        (lambda section: section.update(warmup_ratio=0.5), "made with pretrained.warmup_ratio 0.5"),
        (lambda section: section.update(train_sets=["dapo"]), r"made with pretrained.train_sets \['dapo'\]"),
    ],
)
def test_a_run_from_another_model_or_set_is_refused(tmp_path, change, message):
    configuration = load({"scale": "gpu", "results": str(tmp_path)})
    settings = configuration.experiments["kpo"]
    method = dataclasses.asdict(settings.method("grpo"))
    made = {
        "experiment": "kpo", "label": "grpo", "seed": 1, "method": {name: method[name] for name in METHOD_FIELDS},
        "reward": settings.reward, "reward_noise": settings.reward_noise, "training": settings.training.model_dump(),
        "problems": configuration.problems.model_dump(), "base_model": None,
        "pretrained": settings.pretrained.model_dump(),
    }  # fmt: skip
    folder = configuration.run_folder("kpo", "grpo", 1)
    write_json(folder / "provenance.json", {"seed": 1})
    (folder / "config.yaml").write_text(yaml.safe_dump(made))
    # As configured it passes on to what is missing.
    with pytest.raises((ClaimsError, OSError), match="metrics"):
        measure_run(configuration, "kpo", "grpo", 1)
    change(made["pretrained"])
    (folder / "config.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(ClaimsError, match=message):
        measure_run(configuration, "kpo", "grpo", 1)


def judged(name, verdict, value=None, low=None, high=None):
    estimate = None if value is None else {"value": value, "low": low, "high": high, "num_seeds": 5}
    return {"id": name, "verdict": verdict, "effect": {"estimate": estimate}}


def test_scales_are_shown_side_by_side_and_it_is_said_where_they_differ(tmp_path):
    own = [
        judged("kpo-1", REPRODUCED, 0.1, 0.05, 0.15),
        judged("kpo-2", NOT_REPRODUCED, 0.0, -0.01, 0.01),
        judged("kpo-3", REPRODUCED, 0.2),
        judged("krpo-1", NOT_TESTED),
    ]
    other = [
        judged("kpo-1", REPRODUCED, 0.3, 0.1, 0.5),
        judged("kpo-2", REPRODUCED, 0.2, 0.1, 0.3),
        judged("kpo-3", INCONCLUSIVE, 0.0, -1.0, 1.0),
        judged("krpo-1", INCONCLUSIVE, 0.0123, -1.0, 1.0),
    ]
    desktop = load({"scale": "desktop"})
    assert other_scales(desktop, tmp_path) == {} and side_by_side_lines(side_by_side(own, "desktop", {})) == []
    write_json(tmp_path / "laptop" / "claims.json", {"claims": other})
    write_json(tmp_path / "desktop" / "claims.json", {"claims": [judged("kpo-1", NOT_REPRODUCED, 9.0)]})
    table = side_by_side(own, "desktop", other_scales(desktop, tmp_path))
    assert table[0] == ["claim", "laptop", "desktop", "gpu", "paper", "together"]
    assert [row[0] for row in table[1:]] == [one["id"] for one in own]
    agreed, differing, undecided, lacking = table[1:]
    assert agreed[1:] == [
        "reproduced, 0.3 [0.1, 0.5], 5 seeds", "reproduced, 0.1 [0.05, 0.15], 5 seeds", "not run", "not run", "",
    ]  # fmt: skip
    assert differing[-1] == "the scales differ" and undecided[-1] == lacking[-1] == ""
    assert undecided[2] == "reproduced, 0.2, 5 seeds" and lacking[2] == "not run"
    lines = side_by_side_lines(table)
    assert lines[-3].startswith("| [kpo-2](#kpo-2) |") and lines[-3].endswith("| **the scales differ** |")


def test_a_page_says_which_published_verdicts_it_reads(tmp_path):
    """Those and no others are inputs of the workflow's rule, so that publishing a scale judges the others again."""
    for scale in ("laptop", "desktop"):
        write_json(tmp_path / scale / "claims.json", {"claims": []})
    single = load({"scale": "laptop", "seeds": [7, 8, 9]})
    for overrides, read in (
        ({"scale": "smoke"}, []),
        ({"scale": "desktop"}, ["laptop"]),
        ({"scale": "gpu"}, ["laptop", "desktop"]),
    ):
        assert published_scales(load(overrides), tmp_path) == read
    for configuration in (single, load({"scale": "laptop", "study": "full"})):
        held = ["laptop"] * (design_of(configuration).kind == SINGLE)
        assert published_scales(configuration, tmp_path) == ["desktop", *held]
        assert list(other_scales(configuration, tmp_path)) == ["desktop"]
