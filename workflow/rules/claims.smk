# The verdict on every claim of both papers: all runs measured once into one small file, then judged.
#
# Published results hold measures.json instead of the runs, so `claims` never looks at a run itself.

from pathlib import Path

MEASURED_FILES = [
    f"{configuration.run_folder(*run)}/{name}"
    for run in configuration.runs()
    for name in ("metrics.jsonl", "evaluation.json", "provenance.json", "config.yaml", "structure.safetensors")
]
MEASURES = f"{FOLDER}/measures.json"
JUDGING_CODE = sorted(f"kpo/claims/{path.name}" for path in Path(workflow.basedir, "kpo/claims").glob("*.py"))


rule measure:
    input:
        config=ancient(CONFIG),
        runs=MEASURED_FILES,
        code=["kpo/claims/measures.py", "kpo/claims/one_run.py", "kpo/structure.py"],
    output:
        MEASURES,
    log:
        f"{FOLDER}/logs/measure.log",
    benchmark:
        f"{FOLDER}/benchmarks/measure.tsv"
    params:
        runs=configuration.runs(),
    shell:
        "{KPO} measure --config {input.config:q} --log {log:q}"


rule claims:
    input:
        config=ancient(CONFIG),
        measures=MEASURES,
        code=JUDGING_CODE,
    output:
        json=f"{FOLDER}/claims.json",
        markdown=f"{FOLDER}/claims.md",
    log:
        f"{FOLDER}/logs/claims.log",
    shell:
        "{KPO} claims --config {input.config:q} --log {log:q}"
