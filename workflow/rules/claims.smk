# The verdict on every claim of both papers, and the papers' tables with what was measured here.
#
# Published results hold measures.json instead of the runs, so neither rule reads a run. The page of verdicts also shows
# what is published of other scales, and is made again if that changes.


rule claims:
    input:
        config=ancient(CONFIG),
        measures=f"{FOLDER}/measures.json",
        scales=[f"{HERE}{PUBLISHED_FOLDERS}/{scale}/claims.json" for scale in published_scales(configuration)],
    output:
        json=f"{FOLDER}/claims.json",
        markdown=f"{FOLDER}/claims.md",
    log:
        f"{FOLDER}/logs/claims.log",
    resources:
        **ON_A_CLUSTER,
    params:
        code=step_hash("claims"),
    shell:
        "{STEP} claims --config {input.config:q} --log {log:q}"


rule tables:
    input:
        config=ancient(CONFIG),
        claims=rules.claims.output.json,
        summary=f"{FOLDER}/summary.json",
    output:
        json=f"{FOLDER}/tables.json",
        markdown=f"{FOLDER}/tables.md",
    log:
        f"{FOLDER}/logs/tables.log",
    resources:
        **ON_A_CLUSTER,
    params:
        code=step_hash("tables"),
    shell:
        "{STEP} tables --config {input.config:q} --log {log:q}"
