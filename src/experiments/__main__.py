"""The commands by one name: ``experiments run optimizer=adam`` is ``python -m experiments.run optimizer=adam``."""

import importlib
import os
import sys
from difflib import get_close_matches

COMMANDS = {
    "run": "train one config, or with -m a sweep",
    "compare": "rank recorded runs",
    "predict": "classify images with a recorded model",
    "reproduce": "train a recorded run again, bit for bit",
    "promote": "register a recorded model",
    "sync": "send records that were not sent yet",
}
COMPLETION = ("-sc", "--shell-completion")


def main() -> None:
    """Start the command that the first argument names; without one, list them."""
    words = sys.argv[1:]
    if words[:1] and words[0] in COMPLETION:
        return _complete(words)
    if not words or words[0] in ("-h", "--help"):
        return print(help_text())
    name, *arguments = words
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(COMMANDS)}"
        remedy = " ".join(["experiments", near[0] if near else "run", *arguments])
        print(f"error: {name}: there is no such command; {hint}\n       try  {remedy}", file=sys.stderr)
        sys.exit(2)
    return _start(name, arguments)


def help_text() -> str:
    """The commands, each with what it is for."""
    listed = "\n".join(f"  experiments {name:10} {what}" for name, what in COMMANDS.items())
    return (
        "experiments: Keras networks from short YAML files, recorded in MLflow.\n\n"
        f"{listed}\n\n"
        "Each explains itself with --help, and can be started as python -m experiments.NAME, too."
    )


def _start(name: str, arguments: list[str]) -> None:
    sys.argv[1:] = arguments
    importlib.import_module(f"experiments.{name}").main()


def _complete(words: list[str]) -> None:
    """Have Hydra complete the words behind the command's name; that name is completed here."""
    line = os.environ.get("COMP_LINE", "")
    _, _, typed = line.partition(" ")
    name, blank, rest = typed.lstrip().partition(" ")
    if not line or (name in COMMANDS and blank):
        os.environ["COMP_LINE"] = f"experiments {rest}"
        return _start(name if line else "run", words)
    return print(*(each for each in COMMANDS if each.startswith(name)))


if __name__ == "__main__":  # a sweep's server imports all modules
    main()
