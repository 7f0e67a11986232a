# Every model answers the held-out problems; one table gathers all.

EVALUATION = configuration.evaluation.model_dump(exclude={"expected_seconds"})
ARITHMETIC_FILE = [configuration.arithmetic_file] if configuration.arithmetic_file else []


rule evaluate_base:
    input:
        config=ancient(CONFIG),
        problems=f"{FOLDER}/problems/held_out.jsonl",
        model=f"{FOLDER}/base/seed{{seed}}/model",
        file=ARITHMETIC_FILE,
    output:
        summary=f"{FOLDER}/base/seed{{seed}}/evaluation.json",
        samples=f"{FOLDER}/base/seed{{seed}}/samples.jsonl",
    log:
        f"{FOLDER}/logs/base/seed{{seed}}.evaluate.log",
    benchmark:
        f"{FOLDER}/benchmarks/base/seed{{seed}}.evaluate.tsv"
    threads: 1
    resources:
        **ON_A_CLUSTER,
    params:
        settings=EVALUATION,
    shell:
        "{ON_CPU} evaluate --config {input.config:q} --seed {wildcards.seed} --threads {threads} --log {log:q}"


rule evaluate:
    input:
        config=ancient(CONFIG),
        problems=f"{FOLDER}/problems/held_out.jsonl",
        model=f"{FOLDER}/{{experiment}}/{{method}}/seed{{seed}}/model",
        file=ARITHMETIC_FILE,
    output:
        summary=f"{FOLDER}/{{experiment}}/{{method}}/seed{{seed}}/evaluation.json",
        samples=f"{FOLDER}/{{experiment}}/{{method}}/seed{{seed}}/samples.jsonl",
    log:
        f"{FOLDER}/logs/{{experiment}}/{{method}}/seed{{seed}}.evaluate.log",
    benchmark:
        f"{FOLDER}/benchmarks/{{experiment}}/{{method}}/seed{{seed}}.evaluate.tsv"
    wildcard_constraints:
        experiment=ONLY_SMALL,
    threads: 1
    resources:
        **ON_A_CLUSTER,
    params:
        settings=EVALUATION,
    shell:
        "{ON_CPU} evaluate --config {input.config:q} --experiment {wildcards.experiment} --method {wildcards.method}"
        " --seed {wildcards.seed} --threads {threads} --log {log:q}"


rule summarise:
    input:
        config=ancient(CONFIG),
        base=[f"{configuration.run_folder(*untrained)}/evaluation.json" for untrained in configuration.untrained()],
        runs=[f"{configuration.run_folder(*run)}/evaluation.json" for run in configuration.runs()],
    output:
        json=f"{FOLDER}/summary.json",
        markdown=f"{FOLDER}/summary.md",
    log:
        f"{FOLDER}/logs/summarise.log",
    resources:
        **ON_A_CLUSTER,
    params:
        code=step_hash("summarise"),
        settings=EVALUATION,
        runs=configuration.runs(),
    shell:
        "{STEP} summarise --config {input.config:q} --log {log:q}"
