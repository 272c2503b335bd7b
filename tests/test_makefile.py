"""What `make run` does where there is no MNIST."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_quick_start_goes_on_with_digits_and_says_so(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "EXPERIMENTS_DATA_DIR"}
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment |= {"KERAS_HOME": str(tmp_path), **proxies, "no_proxy": ""}
    command = [sys.executable, str(ROOT / "scripts" / "quickstart.py"), "epochs=1", "tracking=off"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "*** MNIST is not to be had: this quick start goes on with data=digits ***" in done.stdout
    assert "test_accuracy" in done.stdout


def test_quick_start_passes_refusals_on(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "quickstart.py"), "data=digits", "epochs=0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: epochs: got 0")
