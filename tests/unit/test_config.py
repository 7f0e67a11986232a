"""Configuration: every shipped file is valid, every refusal is one line that names the key and what to do."""

import re

import pytest
import yaml

from kpo.kalman import kalman_gains
from reproduction.cli import main
from reproduction.settings.configuration import (
    CONFIG_FOLDER,
    SCALES,
    ConfigurationError,
    dump,
    load,
    read_resolved,
    validate,
)
from reproduction.settings.files import merge, read_yaml
from reproduction.workflow import prepare, run_settings

SHIPPED = [scale for scale in SCALES if (CONFIG_FOLDER / f"{scale}.yaml").exists()]


@pytest.mark.parametrize("scale", SHIPPED)
def test_shipped_configurations_are_valid_and_survive_a_round_trip(scale, tmp_path):
    configuration = load({"scale": scale})
    path = tmp_path / "config.yaml"
    path.write_text(dump(configuration))
    assert read_resolved(path) == configuration
    for experiment, label, _ in configuration.runs():
        configuration.experiments[experiment].method(label)


def test_laptop_is_the_default_and_has_all_six_methods():
    configuration = load()
    assert configuration.scale == "laptop"
    assert set(configuration.experiments["kpo"].methods) == {
        "grpo", "gspo", "gmpo", "kpo-clipped", "kpo-unclipped", "krpo",
    }  # fmt: skip
    assert set(configuration.experiments["krpo"].methods) == {"grpo", "krpo"}
    assert len(configuration.seeds) == 5 and configuration.study == "first"
    assert {label for name, label, _ in configuration.runs() if name == "kpo"} == set(
        configuration.experiments["kpo"].methods
    )


def test_every_key_is_explained():
    explained = (CONFIG_FOLDER / "README.md").read_text()

    def names(value, path=()):
        for key, inner in value.items():
            if path[:1] == ("experiments",) and path[-1:] == ("methods",) or key in ("kpo", "easy", "normal", "hard"):
                continue
            if isinstance(inner, dict):
                yield from names(inner, (*path, key))
            else:
                yield key

    raw = read_yaml(CONFIG_FOLDER / "laptop.yaml")
    raw["experiments"] = {"kpo": raw["experiments"]["kpo"]} | {
        "x": {k: raw["experiments"]["kpo"][k] for k in ("reward",)}
    }
    for key in set(names(raw)) | {"num_terms", "brackets", "kalman_time_constant", "learning_rate", "rollout_batches"}:
        assert f"`{key}`" in explained or f".{key}`" in explained, f"config/README.md does not explain {key}"


def test_filters_are_fitted_to_the_response_length():
    """The paper's time constant of 1,000 tokens becomes 17: every filter forgets 1000/17 times faster."""
    experiment = load().experiments["kpo"]
    clipped, unclipped = experiment.method("kpo-clipped"), experiment.method("kpo-unclipped")
    for method, tokens in ((clipped, 17.0), (unclipped, 1.7)):
        variances = method.ratio_parameters
        assert (variances["observation_variance"] / variances["process_variance"]) ** 0.5 == pytest.approx(tokens)
    ema = load({"experiments": {"kpo": {"methods": {"kpo-ema": {}}}}}).experiments["kpo"].method("kpo-ema")
    gains, _ = kalman_gains(2000, clipped.ratio_parameters["process_variance"], 1.0)
    assert ema.ratio_parameters["gain"] == pytest.approx(float(gains[-1]), rel=0.05)
    given = load({"experiments": {"kpo": {"methods": {"kpo-clipped": {"process_variance": 0.5}}}}})
    assert given.experiments["kpo"].method("kpo-clipped").ratio_parameters["process_variance"] == 0.5


def test_an_experiment_may_have_seeds_of_its_own():
    configuration = load({"study": None, **kpo(seeds=[2], methods={"grpo": {}})})
    assert [run for run in configuration.runs() if run[0] == "kpo"] == [("kpo", "grpo", 2)]
    assert {seed for experiment, _, seed in configuration.runs() if experiment == "krpo"} == {1, 2, 3}


def test_each_method_may_have_seeds_of_its_own():
    own = {"grpo": [3, 1], "gspo": []}
    configuration = load({"study": None, **kpo(seeds=own, methods={"grpo": {}, "gspo": {}})})
    assert [run for run in configuration.runs() if run[0] == "kpo"] == [("kpo", "grpo", 1), ("kpo", "grpo", 3)]
    assert configuration.seeds_of("kpo") == [1, 3] and configuration.seeds_of("kpo", "gspo") == []
    with pytest.raises(ConfigurationError, match="experiments.kpo.seeds: 'gsp' is no method"):
        load({"study": None, **kpo(seeds={"gsp": [1]}, methods={"grpo": {}})})
    with pytest.raises(ConfigurationError, match="must be different ones of the seeds"):
        load({"study": None, **kpo(seeds={"grpo": [9]}, methods={"grpo": {}})})
    # Other seeds or methods than a study's take the place of its own seeds for each method.
    assert {seed for *_, seed in load({"seeds": [7]}).runs()} == {7}
    assert [run[2] for run in load(kpo(methods={"grpo": {}})).runs() if run[0] == "kpo"] == [101, 102, 103, 104, 105]


def test_the_full_study_holds_the_default_cells_and_is_valid():
    plain, study = load(), load({"study": "full"})
    assert {run[:2] for run in plain.runs()} < {run[:2] for run in study.runs()}
    for experiment, label, _ in study.runs():
        study.experiments[experiment].method(label)
    for experiment, label, _ in plain.runs():
        assert run_settings(plain, experiment, label) == run_settings(study, experiment, label)
    assert len(load({"study": "full", "seeds": [6, 7, 8]}).seeds) == 3


def test_a_label_may_stand_for_another_method():
    experiments = {"kpo": {"methods": {"narrow": {"method": "grpo", "clip_low": 0.1, "clip_high": 0.1}}}}
    method = load({"experiments": experiments}).experiments["kpo"].method("narrow")
    assert (method.name, method.clip_low) == ("grpo", 0.1)


def test_run_settings_differ_exactly_where_the_run_would():
    plain, other_seed = load(), load({"seeds": [7]})
    faster = load({"experiments": {"kpo": {"training": {"learning_rate": 1e-3}}}})
    settings = run_settings(plain, "kpo", "grpo")
    assert settings == run_settings(other_seed, "kpo", "grpo")
    assert settings != run_settings(faster, "kpo", "grpo")
    assert run_settings(plain, "krpo", "grpo") == run_settings(faster, "krpo", "grpo")


def kpo(**values):
    return {"experiments": {"kpo": values}}


WRONG = {
    "unknown scale": ({"scale": "lapto"}, ["scale", "'lapto'", "laptop"]),
    "scale of another type": ({"scale": ["laptop"]}, ["scale"]),
    "unknown key": ({"sedes": [1]}, ["'sedes'", "did you mean 'seeds'"]),
    "unknown nested key": ({"problems": {"sed": 1}}, ["problems.sed", "seed"]),
    "unknown experiment": ({"experiments": {"kpoo": {}}}, ["experiments.kpoo", "experiments.kpo, experiments.krpo"]),
    "unknown method": (kpo(methods={"grpoo": {}}), ["grpoo", "grpo"]),
    "unknown override": (kpo(methods={"grpo": {"clip": 0.1}}), ["clip"]),
    "override out of range": (kpo(methods={"grpo": {"clip_low": -0.1, "clip_high": 0.1}}), ["clip_low", "-0.1"]),
    "method without mapping": (kpo(methods={"grpo": 3}), ["methods.grpo", "3"]),
    "no methods": (kpo(methods={}), ["methods"]),
    "mapping replaced by a number": ({"problems": 3}, ["problems", "mapping"]),
    "repeated seeds": ({"seeds": [1, 1]}, ["seeds", "repeat"]),
    "no seeds": ({"seeds": []}, ["seeds"]),
    "negative seed": ({"seeds": [-1]}, ["seeds", "-1"]),
    "seed as text": ({"seeds": ["one"]}, ["seeds", "'one'"]),
    "negative learning rate": (kpo(training={"learning_rate": -1.0}), ["learning_rate", "-1"]),
    "infinite learning rate": (kpo(training={"learning_rate": float("inf")}), ["learning_rate"]),
    "group of one": (kpo(training={"group_size": 1}), ["group_size", "1"]),
    "other temperature": (kpo(training={"temperature": 0.7}), ["temperature", "0.7"]),
    "cut support": (kpo(training={"top_p": 0.9}), ["top_p", "0.9"]),
    "minibatches do not divide": (kpo(training={"minibatches": 7}), ["7 minibatches", "128"]),
    "ratios always 1": (kpo(training={"minibatches": 1}), ["every ratio is exactly 1", "minibatches"]),
    "unknown level": (kpo(training={"level_weights": {"easy": 1.0, "harder": 1.0}}), ["harder", "easy"]),
    "no level weighs": (kpo(training={"level_weights": {"easy": 0.0, "normal": 0.0, "hard": 0.0}}), ["level_weights"]),
    "seeds of an experiment that are no seeds": (
        kpo(seeds=[9]),
        ["experiments.kpo.seeds [9]", "[101, 102, 103, 104, 105]"],
    ),
    "unknown noise": (kpo(reward_noise={"gausian": 0.1}), ["reward_noise", "'gausian'", "gaussian"]),
    "noise out of range": (kpo(reward_noise={"flips": 1.5}), ["reward_noise", "flips", "1.5"]),
    "unknown study": ({"study": "ful"}, ["'ful'", "did you mean 'full'"]),
    "unknown reward": (kpo(reward="krop"), ["reward", "krop"]),
    "heads do not divide": ({"base_model": {"heads": 3}}, ["heads", "128"]),
    "share above 1": ({"base_model": {"forgetting": 1.2}}, ["forgetting", "1.2"]),
    "one sample": ({"evaluation": {"samples_per_problem": 1}}, ["samples_per_problem", "1"]),
    "division": ({"problems": {"levels": {"easy": {"operators": "+/"}}}}, ["operators"]),
    "too many rollout batches": (kpo(training={"rollout_batches": 10**30}), ["rollout_batches", "less than"]),
    "an operator twice": (
        {"problems": {"levels": {"easy": {"operators": "++"}}}},
        ["levels.easy", "operators", "'++'"],
    ),
    "heads of odd width": ({"base_model": {"hidden_size": 36, "heads": 4}}, ["heads", "36"]),
    "products for the small model": (
        {"problems": {"levels": {"easy": {"operators": "+-*"}}}},
        ["problems.levels.easy", "products", "'+-'"],
    ),
    "brackets for the small model": (
        {"problems": {"levels": {"hard": {"brackets": True}}}},
        ["problems.levels.hard", "brackets", "false"],
    ),
    "answers longer than the small model holds": (
        {"evaluation": {"max_completion_length": 500}},
        ["evaluation.max_completion_length 500", "512", "496"],
    ),
    "responses longer than the small model holds": (
        kpo(training={"max_completion_length": 512}),
        ["experiments.kpo.training.max_completion_length", "496 or less"],
    ),
    "experiments are a list": ({"experiments": [1]}, ["experiments must be a mapping", "[1]"]),
    "an experiment is a number": ({"experiments": {"kpo": 3}}, ["experiments.kpo must be a mapping", "3"]),
    "experiments are nothing": ({"experiments": None, "study": "full"}, ["experiments must be a mapping", "None"]),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_refused_with_one_line(case):
    overrides, words = WRONG[case]
    with pytest.raises(ConfigurationError) as error:
        load(overrides)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_ratios_always_one_is_fine_for_a_method_without_ratio():
    load(kpo(training={"minibatches": 1}, methods={"kpo-unit": {"clip_low": None, "clip_high": None}}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1", ["line"]),
        (b"\xff\xfe\x00", ["UTF-8"]),
        (b"- 1\n", ["mapping"]),
        (b"a: !!python/object:os.x {}\n", ["YAML"]),
    ],
)
def test_files_that_are_no_configuration(tmp_path, content, words):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        read_yaml(path)
    assert str(path) in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")


def test_every_optional_key_can_be_given_at_every_scale():
    level = {"num_digits": [1], "numbers": [0, 9]}
    given = {"problems": {"levels": {"easy": level}}, "data": {"mirror": "elsewhere"}, **kpo(training=LEAST)}
    for scale in SHIPPED:
        found = load({**given, "scale": scale, **({"study": None} if load({"scale": scale}).study else {})})
        assert found.problems.levels["easy"].numbers == [0, 9]
        assert found.data.mirror == "elsewhere"
        assert found.experiments["kpo"].training.min_completion_length == 0
    with pytest.raises(ConfigurationError, match="min_completion_lenght', did you mean .*min_completion_length'"):
        load(kpo(training={"min_completion_lenght": 0}))
    with pytest.raises(ConfigurationError, match="late_evaluation is for small models only"):
        load({"scale": "gpu", **kpo(late_evaluation={"easy": 5})})


LEAST = {"min_completion_length": 0}


def test_merge_keeps_what_is_not_named():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(base, {"a": {"c": [9]}}) == {"a": {"b": 1, "c": [9]}, "d": 3}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


def test_problem_file_is_read_before_any_job(tmp_path):
    path = tmp_path / "problems.jsonl"
    good = '{"id": "1", "question": "What is 3 + -4?", "answer": "-1", "num_terms": 2, "num_digits": 1}\n'
    path.write_text(good + '{"id": "2", "question": "3 + 4 =", "answer": "8", "num_terms": 2, "num_digits": 1}\n')
    overrides = {"results": str(tmp_path / "results"), "arithmetic_file": str(path)}
    with pytest.raises(ConfigurationError, match=r"arithmetic_file: .*line 2"):
        prepare(overrides)
    path.write_text(good)
    assert prepare(overrides).arithmetic_file == str(path)
    path.write_text('{"id": "1", "question": "3 * 4 =", "answer": "12", "num_terms": 2, "num_digits": 1}\n')
    with pytest.raises(ConfigurationError, match="no problem of it"):
        prepare(overrides)
    with pytest.raises(ConfigurationError, match="arithmetic_file"):
        prepare({**overrides, "arithmetic_file": str(tmp_path / "missing.jsonl")})


def test_results_folder_that_cannot_be_written(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(ConfigurationError, match="is a file"):
        prepare({"results": str(in_the_way / "results")})
    with pytest.raises(ConfigurationError, match="cannot write"):
        prepare({"results": "/proc/results"})


def test_numbers_inside_what_snakemake_gives_are_numbers(tmp_path):
    """`--config seeds=[4,5]` reaches the Snakefile as a list of texts."""
    given = {"results": str(tmp_path), "seeds": ["4", "5"], "experiments": {"kpo": {"training": {"minibatches": "2"}}}}
    configuration = prepare(given)
    assert configuration.seeds == [4, 5]
    assert configuration.experiments["kpo"].training.minibatches == 2
    with pytest.raises(ConfigurationError, match="reward: .*'2026-13-01'"):
        prepare({**given, "experiments": {"kpo": {"reward": "2026-13-01"}}})
    with pytest.raises(ConfigurationError, match="every ratio is exactly 1"):
        prepare({**given, "experiments": {"kpo": {"training": {"minibatches": "1"}}}})


def leaves(value, path=()):
    """The path of every number of a mapping, those in lists included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, (*path, key))
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def with_leaf(value, path, leaf):
    if not path:
        return leaf
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_leaf(copy[path[0]], path[1:], leaf)
    return copy


@pytest.mark.parametrize("scale", SHIPPED)
def test_a_number_that_yaml_reads_as_text_is_refused_with_one_line_wherever_it_stands(scale):
    """YAML 1.1 reads 1e-4, without a point, as text."""
    text = yaml.safe_load("1e-4")
    assert isinstance(text, str)
    raw = read_yaml(CONFIG_FOLDER / f"{scale}.yaml")
    # Experiments are read alike, so that each of their numbers is changed in one of them.
    alike = {path[:1] + path[2:] if path[0] == "experiments" else path: path for path in leaves(raw)}
    paths = list(alike.values())
    assert len(paths) > 40
    for path in paths:
        with pytest.raises(ConfigurationError) as error:
            validate(with_leaf(raw, path, text), "mine.yaml")
        message = str(error.value)
        assert "\n" not in message and "1e-4" in message, message
        assert str([key for key in path if isinstance(key, str)][-1]) in message, (path, message)


def test_it_says_how_to_write_the_number():
    with pytest.raises(ConfigurationError, match="learning_rate: .*found '1e-4', which is text; write 0.0001"):
        load(kpo(training={"learning_rate": "1e-4"}))
    with pytest.raises(ConfigurationError, match="rollout_batches: .*which is text; write 100$"):
        load(kpo(training={"rollout_batches": "1e2"}))
    with pytest.raises(ConfigurationError, match="methods.grpo: .*clip_low.*found the text '1e-4'"):
        load(kpo(methods={"grpo": {"clip_low": "1e-4"}}))
    with pytest.raises(ConfigurationError, match="methods.grpo: .*clip_low.* found list"):
        load(kpo(methods={"grpo": {"clip_low": [1]}}))
    with pytest.raises(ConfigurationError, match="dapo.rows: .*found '1e3', which is text; write 1000"):
        load({"scale": "paper", "data": {"pins": {"dapo": {"rows": "1e3"}}}})


def test_the_workflows_own_names_are_no_experiments():
    """Read from the rules: whatever they put into the folder of a scale, an experiment must not be called."""
    files = [CONFIG_FOLDER.parent / "Snakefile", *(CONFIG_FOLDER.parent / "workflow/rules").glob("*.smk")]
    text = "\n".join(path.read_text() for path in files)
    own = set(re.findall(r"\{FOLDER\}/([a-z][a-z0-9_.]*)", text))
    assert {"logs", "benchmarks", "problems", "figures", "base", "claims.json", "report.html"} <= own
    for name in own:
        experiments = {name: load().model_dump()["experiments"]["krpo"]}
        with pytest.raises(ConfigurationError, match=f"'{name}' is a name of the workflow's own|match pattern.*{name}"):
            validate({**load().model_dump(), "experiments": experiments}, "mine.yaml")


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    """In every key that holds a path: a folder named ~ in the checkout is one that somebody removes with rm -r ~."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    configuration = load(
        {"scale": "paper", "results": "~/scratch", "arithmetic_file": "~/x.jsonl", "data": {"mirror": "~"}}
    )
    assert configuration.results == f"{tmp_path}/home/scratch"
    assert configuration.arithmetic_file == f"{tmp_path}/home/x.jsonl"
    assert configuration.data.mirror == f"{tmp_path}/home"
    assert load({"results": "./~x"}).results == "./~x"
    for path, words in (("~nobody-of-this-name/x", "write the path out"), ("$HOME/x", "holds a variable")):
        for key in ("results", "arithmetic_file", "mirror"):
            with pytest.raises(ConfigurationError, match=f"{key}: .*{words}"):
                load({"scale": "paper", **({"data": {key: path}} if key == "mirror" else {key: path})})


def test_a_plan_of_two_files_is_that_of_the_workflow(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("scale: smoke\nseeds: [7]\nexperiments: {kpo: {methods: {grpo: {}}}}\n")
    (tmp_path / "b.yaml").write_text("experiments: {krpo: {seeds: [7]}}\n")
    files = [part for name in ("a", "b") for part in ("--configfile", str(tmp_path / f"{name}.yaml"))]
    assert main(["plan", *files]) == 0
    assert "kpo          1 runs: grpo\n" in capsys.readouterr().out


def test_overrides_come_from_yaml_text():
    assert load(yaml.safe_load("{scale: smoke, seeds: [4, 5]}")).seeds == [4, 5]
