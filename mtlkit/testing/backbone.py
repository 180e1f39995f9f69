"""Checks of backbones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.backbone import Backbone, Features, FeatureSpec
from mtlkit.testing.compare import (
    disturb,
    finite,
    largest_difference,
    near,
    no_global_random_numbers,
    reload,
    unchanged,
)
from mtlkit.testing.conformance import TASKS, Checks, Fault, Subject, expect

BASE = Backbone
DENSE = ("one", "three")
CHECKS = Checks()

USUAL = (224, 256, 384)
"""Sizes to try with a backbone that takes one size of images only."""


def given(subject: Subject) -> tuple[Any, ...]:
    """What the framework gives to a backbone."""
    return TASKS, DENSE, 3


@CHECKS.add(
    why="Heads are built from the spec, and images are resized and normalised, before the backbone "
    "has seen any.",
    mend="Set spec in the constructor: levels finest first, one stride for each; `multiple` a "
    "multiple of every stride; `decodes` as a class attribute; mean and std per RGB channel.",
)
def _it_declares_what_it_gives(subject: Subject) -> None:
    backbone = subject.build()
    spec = getattr(backbone, "spec", None)
    expect(isinstance(spec, FeatureSpec), f"spec is {spec!r}")
    assert isinstance(spec, FeatureSpec)
    expect(bool(spec.channels), "spec has no level")
    one_each = len(spec.channels) == len(spec.strides)
    expect(one_each, f"spec has the channels {spec.channels} and the strides {spec.strides}")
    expect(list(spec.strides) == sorted(spec.strides), f"strides do not ascend: {spec.strides}")
    odd = [stride for stride in spec.strides if backbone.multiple % stride]
    expect(not odd, f"multiple is {backbone.multiple}, which the strides {odd} do not divide")
    declared = f"decodes is {subject.cls.decodes}, and spec.dense {spec.dense}"  # type: ignore[attr-defined]
    expect(backbone.decodes == (spec.dense is not None), declared)
    for name in ("mean", "std"):
        value = getattr(backbone, name)
        expect(len(value) == 3, f"{name} has {len(value)} values, {value}, not one per RGB channel")


@CHECKS.add(
    why="A head that was built for other channels or sizes fails, or silently resizes.",
    mend="Make spec say what encode() and route() return; level i is [B, channels[i], H / "
    "strides[i], W / strides[i]], and dense [B, dense, H, W] for dense tasks alone.",
)
def _declared_channels_and_strides_are_true_for_three_image_sizes(subject: Subject) -> None:
    backbone = subject.build().eval()
    for batch, size in enumerate(_sizes(backbone), start=1):
        with torch.no_grad():
            found = _features(backbone, _images(backbone, size, batch))
        _check_shapes(backbone, found, backbone.tasks, batch, size)


@CHECKS.add(
    why="A batch norm or a view() that needs an even batch fails in the last batch of an epoch.",
    mend="Let encode() and route() depend on the batch size nowhere.",
)
def _it_works_for_one_task_and_for_three_in_training_and_evaluation(subject: Subject) -> None:
    for tasks, dense in ((("one",), ()), (("one",), ("one",)), (TASKS, ()), (TASKS, TASKS)):
        for training in (True, False):
            backbone = subject.build(tasks, dense, 3).train(training)
            size = _sizes(backbone)[0]
            batch = 3 if training else 1  # batch norm over one 1 x 1 pixel cannot work
            found = _features(backbone, _images(backbone, size, batch))
            _check_shapes(backbone, found, tasks, batch, size)


@CHECKS.add(
    why="Tasks that need only brightness feed one channel.",
    mend="Build the first layer for in_channels.",
)
def _it_takes_as_many_channels_as_it_is_told(subject: Subject) -> None:
    backbone = subject.build(TASKS, DENSE, 1).eval()
    declared = backbone.in_channels
    expect(declared == 1, f"told 1, its in_channels is {declared}; pass it to super().__init__()")
    with torch.no_grad():
        _features(backbone, _images(backbone, _sizes(backbone)[0], 1))


@CHECKS.add(
    why="The user reads this instead of an error from deep inside the first step.",
    mend="Set `multiple`, or write check_size() and raise ValueError with sizes that work.",
)
def _image_sizes_that_do_not_fit_are_refused(subject: Subject) -> None:
    backbone = subject.build()
    height, width = _sizes(backbone)[0]
    if backbone.multiple == 1:
        return
    try:
        backbone.check_size(height + 1, width)
    except ValueError:
        return
    raise Fault(f"check_size({height + 1}, {width}) accepts what is no multiple of "
                f"{backbone.multiple}")  # fmt: skip


@CHECKS.add(
    why="Balancers see gradients on what is shared; a parameter that is in two places, or in none, "
    "is balanced wrongly.",
    mend="own_modules(task) yields the modules that task alone uses, each for one task; leave "
    "shared_parameters() and own_parameters() as they are.",
)
def _shared_and_own_parameters_are_disjoint_and_complete(subject: Subject) -> None:
    backbone = subject.build()
    names = {id(p): name for name, p in backbone.named_parameters()}
    seen: dict[int, str] = {}
    groups = {f"of task '{task}'": list(backbone.own_parameters(task)) for task in backbone.tasks}
    for whose, parameters in {**groups, "shared": backbone.shared_parameters()}.items():
        for parameter in parameters:
            name = names.get(id(parameter), "a tensor that is no parameter of the backbone")
            before = seen.setdefault(id(parameter), whose)
            expect(before == whose, f"{name} is {before} and {whose}")
            expect(id(parameter) in names, f"{name} is {whose}")
    missing = [name for key, name in names.items() if key not in seen]
    expect(not missing, f"neither shared nor any task's own: {', '.join(missing[:3])}")


@CHECKS.add(
    why="What a task owns is trained by that task's loss alone.",
    mend="Leave out of own_modules(task) what another task's features are computed from, and what "
    "the task itself does not use.",
)
def _what_a_task_owns_is_used_by_that_task_alone(subject: Subject) -> None:
    backbone = subject.build()
    images = _images(backbone, _sizes(backbone)[0], 3)
    for task in backbone.tasks:
        backbone.zero_grad()
        _backward(_features(backbone, images, (task,)))
        names = {id(p): name for name, p in backbone.named_parameters()}
        for owner in backbone.tasks:
            for parameter in backbone.own_parameters(owner):
                trained = parameter.grad is not None and bool(parameter.grad.any())
                name = f"{names[id(parameter)]}, task '{owner}''s own,"
                expect(owner == task or not trained, f"{name} is trained by task '{task}'")
                used = owner != task or parameter.grad is not None
                expect(used, f"{name} gets no gradient from it")


@CHECKS.add(
    why="With --views own, and in steps without some tasks' labels, only others are asked for.",
    mend="Compute what route() returns for a task from `shared` and that task alone.",
)
def _a_task_sees_the_same_whoever_else_is_asked_for(subject: Subject) -> None:
    backbone = subject.build().eval()
    images = _images(backbone, _sizes(backbone)[0], 2)
    with torch.no_grad():
        together = _features(backbone, images)
        for task in backbone.tasks:
            alone = _features(backbone, images, (task,))
            expect(list(alone) == [task], f"route(shared, ['{task}']) has {list(alone)}")
            _check_same(alone[task], together[task], f"features of task '{task}' asked for alone")


@CHECKS.add(
    why="A prediction must not depend on which pictures happen to be in the same batch.",
    mend="In evaluation mode leave out dropout and batch statistics; register running statistics "
    "as buffers.",
)
def _evaluation_looks_at_each_image_alone(subject: Subject) -> None:
    backbone = subject.build().eval()
    images = _images(backbone, _sizes(backbone)[0], 3)
    with torch.no_grad():
        together, alone = _features(backbone, images), _features(backbone, images[:1])
    for task, features in together.items():
        first = Features(
            tuple(level[:1] for level in features.levels),
            None if features.dense is None else features.dense[:1],
        )
        _check_same(alone[task], first, "features of the first of three images, fed alone,")


@CHECKS.add(
    why="The framework shows the same images to others after the backbone.",
    mend="Let the first operation on the images not be in place.",
)
def _images_are_left_as_they_are(subject: Subject) -> None:
    backbone = subject.build().eval()
    images = _images(backbone, _sizes(backbone)[0], 1)
    with unchanged({"the batch of images": images}), torch.no_grad():
        _features(backbone, images)


@CHECKS.add(
    why="Runs keep images channels-last by default, and must compute the same.",
    mend="Use reshape() instead of view(), and let no operation rely on strides.",
)
def _the_memory_order_of_images_does_not_matter(subject: Subject) -> None:
    backbone = subject.build().eval()
    images = _images(backbone, _sizes(backbone)[0], 2)
    with torch.no_grad():
        expected = _features(backbone, images)
        backbone.to(memory_format=torch.channels_last)
        found = _features(backbone, images.contiguous(memory_format=torch.channels_last))
    for task, features in expected.items():
        _check_same(found[task], features, "channels-last features", tolerance=1e-3)


@CHECKS.add(
    why="--precision bf16 runs the network under autocast.",
    mend="Create tensors inside forward passes with the dtype of what they meet, and keep in "
    "float32 what overflows.",
)
def _it_trains_in_bfloat16(subject: Subject) -> None:
    backbone = subject.build()
    with torch.autocast("cpu", torch.bfloat16):
        found = _features(backbone, _images(backbone, _sizes(backbone)[0], 3))
    _backward(found)
    for name, parameter in backbone.named_parameters():
        good = parameter.grad is None or finite(parameter.grad)
        expect(good, f"the gradient of {name} is not finite")


@CHECKS.add(
    why="--checkpoint-activations promises the same training in less memory.",
    mend="Give recompute() a module, or a function and every module that it calls; change none of "
    "its inputs in place. Leave `recomputes` False if the backbone cannot do this.",
)
def _activations_that_are_computed_again_change_nothing(subject: Subject) -> None:
    keeps, computes = subject.build(), subject.build()
    computes.load_state_dict(keeps.state_dict())
    try:
        computes.checkpoint_activations()
    except ValueError:
        return
    images = _images(keeps, _sizes(keeps)[0], 3)
    for backbone in (keeps, computes):
        torch.manual_seed(0)
        _backward(_features(backbone, images))
    for kind, both in {
        "the gradient of": (keeps.named_parameters(), computes.named_parameters()),
        "the buffer": (keeps.named_buffers(), computes.named_buffers()),
    }.items():
        for (name, expected), (_, found) in zip(*both, strict=True):
            pair = (found, expected) if kind == "the buffer" else (found.grad, expected.grad)
            same = pair[0] is pair[1] is None or near(*pair)
            expect(same, f"with activations computed again, {kind} {name} is another")


@CHECKS.add(
    why="A saved model is built anew from its options and filled with the saved weights.",
    mend="Keep all that is learned in parameters and buffers (register_buffer), none twice.",
)
def _its_state_survives_saving(subject: Subject) -> None:
    trained, fresh = subject.build(), subject.build()
    images = _images(trained, _sizes(trained)[0], 3)
    disturb(trained)
    _features(trained, images)  # changes running statistics
    reload(trained, fresh)
    with torch.no_grad():
        expected, found = _features(trained.eval(), images), _features(fresh.eval(), images)
    for task, features in expected.items():
        _check_same(found[task], features, "features after loading what was saved", tolerance=1e-6)


@CHECKS.add(
    why="Dropout and the like must draw the same on every process; saved models must not depend on "
    "when they are used.",
    mend="Draw random numbers in training mode only.",
)
def _evaluation_draws_no_random_numbers(subject: Subject) -> None:
    backbone = subject.build().eval()
    images = _images(backbone, _sizes(backbone)[0], 1)
    with no_global_random_numbers("the forward pass in evaluation mode"), torch.no_grad():
        _features(backbone, images)


@CHECKS.add(
    why="Trained networks are put to use as exported graphs.",
    mend="Keep Python code that depends on the values of tensors (if, float(), .item(), numpy) out "
    "of encode() and route(); torch.export's own message names the line.",
)
def _it_can_be_exported(subject: Subject) -> None:
    backbone = subject.build().eval()
    network = _Network(backbone)
    images = _images(backbone, _sizes(backbone)[0], 2)
    with torch.no_grad():
        exported = torch.export.export(network, (images,)).module()
        for found, expected in zip(exported(images), network(images), strict=True):
            expect(near(found, expected), "the exported graph computes other features")


class _Network(nn.Module):
    """All features in one list."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        features = _features(self.backbone, images)
        return [tensor for one in features.values() for tensor in _tensors(one)]


def _sizes(backbone: Backbone) -> list[tuple[int, int]]:
    """Three small sizes that the backbone takes, or the usual one that it takes."""
    unit = -(-32 // backbone.multiple) * backbone.multiple
    small = [(unit, 2 * unit), (2 * unit, unit), (3 * unit, 2 * unit)]
    taken = [size for size in small if _takes(backbone, size)]
    taken = taken or [(side, side) for side in USUAL if _takes(backbone, (side, side))]
    if not taken:
        raise Fault(f"check_size() refuses {small} and squares of {USUAL}; give the check options "
                    "with which it takes one of them")  # fmt: skip
    return taken


def _takes(backbone: Backbone, size: tuple[int, int]) -> bool:
    try:
        backbone.check_size(*size)
    except ValueError:
        return False
    return True


def _images(backbone: Backbone, size: tuple[int, int], batch: int) -> Tensor:
    return torch.randn(batch, backbone.in_channels, *size)


def _features(backbone: Backbone, images: Tensor, tasks: Sequence[str] = ()) -> dict[str, Features]:
    return backbone.route(backbone.encode(images), tasks or backbone.tasks)


def _tensors(features: Features) -> list[Tensor]:
    return [*features.levels, *([] if features.dense is None else [features.dense])]


def _check_shapes(
    backbone: Backbone,
    found: dict[str, Features],
    tasks: Sequence[str],
    batch: int,
    size: tuple[int, int],
) -> None:
    spec, (height, width) = backbone.spec, size
    images = f"for {batch} images of {height} x {width}"
    expect(list(found) == list(tasks), f"route() has features of {list(found)}, not of {[*tasks]}")
    for task, features in found.items():
        expect(isinstance(features, Features), f"route() gives task '{task}' no Features")
        shapes = [tuple(level.shape) for level in features.levels]
        declared = [
            (batch, channels, height // stride, width // stride)
            for channels, stride in zip(spec.channels, spec.strides, strict=True)
        ]
        text = f"{images} the spec promises task '{task}' levels {declared}, but it got {shapes}"
        expect(shapes == declared, text)
        wanted = None
        if spec.dense is not None and task in backbone.dense_tasks:
            wanted = (batch, spec.dense, *size)
        dense = None if features.dense is None else tuple(features.dense.shape)
        expect(dense == wanted, f"{images} dense of task '{task}' is {dense}, not {wanted}")
        expect(all(map(finite, _tensors(features))), f"{images} features are not finite")


def _check_same(found: Features, expected: Features, what: str, tolerance: float = 1e-4) -> None:
    for one, other in zip(_tensors(found), _tensors(expected), strict=True):
        if not near(one, other, tolerance):
            raise Fault(f"{what} differ {largest_difference(one, other)}")


def _backward(found: dict[str, Features]) -> None:
    """From what a head would read: the decoded map where there is one, and every level."""
    tensors = [tensor for features in found.values() for tensor in _tensors(features)]
    total = sum((t.float() * torch.randn(t.shape)).sum() for t in tensors)
    assert isinstance(total, Tensor)
    if total.requires_grad:  # a backbone may be frozen
        torch.autograd.backward(total)
