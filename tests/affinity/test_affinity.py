"""``mtlkit affinity``: what it prints and writes, and that it leaves training as it is."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mtlkit.checkpoint import load_tree
from mtlkit.cli import main

SMALL = [
    "--backbone", "mtan", "--backbone.width", "4", "--image-size", "32", "--batch-size", "8",
    "--data.train", "24", "--data.val", "9", "--data.test", "4", "--workers", "0",
    "--optimizer", "sgd", "--log-every", "1", "--epochs", "2",
]  # fmt: skip

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of mtlkit train that logs cosines."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    assert main(["train", *SMALL, "--conflict-every", "2", "--output", str(folder)]) == 0
    return folder


def written(folder: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((folder / "affinity.json").read_text())
    return tree


def test_training_is_what_it_would_have_been(plain: Path, tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    options = ["--conflict-every", "2", "--every", "1", "--held-out", "--lookahead", "optimizer"]
    assert main(["affinity", *SMALL, *options, "--output", str(watched)]) == 0
    trees = [load_tree(folder / "checkpoints" / "last") for folder in (watched, plain)]
    for key in ("model", "optimizer", "balancing"):
        torch.testing.assert_close(trees[0][key], trees[1][key], rtol=0, atol=0)
    assert torch.equal(*(tree["random"][0]["torch"] for tree in trees))
    tree = written(watched)
    assert [look["step"] for look in tree["looks"]] == [0, 1, 2, 3, 4, 5]
    assert (tree["held_out"], tree["step"], tree["lr"]) == (True, "optimizer", None)
    losses = [look["losses"] for look in tree["looks"]]
    assert losses[0] != losses[1]


def test_a_saved_run_is_measured_and_left_alone(
    plain: Path, tmp_path: Path, capsys: Output
) -> None:
    before = {file: file.read_bytes() for file in plain.rglob("*") if file.is_file()}
    output = tmp_path / "deep" / "answer"
    assert main(["affinity", str(plain), "--batches", "4", "--attention", "--output", str(output),
                 "--networks", "3"]) == 0  # fmt: skip
    assert {file: file.read_bytes() for file in plain.rglob("*") if file.is_file()} == before
    tree = written(output)
    assert tree["command"].startswith("mtlkit affinity ")
    assert {"versions", "platform", "commit", "device"} <= set(tree)
    assert tree["tasks"] == ["seg", "cls", "bbox"]
    assert len(tree["looks"]) == 4  # more than an epoch has
    assert tree["lr"] == tree["config"]["lr"]
    mean = torch.tensor([look["affinity"] for look in tree["looks"]]).mean(0)
    torch.testing.assert_close(torch.tensor(tree["affinity"]["mean"]), mean)
    assert all(mean.diagonal() > 0)  # a step on a task lowers its own loss
    assert list(tree["agreement"]) == ["all", "early", "middle", "late"]
    assert tree["agreement_logged"]["cosine"]["known"][0][1] == 3
    assert sorted(chain(*tree["split"]["networks"])) == ["bbox", "cls", "seg"]
    assert [block["size"] for block in tree["attention"]] == [[32, 32], [16, 16], [8, 8], [4, 4],
                                                              [2, 2]]  # fmt: skip
    for name in ("affinity.png", "attention.png"):
        with Image.open(output / name) as image:
            assert min(image.size) > 300
    out = capsys.readouterr().out
    assert tree["answer"] in out
    assert "Over training, from the run's log (3 lines):" in out
    assert "Best split into at most 3 networks: " in out
    assert "in bbox - out" in out


def test_a_saved_run_is_measured_alike_each_time(plain: Path, tmp_path: Path) -> None:
    looks = []
    for name in ("one", "two"):
        output = str(tmp_path / name)
        assert main(["affinity", str(plain), "--batches", "2", "--output", output]) == 0
        looks.append(written(tmp_path / name)["looks"])
    assert looks[0] == looks[1]


def test_without_an_output_folder_nothing_is_written(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["affinity", str(plain), "--batches", "2", "--attention"]) == 0
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("RUN --every 3", "unrecognized arguments: --every; a saved run has its own options of "
         "mtlkit train"),
        ("RUN --batch 3", "unrecognized arguments: --batch; did you mean '--batches'?; a saved run "
         "has its own options of mtlkit train"),
        ("RUN --batches 1", "--batches 1 tells nothing of noise; take 2 or more"),
        ("RUN --batches x", "--batches expects a whole number above 0, but got 'x'"),
        ("RUN --output", "--output expects a value, but none was given"),
        ("RUN --lookahead optimizer", "--lookahead optimizer needs an optimizer at work, which a "
         "saved model has not; measure while training, or leave it out"),
        ("RUN --lookahead adam", "--lookahead expects gradient or optimizer, but got 'adam'"),
        ("RUN --output RUN/config.yaml", "cannot write to the output folder RUN/config.yaml: File "
         "exists; choose another --output"),
        ("RUN/model", "RUN/model is not the folder of a run: it has no config.yaml"),
        ("--tasks seg --output x", "there is one task alone; name several by --tasks A,B,..."),
        ("--every 0", "--every expects a whole number above 0, but got '0'"),
        ("--every 6 --max-steps 6 --output x", "--every 6 looks once in 6 steps, which tells "
         "nothing of noise; take a smaller --every or train longer"),
        ("--resume RUN", "a training is measured from its start, not resumed; measure its saved "
         "model by mtlkit affinity RUN"),
        ("--backbone segnet --attention --output x", "backbone 'segnet' has no attention; leave "
         "out --attention, or name a --backbone whose tasks have masks"),
        ("--held-out 3", "--held-out takes no value, but got '3'"),
        ("--networks 0", "--networks expects a whole number above 0, but got '0'"),
        ("--num-processes 2", "--num-processes is for mtlkit train alone"),
        ("--epoch 3", "unrecognized arguments: --epoch 3; did you mean --epochs?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    plain: Path, capsys: Output, options: str, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = options.replace("RUN", str(plain)).split()
    given = words if options.startswith("RUN") else [*SMALL, *words]
    if "--backbone" in words:  # of which mtan's width is no option
        given = [*SMALL, "--backbone.width", "4", *words]
    assert main(["affinity", *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"mtlkit affinity: error: {message.replace('RUN', str(plain))}\n"
    assert not any(tmp_path.iterdir())


def test_several_processes_are_refused(plain: Path) -> None:
    from mtlkit import api
    from mtlkit.affinity import answer, runs
    from mtlkit.errors import ConfigError

    class Two:
        num_processes = 2

    assembled = api.assemble(runs.saved_config(plain))
    assembled.accelerator = Two()  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"^tasks are measured on one process; start this "
                       r"without a launcher$"):  # fmt: skip
        runs.check(assembled, answer.Wanted())


def test_held_out_images_are_those_of_val(plain: Path) -> None:
    from mtlkit import api
    from mtlkit.affinity import answer, runs
    from mtlkit.errors import ConfigError

    assembled = api.assemble(runs.saved_config(plain))
    assembled.dataset.spec = replace(assembled.dataset.spec, sizes={"train": 24, "test": 4})
    runs.check(assembled, answer.Wanted())
    with pytest.raises(
        ConfigError, match=r"^--held-out needs a val split, and this data has none$"
    ):
        runs.check(assembled, answer.Wanted(held_out=True))


def test_words_are_read_before_torch_is_imported() -> None:
    code = (
        "import sys; from mtlkit.cli import main\n"
        "assert main(['affinity', '--help']) == 0 and main(['affinity', 'x', '--networks']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        0, "mtlkit affinity: error: --networks expects a whole number above 0, but no value was "
        "given\n",
    )  # fmt: skip
    assert "mtlkit affinity RUN" in done.stdout
