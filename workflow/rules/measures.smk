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
        code=["reproduction/claims/measures.py", "reproduction/claims/one_run.py", "kpo/structure.py"],
    output:
        f"{FOLDER}/measures.json",
    log:
        f"{FOLDER}/logs/measure.log",
    benchmark:
        f"{FOLDER}/benchmarks/measure.tsv"
    params:
        runs=configuration.runs(),
    shell:
        "{STEP} measure --config {input.config:q} --log {log:q}"
