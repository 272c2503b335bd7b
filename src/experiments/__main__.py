"""The commands: ``python -m experiments``."""

import sys

HELP = """experiments: Keras networks from short YAML files, recorded in MLflow.

  python -m experiments.run        train one config, or with -m a sweep
  python -m experiments.compare    rank recorded runs
  python -m experiments.predict    classify images with a recorded model
  python -m experiments.reproduce  train a recorded run again, bit for bit
  python -m experiments.promote    register a recorded model
  python -m experiments.sync       send records that were not sent yet

Each explains itself with --help."""

if __name__ == "__main__":  # a sweep's server imports all modules
    print(HELP)
    if set(sys.argv[1:]) - {"--help", "-h"}:
        print(f"\nerror: {sys.argv[1]}: the command is joined with a dot: python -m experiments.run", file=sys.stderr)
        sys.exit(2)
