"""Open MLflow's UI on this machine's records; nobody else on the network can reach it."""

import os
import subprocess
import sys

from experiments.config.schema import Tracking
from experiments.tracking.store import store_uri


def main() -> int:
    """Serve until Ctrl-C, on the port that the first argument names."""
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    port = sys.argv[1] if len(sys.argv) > 1 else "5000"
    address = ["--host", "127.0.0.1", "--port", port]
    print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store_uri(Tracking(enabled=True)), *address]
    try:
        return subprocess.call(command, env=environment)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
