# ruff: noqa: E501 - tables are easier to read with a case on each line
"""What the command line refuses, how it says so, and how a command ends."""

import argparse
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from experiments.__main__ import help_text
from experiments.cli import arguments
from experiments.cli.checks import CONF, check_arguments
from experiments.cli.exit import Ended, exit_status
from experiments.config import CompareConfig, Config, Problem, Refused
from experiments.config.files import own_folders
from experiments.config.overrides import nested_too_deeply, without_plus
from tests.prepared import environment

RunCli = Callable[..., subprocess.CompletedProcess[str]]
UNREADABLE = "put quotes around a value with brackets, blanks or commas: 'KEY=[A, B]'"


@pytest.fixture
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that seems to have MNIST."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "mnist.npz").touch()
    return folder


@pytest.fixture
def _in_process(hydra_here: None, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERIMENTS_DATA_DIR", str(data_folder))


def stand_in(folder: Path, module: str, code: str) -> None:
    """Put a package there that runs code when it is imported, and whose modules can be read like those of the real one."""
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text(code)
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for inner in Path(spec.origin).parent.iterdir():  # an imported TensorFlow has more locations than that
        if inner.is_dir():
            (folder / module / inner.name).symlink_to(inner)


@pytest.fixture
def without_tensorflow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH on which the import of a slow library ends the process with another status than a refusal.

    The server of a sweep may import them, ahead and aside.
    """
    folder = tmp_path_factory.mktemp("forbidden")
    for module in ("tensorflow", "keras", "mlflow", "sklearn", "matplotlib", "pandas"):
        tell = f"'forkserver' in str(sys.orig_argv) or print('{module} was imported')"
        stand_in(folder, module, f"import os, sys\n{tell}\nos._exit(99)\n")
    return str(folder)


def explained(*argv: str) -> list[Problem]:
    """The problems of a command: that of ``--config-name``, if there is such a command."""
    words = arguments.read([*map(without_plus, argv)])
    command, schema = ("compare", CompareConfig) if words.config_name == "compare" else ("config", Config)
    GlobalHydra.instance().clear()
    try:
        own_folders[:] = arguments.config_folders(words, command)
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            check_arguments(words, command, schema)
    except Refused as refused:
        return refused.problems
    return []


def corrected(argv: tuple[str, ...], problem: Problem) -> list[str]:
    """The command as the remedy has it: in place of the override that is the problem, and of the remedy's own keys."""
    words = shlex.split(problem.remedy)
    if words[0].startswith(("~", "--")):
        return [*(word for word in argv if word != f"{problem.where}=null"), *words]
    replaced = {problem.where, problem.where.partition("[")[0], *(word.partition("=")[0] for word in words)}
    return [*(word for word in argv if word.partition("=")[0].lstrip("+") not in replaced), *words]


REFUSALS = [
    # overrides that Hydra cannot use
    (("epohcs=3",), "epohcs", "there is no such key; did you mean 'epochs'?", "epochs=3"),
    (("optimizer.learing_rate=[1,a b]",), "optimizer.learing_rate", "did you mean 'learning_rate'?", "'optimizer.learning_rate=[1,a b]'"),
    (("optimzer.schedule.name=x",), "optimzer.schedule.name", "did you mean 'optimizer'?", "optimizer.schedule.name=x"),
    (("optimzer=adam",), "optimzer", "did you mean 'optimizer'?", "optimizer=adam"),
    (("optimizr/schedule=cosine",), "optimizr/schedule", "did you mean 'optimizer/schedule'?", "optimizer/schedule=cosine"),
    (("zzz=1",), "zzz", "there is no such key; known: batch_size, ", ""),
    (("epochs.more=1",), "epochs.more", "epochs is a value, it has no keys of its own", ""),
    (("+epochs=3",), "+epochs", "is there already; it is changed without the +", "epochs=3"),
    (("optimizer.adam=3",), "optimizer.adam", "there is no such key; known: centered, ", ""),
    (("~epochs=7",), "~epochs", "The value of 'epochs' is 5 and not 7", ""),
    (("~epoch",), "~epoch", "there is no such key; did you mean 'epochs'?", ""),
    (("epochs=1,2",), "epochs", "got several values, which is a sweep", "-m epochs=1,2"),
    (("epochs=[",), "epochs=[", f"cannot be read as KEY=VALUE (no viable alternative at input '['); {UNREADABLE}", ""),
    (("epochs",), "epochs", "cannot be read as KEY=VALUE (missing EQUAL at '<EOF>'); ", ""),
    (("hydra.run.dir=${nope}", "zzz=1"), "zzz", "there is no such key", ""),
    (("epochs.x",), "epochs.x", "cannot be read as KEY=VALUE", ""),
    # of several keys, the one that the value fits; what was typed stays
    (("run=latest",), "run", "there is no such key; known: batch_size, ", ""),
    (("require=0.97",), "require", "there is no such key; known: batch_size, ", ""),
    (("learning_rate=0.01",), "learning_rate", "did you mean 'optimizer.learning_rate'?", "optimizer.learning_rate=0.01"),
    (("activation=tanh",), "activation", "did you mean 'model.activation'?", "model.activation=tanh"),
    (("learning_rte=0.01",), "learning_rte", "did you mean 'optimizer.learning_rate'?", "optimizer.learning_rate=0.01"),
    (("layer_sizes=128",), "layer_sizes", "did you mean 'model.layer_sizes'?", "model.layer_sizes=[128]"),
    (("schedule=cosine",), "schedule", "did you mean 'optimizer.schedule'?", "optimizer/schedule=cosine"),
    (("optimzer=adma",), "optimzer", "did you mean 'optimizer'?", "optimizer=adam"),
    (("name=x",), "name", "did you mean model.name or optimizer.name or loss.name or task.name or data.name", ""),
    (("trust=colab",), "trust", "got colab, expected a list", "trust=[colab]"),
    (("model.layer_sizes=256",), "model.layer_sizes", "got 256, expected a list", "model.layer_sizes=[256]"),
    (("model.layer_sizes=256,128",), "model.layer_sizes", "got several values without brackets", "model.layer_sizes=[256,128]"),
    (("epochs='7'",), "epochs", "got '7', expected a whole number", "epochs=7"),
    (("resume=yes",), "resume", "got yes, expected true or false", "resume=true"),
    (("precision=mixed_float",), "precision", "did you mean 'mixed_float16'?", "precision=mixed_float16"),
    (("epochs=" + 5000 * "9",), "epochs=" + 5000 * "9", "cannot be read as KEY=VALUE", ""),
    (("trust=[nope.sub]",), "trust[0]", "there is no package nope", ""),
    (("model=sequential", "model.layer_sizes=[64]"), "model.layer_sizes", "it is a key of model=mlp", "model=mlp model.layer_sizes=[64]"),
    (("optimizer/schedule=exponential", "optimizer.schedule.warmup_epochs=1"), "optimizer.schedule.warmup_epochs", "it is a key of optimizer/schedule=cosine", "optimizer/schedule=cosine optimizer.schedule.warmup_epochs=1"),
    (("experiment.epochs=3",), "experiment.epochs", "did you mean 'epochs'?", "epochs=3"),
    (("++experiment.epochs=3", "experiment=debug"), "experiment.epochs", "did you mean 'epochs'?", "epochs=3"),
    (("+experiment.data.limit=3",), "experiment.data.limit", "did you mean 'data.limit'?", "data.limit=3"),
    (("optimizer.sed=3",), "optimizer.sed", "did you mean 'seed'?", "seed=3"),
    (("model=sequential", "model.dropout=0.2"), "model.dropout", "it is a key of model=convnet and of model=mlp", ""),
    (("metrics=" + 3000 * "[" + 3000 * "]",), "metrics", "its brackets are nested more than 100 levels deep", ""),
    # choices
    (("optimizer=adma",), "optimizer", "there is no adma; did you mean 'adam'?", "optimizer=adam"),
    (("optimizer=xyz",), "optimizer", "there is no xyz; known: adadelta, ", "optimizer=rmsprop"),
    (("optimizer=null",), "optimizer", "there is no null; known: adadelta, ", "optimizer=rmsprop"),
    (("experiment=null",), "experiment", "got null, which stands for no choice in a list of defaults only", "~experiment"),
    (("experiment=true",), "experiment", "there is no true; known: debug, ", ""),
    (("experiment=9",), "experiment", "there is no 9; known: debug, ", ""),
    (("callbacks=[early_stoping,csv_log]",), "callbacks", "there is no early_stoping; did you mean 'early_stopping'?", "callbacks=[early_stopping,csv_log]"),
    (("callbacks.csv_log.name=x",), "callbacks.csv_log.name", "csv_log is not chosen", "callbacks=[csv_log] callbacks.csv_log.name=x"),
    (("+data=digits",), "+data", "is there already; it is changed without the +", "data=digits"),
    (("optimizer@x=adam",), "optimizer@x=adam", "Could not override 'optimizer@x'", ""),
    # values
    (("model.layer_sizes=[512,-5]",), "model.layer_sizes[1]", "got -5, expected a whole number of at least 1", "model.layer_sizes=[512,512]"),
    (("optimizer.schedule=cosine",), "optimizer.schedule", "is a group of files, which is chosen with a slash", "optimizer/schedule=cosine"),
    (("model=sequential", "model.layers=[]"), "model.layers", "got [], expected at least one entry", "'model.layers=[Flatten,{Dense:{units:512,activation:relu}},{Dense:{units:classes,activation:${loss.output_activation}}}]'"),
    (("model.name=cnn",), "model.name", "got cnn, expected mlp or sequential", "model.name=mlp"),
    (("++x=1",), "x", "no such key; known: batch_size, ", "~x"),
    (("~epochs",), "epochs", "is missing", "+epochs=5"),
    (("~model.name",), "model.name", "is missing", "+model.name=mlp"),
    (("seed=???",), "seed", "is not set, expected a value", "seed=0"),
    (("epochs=${epochs}",), "epochs", "", "epochs=5"),
    (("tracking.uri=mlruns",), "tracking.uri", "is no tracking store", "tracking=offline"),
    (("callbacks=early_stopping",), "callbacks.early_stopping.monitor", "got val_loss, but no validation set is held out", "data.validation_size=0.1"),
    (("hydra.run.dir=null",), "hydra.run.dir", "got null, expected the name of a folder", "hydra.run.dir=mlruns/outputs/mine"),
    (("hydra.run.dir=[1]",), "hydra.run.dir", "got [1], expected the name of a folder", "hydra.run.dir=mlruns/outputs/mine"),
    (("hydra.run.dir=",), "hydra.run.dir", "got '', expected the name of a folder", "hydra.run.dir=mlruns/outputs/mine"),
    (("hydra.sweep.dir=''",), "hydra.sweep.dir", "got '', expected the name of a folder", "hydra.sweep.dir=mlruns/multirun/mine"),
    (("hydra.job.chdir=x",), "hydra.job.chdir", "Value 'x' is not a valid bool", ""),
    (("--config-name", "compare", "hydra.run.dir=null"), "hydra.run.dir", "got null, expected the name of a folder", "hydra.run.dir=."),
    (("hydra.output_subdir=a/../..",), "hydra.output_subdir", "got a/../.., expected the name of a folder", "hydra.output_subdir=.hydra"),
    (("hydra.output_subdir=/tmp",), "hydra.output_subdir", "got /tmp, expected the name of a folder", "hydra.output_subdir=.hydra"),
    (("hydra.output_subdir=checkpoints",), "hydra.output_subdir", "got checkpoints, expected the name of a folder", "hydra.output_subdir=.hydra"),
    (("hydra.output_subdir=" + "/".join(25 * [200 * "a"]),), "hydra.output_subdir", "expected the name of a folder", "hydra.output_subdir=.hydra"),
    (("hydra.output_subdir=a/b",), "hydra.output_subdir", "got a/b, expected the name of a folder", "hydra.output_subdir=.hydra"),
    (("hydra.output_subdir=.",), "hydra.output_subdir", "got ., expected the name of a folder", "hydra.output_subdir=.hydra"),
    # the command
    (("--config-name", "confg"), "--config-name", "there is no 'confg'; did you mean 'config'?", "--config-name config"),
    (("--config-dir", "nope"), "--config-dir", "there is no folder nope", ""),
    (("--config-path", "mine"), "--config-path", "is not supported; --config-dir adds a folder", ""),
    (("hydra.searchpath=[file:///tmp]",), "hydra.searchpath", "is not supported; --config-dir adds a folder", ""),
    (("hydra.job.chdir=true",), "hydra.job.chdir", "got true, but commands stay in the folder", "hydra.job.chdir=false"),
    (("hydra.job.num=abc",), "hydra.job.num", "there is no such key", ""),
    (("--experimental-rerun", "x"), "--experimental-rerun", "is not supported, as it would run code from that file", ""),
]  # fmt: skip


@pytest.mark.usefixtures("_in_process")
@pytest.mark.parametrize(
    ("argv", "where", "what", "remedy"), REFUSALS, ids=lambda item: " ".join(item) if isinstance(item, tuple) else ""
)
def test_a_refusal_names_the_key_and_its_remedy_works(
    argv: tuple[str, ...], where: str, what: str, remedy: str
) -> None:
    [problem] = explained(*argv)
    assert (problem.where, problem.remedy) == (where, remedy)
    assert what in problem.what
    if remedy:
        after = explained(*corrected(argv, problem))
        assert [left for left in after if left.where == problem.where and left.what == problem.what] == []
        assert [left for left in after if "there is no such key" in left.what or "cannot be read" in left.what] == []


MEANT = [
    (("epochs", "5"), "epochs 5", "epochs=5"),
    (("epochs", "=", "5"), "epochs = 5", "epochs=5"),
    (("epochs", "=5"), "epochs =5", "epochs=5"),
    (("epochs:5",), "epochs:5", "epochs=5"),
    (("epochs=5,", "optimizer=adam"), "epochs=5,", "epochs=5"),
    (("model.layer_sizes=[256,", "128]"), "model.layer_sizes=[256, 128]", "'model.layer_sizes=[256, 128]'"),
    (("tracking.experiment=é",), "tracking.experiment=é", "\"tracking.experiment='é'\""),
    (("--config-name", "compare", "filter=accuracy>0.1"), "filter=accuracy>0.1", "\"filter='accuracy>0.1'\""),
    (("=",), "=", ""),
    (("5=epochs",), "5=epochs", ""),
    (("--epochs", "5"), "--epochs", "epochs=5"),
    (("--epochs=5",), "--epochs=5", "epochs=5"),
    (("--verbose",), "--verbose", ""),
    (("callback=early_stopping", "data.validation_size=9"), "callback", "callbacks=early_stopping"),
    (("experiments=debug",), "experiments", "experiment=debug"),
    (("callbacks=none",), "callbacks", "callbacks=[]"),
    (("callbacks=csv_log,best_weights",), "callbacks", "callbacks=[csv_log,best_weights]"),
    (("optimizer.lr=0.1",), "optimizer.lr", "optimizer.learning_rate=0.1"),
    (("lr=0.1",), "lr", "optimizer.learning_rate=0.1"),
    (("loss=mse",), "loss", "loss=mean_squared_error"),
    (("data.scale=0",), "data.scale", "data.scale=255.0"),
    (("optimizer.name=adam",), "optimizer.name", "optimizer=adam"),
    (("data.name=digits",), "data.name", "data=digits"),
]


@pytest.mark.usefixtures("_in_process")
@pytest.mark.parametrize(("argv", "where", "remedy"), MEANT, ids=str)
def test_what_was_meant_is_offered_and_works(argv: tuple[str, ...], where: str, remedy: str) -> None:
    [problem] = explained(*argv)
    assert (problem.where, problem.remedy) == (where, remedy)
    assert not any(hint in problem.what for hint in ("_dummy", "expecting {"))
    options = argv[:2] if "--config-name" in argv else ()
    validated = ["data.validation_size=9"] * ("callbacks" in remedy)
    assert explained(*options, *shlex.split(remedy), *validated) == []


FILES = {
    "latin_1": ("# é".encode("latin-1"), "is not text in UTF-8: byte 0xe9"),
    "utf_16": ("epochs: 3\n".encode("utf-16"), "is not text in UTF-8: byte 0xff"),
    "text": (b"# @package _global_\njust text", "is a single value, expected a mapping of keys to values"),
    "number_as_key": (b"# @package _global_\n3: 4\n", "has the key 3, expected names of settings"),
    "scalar": (b"42\n", "is a single value, expected a mapping of keys to values"),
    "listed": (b"- 1\n", "is a list, expected a mapping"),
    "contains_itself": (b"a: &a [*a]\n", "is nested more than 100 levels deep, or contains itself"),
    "deep_lists": (b"a: " + 3000 * b"[" + 3000 * b"]", "is nested more than 100 levels deep"),
    "deep_mappings": (b"".join(b" " * n + b"a:\n" for n in range(300)), "is nested more than 100 levels deep"),
    "bomb": (
        b"a0: &a0 [x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 9)),
        "expected at most 100000",
    ),
    "digits": (b"epochs: " + 5000 * b"9", "Exceeds the limit (4300 digits)"),
    "hexadecimal": (b"epochs: 0x" + 5000 * b"f", "epochs holds a whole number of more than 64 bits"),
    "of_a_list": (b"hydra: {a: [1, 0x" + 5000 * b"f" + b"]}", "hydra.a[1] holds a whole number of more than 64 bits"),
    "key": (b"a: {? 0x" + 5000 * b"f" + b" : 1}", "a holds a whole number of more than 64 bits"),
    "header": (b"# @package a b c\n", "Too many components in '@package a b c'"),
    "unfinished": (b"epochs: ${\n", "no viable alternative"),
    "twice": (b"epochs: 1\nepochs: 2\n", "found duplicate key epochs"),
}


@pytest.mark.usefixtures("_in_process")
@pytest.mark.parametrize("name", ["scalar", "unfinished", "twice"])
def test_a_broken_file_of_a_group_hides_no_other(name: str, tmp_path: Path) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "broken.yaml").write_bytes(FILES[name][0])
    [problem] = explained("--config-dir", "own", "model=sequential", "model.layer_sizes=[64]")
    assert problem.remedy == "model=mlp model.layer_sizes=[64]"


@pytest.mark.usefixtures("_in_process")
@pytest.mark.parametrize("header", ["# @package _global_\n", ""])
def test_a_key_of_a_preset_is_one_of_the_top_level(header: str, tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(f"{header}seed: 3\n")
    [problem] = explained("--config-dir", "own", "experiment.seed=1")
    assert (problem.what, problem.remedy) == ("there is no such key; did you mean 'seed'?", "seed=1")


@pytest.mark.usefixtures("_in_process")
@pytest.mark.parametrize("name", FILES)
def test_a_config_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    file = tmp_path / "own" / "experiment" / f"{name}.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(FILES[name][0])
    [problem] = explained("--config-dir", "own", f"experiment={name}")
    assert problem.where == str(file)
    assert FILES[name][1] in problem.what


@pytest.mark.usefixtures("_in_process")
@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("epochs: 3\n", "experiment", "has to start with the line '# @package _global_'"),
        ("# @package _global_\ndefaults: [mine]\n", "experiment=mine", "choose each other in a circle"),
        (
            "defaults: {data: digits}\n",
            "experiment=mine",
            "Invalid defaults list in 'experiment/mine', defaults must be",
        ),
        ("defaults:\n", "experiment=mine", "Invalid defaults list in 'experiment/mine', defaults must be a list"),
        ("defaults: [3]\n", "experiment=mine", "Unsupported type in defaults : int"),
        ("# @package _global_\ntrust: [json]\n", "trust", "a config file trusts json, but a package is code"),
    ],
)
def test_a_preset_that_cannot_be_used_is_refused(text: str, where: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
    [problem] = explained("--config-dir", "own", "experiment=mine")
    assert problem.where == where
    assert what in problem.what


@pytest.mark.usefixtures("_in_process")
def test_a_package_is_trusted_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\ntrust: [json]\n")
    assert explained("--config-dir", "own", "experiment=mine", "trust=[json]") == []
    assert explained("trust=[json,csv]") == []


@pytest.mark.parametrize("option", [(), ("-m", "seed=0,1")], ids=["run", "sweep"])
def test_a_preset_cannot_pretend_that_a_package_was_trusted_on_the_command_line(
    option: tuple[str, ...], run_cli: RunCli, tmp_path: Path, without_tensorflow: str
) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    pretended = "hydra: {overrides: {task: ['trust=[json]'], hydra: ['trust=[json]']}}"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(f"# @package _global_\ntrust: [json]\n{pretended}\n")
    words = ("--config-dir", "own", "experiment=mine", "data=digits", *option)
    done = run_cli(*words, PYTHONPATH=without_tensorflow)
    assert done.returncode == 2, done.stderr
    assert "error: trust: a config file trusts json, but a package is code" in done.stderr


@pytest.mark.usefixtures("_in_process")
def test_tags_may_have_any_name() -> None:
    assert explained("+tracking.tags.module=x", "+tracking.tags.class_name=y") == []


@pytest.mark.usefixtures("_in_process")
def test_files_of_ones_own_count_before_ours_and_those_of_the_last_folder_first(tmp_path: Path) -> None:
    for folder, epochs in (("a", 0), ("b", -1)):
        (tmp_path / folder / "experiment").mkdir(parents=True)
        (tmp_path / folder / "experiment" / "debug.yaml").write_text(f"# @package _global_\nepochs: {epochs}\n")
    (tmp_path / "a" / "data").mkdir()
    (tmp_path / "a" / "data" / "digits.yaml").write_text("name: digits\nscale: 0\n")
    found = explained("--config-dir", "a", "--config-dir", "b", "experiment=debug", "data=digits")
    assert [(problem.where, problem.what.partition(",")[0]) for problem in found] == [
        ("data.scale", "got 0"), ("data.path", "is missing; add it"), ("data.validation_size", "is missing; add it"),
        ("data.limit", "is missing; add it"), ("epochs", "got -1"),
    ]  # fmt: skip


@pytest.mark.usefixtures("_in_process")
def test_a_file_of_ones_own_takes_over_the_keys_of_another(tmp_path: Path) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "tiny.yaml").write_text("defaults: [mlp]\nlayer_sizes: [8]\n")
    assert explained("--config-dir", "own", "model=tiny") == []


@pytest.mark.usefixtures("_in_process")
def test_a_main_config_that_replaces_ours_with_a_part_of_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.yaml").write_text("epochs: 3\n")
    [problem] = explained("--config-dir", "own")
    assert problem.where == str(tmp_path / "own" / "config.yaml")
    assert "has no list of defaults" in problem.what


@pytest.mark.usefixtures("_in_process")
def test_a_command_without_problems_has_none() -> None:
    assert explained("optimizer=adam", "epochs=3", "callbacks=best_weights", "data.validation_size=9") == []


SEVERAL = ("epochs=[", "epohcs=3", "optimizer=adma", "batch_size=0", "model.layer_sizes=[512,-5]")
THROUGH_THE_SHELL = [
    (("epochs=0",), 1),
    (SEVERAL, 5),
    (("experiment=null", "epochs=0"), 2),
    (("-m", "optimizer=rmsprop,adma", "epohcs=1,2", "x=["), 3),
    (("-m", "optimizer=rmsprop,adma"), 1),
    (("--config-name", "confg"), 1),
    (("--config-dir", "nope"), 1),
    (("--cfg", "job", "-m"), 1),
    (("--cfg", "job", "epohcs=3"), 1),
    (("hydra.run.dir=${nope}",), 1),
]


@pytest.mark.parametrize(
    ("argv", "count"), THROUGH_THE_SHELL, ids=lambda item: " ".join(item) if isinstance(item, tuple) else ""
)
def test_a_refused_command_says_why_and_leaves_nothing(
    argv: tuple[str, ...], count: int, run_cli: RunCli, data_folder: Path, tmp_path: Path, without_tensorflow: str
) -> None:
    done = run_cli(*argv, EXPERIMENTS_DATA_DIR=str(data_folder), PYTHONPATH=without_tensorflow)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    lines = done.stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == count, done.stderr
    assert all(line.startswith(("error: ", "       try  ")) for line in lines), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_preset_that_is_no_yaml_is_refused(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("epochs: [\n")
    done = run_cli("--config-dir", ".", "experiment=mine", "epohcs=3", "tracking=off", "data=digits")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f'in "{tmp_path}/experiment/mine.yaml", line 2' in done.stderr
    assert done.stderr.count("error: ") == 2  # data=digits counts all the same
    assert "       try  epochs=3" in done.stderr


def test_brackets_are_counted_before_hydra_parses_them(run_cli: RunCli) -> None:
    """Its parser needs a minute for these."""
    done = run_cli("tracking=off", "data=digits", "metrics=" + 60_000 * "[")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: metrics: its brackets are nested more than 100 levels deep\n"
    for text in ("note='" + 200 * "[" + "'", 'note="' + 200 * "[" + '"', "metrics=[" + 200 * "[accuracy]," + "auc]"):
        assert not nested_too_deeply(text)


def test_a_preset_of_ones_own_is_checked(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nepohcs: 3\n")
    done = run_cli("--config-dir", ".", "experiment=mine", "tracking=off", "data=digits")
    assert (done.returncode, done.stderr) == (
        2, "error: epohcs: no such key; did you mean 'epochs'?\n       try  ~epohcs epochs=3\n"
    )  # fmt: skip


@pytest.mark.parametrize("argv", ["--help", "--cfg job", "--info defaults", "-sc install=bash", "--version"])
def test_what_only_informs_is_quick_and_leaves_nothing(
    argv: str, run_cli: RunCli, tmp_path: Path, without_tensorflow: str
) -> None:
    done = run_cli(*argv.split(), PYTHONPATH=without_tensorflow)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", ["--cfg job", "--cfg hydra", "--info config", "--info all", "--help"])
def test_what_only_informs_shows_no_password(argv: str, run_cli: RunCli) -> None:
    done = run_cli(*argv.split(), "tracking.uri=http://me:secret@host:5/")
    assert done.returncode == 0
    assert "//***@host:5" in done.stdout
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("columns", ["0", "00", "1", "²", "9" * 5000, "x"])
def test_a_width_that_cannot_be_is_not_taken(columns: str, run_cli: RunCli) -> None:
    done = run_cli(module="compare", COLUMNS=columns, LINES=columns)
    assert done.returncode == 2
    assert done.stderr.startswith("error: sweep: nothing is recorded in ")


@pytest.mark.parametrize(
    "start", [[sys.executable, "-m", "experiments"], [Path(sys.executable).with_name("experiments")]]
)
def test_commands_have_one_name(start: list[Any], tmp_path: Path) -> None:
    """The script that is installed, and the package."""

    def call(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*start, *words], cwd=tmp_path, env=environment(**more), capture_output=True, text=True, check=False
        )

    assert call().stdout == call("--help").stdout == f"{help_text()}\n"
    done = call("rum", "epochs=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: rum: there is no such command; did you mean 'run'?\n       try  experiments run epochs=3\n"
    )
    assert "known: run, compare," in call("dance").stderr
    done = call("run", "epochs=0")
    assert (done.returncode, done.stderr) == (
        2,
        "error: epochs: got 0, expected a whole number of at least 1\n       try  epochs=5\n",
    )
    done = call("compare")
    assert (done.returncode, done.stdout) == (2, "")
    assert "sweep: nothing is recorded in" in done.stderr
    complete = ("-sc", "query=bash")
    assert call(*complete, COMP_LINE="experiments re").stdout.split() == ["reproduce"]
    assert "optimizer=adam" in call(*complete, COMP_LINE="experiments run optimizer=").stdout.split()
    assert "tracking." in call(*complete, COMP_LINE="experiments compare tr").stdout.split()
    assert "hydra_bash_completion" in call("-sc", "install=bash").stdout
    by_hand = call("run", *complete)
    assert (by_hand.returncode, by_hand.stdout) == (2, "")
    assert by_hand.stderr.startswith("error: -sc: query=bash is how the shell asks")


@pytest.mark.parametrize(
    ("unbuffered", "said"), [("", ""), ("1", "error: broken pipe: the program that reads the output has ended\n")]
)
def test_a_reader_who_has_enough_gets_no_traceback(unbuffered: str, said: str) -> None:
    """As ``head -1`` does: the pipe is closed while the command still writes."""
    command, env = [sys.executable, "-m", "experiments.run", "--help"], {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == said


@pytest.mark.parametrize(
    ("redirection", "arguments", "status", "said"),
    [
        ("2>&-", "run epochs=0", 2, ""),
        ("2>/dev/full", "run epochs=0", 2, ""),
        (">/dev/full", "run --help", 1, "error: the output cannot be written: No space left on device\n"),
        ("<&- >&-", "run -m data=digits data.limit=60 epochs=1 model.layer_sizes=[4] seed=0,1 tracking=off", 0, ""),
    ],
)
def test_closed_and_full_streams(redirection: str, arguments: str, status: int, said: str, tmp_path: Path) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m experiments.{arguments} {redirection}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)


def test_ctrl_c_during_the_first_imports(tmp_path: Path) -> None:
    """A stand-in for a package that is imported first sends it."""
    (tmp_path / "hydra.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    command, env = [sys.executable, "-m", "experiments.run"], {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_an_error_while_cleaning_up_after_ctrl_c_is_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    def parse() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            _ = argparse.Namespace().save_nargs

    with pytest.raises(Ended) as ended, exit_status():
        parse()
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_the_package_names_its_commands() -> None:
    done = subprocess.run([sys.executable, "-m", "experiments"], capture_output=True, text=True, check=True)
    for name in ("run", "compare", "predict", "reproduce", "promote"):
        assert f"experiments {name} " in done.stdout


@pytest.mark.parametrize("name", ["predict", "compare", "promote", "reproduce"])
def test_help_of_a_command_describes_it_and_fits(name: str) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose(name, return_hydra_config=True)
    shown = f"{composed.hydra.help.header}{composed.hydra.help.footer}"
    assert f"python -m experiments.{name}" in shown
    assert "Exit status: 0" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "APP_CONFIG_GROUPS" not in composed.hydra.help.template


def test_a_folder_whose_name_hydra_would_resolve_is_refused(run_cli: RunCli, tmp_path: Path) -> None:
    folder = tmp_path / "${seed}"
    folder.mkdir()
    for sweep in ([], ["-m"]):
        done = run_cli(*sweep, "data=digits", cwd=folder)
        assert done.returncode == 2
        assert "Hydra takes ${ in the name of a folder for a reference to a key" in done.stderr
    assert (os.listdir(tmp_path), os.listdir(folder)) == (["${seed}"], [])


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("predict", "-m tracking.uri=http://user:secret@127.0.0.1:1", "error: -m: predict has no sweeps"),
        ("compare", "hydra.mode=MULTIRUN", "error: -m: compare has no sweeps"),
        (
            "run",
            "-m hydra/sweeper=basic tracking.uri=http://user:secret@127.0.0.1:1",
            "error: hydra/sweeper: would have",
        ),
        (
            "run",
            "data=digits hydra.run.dir=/dev/null",
            "error: hydra.run.dir: /dev/null cannot be written (File exists)",
        ),
        (
            "compare",
            "hydra.output_subdir=.. hydra.run.dir=made",
            "error: hydra.run.dir: got made, but compare writes no files of Hydra's\n       try  hydra.run.dir=.\n"
            "error: hydra.output_subdir: got .., but compare writes no files of Hydra's\n",
        ),
        ("run", "data=digits hydra.output_subdir=..", "error: hydra.output_subdir: got .., expected the name of"),
        ("run", "-m data=digits hydra.sweep.dir=/dev/null/x", "error: hydra.sweep.dir: /dev/null/x cannot be written"),
        ("run", "data=npz data.path=empty.npz", "error: "),
        (
            "compare",
            "report=r.pdf",
            "error: report: got r.pdf, but a report is an HTML page\n       try  report=r.html",
        ),
    ],
)
def test_a_refusal_leaves_no_folder_and_no_password(
    module: str, arguments: str, said: str, run_cli: RunCli, tmp_path: Path
) -> None:
    (tmp_path / "empty.npz").touch()
    done = run_cli(*arguments.split(), module=module)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert "secret" not in done.stderr
    assert os.listdir(tmp_path) == ["empty.npz"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
def test_predict_refuses_what_is_no_id_without_mlflow(run_cli: RunCli, tmp_path: Path, without_tensorflow: str) -> None:
    from experiments.tracking.client import open_store

    open_store(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    done = run_cli("run=nop", module="predict", PYTHONPATH=without_tensorflow)
    what = "there is no run 'nop' in this store; give at least 4 characters of its id"
    assert done.stderr == f"error: run: {what}\n       try  run=latest\n"
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("name", "key"), [("predict", "run"), ("compare", "sweep"), ("promote", "run"), ("reproduce", "run")]
)
def test_where_nothing_is_recorded(
    name: str, key: str, run_cli: RunCli, tmp_path: Path, without_tensorflow: str
) -> None:
    done = run_cli(module=name, PYTHONPATH=without_tensorflow)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {key}: nothing is recorded in ")
    assert not done.stdout
    assert "train something first" in done.stderr
    assert not list(tmp_path.iterdir())


def test_predict_refuses_missing_images_without_mlflow(
    run_cli: RunCli, without_tensorflow: str, tmp_path: Path
) -> None:
    done = run_cli("images=[a.png,b.png]", module="predict", PYTHONPATH=without_tensorflow)
    missing = "error: images: {}.png: there is no such file in the current folder, {}\n"
    assert done.stderr == missing.format("a", tmp_path) + missing.format("b", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


def test_help_names_groups_and_keys(run_cli: RunCli) -> None:
    shown = run_cli("--help").stdout
    assert "optimizer/schedule: constant, cosine" in shown
    assert "batch_size: 128" in shown


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_command_ends_with_130(name: str, run_cli: RunCli, tmp_path: Path) -> None:
    """The signal comes while TensorFlow is imported: a stand-in for it sends it."""
    folder = tmp_path / "stand-in"
    folder.mkdir()
    stand_in(folder, "keras", f"import os, signal, time\nos.kill(os.getpid(), signal.{name})\ntime.sleep(9)\n")
    done = run_cli("data=digits", "tracking=off", PYTHONPATH=str(folder))
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_an_error_of_the_check_itself_is_not_swallowed(run_cli: RunCli, tmp_path: Path) -> None:
    folder = tmp_path / "stand-in"
    folder.mkdir()
    folder.joinpath("sitecustomize.py").write_text(
        "import experiments.data.sources as sources\nsources.locate = None\n"
    )
    done = run_cli("data=digits", "tracking=off", PYTHONPATH=str(folder))
    assert done.returncode == 1
    assert "TypeError: 'NoneType' object is not callable" in done.stderr
    assert os.listdir(tmp_path) == ["stand-in"]


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("Unknown model status: \x1b[2J"),
        OperationalError("SELECT 1", {}, Exception("no such table: http://u:pw@h/x")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_records_that_mlflow_cannot_read_are_refused(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Ended) as ended, exit_status():
        raise error
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: tracking.uri: the records cannot be read or changed: ")
    assert not {"\x1b", "pw", "SELECT"} & set(said.replace("@", " ").replace(":", " ").split())
