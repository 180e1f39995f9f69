"""Checks of heads."""

from collections.abc import Iterator
from typing import Any, get_args

import torch
from torch import Tensor

from mtlkit.backbone import Features, FeatureSpec
from mtlkit.head import Head, Output
from mtlkit.testing.compare import disturb, finite, largest_difference, near, reload, unchanged
from mtlkit.testing.conformance import Checks, Fault, Subject, expect

BASE = Head
PYRAMID = FeatureSpec((8, 16, 24, 32, 48), (2, 4, 8, 16, 32))
CHECKS = Checks()

OTHERS = {
    "a pyramid without stride 2": FeatureSpec((8, 16, 24, 32), (4, 8, 16, 32)),
    "a plain transformer": FeatureSpec((16, 16, 16, 16), (16, 16, 16, 16)),
    "a single level": FeatureSpec((16,), (16,)),
}
DECODING = FeatureSpec((8, 16, 24, 32, 48), (2, 4, 8, 16, 32), dense=8)
SIZE = (64, 96)


def given(subject: Subject) -> tuple[Any, ...]:
    """What the framework gives to a head."""
    return PYRAMID, 3


@CHECKS.add(
    why="A task gets a head of its own kind of output before either is built.",
    mend='Write `output = "map"` or `output = "vector"` in the class, and `reads_dense = True` if '
    "it reads Features.dense.",
)
def _it_declares_its_output(subject: Subject) -> None:
    output = getattr(subject.cls, "output", None)
    expect(output in get_args(Output), f"output is {output!r}")
    reads = subject.cls.reads_dense  # type: ignore[attr-defined]
    expect(isinstance(reads, bool), f"reads_dense is {reads!r}")


@CHECKS.add(
    why="Losses compare predictions with targets of this shape.",
    mend="Return [B, out_channels], or for a map [B, out_channels, H, W] at the size that is given "
    "to forward(), for any batch.",
)
def _predictions_have_the_declared_shape_in_training_and_evaluation(subject: Subject) -> None:
    for out_channels in (1, 3):
        for size, batch, training in ((SIZE, 1, False), ((96, 64), 3, True), ((32, 32), 2, True)):
            head = subject.build(PYRAMID, out_channels).train(training)
            _check_shape(head, head(_features(PYRAMID, size, batch), size), batch, size)


@CHECKS.add(
    why="Any backbone can be combined with any head.",
    mend="Read channels and strides from the spec, and levels by their stride; raise ValueError in "
    "the constructor for a spec that cannot work.",
)
def _it_fits_every_backbone_or_says_so_when_it_is_built(subject: Subject) -> None:
    for name, spec in OTHERS.items():
        try:
            head = subject.build(spec, 3).eval()
        except ValueError:
            continue
        try:
            prediction = head(_features(spec, SIZE, 2), SIZE)
        except Exception as error:
            raise Fault(
                f"built for {name}, forward() raises {type(error).__name__}: {error}"
            ) from None
        _check_shape(head, prediction, 2, SIZE)


@CHECKS.add(
    why="A backbone that decodes by itself gives its map to those tasks whose heads read it.",
    mend="Read Features.dense only with `reads_dense = True`, where spec.dense is not None.",
)
def _it_reads_a_decoded_map_only_if_it_says_so(subject: Subject) -> None:
    head = subject.build(DECODING, 3).eval()
    given = _features(DECODING, SIZE, 2)
    if not head.reads_dense:
        given = given._replace(dense=None)
    _check_shape(head, head(given, SIZE), 2, SIZE)


@CHECKS.add(
    why="Losses apply their own sigmoid or softmax, and learn badly from what was squashed before.",
    mend="Return what the last layer gives, without sigmoid, softmax or relu.",
)
def _predictions_are_raw(subject: Subject) -> None:
    head = subject.build(PYRAMID, 8).eval()
    with torch.no_grad():
        values = [head(_features(PYRAMID, SIZE, 3, seed), SIZE) for seed in range(3)]
    lowest, highest = float(torch.stack(values).min()), float(torch.stack(values).max())
    fault = f"predictions for random features are within [{lowest:.3g}, {highest:.3g}]"
    expect(lowest < 0 < highest, f"{fault}, all of one sign")


@CHECKS.add(
    why="A task trains the shared network through the features that its head reads.",
    mend="Detach nothing, and leave torch.no_grad() out of forward().",
)
def _gradients_reach_the_features(subject: Subject) -> None:
    head = subject.build().train()
    features = _features(PYRAMID, SIZE, 3)
    for _, tensor in _named(features):
        tensor.requires_grad_()
    prediction = head(features, SIZE)
    expect(prediction.requires_grad, "the prediction has no gradient")
    (prediction * torch.randn(prediction.shape)).sum().backward()
    reached = [t for _, t in _named(features) if t.grad is not None and bool(t.grad.any())]
    expect(bool(reached), "no level gets a gradient")
    expect(all(finite(t.grad) for t in reached if t.grad is not None), "a gradient is not finite")


@CHECKS.add(
    why="Other tasks' heads read the same features.",
    mend="Let the first operation on each level not be in place, such as nn.ReLU(inplace=True).",
)
def _features_are_left_as_they_are(subject: Subject) -> None:
    head = subject.build().eval()
    features = _features(PYRAMID, SIZE, 2)
    with unchanged(dict(_named(features))), torch.no_grad():
        head(features, SIZE)


@CHECKS.add(
    why="A prediction must not depend on which pictures happen to be in the same batch.",
    mend="In evaluation mode leave out dropout and batch statistics; register running statistics "
    "as buffers.",
)
def _evaluation_looks_at_each_image_alone(subject: Subject) -> None:
    head = subject.build().eval()
    features = _features(PYRAMID, SIZE, 3)
    first = Features(tuple(level[:1] for level in features.levels))
    with torch.no_grad():
        together, alone = head(features, SIZE)[:1], head(first, SIZE)
    if not near(alone, together):
        fault = "the prediction for the first of three images, alone, differs"
        raise Fault(f"{fault} {largest_difference(alone, together)}")


@CHECKS.add(
    why="--precision bf16 runs the network under autocast.",
    mend="Create tensors inside forward() with the dtype of what they meet.",
)
def _it_trains_in_bfloat16(subject: Subject) -> None:
    head = subject.build().train()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = head(_features(PYRAMID, SIZE, 3), SIZE)
    prediction.float().square().mean().backward()
    for name, parameter in head.named_parameters():
        good = parameter.grad is None or finite(parameter.grad)
        expect(good, f"the gradient of {name} is not finite")


@CHECKS.add(
    why="A saved model is built anew from its options and filled with the saved weights.",
    mend="Keep all that is learned in parameters and buffers (register_buffer), none twice.",
)
def _its_state_survives_saving(subject: Subject) -> None:
    trained, fresh = subject.build(), subject.build()
    features = _features(PYRAMID, SIZE, 3)
    disturb(trained)
    trained(features, SIZE)  # changes running statistics
    reload(trained, fresh)
    with torch.no_grad():
        expected, found = trained.eval()(features, SIZE), fresh.eval()(features, SIZE)
    if not near(found, expected, 1e-6):
        fault = "predictions after loading what was saved differ"
        raise Fault(f"{fault} {largest_difference(found, expected)}")


def _features(spec: FeatureSpec, size: tuple[int, int], batch: int, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)

    def level(channels: int, stride: int) -> Tensor:
        shape = (batch, channels, size[0] // stride, size[1] // stride)
        return torch.randn(shape, generator=generator)

    levels = tuple(map(level, spec.channels, spec.strides))
    return Features(levels, None if spec.dense is None else level(spec.dense, 1))


def _named(features: Features) -> Iterator[tuple[str, Tensor]]:
    for number, level in enumerate(features.levels):
        yield f"level {number} of the features", level
    if features.dense is not None:
        yield "the decoded map", features.dense


def _check_shape(head: Head, prediction: Tensor, batch: int, size: tuple[int, int]) -> None:
    wanted: tuple[int, ...] = (batch, head.out_channels)
    wanted += size if head.output == "map" else ()
    found = tuple(prediction.shape)
    text = f"for {batch} images of {size[0]} x {size[1]} the prediction is {found}, not {wanted}"
    expect(found == wanted, f"{text}, as output = {head.output!r} promises")
    expect(finite(prediction), "the prediction is not finite")
