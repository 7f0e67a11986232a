# The base model of each seed, and the runs: each its own job with one thread.
#
# A run is not repeated because the configuration file is newer (`ancient`) or code has changed, only if its own settings
# (`params`) or its inputs differ: `claims` refuses to compare runs of different code and says which to remove.


rule pretrain:
    input:
        config=ancient(CONFIG),
        problems=f"{FOLDER}/problems/train.jsonl",
    output:
        model=directory(f"{FOLDER}/base/seed{{seed}}/model"),
        metrics=f"{FOLDER}/base/seed{{seed}}/metrics.jsonl",
        provenance=f"{FOLDER}/base/seed{{seed}}/provenance.json",
    log:
        f"{FOLDER}/logs/base/seed{{seed}}.pretrain.log",
    benchmark:
        f"{FOLDER}/benchmarks/base/seed{{seed}}.pretrain.tsv"
    priority: 10
    threads: 1
    resources:
        **ON_A_CLUSTER,
    params:
        settings=configuration.base_model and configuration.base_model.model_dump(exclude={"expected_seconds"}),
    shell:
        "{ON_CPU} pretrain --config {input.config:q} --seed {wildcards.seed} --threads {threads} --log {log:q}"


# The process that trains samples the evaluation's answers too, and leaves them as shards: loading the libraries takes
# longer than sampling. `evaluate` takes them from there, and samples itself if they are not what it needs.
rule train:
    input:
        config=ancient(CONFIG),
        problems=f"{FOLDER}/problems/train.jsonl",
        held_out=f"{FOLDER}/problems/held_out.jsonl",
        base=f"{FOLDER}/base/seed{{seed}}/model",
    output:
        model=directory(f"{FOLDER}/{{experiment}}/{{method}}/seed{{seed}}/model"),
        metrics=f"{FOLDER}/{{experiment}}/{{method}}/seed{{seed}}/metrics.jsonl",
        structure=f"{FOLDER}/{{experiment}}/{{method}}/seed{{seed}}/structure.safetensors",
        config=f"{FOLDER}/{{experiment}}/{{method}}/seed{{seed}}/config.yaml",
        provenance=f"{FOLDER}/{{experiment}}/{{method}}/seed{{seed}}/provenance.json",
    log:
        f"{FOLDER}/logs/{{experiment}}/{{method}}/seed{{seed}}.train.log",
    benchmark:
        f"{FOLDER}/benchmarks/{{experiment}}/{{method}}/seed{{seed}}.train.tsv"
    wildcard_constraints:
        experiment=ONLY_SMALL,
    threads: 1
    resources:
        **ON_A_CLUSTER,
    params:
        settings=lambda wildcards: run_settings(configuration, wildcards.experiment, wildcards.method),
    shell:
        "{ON_CPU} train --config {input.config:q} --experiment {wildcards.experiment} --method {wildcards.method}"
        " --seed {wildcards.seed} --threads {threads} --log {log:q} --sample"
