# The related methods side by side, for a configuration that has runs of them: `make related`.

HAS_RELATED = "related_methods" in CONFIGURED


rule related_methods:
    input:
        config=ancient(CONFIG),
        measures=f"{FOLDER}/measures.json",
    output:
        json=f"{FOLDER}/related_methods.json",
        markdown=f"{FOLDER}/related_methods.md",
    log:
        f"{FOLDER}/logs/related_methods.log",
    resources:
        **ON_A_CLUSTER,
    params:
        code=step_hash("related"),
    shell:
        "{STEP} related --config {input.config:q} --log {log:q}"


rule related_notebook:
    input:
        config=ancient(CONFIG),
        record=rules.related_methods.output.json,
        figures=[f"{FOLDER}/figures/related_methods.{kind}" for kind in ("png", "json")],
    output:
        f"{FOLDER}/notebooks/{RELATED_NOTEBOOK}.ipynb",
    log:
        f"{FOLDER}/logs/notebooks/{RELATED_NOTEBOOK}.log",
    threads: 1
    resources:
        **ON_A_CLUSTER,
    params:
        code=notebook_hash(REPOSITORY / "notebooks" / f"{RELATED_NOTEBOOK}.ipynb"),
        folder=FOLDER,
    shell:
        "{STEP} notebook {RELATED_NOTEBOOK} --results {params.folder:q} --output {output:q}"
        " > {log:q} 2>&1 || (cat {log:q} >&2; exit 1)"


rule related:
    input:
        [rules.related_methods.output, rules.related_notebook.output] if HAS_RELATED else [],
