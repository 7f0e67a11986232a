# The notebooks, each executed on the results in its own job: `snakemake notebooks --cores all`.
#
# A notebook is executed again if its text or its code differs, not because publishing has put outputs into it. It waits
# for the figures that it shows and for no other.


def figures_shown(wildcards):
    names = notebook_names(REPOSITORY / "notebooks" / f"{wildcards.notebook}.ipynb")
    return [f"{FOLDER}/figures/{figure}.{kind}" for figure in DRAWN if figure in names for kind in ("png", "json")]


rule notebook:
    input:
        config=ancient(CONFIG),
        claims=f"{FOLDER}/claims.json",
        measures=f"{FOLDER}/measures.json",
        summary=f"{FOLDER}/summary.json",
        runs=ancient(run_files(configuration, [ENTRIES[figure] for figure in DRAWN])),
        figures=figures_shown,
    output:
        f"{FOLDER}/notebooks/{{notebook}}.ipynb",
    log:
        f"{FOLDER}/logs/notebooks/{{notebook}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/notebooks/{{notebook}}.tsv"
    threads: 1
    resources:
        **ON_A_CLUSTER,
    params:
        code=lambda wildcards: notebook_hash(REPOSITORY / "notebooks" / f"{wildcards.notebook}.ipynb"),
        folder=FOLDER,
    shell:
        "{STEP} notebook {wildcards.notebook} --results {params.folder:q} --output {output:q}"
        " > {log:q} 2>&1 || (cat {log:q} >&2; exit 1)"


rule notebooks:
    input:
        expand(f"{FOLDER}/notebooks/{{notebook}}.ipynb", notebook=NOTEBOOKS),
