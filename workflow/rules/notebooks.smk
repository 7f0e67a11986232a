# The notebooks, each executed on the results in a job of its own: `snakemake notebooks --cores all`.
#
# A notebook is repeated where its text or code differs (`source`), not where publishing has put outputs into it.


rule notebook:
    input:
        config=ancient(CONFIG),
        notebook=ancient("notebooks/{notebook}.ipynb"),
        claims=f"{FOLDER}/claims.json",
        measures=f"{FOLDER}/measures.json",
        summary=f"{FOLDER}/summary.json",
        runs=ancient(run_files(configuration, [ENTRIES[figure] for figure in DRAWN])),
        code=["reproduction/notebook.py", *DRAWING_CODE, *(f"paper_figures/{figure}.py" for figure in DRAWN)],
    output:
        f"{FOLDER}/notebooks/{{notebook}}.ipynb",
    log:
        f"{FOLDER}/logs/notebooks/{{notebook}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/notebooks/{{notebook}}.tsv"
    threads: 1
    params:
        folder=FOLDER,
        source=lambda wildcards: notebook_source(Path(f"notebooks/{wildcards.notebook}.ipynb")),
    shell:
        "{PYTHON} -m reproduction.notebook run {wildcards.notebook} --results {params.folder:q} --output {output:q}"
        " > {log:q} 2>&1 || (cat {log:q} >&2; exit 1)"


rule notebooks:
    input:
        expand(f"{FOLDER}/notebooks/{{notebook}}.ipynb", notebook=NOTEBOOKS),
