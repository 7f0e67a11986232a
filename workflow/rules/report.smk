# Everything on one page that opens without a network.


rule report:
    input:
        config=ancient(CONFIG),
        claims=f"{FOLDER}/claims.json",
        measures=f"{FOLDER}/measures.json",
        tables=f"{FOLDER}/tables.json",
        summary=f"{FOLDER}/summary.json",
        figures=[path for path in rules.figures.input if not path.endswith(".pdf")],
    output:
        f"{FOLDER}/report.html",
    log:
        f"{FOLDER}/logs/report.log",
    resources:
        **ON_A_CLUSTER,
    params:
        code=step_hash("report"),
    shell:
        "{STEP} report --config {input.config:q} --log {log:q}"
