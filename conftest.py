"""How tests share a machine when `make test` runs them side by side."""

import pytest


@pytest.hookimpl(tryfirst=True)  # the workers read the groups in this hook, too
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker takes a whole file, so that its servers start once; and everything that needs the Docker engine.

    A swarm that is left takes the names of every container network with it, so these tests must not overlap.
    """
    for item in items:
        docker = item.get_closest_marker("docker") is not None
        group = "docker" if docker else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
