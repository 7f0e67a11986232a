"""Test files that take longest go first.

`make test` gives whole files to its processes: what a file prepares is made once, and what comes last is short.
"""

LONGEST = (
    "test_claims_study", "test_claim_figures", "test_processes", "test_trl_door", "test_library", "test_likelihood",
    "test_example", "test_kalman_triton", "test_resume", "test_training", "test_related_training", "test_devices",
    "test_report", "test_figures", "test_publish", "test_verify", "test_faults", "test_install", "test_config",
    "test_wrong_inputs", "test_engine_agreement", "test_notebooks", "test_pretrained", "test_related", "test_methods",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
