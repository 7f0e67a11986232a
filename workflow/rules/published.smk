# Instead of data, training, evaluation and measuring: the published results, copied to where the other rules look.

PUBLISHED_FILES = published_files(REPOSITORY / PUBLISHED_FOLDERS / configuration.scale)
PUBLISHED_FOLDER = f"{HERE}{PUBLISHED_FOLDERS}/{configuration.scale}"


rule unpack:
    input:
        [f"{PUBLISHED_FOLDER}/{name}" for name in PUBLISHED_FILES],
        config=f"{PUBLISHED_FOLDER}/config.yaml",
    output:
        [f"{FOLDER}/{name}" for name in PUBLISHED_FILES],
    log:
        f"{FOLDER}/logs/unpack.log",
    params:
        results=configuration.results,
    shell:
        "{STEP} unpack --config {input.config:q} --output {params.results:q} --log {log:q}"
