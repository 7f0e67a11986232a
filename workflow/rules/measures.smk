# All runs measured once into one small file, which is all that verdicts need.

MEASURED_FILES = [
    f"{configuration.run_folder(*run)}/{name}"
    for run in configuration.runs()
    for name in ("metrics.jsonl", "evaluation.json", "provenance.json", "config.yaml", "structure.safetensors")
]


rule measure:
    input:
        config=ancient(CONFIG),
        runs=MEASURED_FILES,
    output:
        f"{FOLDER}/measures.json",
    log:
        f"{FOLDER}/logs/measure.log",
    benchmark:
        f"{FOLDER}/benchmarks/measure.tsv"
    resources:
        **ON_A_CLUSTER,
    params:
        code=step_hash("measure"),
        runs=configuration.runs(),
    shell:
        "{STEP} measure --config {input.config:q} --log {log:q}"
