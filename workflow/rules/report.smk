# Everything on one page that opens without a network.

REPORT_CODE = sorted(
    path.as_posix() for path in Path("reproduction/report").rglob("*") if path.suffix in (".py", ".html", ".css")
)


rule report:
    input:
        config=ancient(CONFIG),
        claims=f"{FOLDER}/claims.json",
        measures=f"{FOLDER}/measures.json",
        tables=f"{FOLDER}/tables.json",
        summary=f"{FOLDER}/summary.json",
        figures=[path for path in rules.figures.input if path.endswith(".png")],
        code=REPORT_CODE,
    output:
        f"{FOLDER}/report.html",
    log:
        f"{FOLDER}/logs/report.log",
    shell:
        "{STEP} report --config {input.config:q} --log {log:q}"
