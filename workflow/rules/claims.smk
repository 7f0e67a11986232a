# The verdict on every claim of both papers, and the papers' tables with what was measured here.
#
# Published results hold measures.json instead of the runs, so neither ever looks at a run itself.

MEASURES = f"{FOLDER}/measures.json"
TABLE_CODE = ["reproduction/claims/paper_tables.py", "reproduction/claims/tables.py"]
JUDGING_CODE = sorted({f"reproduction/claims/{path.name}" for path in Path("reproduction/claims").glob("*.py")} - {*TABLE_CODE})


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
        "{STEP} claims --config {input.config:q} --log {log:q}"


rule tables:
    input:
        config=ancient(CONFIG),
        claims=rules.claims.output.json,
        summary=f"{FOLDER}/summary.json",
        code=TABLE_CODE,
    output:
        json=f"{FOLDER}/tables.json",
        markdown=f"{FOLDER}/tables.md",
    log:
        f"{FOLDER}/logs/tables.log",
    shell:
        "{STEP} tables --config {input.config:q} --log {log:q}"
