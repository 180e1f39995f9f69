"""VGG-16's ImageNet weights, by timm or from a file, into the encoder of this package."""

import re
from pathlib import Path
from typing import NamedTuple, cast

from torch import Tensor, nn

from mtlkit import Backbone, DataError
from mtlkit_backbones._vgg import DEPTHS, Encoder, Norm
from mtlkit_backbones._weights import (
    Pretrained,
    create_pretrained,
    download_failed,
    read_weights,
    shape,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalisation(pretrained: Pretrained) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the images that the weights were trained on."""
    if pretrained is False:
        return Backbone.mean, Backbone.std
    return IMAGENET_MEAN, IMAGENET_STD


def check_pretrained(pretrained: Pretrained, width: int) -> None:
    """Refuse ImageNet weights for a network they cannot fit, before they are downloaded.

    Raises:
        ValueError: ``pretrained`` is true and ``width`` is not VGG-16's.
    """
    if pretrained is True and width != 64:
        raise ValueError(
            f"pretrained weights of VGG-16 have width 64, but width is {width}; "
            "use width 64 or pretrained false"
        )


def load_vgg(encoder: Encoder, pretrained: Pretrained, norm: Norm) -> list[str]:
    """Load VGG-16's convolutions, and their batch norm if both sides have it.

    Args:
        encoder: is changed in place.
        pretrained: true for timm's ImageNet weights, or a file with timm's or torchvision's names.
        norm: of the encoder.

    Returns:
        Lines for the user.

    Raises:
        DataError: the weights cannot be had, are not VGG-16's, or fit nowhere.
    """
    if pretrained is False:
        return []
    if pretrained is True:
        origin = "vgg16_bn" if norm == "batch" else "vgg16"
        tensors = _download(origin)
    else:
        origin = str(pretrained)
        tensors = read_weights(Path(pretrained))
    return _load_layers(encoder, _vgg_layers(tensors, origin), tensors, origin)


def _download(name: str) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = create_pretrained(name).state_dict()
    except DataError:
        raise
    except Exception as error:  # the download libraries share no class of errors
        raise download_failed(name, error) from error
    return weights


class _Layer(NamedTuple):
    conv: dict[str, Tensor]
    norm: dict[str, Tensor]


def _vgg_layers(tensors: dict[str, Tensor], origin: str) -> list[_Layer]:
    """The convolutions ``features.N`` in order, each with the batch norm that follows it."""
    modules: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"features\.(\d+)\.(\w+)", name):
            modules.setdefault(int(match[1]), {})[match[2]] = tensor
    layers: list[_Layer] = []
    for _, module in sorted(modules.items()):
        if "weight" in module and module["weight"].ndim == 4:
            layers.append(_Layer(module, {}))
        elif "running_mean" in module and layers:
            layers[-1].norm.update(module)
    if len(layers) != sum(DEPTHS):
        raise DataError(
            f"{origin} has {len(layers)} convolutions named features.N.weight, but VGG-16 has "
            f"{sum(DEPTHS)}; its names must be timm's or torchvision's"
        )
    return layers


def _load_layers(
    encoder: Encoder, layers: list[_Layer], tensors: dict[str, Tensor], origin: str
) -> list[str]:
    skipped = []
    for i, (target, source) in enumerate(zip(encoder.layers(), layers, strict=True), 1):
        there, here = source.conv["weight"], cast(Tensor, target[0].weight)
        if there.shape != here.shape:
            shapes = f"{shape(there)} in the file, {shape(here)} here"
            skipped.append(f"skipped convolution {i} and its batch norm: {shapes}")
            continue
        _copy(target[0], source.conv)
        if isinstance(target[1], nn.BatchNorm2d) and source.norm:
            _copy(target[1], source.norm)
    if len(skipped) == len(layers):
        raise DataError(f"nothing in {origin} fits this encoder: {skipped[0]}")
    loaded = f"encoder: {len(layers) - len(skipped)} of {len(layers)} convolutions from {origin}"
    return [loaded, *skipped, *_skipped_norm(encoder, layers), *_skipped_rest(tensors)]


def _copy(target: nn.Module, source: dict[str, Tensor]) -> None:
    """Copy what the source has; a bias it lacks is zero already."""
    state = target.state_dict()
    target.load_state_dict({name: source.get(name, value) for name, value in state.items()})


def _skipped_norm(encoder: Encoder, layers: list[_Layer]) -> list[str]:
    has = isinstance(encoder.layers()[0][1], nn.BatchNorm2d)
    if has and not layers[0].norm:
        return ["the file has no batch norm: the network's starts untrained"]
    if layers[0].norm and not has:
        return ["skipped the file's batch norm: the network has none (norm: none)"]
    return []


def _skipped_rest(tensors: dict[str, Tensor]) -> list[str]:
    names = {name.rpartition(".")[0] for name in tensors if not name.startswith("features.")}
    return [f"skipped {', '.join(sorted(names))}: not part of the encoder"] if names else []
