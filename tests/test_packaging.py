"""The wheel, installed into an environment of its own and started from an empty folder."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_wheel_brings_its_configs(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        ROOT,
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("experiments-*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies come from the environment of the tests; as plain paths, so that its own `experiments` does not.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    empty = tmp_path / "empty"
    mine = empty / "configs" / "model"
    mine.mkdir(parents=True)
    (mine / "tiny.yaml").write_text((ROOT / "conf" / "model" / "mlp.yaml").read_text().replace("[512]", "[4]"))
    where = subprocess.run(
        [python, "-c", "import experiments; print(experiments.__file__)"],
        cwd=empty,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(tmp_path))
    command = [python, "-m", "experiments.run", "--config-dir", "configs", "model=tiny", "data=digits", "epochs=1"]
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (empty / "mlruns" / "mlflow.db").is_file()
