# Experiments with Hugging Face models: data and models fetched and checked once, jobs on CUDA devices that they lease.
#
# `gpu` is a request to a cluster's scheduler; on one machine it only counts, and `python -m reproduction launch` hands
# out the devices.


rule mathematics:
    input:
        config=ancient(CONFIG),
    output:
        problems=f"{FOLDER}/mathematics/{{set}}.jsonl",
        record=f"{FOLDER}/mathematics/{{set}}.record.json",
    log:
        f"{FOLDER}/logs/mathematics/{{set}}.log",
    params:
        settings=lambda wildcards: set_settings(configuration, wildcards.set),
    shell:
        "{STEP} mathematics --config {input.config:q} --set {wildcards.set} --log {log:q}"


def experiment_of_model(wildcards):
    return next(name for name in PRETRAINED if configuration.experiments[name].pretrained.model.id == wildcards.model)


rule model:
    input:
        config=ancient(CONFIG),
    output:
        f"{FOLDER}/models/{{model}}.json",
    log:
        f"{FOLDER}/logs/models/{{model}}.log",
    wildcard_constraints:
        model="|".join({configuration.experiments[name].pretrained.model.id for name in PRETRAINED}) or "NONE",
    params:
        experiment=experiment_of_model,
        revision=lambda wildcards: configuration.experiments[experiment_of_model(wildcards)].pretrained.model.revision,
    shell:
        "{STEP} model --config {input.config:q} --experiment {params.experiment} --log {log:q}"


rule train_pretrained:
    input:
        config=ancient(CONFIG),
        problems=lambda wildcards: training_files(configuration, wildcards.experiment),
        model=lambda wildcards: model_file(configuration, wildcards.experiment),
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
        experiment=ONLY_PRETRAINED,
    threads: lambda wildcards: job_threads(CORES, job_devices(configuration, wildcards.experiment))
    resources:
        gpu=lambda wildcards: job_devices(configuration, wildcards.experiment),
        runtime=4320,  # minutes; a run of KPO is estimated at some 25 hours on two H100
        mem_mb=128000,
    params:
        settings=lambda wildcards: run_settings(configuration, wildcards.experiment, wildcards.method),
    shell:
        "{STEP} launch --step train --config {input.config:q} --experiment {wildcards.experiment}"
        " --method {wildcards.method} --seed {wildcards.seed} --devices {resources.gpu} --log {log:q}"


rule evaluate_pretrained:
    input:
        config=ancient(CONFIG),
        problems=lambda wildcards: evaluation_files(configuration, wildcards.experiment),
        model=lambda wildcards: (
            model_file(configuration, wildcards.experiment)
            if wildcards.method == "base"
            else f"{FOLDER}/{wildcards.experiment}/{wildcards.method}/seed{wildcards.seed}/model"
        ),
    output:
        summary=f"{FOLDER}/{{experiment}}/{{method}}/seed{{seed}}/evaluation.json",
        samples=f"{FOLDER}/{{experiment}}/{{method}}/seed{{seed}}/samples.jsonl",
    log:
        f"{FOLDER}/logs/{{experiment}}/{{method}}/seed{{seed}}.evaluate.log",
    benchmark:
        f"{FOLDER}/benchmarks/{{experiment}}/{{method}}/seed{{seed}}.evaluate.tsv"
    wildcard_constraints:
        experiment=ONLY_PRETRAINED,
    threads: lambda wildcards: job_threads(CORES, job_devices(configuration, wildcards.experiment))
    resources:
        gpu=lambda wildcards: job_devices(configuration, wildcards.experiment),
        runtime=720,
        mem_mb=64000,
    params:
        settings=lambda wildcards: evaluation_settings(configuration, wildcards.experiment),
    shell:
        "{STEP} launch --step evaluate --config {input.config:q} --experiment {wildcards.experiment}"
        " --method {wildcards.method} --seed {wildcards.seed} --devices {resources.gpu} --log {log:q}"
