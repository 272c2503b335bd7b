"""Open MLflow's UI on the records of this folder, or of `$MLFLOW_TRACKING_URI`, for this machine only."""

import os
import sys

from experiments.config import Refused
from experiments.config.schema import Tracking
from experiments.tracking.store import existing, redact


def main() -> None:
    """Print where the training runs are, and become MLflow's server on the port that the first argument names."""
    try:
        uri = existing(Tracking(enabled=True), "make ui")
    except Refused as refused:
        sys.exit(_refuse(refused))
    if uri.startswith("http"):
        print(f"the records are on a server, which has the UI: {redact(uri)}")
        return
    port = sys.argv[1] if len(sys.argv) > 1 else "5000"
    print(f"http://127.0.0.1:{port}/#/experiments/{_latest_experiment(uri)}/runs  (Ctrl-C ends it)", flush=True)
    # The address may hold a password, and everyone can read a command line.
    settings = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    settings |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # One worker, as it is for one person: MLflow's four would each import it.
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    os.execve(sys.executable, command, {**os.environ, **settings})  # noqa: S606


def _refuse(refused: Refused) -> int:
    print(refused, file=sys.stderr)
    return 2


def _latest_experiment(uri: str) -> str:
    """The id of the experiment that the newest run belongs to; MLflow's default experiment where there is none."""
    from sqlalchemy import create_engine, text

    engine = create_engine(uri)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT experiment_id FROM runs ORDER BY start_time DESC LIMIT 1")).scalar()
    engine.dispose()
    return str(found or 0)


if __name__ == "__main__":
    main()
