"""The command line as a user meets it: what is printed, and the exit code."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from installing import Install

import mtlkit
from mtlkit import api, cli, help, launch
from mtlkit.errors import ConfigError, RunError
from mtlkit.settings import Config

Output = pytest.CaptureFixture[str]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been run."""
    calls: list[Any] = []

    def note(name: str, answer: Any) -> Any:
        def noting(*args: Any, **options: Any) -> Any:
            calls.append((name, *args, options) if options else (name, *args))
            return answer

        return noting

    monkeypatch.setattr(api, "run_config", note("run", {}))
    monkeypatch.setattr(api, "dry_run", note("dry", None))
    monkeypatch.setattr(api, "evaluate_run", note("evaluate", {"seg/miou": 0.5, "loss": 1.25}))
    monkeypatch.setattr(api, "predict_files", note("predict", 2))
    monkeypatch.setattr(launch, "launch", note("launch", 7))
    monkeypatch.setattr(launch, "check_world", note("check", None))
    return calls


def python(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.usefixtures("toy")
def test_train_runs_the_configuration(asked: list[Any]) -> None:
    assert cli.main(["train", "--tasks", "seg", "--epochs", "3"]) == 0
    (check, (name, config)) = asked
    assert (check, name) == (("check",), "run")
    assert isinstance(config, Config)
    assert config.settings.epochs == 3


@pytest.mark.usefixtures("toy")
def test_a_dry_run_trains_nothing(asked: list[Any]) -> None:
    assert cli.main(["train", "--tasks", "seg", "--dry-run"]) == 0
    assert [call[0] for call in asked] == ["dry"]


@pytest.mark.usefixtures("toy")
def test_print_config_prints_what_config_reads(
    asked: list[Any], capsys: Output, tmp_path: Path
) -> None:
    line = ["train", "--tasks", "seg", "--balancer", "cagrad", "--lr", "1e-5"]
    assert cli.main([*line, "--print-config"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["balancer"] == {"name": "cagrad", "c": 0.4, "max_norm": 1.0}
    (tmp_path / "run.yaml").write_text(text)
    assert cli.main(["train", "--config", str(tmp_path / "run.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == text
    assert asked == []


@pytest.mark.usefixtures("toy")
def test_several_processes_are_launched_after_the_configuration_was_checked(
    asked: list[Any], capsys: Output
) -> None:
    line = ["train", "--num-processes", "2", "--tasks", "seg", "--compile"]
    assert cli.main(line) == 7
    assert asked == [("launch", ["--tasks=seg", "--compile"], 2)]
    assert cli.main([*line, "--epochs", "x"]) == 2
    assert len(asked) == 1
    assert capsys.readouterr().err.splitlines() == [
        "mtlkit train: error: --epochs expects a whole number, but got 'x'"
    ]
    assert cli.main(["train", "--num-processes=1", "--tasks", "seg"]) == 0
    assert asked[-1][0] == "run"


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--epoch 3", "unrecognized arguments: --epoch 3; did you mean --epochs?"),
        (
            "--num-processes",
            "--num-processes expects a whole number above 0, but no value was given",
        ),
        ("--num-processes 0", "--num-processes expects a whole number above 0, but got '0'"),
        ("--num_processes x", "--num-processes expects a whole number above 0, but got 'x'"),
        ("--dry-run seg", "--dry-run takes no value, but got 'seg'"),
        ("seg --dry-run", "unrecognized arguments: seg; options begin with --"),
        (
            "--balancer cagrd",
            "unknown balancer 'cagrd'; did you mean 'cagrad'?\n  available: cagrad, equal, fixed",
        ),
    ],
)
def test_a_mistake_is_printed_without_a_traceback(
    capsys: Output, asked: list[Any], line: str, message: str
) -> None:
    assert cli.main(["train", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"mtlkit train: error: {message}\n")
    assert asked == []


def test_other_processes_than_the_first_say_nothing(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli.main(["train", "--epoch", "3"]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RunError("the loss is nan"), 1, "mtlkit train: error: the loss is nan\n"),
        (ConfigError("no such folder"), 2, "mtlkit train: error: no such folder\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_each_outcome_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, error: BaseException, code: int, message: str
) -> None:
    def fail(config: Config) -> None:
        raise error

    monkeypatch.setattr(api, "run_config", fail)
    assert cli.main(["train", "--tasks", "seg"]) == code
    assert capsys.readouterr().err == message


def test_an_unknown_command_is_named(capsys: Output) -> None:
    assert cli.main(["trian"]) == 2
    expected = "mtlkit: error: unknown command 'trian'; did you mean 'train'?\n"
    assert capsys.readouterr().err == expected


def test_evaluate_prints_a_table(asked: list[Any], capsys: Output) -> None:
    assert cli.main(["evaluate", "runs/x", "--split", "val", "--batch-size", "4"]) == 0
    assert asked == [("evaluate", Path("runs/x"), "val", 4, None, {"full_size": False})]
    assert capsys.readouterr().out == "seg/miou  0.5000\nloss      1.2500\n"


def test_evaluate_of_an_empty_split_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(api, "evaluate_run", lambda *args, **options: {})
    assert cli.main(["evaluate", "runs/x"]) == 2
    assert capsys.readouterr().err == (
        "mtlkit evaluate: error: the data of runs/x has no samples in its test split\n"
    )


def test_predict_fails_when_a_file_failed(asked: list[Any]) -> None:
    assert cli.main(["predict", "runs/x", "a.png", "b.png", "--output", "out"]) == 1
    images = [Path("a.png"), Path("b.png")]
    usual = {"precision": "no", "channels_last": True, "compile": False}
    assert asked == [("predict", Path("runs/x"), images, Path("out"), 16, usual)]


def test_predict_takes_what_makes_training_fast(asked: list[Any]) -> None:
    options = "--precision bf16 --channels-last false --compile --batch-size 64"
    assert cli.main(["predict", "runs/x", "a.png", "--output", "out", *options.split()]) == 1
    expected = {"precision": "bf16", "channels_last": False, "compile": True}
    assert asked[0][-2:] == (64, expected)


def test_evaluate_can_compare_in_the_pictures_own_pixels(asked: list[Any]) -> None:
    assert cli.main(["evaluate", "runs/x", "--full-size"]) == 0
    assert asked[0][-1] == {"full_size": True}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("evaluate", "the following arguments are required: RUN"),
        ("evaluate r --split tset", None),
        (
            "evaluate r --batch-size 0",
            "argument --batch-size: expects a whole number above 0, but got '0'",
        ),
        ("predict r a.png", "the following arguments are required: --output"),
        ("predict r --output o", "the following arguments are required: IMAGE"),
        (
            "predict r a.png --output o --channels-last a.png",
            "argument --channels-last: expects true or false, but got 'a.png'",
        ),
        ("predict r a.png --output o --precision fp8", None),
        ("evaluate r --spilt test", "unrecognized arguments: --spilt test"),
    ],
)
def test_a_mistake_in_a_small_command_is_one_line(
    capsys: Output, asked: list[Any], line: str, message: str | None
) -> None:
    verb, *rest = line.split()
    assert cli.main([verb, *rest]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mtlkit {verb}: error: ")
    assert err.count("\n") == 1
    assert message is None or err == f"mtlkit {verb}: error: {message}\n"
    assert asked == []


@pytest.mark.usefixtures("toy")
def test_list_shows_all_kinds_or_one(capsys: Output) -> None:
    assert cli.main(["list", "balancers"]) == 0
    one = capsys.readouterr().out
    assert one == (
        "balancers\n"
        "  cagrad  Average gradient, moved toward the worst-off task.\n"
        "  equal   The plain sum.\n"
        "  fixed   Constant weights.\n"
    )
    assert cli.main(["list", "balancer"]) == 0
    assert capsys.readouterr().out == one
    assert cli.main(["list"]) == 0
    everything = capsys.readouterr().out
    assert one in everything
    assert "oxford-pets" in everything


def test_list_of_an_unknown_kind_is_one_clear_line(capsys: Output) -> None:
    assert cli.main(["list", "ballancer"]) == 2
    assert capsys.readouterr().err == (
        "mtlkit list: error: unknown kind 'ballancer'; did you mean 'balancer'?\n"
        "  available: task, head, backbone, balancer, dataset\n"
    )


def test_list_says_when_nothing_is_installed(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTLKIT_DISABLE_PLUGINS", "mtlkit")
    assert cli.main(["list", "heads"]) == 0
    assert capsys.readouterr().out == "heads\n  none; no installed plugin brings a head\n"


@pytest.mark.usefixtures("toy")
def test_show_tells_options_defaults_reference_and_who_brings_it(capsys: Output) -> None:
    assert cli.main(["show", "balancers", "cagrad"]) == 0
    assert capsys.readouterr().out == (
        "balancer cagrad: Average gradient, moved toward the worst-off task.\n"
        "\n"
        "Options:\n"
        "  --balancer.c X         radius, in [0, 1) (default 0.4)\n"
        "  --balancer.max-norm X  largest norm (default 1.0)\n"
        "\n"
        "Reference:\n"
        "  Liu et al., NeurIPS 2021, arXiv 2110.14048.\n"
        "\n"
        "From plugin 'toy' (mtlkit-toy 0.2), toy_parts:CAGrad\n"
    )


@pytest.mark.usefixtures("toy")
def test_show_of_an_unknown_name_says_what_there_is(capsys: Output) -> None:
    assert cli.main(["show", "head", "linaer"]) == 2
    assert capsys.readouterr().err == (
        "mtlkit show: error: unknown head 'linaer'; did you mean 'linear'?\n"
        "  available: dense, linear\n"
    )


def test_plugins_lists_them_their_parts_and_their_problems(
    install: Install, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTLKIT_DISABLE_PLUGINS", "mtlkit")
    hooks = (
        "import mtlkit\n@mtlkit.hookimpl\ndef mtlkit_heads(): return {'a': 'gone:A'}\n"
        "@mtlkit.hookimpl\ndef mtlkit_run_started(): ..."
    )
    install("mtlkit-mine", hooks)
    install("mtlkit-broken", "import not_installed_lib")
    problem = (
        "plugin 'broken' (mtlkit-broken 0.2) did not load: No module named 'not_installed_lib'"
    )
    assert cli.main(["plugins"]) == 0
    expected = ["mine (mtlkit-mine 0.2)", "  heads  a", "  hooks  mtlkit_run_started"]
    assert capsys.readouterr().out.splitlines() == [*expected, f"problem: {problem}"]
    assert cli.main(["plugins", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["plugins"][0]["components"] == {"head": ["a"]}
    assert tree["problems"] == [problem]
    assert cli.main(["plugins", "--check"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "problem: head 'a' of plugin 'mine' (mtlkit-mine 0.2) cannot be loaded: "
        "No module named 'gone'"
    )


@pytest.mark.usefixtures("toy")
def test_plugins_check_is_content_with_sound_plugins(capsys: Output) -> None:
    assert cli.main(["plugins", "--check"]) == 0
    assert "problem" not in capsys.readouterr().out


def test_a_strict_command_ends_with_the_plugins_problem(
    install: Install, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("mtlkit-broken", "1 / 0")
    monkeypatch.setenv("MTLKIT_STRICT_PLUGINS", "1")
    for verb in (["plugins"], ["list"], ["train"], ["show", "balancer", "equal"]):
        assert cli.main(verb) == 3
        assert capsys.readouterr().err == (
            f"mtlkit {verb[0]}: error: plugin 'broken' (mtlkit-broken 0.2) did not load: "
            "ZeroDivisionError: division by zero\n"
        )


def test_no_plugins_leaves_strangers_out_and_the_environment_as_it_was(
    install: Install, capsys: Output, asked: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    install("mtlkit-broken", "1 / 0")
    with caplog.at_level(logging.WARNING):
        assert cli.main(["train", "--no-plugins", "--balancer", "mine"]) == 2
    assert "note:" not in capsys.readouterr().err + caplog.text
    assert "MTLKIT_DISABLE_PLUGINS" not in os.environ


@pytest.mark.usefixtures("toy")
def test_the_help_of_train_has_every_option_and_those_of_what_is_chosen(capsys: Output) -> None:
    assert cli.main(["train", "--balancer", "cagrad", "--tasks", "seg,b=cls", "--help"]) == 0
    text = capsys.readouterr().out
    for words in (
        "--max-steps N", "--precision {no,bf16,fp16}", "--resume [true|false|TEXT]", "--log-with",
        "--channels-last [true|false]", "(default true)", "--balancer.c X", "--tasks.b.loss",
        "--num-processes N", "oxford-pets",
    ):  # fmt: skip
        assert words in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    assert "toy_parts" not in sys.modules


@pytest.mark.parametrize("verb", ["evaluate", "predict", "list", "show", "plugins", "plugin"])
def test_every_command_has_help(capsys: Output, verb: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    assert f"usage: mtlkit {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["", "--help", "-h"])
def test_help_names_every_command(capsys: Output, line: str) -> None:
    assert cli.main(line.split()) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb}" in text for verb in help.VERBS)


def test_version_is_printed(capsys: Output) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mtlkit {mtlkit.__version__}\n"


QUICK = [
    "--help", "list", "list heads", "show backbone mtan", "plugins", "plugins --json",
    "train --help", "train --balancer dwa --backbone mtan --help", "evaluate --help",
    "plugin --help",
]  # fmt: skip


@pytest.mark.parametrize("line", QUICK)
def test_what_only_informs_imports_nothing_heavy_and_is_quick(line: str) -> None:
    code = (
        "import sys\nfrom mtlkit.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'timm', 'numpy', 'segmentation_models_pytorch', 'accelerate'}\n"
        "sys.stderr.write(str(heavy & set(sys.modules)))"
    )
    started = time.monotonic()
    done = python("-c", code, *line.split())
    assert done.stderr == "set()"
    assert done.stdout
    assert time.monotonic() - started < 5  # seconds; 0.2 on an idle machine


@pytest.mark.parametrize(
    ("words", "code", "prefix"),
    [
        (["-m", "mtlkit", "train", "--epoch", "3"], 2, "mtlkit train: error: unrecognized"),
        (["-m", "mtlkit.train", "--balancer", "cagrd"], 2, "mtlkit train: error: unknown balancer"),
        (["-m", "mtlkit", "nonsense"], 2, "mtlkit: error: unknown command"),
        (["-m", "mtlkit", "list", "heads"], 0, ""),
    ],
)
def test_the_exit_code_reaches_the_shell(words: list[str], code: int, prefix: str) -> None:
    done = python(*words)
    assert done.returncode == code
    assert done.stderr.startswith(prefix)
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m mtlkit train --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
