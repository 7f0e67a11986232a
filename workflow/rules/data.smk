# The resolved configuration, and the problems that it asks for.


# Jobs take the configuration as `ancient` and are repeated if their own `params` differ. If a changed configuration were
# a job of the same call, Snakemake would wait for it and not look at those params: `onstart` updates it instead.
rule configuration:
    output:
        CONFIG,
    run:
        from reproduction.jobs.files import atomic_write

        atomic_write(output[0], dump(configuration))


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
    resources:
        **ON_A_CLUSTER,
    params:
        settings=configuration.problems.model_dump(),
    shell:
        "{STEP} problems --config {input.config:q} --log {log:q}"
