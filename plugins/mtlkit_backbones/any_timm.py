"""Any timm model as a backbone, by timm's own name."""

import difflib
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
from timm.models._features import FeatureGetterNet, FeatureListNet
from torch import Tensor, nn

from mtlkit import Backbone, DataError, Features, FeatureSpec
from mtlkit_backbones._weights import (
    Pretrained,
    create_pretrained,
    download_failed,
    read_weights,
    shape,
)

RESERVED = (
    *("cache_dir", "checkpoint_path", "features_only", "in_chans"),
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay"),
)
"""Arguments of ``timm.create_model`` that this class sets, or that would load something."""
LARGEST = 2**16
"""Of the numbers in options: timm makes lists as long as some of them say."""
LONGEST = 100
"""Entries of a list or mapping in options."""


class Timm(Backbone):
    """Any timm model that can give features, the same for all tasks.

    Images are normalised as the model's ImageNet weights expect. A transformer whose levels all
    have the same stride is one too; one that is built for a single image size takes another with
    ``options: {img_size: 128}``.

    Args:
        model: timm's name, with or without a tag: ``resnet18``, ``convnext_atto.d2_in1k``.
        pretrained: true starts from the weights that timm downloads, a path from a local
            safetensors or torch file with timm's names.
        options: more arguments for ``timm.create_model``, such as ``drop_path_rate``,
            ``output_stride``, ``img_size`` or ``out_indices``.

    Raises:
        ValueError: timm has no such model, or cannot build it with these options.

    Reference: Wightman, "PyTorch Image Models", 2019, https://github.com/huggingface/pytorch-image-models.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        dense_tasks: Sequence[str] = (),
        in_channels: int = 3,
        /,
        *,
        model: str = "resnet18",
        pretrained: bool | Path = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tasks, dense_tasks, in_channels)
        _check_name(model, pretrained)
        _check_options(options or {})
        self.model = model
        self.pretrained = pretrained
        self.options = dict(options or {})
        self.net: nn.Module
        self.net, self.fixed_size = _build(model, in_channels, self.options)
        self.recomputes = type(self.net) is FeatureListNet and any(map(_large, self.net.children()))
        info: Any = self.net.feature_info
        self.spec = FeatureSpec(tuple(info.channels()), tuple(info.reduction()))
        self.multiple = math.lcm(*self.spec.strides)
        self.channels_end = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        config = _config(self.net)
        if len(config["mean"]) == len(self.mean):
            self.mean, self.std = tuple(config["mean"]), tuple(config["std"])

    def check_size(self, height: int, width: int) -> None:
        """Refuse images of another size than the model was built for, if it takes only one."""
        if self.fixed_size is None:
            return super().check_size(height, width)
        if (height, width) != self.fixed_size:
            raise ValueError(
                f"timm's {self.model} is built for images of {self.fixed_size[0]} x "
                f"{self.fixed_size[1]}, but got {height} x {width}; use that size, or give the "
                f"backbone the options {{img_size: [{height}, {width}]}}"
            )
        return None

    def encode(self, images: Tensor) -> Features:
        """The model's features, channels first."""
        self.check_size(images.shape[-2], images.shape[-1])
        levels = self._stages(images) if self.recomputes else self.net(images)
        if self.channels_end:
            levels = [level.permute(0, 3, 1, 2) for level in levels]
        return Features(tuple(levels))

    def checkpoint_activations(self) -> None:
        """Recompute the stages, or let timm do so with the blocks of a model without batch norm."""
        inner = getattr(self.net, "model", None)
        normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.net.modules())
        if isinstance(self.net, FeatureGetterNet) and inner is not None and not normed:
            cast(Any, inner).set_grad_checkpointing(True)
        else:
            super().checkpoint_activations()

    def _stages(self, x: Tensor) -> list[Tensor]:
        """What timm's ``FeatureListNet`` does, but batch norm counts every image once."""
        net = cast(FeatureListNet, self.net)
        levels = []
        for name, stage in net.items():
            x = self.recompute(stage, x) if _large(stage) else stage(x)
            if name in net.return_layers:
                levels.append(x)
        return levels

    def initialise(self) -> list[str]:
        """Load the model's weights, if asked to."""
        if self.pretrained is False:
            return []
        if self.pretrained is not True:
            return _load(self.net, Path(self.pretrained), self.in_channels)
        try:
            donor, _ = _create(self.model, self.in_channels, self.options, pretrained=True)
        except DataError:
            raise
        except Exception as error:  # the download libraries share no class of errors
            raise download_failed(self.model, error) from error
        self.net.load_state_dict(donor.state_dict())
        config = _config(self.net)
        return [f"timm {self.model}: weights {config.get('hf_hub_id') or config.get('url')}"]


def _check_name(model: str, pretrained: Pretrained) -> None:
    if not timm.is_model(model):
        near = difflib.get_close_matches(model.split(".")[0], timm.list_models(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else "timm.list_models() lists them"
        raise ValueError(f"timm has no model '{model}'; {hint}")
    tags = [m for m in timm.list_pretrained() if m.split(".")[0] == model.split(".")[0]]
    if "." in model and model not in tags:
        raise ValueError(f"timm has no weights '{model}'; use one of: {', '.join(tags) or 'none'}")
    if pretrained is True and not tags:
        raise ValueError(f"timm has no weights for '{model}'; use pretrained false or a local file")


def _check_options(options: dict[str, Any]) -> None:
    for name in options:
        if name in RESERVED:
            raise ValueError(
                f"option '{name}' of timm's models is set by mtlkit; leave it out of options "
                "(pretrained is an option of the backbone itself)"
            )
        if not _is_moderate(options[name]):
            raise ValueError(
                f"option '{name}' of timm's models holds a number above {LARGEST} or more than "
                f"{LONGEST} values"
            )


def _is_moderate(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        inner = value.values() if isinstance(value, dict) else value
        return len(value) <= LONGEST and all(map(_is_moderate, inner))
    return not isinstance(value, int | float) or abs(value) <= LARGEST


def _build(
    model: str, in_channels: int, options: dict[str, Any]
) -> tuple[nn.Module, tuple[int, int] | None]:
    """The network, and the only size of images it takes, if there is only one."""
    try:
        net, dynamic = _create(model, in_channels, options)
    except (TypeError, ValueError, RuntimeError, AssertionError, LookupError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"timm cannot build '{model}' as a backbone with options {options} "
            f"({type(error).__name__}: {reason}); change the options or the model"
        ) from error
    config = _config(net)
    if dynamic or not config.get("fixed_input_size"):
        return net, None
    size = options.get("img_size") or config["input_size"][-2:]
    return net, (size, size) if isinstance(size, int) else (size[0], size[1])


def _create(
    model: str, in_channels: int, options: dict[str, Any], *, pretrained: bool = False
) -> tuple[nn.Module, bool]:
    """The network, and whether it takes images of any size although built for one."""
    make = create_pretrained if pretrained else partial(timm.create_model, pretrained=False)
    given = {"features_only": True, "in_chans": in_channels, **options}
    create = partial(make, model, **given)
    if "dynamic_img_size" not in options:
        try:
            return create(dynamic_img_size=True), True
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
    return create(), bool(options.get("dynamic_img_size"))


def _large(stage: nn.Module) -> bool:
    """Whether it is more than one layer; one layer may work in place, and is soon recomputed."""
    return any(True for _ in stage.children())


def _config(net: nn.Module) -> dict[str, Any]:
    return cast(dict[str, Any], net.pretrained_cfg)


def _load(net: nn.Module, path: Path, in_channels: int) -> list[str]:
    """Load all tensors of the file that the network has under the same name and shape.

    timm renames modules when it makes a network of features: ``model.blocks.0`` or ``blocks_0``
    are the same as ``blocks.0`` here.
    """
    here = {_plain(name): name for name in net.state_dict()}
    there = {_plain(name): (name, tensor) for name, tensor in read_weights(path).items()}
    state = net.state_dict()
    loaded: dict[str, Tensor] = {}
    adapted, misfits = [], []
    for plain in here.keys() & there.keys():
        name, tensor = here[plain], there[plain][1]
        fitted = _fit(tensor, state[name], in_channels)
        if fitted is None:
            misfits.append(f"{name} ({shape(tensor)} there, {shape(state[name])} here)")
        else:
            loaded[name] = fitted
            if fitted.shape != tensor.shape:
                adapted.append(f"adapted {name} from 3 to {in_channels} input channels")
    if not loaded:
        raise DataError(f"nothing in {path} fits this model: its names must be those of timm")
    net.load_state_dict(loaded, strict=False)
    spare = [there[plain][0] for plain in there.keys() - here.keys()]
    absent = [here[plain] for plain in here.keys() - there.keys()]
    return [
        f"backbone: {len(loaded)} of {len(state)} tensors from {path}",
        *adapted,
        *_misfits(sorted(misfits)),
        *_listed("skipped, not part of the features:", spare),
        *_listed("not in the file, as initialised:", absent),
    ]


def _plain(name: str) -> str:
    return name.removeprefix("model.").replace(".", "_")


def _fit(tensor: Tensor, target: Tensor, in_channels: int) -> Tensor | None:
    """The tensor in the target's shape: the first convolution adapts to the input channels."""
    if tensor.shape == target.shape:
        return tensor
    first = tensor.ndim == 4 and tensor.shape[1] == 3 and target.shape[1:2] == (in_channels,)
    if first and (tensor.shape[0], *tensor.shape[2:]) == (target.shape[0], *target.shape[2:]):
        adapted: Tensor = timm.models.adapt_input_conv(in_channels, tensor)
        return adapted
    return None


def _misfits(misfits: list[str]) -> list[str]:
    more = f" and {len(misfits) - 1} more" if len(misfits) > 1 else ""
    return [f"skipped, of another shape: {misfits[0]}{more}"] if misfits else []


def _listed(words: str, names: list[str]) -> list[str]:
    modules = sorted({name.rpartition(".")[0] or name for name in names})
    return [f"{words} {', '.join(modules)}"] if names else []
