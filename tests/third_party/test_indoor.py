"""A stranger's distribution: installed, used together with built-in parts, and uninstalled."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from environments import Environment, MakeEnvironment

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SMALL = ["--batch-size", "8", "--max-steps", "2", "--workers", "0", "--image-size", "64"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, because installing leaves files beside the sources."""
    copy = tmp_path_factory.mktemp("source") / "mtlkit-indoor"
    return Path(shutil.copytree(HERE / "mtlkit-indoor", copy))


@pytest.fixture(scope="module")
def installed(make_environment: MakeEnvironment, source: Path) -> Environment:
    environment = make_environment()
    environment.install(source)
    return environment


@pytest.fixture(scope="module")
def run(installed: Environment, rooms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all its parts with a built-in task and that task's built-in head."""
    folder = tmp_path_factory.mktemp("runs") / "indoor"
    done = installed.mtlkit(
        "train", "--tasks", "depth=metric-depth,seg", "--tasks.depth.far", "8",
        "--backbone", "cross-stitch", "--backbone.width", "4", "--balancer", "unit",
        "--data", "rooms", "--data.root", rooms, *SMALL, "--output", folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_its_names_are_listed_with_where_they_come_from(installed: Environment) -> None:
    plugins = json.loads(installed.mtlkit("plugins", "--json").stdout)
    assert plugins["problems"] == []
    assert plugins["plugins"][-1] == {
        "name": "indoor",
        "distribution": "mtlkit-indoor",
        "version": "1.2",
        "components": {
            "task": ["metric-depth"],
            "head": ["metres"],
            "backbone": ["cross-stitch"],
            "balancer": ["unit"],
            "dataset": ["rooms"],
        },
        "hooks": ["mtlkit_evaluated"],
    }
    checked = installed.mtlkit("plugins", "--check", MTLKIT_DISABLE_PLUGINS="mtlkit")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "cross-stitch  A tower per task" in installed.mtlkit("list", "backbones").stdout
    shown = installed.mtlkit("show", "backbone", "cross-stitch").stdout
    assert "--backbone.own X" in shown
    assert "arXiv 1604.03539" in shown
    assert "From plugin 'indoor' (mtlkit-indoor 1.2)" in shown


def test_its_own_tests_pass_where_it_is_installed(installed: Environment, source: Path) -> None:
    done = installed.run("-m", "pytest", "-q", "-W", "error", source)
    assert done.returncode == 0, done.stdout


def test_it_trains_together_with_built_in_parts(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert results["status"] == "ok"
    assert {"depth/rmse", "depth/loss", "seg/miou"} <= set(results["test"])
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["tasks"]["depth"] == {
        "name": "metric-depth", "target": None, "far": 8.0,
        "head": {"name": "metres", "start": 3.0},
    }  # fmt: skip
    assert written["tasks"]["seg"]["head"]["name"] == "dense"
    assert written["plugins"]["mtlkit-indoor"] == "1.2"


def test_its_hook_is_called(run: Path) -> None:
    rmse = json.loads((run / "results.json").read_text())["val"]["depth/rmse"]
    assert (run / "indoor-val.txt").read_text() == f"{rmse:.3f}"


def test_a_file_may_mix_its_parts_with_built_in_ones(
    installed: Environment, rooms: Path, tmp_path: Path
) -> None:
    tree = {
        "tasks": {
            "depth": {"name": "metric-depth", "head": "fpn"},
            "far": {"name": "metric-depth", "target": "depth"},
            "seg": {},
        },
        "backbone": {"name": "vgg16", "width": 4},
        "balancer": "indoor/unit",
        "data": {"name": "rooms", "root": str(rooms)},
    }
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(tree))
    options = ["--config", tmp_path / "mixed.yaml", "--output", tmp_path / "run", *SMALL]
    done = installed.mtlkit("train", *options)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"depth/rmse", "far/rmse", "seg/miou"} <= set(results["test"])


def test_a_saved_run_is_loaded_and_predicts(
    installed: Environment, run: Path, rooms: Path, tmp_path: Path
) -> None:
    code = (
        "import sys, mtlkit\nfrom PIL import Image\nmodel = mtlkit.load(sys.argv[1])\n"
        "answer = model.predict(Image.open(sys.argv[2]))\n"
        "print(tuple(answer['depth']['metres'].shape), answer['depth']['nearest'] > 0)"
    )
    picture = rooms / "test" / "00.png"
    done = installed.run("-c", code, run, picture)
    assert done.stdout == "(40, 48) True\n", done.stderr
    done = installed.mtlkit("predict", run, picture, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "00.json").read_text())["depth"]["nearest"] > 0


def test_it_trains_alone_when_mtlkits_own_plugins_are_left_out(
    installed: Environment, rooms: Path, tmp_path: Path
) -> None:
    parts = ["--tasks", "depth=metric-depth", "--backbone", "cross-stitch", "--balancer", "unit"]
    data = ["--data", "rooms", "--data.root", rooms, "--output", tmp_path / "run"]
    done = installed.mtlkit("train", *parts, *data, *SMALL, MTLKIT_DISABLE_PLUGINS="mtlkit")
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["plugins"] == {"mtlkit-indoor": "1.2"}


def test_when_it_is_uninstalled_every_error_names_it(
    make_environment: MakeEnvironment, source: Path, run: Path, rooms: Path, tmp_path: Path
) -> None:
    environment = make_environment()
    environment.install(source)
    assert "cross-stitch" in environment.mtlkit("list").stdout
    environment.pip("uninstall", "--yes", "mtlkit-indoor")
    assert "cross-stitch" not in environment.mtlkit("list").stdout

    shown = environment.mtlkit("show", "backbone", "cross-stitch")
    assert shown.returncode == 2
    assert shown.stderr.startswith("mtlkit show: error: unknown backbone 'cross-stitch'\n")

    picture = rooms / "test" / "00.png"
    predict = ["predict", run, picture, "--output", tmp_path / "answers"]
    predicted = environment.mtlkit(*predict)
    strict = environment.mtlkit(*predict, MTLKIT_STRICT_PLUGINS="1")
    resumed = environment.mtlkit("train", "--resume", run)
    again = environment.mtlkit("train", "--config", run / "config.yaml")
    evaluated = environment.mtlkit("evaluate", run)
    for done in (predicted, strict, resumed, again, evaluated):
        assert done.returncode == 2, done.stderr
        assert "mtlkit-indoor 1.2" in done.stderr
        assert "Traceback" not in done.stderr
