"""The notebook of docs/, executed from its first cell to its last."""

import os
import sys
from pathlib import Path

import pytest

from tests.prepared import environment

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.environ.get("EXPERIMENTS_REQUIRE_NOTEBOOKS"):
        pytest.importorskip("nbclient", reason="no nbclient; requirements-notebooks.txt")
    import nbformat
    from nbclient import NotebookClient

    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    by_source = {cell.source.splitlines()[-1]: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert "data:image/png" in by_source["run"][0].data["text/html"]
    printed = "".join(each.text for each in by_source["run.predict(test_images[:1])[0].argmax(), test_labels[0]"][:-1])
    assert "epoch 5/5" in printed
    assert "recorded as run" in printed
    assert "FINISHED" in by_source['experiments.load("best")'][0].data["text/plain"]
