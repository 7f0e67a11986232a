# The figures, from files alone: `snakemake figures --cores all` redraws them and trains nothing.

RUN_FILES = [
    f"{configuration.run_folder(*run)}/{name}"
    for run in configuration.runs()
    for name in ("metrics.jsonl", "structure.safetensors", "evaluation.json")
]


# pass@k is drawn of the level `normal`, which experiments on mathematics do not have.
DRAWN = [figure for figure in FIGURES if figure != "pass_at_k" or not PRETRAINED]


rule figure:
    input:
        config=ancient(CONFIG),
        summary=f"{FOLDER}/summary.json",
        runs=ancient(RUN_FILES),
        script="paper_figures/{figure}.py",
        shared=[f"paper_figures/{name}.py" for name in ("aggregate", "command", "results", "style")],
    output:
        pdf=f"{FOLDER}/figures/{{figure}}.pdf",
        png=f"{FOLDER}/figures/{{figure}}.png",
    log:
        f"{FOLDER}/logs/figures/{{figure}}.log",
    wildcard_constraints:
        figure="|".join(FIGURES),
    params:
        folder=FOLDER,
    shell:
        "{PYTHON} -m paper_figures.{wildcards.figure} --results {params.folder:q} --output {params.folder:q}/figures"
        " > {log:q} 2>&1 || (cat {log:q} >&2; exit 1)"


rule figures:
    input:
        expand(f"{FOLDER}/figures/{{figure}}.{{format}}", figure=DRAWN, format=["pdf", "png"]),
