# The figures that the configured experiments can give, from files: `snakemake figures --cores all` redraws them and
# trains nothing.

CONFIGURED = figures_for(configuration.methods_run())
# pass@k is drawn of the level `normal`, which experiments on mathematics do not have; looks need their first seeds.
IMPOSSIBLE = {"pass_at_k"} if PRETRAINED else set()
IMPOSSIBLE |= set() if design_of(configuration).looks(len(configuration.seeds)) else {"looks"}
DRAWN = [figure for figure in CONFIGURED if figure not in IMPOSSIBLE]
SCALE_FILES = ("summary.json", "measures.json", "claims.json", "related_methods.json")
# Only published results can lack runs; there a figure shows those that exist and names the others.
ALLOWED = "--allow-missing" if PUBLISHED and missing_runs(REPOSITORY / PUBLISHED_FOLDERS / configuration.scale) else ""


rule figure:
    input:
        config=ancient(CONFIG),
        scale=lambda wildcards: [f"{FOLDER}/{name}" for name in SCALE_FILES if name in ENTRIES[wildcards.figure].files],
        runs=ancient(lambda wildcards: run_files(configuration, [ENTRIES[wildcards.figure]])),
    output:
        pdf=f"{FOLDER}/figures/{{figure}}.pdf",
        png=f"{FOLDER}/figures/{{figure}}.png",
        words=f"{FOLDER}/figures/{{figure}}.json",
    log:
        f"{FOLDER}/logs/figures/{{figure}}.log",
    resources:
        **ON_A_CLUSTER,
    params:
        code=lambda wildcards: code_hash(f"paper_figures.{wildcards.figure}"),
        folder=FOLDER,
        allowed=ALLOWED,
    shell:
        "{PYTHON} -m paper_figures.{wildcards.figure} --results {params.folder:q} --output {params.folder:q}/figures"
        " {params.allowed} > {log:q} 2>&1 || (cat {log:q} >&2; exit 1)"


rule figures:
    input:
        expand(f"{FOLDER}/figures/{{figure}}.{{format}}", figure=DRAWN, format=["pdf", "png", "json"]),
