# The resolved configuration, and the problems that it asks for.


rule configuration:
    output:
        CONFIG,
    params:
        text=dump(configuration),
    run:
        from kpo.files import atomic_write

        atomic_write(output[0], params.text)


rule problems:
    input:
        config=ancient(CONFIG),
    output:
        train=f"{FOLDER}/problems/train.jsonl",
        held_out=f"{FOLDER}/problems/held_out.jsonl",
    log:
        f"{FOLDER}/logs/problems.log",
    benchmark:
        f"{FOLDER}/benchmarks/problems.tsv"
    params:
        settings=configuration.problems.model_dump(),
    shell:
        "{KPO} problems --config {input.config:q} --log {log:q}"
