"""How notebooks are executed."""

import pytest


@pytest.fixture(scope="session")
def executed():
    """A function that runs a notebook in a folder, and returns it."""

    def execute(notebook, folder):
        """Runs all cells, in the interpreter that runs the tests."""
        nbclient = pytest.importorskip(
            "nbclient", reason="needs the extra 'test'"
        )
        pytest.importorskip("ipykernel", reason="needs the extra 'test'")
        kernelspec = pytest.importorskip("jupyter_client.kernelspec")
        client = pytest.importorskip("jupyter_client.manager")
        # A kernel that a user has installed may be another Python: `native`
        # is us.
        specs = kernelspec.KernelSpecManager(allowed_kernelspecs={"python3"})
        specs.kernel_dirs = []
        manager = client.AsyncKernelManager(
            kernel_name="python3", kernel_spec_manager=specs
        )
        nbclient.NotebookClient(
            notebook,
            km=manager,
            timeout=600,
            resources={"metadata": {"path": str(folder)}},
        ).execute()
        return notebook

    return execute
