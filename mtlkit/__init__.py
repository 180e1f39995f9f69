"""mtlkit: one network, several vision tasks.

Everything public is here; nothing heavy is imported until it is used.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from mtlkit.api import create, fit, load, names
    from mtlkit.backbone import Backbone, Features, FeatureSpec
    from mtlkit.balancer import Columns, LossBalancer, StepStats
    from mtlkit.data import DataProblem, Dataset, DatasetSpec, Sample, Samples, TargetSpec
    from mtlkit.errors import ConfigError, DataError, MtlkitError
    from mtlkit.head import Head
    from mtlkit.model import Model
    from mtlkit.notebook import (
        Trainer,
        bench_balancers,
        bench_networks,
        evaluate_run,
        predict_files,
    )
    from mtlkit.own_data import OwnData
    from mtlkit.picture import to_rgb
    from mtlkit.task import Decoded, Table, Task, seeded_normal

__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("mtlkit")

_HOMES = {
    "api": ("create", "fit", "load", "names"),
    "backbone": ("Backbone", "Features", "FeatureSpec"),
    "balancer": ("Columns", "LossBalancer", "StepStats"),
    "data": ("DataProblem", "Dataset", "DatasetSpec", "Sample", "Samples", "TargetSpec"),
    "errors": ("ConfigError", "DataError", "MtlkitError"),
    "head": ("Head",),
    "model": ("Model",),
    "notebook": (
        "Trainer",
        "bench_balancers",
        "bench_networks",
        "evaluate_run",
        "predict_files",
    ),
    "own_data": ("OwnData",),
    "picture": ("to_rgb",),
    "task": ("Decoded", "Table", "Task", "seeded_normal"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Backbone",
    "Columns",
    "ConfigError",
    "DataError",
    "DataProblem",
    "Dataset",
    "DatasetSpec",
    "Decoded",
    "FeatureSpec",
    "Features",
    "Head",
    "LossBalancer",
    "Model",
    "MtlkitError",
    "OwnData",
    "Sample",
    "Samples",
    "StepStats",
    "Table",
    "TargetSpec",
    "Task",
    "Trainer",
    "bench_balancers",
    "bench_networks",
    "create",
    "evaluate_run",
    "fit",
    "hookimpl",
    "load",
    "names",
    "predict_files",
    "seeded_normal",
    "to_rgb",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        with warnings.catch_warnings():  # in a notebook: nothing here needs ipywidgets
            warnings.filterwarnings("ignore", "IProgress not found")
            return getattr(import_module(f"mtlkit.{_HOME[name]}"), name)
    raise AttributeError(f"module 'mtlkit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
