"""Distributions made on the fly: a folder with dist-info on sys.path is an installed plugin."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from installing import Install
from small_run import small_run

from mtlkit import registry

PARTS = '''
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import mtlkit

Loss = Literal["ce", "dice"]


class Seg(mtlkit.Task):
    """Class of every pixel.

    Args:
        loss: what is minimised.
        smoothing: of the labels, in [0, 1).
    """

    default_head = "dense"

    def __init__(self, id, spec, image_size, /, *, target: str | None = None, loss: Loss = "ce",
                 smoothing: float = 0.0):
        super().__init__(id, spec, image_size, target=target)

    loss = count = metric = decode = decode_target = draw = None


class Cls(Seg):
    """Class of the image."""

    default_head = "linear"


class Dense(mtlkit.Head):
    """Map from features."""

    def __init__(self, spec, out_channels, /):
        pass

    forward = None


class Linear(Dense):
    """Vector from features.

    Args:
        dropout: share of features left out, in [0, 1).
    """

    def __init__(self, spec, out_channels, /, *, dropout: float = 0.0):
        pass


class Net(mtlkit.Backbone):
    """Some network.

    Args:
        model: which one.
        out: levels to return.
        options: for the network.
        pretrained: start from trained weights.
        weights: a local file of weights.
        stages: a label per stage.
    """

    def __init__(self, tasks, dense_tasks=(), in_channels=3, /, *, model: str = "small",
                 out: tuple[int, ...] = (1, 2), options: dict[str, Any] | None = None,
                 pretrained: bool | str = False, weights: Path | None = None,
                 stages: Sequence[str] = ()):
        pass

    encode = None


class Equal(mtlkit.LossBalancer):
    """The plain sum."""

    weights = None


class CAGrad(mtlkit.LossBalancer):
    """Average gradient, moved toward the worst-off task.

    Args:
        c: radius, in [0, 1).
        max_norm: largest norm.

    Reference: Liu et al., NeurIPS 2021, arXiv 2110.14048.
    """

    def __init__(self, tasks, /, *, c: float = 0.4, max_norm: float = 1.0):
        pass

    weights = None


class Fixed(mtlkit.LossBalancer):
    """Constant weights."""

    def __init__(self, tasks, /, *, weights: dict[str, float]):
        pass

    weights = None


class Shapes(mtlkit.Dataset):
    """Generated pictures."""

    def __init__(self, *, train: int = 100, seed: int = 0):
        pass

    split = None


class Pets(mtlkit.Dataset):
    """Pictures of pets.

    Args:
        root: folder of the pictures.
    """

    def __init__(self, *, root: Path, download: bool = False):
        pass

    split = None
'''

HOOKS = """
import mtlkit


@mtlkit.hookimpl
def mtlkit_tasks():
    return {"seg": "toy_parts:Seg", "cls": "toy_parts:Cls"}


@mtlkit.hookimpl
def mtlkit_heads():
    return {"dense": "toy_parts:Dense", "linear": "toy_parts:Linear"}


@mtlkit.hookimpl
def mtlkit_backbones():
    return {"timm": "toy_parts:Net"}


@mtlkit.hookimpl
def mtlkit_balancers():
    return {"equal": "toy_parts:Equal", "cagrad": "toy_parts:CAGrad", "fixed": "toy_parts:Fixed"}


@mtlkit.hookimpl
def mtlkit_datasets():
    return {"shapes": "toy_parts:Shapes", "oxford-pets": "toy_parts:Pets"}
"""


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("MTLKIT_STRICT_PLUGINS", "MTLKIT_DISABLE_PLUGINS", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    registry.forget()
    yield
    registry.forget()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one plugin; its module's source is given as text."""
    before = set(sys.modules)

    def install_(
        distribution: str,
        source: str,
        *,
        version: str = "0.2",
        plugin: str | None = None,
        modules: Mapping[str, str] | None = None,
    ) -> Path:
        module = distribution.replace("-", "_")
        site = tmp_path / "site" / distribution
        info = site / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {distribution}\nVersion: {version}\n")
        entry = f"{plugin or distribution.removeprefix('mtlkit-')} = {module}"
        (info / "entry_points.txt").write_text(f"[mtlkit]\n{entry}\n")
        for name, text in {module: source, **(modules or {})}.items():
            (site / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(site)
        registry.forget()
        return site

    yield install_
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


@pytest.fixture
def toy(install: Install, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin with a component or two of each kind, in place of mtlkit's own plugins."""
    monkeypatch.setenv("MTLKIT_DISABLE_PLUGINS", "mtlkit")
    return install("mtlkit-toy", HOOKS, modules={"toy_parts": PARTS})


@pytest.fixture(scope="session")
def six_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of all tasks that come with mtlkit, hardly trained."""
    tasks = "seg,cls,bbox,denoise,edge,colourise"
    return small_run(tmp_path_factory.mktemp("runs") / "six", tasks=tasks, max_steps=2)
