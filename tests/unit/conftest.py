"""The order of the test files, and made-up results that several of them share.

Files that take longest go first: `make test` gives whole files to its processes, so what comes last must be short.
The fixtures import the reproduction only when they are used: the library's tests run without its packages.
"""

import shutil

import pytest

LONGEST = (
    "test_claims_study", "test_claim_figures", "test_processes", "test_trl_door", "test_library", "test_likelihood",
    "test_example", "test_kalman_triton", "test_resume", "test_training", "test_related_training", "test_devices",
    "test_report", "test_figures", "test_publish", "test_verify", "test_faults", "test_install", "test_config",
    "test_wrong_inputs", "test_engine_agreement", "test_notebooks", "test_pretrained", "test_related", "test_methods",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def full_study(tmp_path_factory):
    """A small results folder of the full study, which no test changes."""
    from tests.synthetic_study import SMALL, write_study

    return write_study(tmp_path_factory.mktemp("study"), **SMALL).folder


@pytest.fixture(scope="session")
def plain_template(tmp_path_factory):
    """The configuration of `plain`, whose files no test changes."""
    from tests.synthetic_study import SMALL, write_study

    return write_study(tmp_path_factory.mktemp("plain"), study=None, **SMALL)


@pytest.fixture
def plain(plain_template, tmp_path):
    """The default's own experiments, which a test may change."""
    shutil.copytree(plain_template.folder, tmp_path / "laptop")
    return plain_template.model_copy(update={"results": str(tmp_path)})


@pytest.fixture(scope="session")
def finished_template(tmp_path_factory):
    """The folder that `finished` copies."""
    from tests.finished_results import finished_results, make_the_rest

    folder = tmp_path_factory.mktemp("finished")
    make_the_rest(finished_results(folder / "results"))
    return folder


@pytest.fixture
def finished(finished_template, tmp_path):
    """The configuration of finished results, and a repository to publish them in; a test may change both."""
    from tests.finished_results import ready_to_publish

    return ready_to_publish(finished_template, tmp_path)
