"""Checks of tasks."""

import json
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlkit import registry
from mtlkit.data import DatasetSpec, Kind, TargetSpec
from mtlkit.head import Output
from mtlkit.task import Task
from mtlkit.testing.compare import finite, near, unchanged
from mtlkit.testing.conformance import Checks, Fault, NotApplicable, Subject, expect

BASE = Task
CLASSES = ("first", "second", "third")
LABELS = {
    "a_mask": TargetSpec("mask", classes=CLASSES),
    "a_class": TargetSpec("class", classes=CLASSES),
    "a_box": TargetSpec("box"),
    "a_map": TargetSpec("map", channels=2),
    "a_distance": TargetSpec("map", quantity="distance"),
    "a_direction": TargetSpec("map", channels=3, quantity="direction"),
    "a_vector": TargetSpec("vector", channels=4),
}
SIZE = (32, 48)
BATCH = 6
CHECKS = Checks()


def given(subject: Subject) -> tuple[Any, ...]:
    """What the framework gives to a task: here with a label of every kind."""
    return "one", _spec(subject), SIZE


@CHECKS.add(
    why="Heads, metrics and the best checkpoint are chosen by what the class declares.",
    mend="Set kind, output, default_head, metric_names and primary in the class, and out_channels "
    "in the class or the constructor.",
)
def _it_declares_what_it_learns(subject: Subject) -> None:
    task = _build(subject)
    expect(task.kind in (None, *get_args(Kind)), f"kind is {task.kind!r}")
    expect(task.output in get_args(Output), f"output is {task.output!r}")
    expect(bool(task.metric_names), "metric_names is empty")
    listed = task.primary in task.metric_names
    expect(listed, f"primary is '{task.primary}', not one of metric_names: {task.metric_names}")
    channels = getattr(task, "out_channels", None)
    expect(isinstance(channels, int) and channels > 0, f"out_channels is {channels!r}")


@CHECKS.add(
    why="A task without --tasks.ID.head gets its default head.",
    mend="Set default_head to the name of a registered head that predicts what `output` says.",
)
def _its_default_head_fits(subject: Subject) -> None:
    task = _build(subject)
    head: Any = registry.load().find("head", task.default_head).load()
    fault = f"it predicts a {task.output}, but its default head '{task.default_head}' a"
    expect(head.output == task.output, f"{fault} {head.output}")


@CHECKS.add(
    why="The user reads this instead of an error from deep inside the first step.",
    mend="Pass the keyword-only `target` on to super().__init__(), and look the label up with "
    "target_spec().",
)
def _a_dataset_without_the_label_is_refused(subject: Subject) -> None:
    kind = _build(subject).kind
    if kind is None:
        raise NotApplicable("it makes its target from the image")
    others = {name: label for name, label in LABELS.items() if label.kind != kind}
    try:
        subject.build("one", DatasetSpec(others), SIZE)
    except ValueError:
        return
    raise Fault(f"it accepts a dataset without a label of kind '{kind}'")


@CHECKS.add(
    why="A saved model is rebuilt from the JSON description of the data it was trained on.",
    mend="Take what the constructor needs from the DatasetSpec and the options alone.",
)
def _it_is_the_same_when_rebuilt_from_a_saved_model(subject: Subject) -> None:
    task = _build(subject)
    spec = DatasetSpec.from_json(json.loads(json.dumps(_spec(subject).to_json())))
    again = subject.build("one", spec, SIZE)
    for name in ("out_channels", "target"):
        found, expected = getattr(again, name), getattr(task, name)
        expect(found == expected, f"{name} is {found!r} after loading, and was {expected!r}")


@CHECKS.add(
    why="Batches are cut differently on other numbers of processes; the same sample must give the "
    "same view and target everywhere.",
    mend="Compute each sample from that sample, its own seed and the options; see "
    "mtlkit.seeded_normal. A view has view_channels channels, in [0, 1].",
)
def _views_and_made_targets_depend_on_each_sample_alone(subject: Subject) -> None:
    task = _build(subject)
    images, seeds, order = _images(), torch.arange(BATCH), torch.tensor([4, 1])
    with unchanged({"the batch of images": images}):
        view = task.view(images, seeds)
        target = task.make_target(images) if task.kind is None else None
    again = task.view(images[order], seeds[order])
    expect(near(again, view[order], 1e-5), "view() of a sample depends on the rest of the batch")
    if task.view_channels is not None:
        shape = (BATCH, task.view_channels, *SIZE)
        expect(tuple(view.shape) == shape, f"view() is {tuple(view.shape)}, not {shape}")
        expect(0 <= float(view.min()) <= float(view.max()) <= 1, "view() leaves [0, 1]")
        plain = task.view(images, None)
        expect(torch.equal(plain, task.view(images, None)), "view() without seeds is random")
    else:
        unaltered = torch.equal(view, images)
        expect(unaltered, "view() alters the image, but view_channels is None")
    if target is not None:
        part = task.make_target(images[order])
        alone = near(part.float(), target[order].float(), 1e-5)
        expect(alone, "make_target() of a sample depends on the rest of the batch")


@CHECKS.add(
    why="The mean is taken over all elements of all processes: sums and counts are added there.",
    mend="Return the sum over labelled elements, not the mean, and their number, a float without "
    "gradient, that count() returns too.",
)
def _losses_are_sums_and_add_up(subject: Subject) -> None:
    task = _build(subject)
    prediction, target, present = _batch(task, subject)
    total, count = task.loss(prediction.requires_grad_(), target, present)
    for name, value in (("sum", total), ("number", count)):
        expect(value.shape == (), f"the {name} that loss() returns has shape {tuple(value.shape)}")
        expect(finite(value), f"the {name} that loss() returns is {value}")
    expect(not count.requires_grad, "the number that loss() returns has a gradient")
    known = task.count(target, present)
    expect(float(known) == float(count), f"loss() counts {count:.6g} elements, count() {known:.6g}")
    expect(float(count) > 0, "loss() counts no element of a batch with labels")
    halves = [
        task.loss(prediction[part], target[part], present[part])
        for part in (slice(0, 3), slice(3, None))
    ]
    for name, whole, parts in zip(("sum", "number"), (total, count), zip(*halves, strict=True),
                                  strict=True):  # fmt: skip
        fault = f"the {name} of a batch is {whole:.6g}, and of its halves {sum(parts):.6g}"
        expect(near(sum(parts, torch.zeros(())), whole, 1e-4), fault)


@CHECKS.add(
    why="A batch may have no label of a task: the step must neither fail nor move anything, and "
    "with several processes each waits for every gradient.",
    mend="Select with torch.where and sum, so that the result is 0 and stays tied to the "
    "prediction; a mean over nothing is NaN.",
)
def _nothing_labelled_is_a_loss_of_zero_with_a_zero_gradient(subject: Subject) -> None:
    task = _build(subject)
    prediction, target, present = _batch(task, subject)
    total, count = task.loss(prediction.requires_grad_(), target, torch.zeros_like(present))
    fault = f"loss() returns {total:.6g} over {count:.6g} elements"
    expect((total.item(), count.item()) == (0, 0), fault)
    expect(total.requires_grad, "the sum has no gradient: it is not tied to the prediction")
    torch.autograd.backward(total)
    gradient = prediction.grad
    assert gradient is not None
    expect(not bool(gradient.any()), "the gradient is not finite and 0")


@CHECKS.add(
    why="Partly labelled data are usual: what stands in for a missing label must not matter.",
    mend="Mask predictions and targets by `present` before anything is computed from them.",
)
def _samples_without_a_label_count_for_nothing(subject: Subject) -> None:
    task = _build(subject)
    prediction, target, present = _batch(task, subject)
    expected = task.loss(prediction[present], target[present], present[present])
    prediction.requires_grad_()
    found = task.loss(prediction, target, present)
    for name, one, other in zip(("sum", "number"), found, expected, strict=True):
        fault = f"the {name} with them is {one:.6g}, without them {other:.6g}"
        expect(near(one, other, 1e-4), fault)
    torch.autograd.backward(found[0])
    assert prediction.grad is not None
    expect(not bool(prediction.grad[~present].any()), "they get a gradient")
    expect(bool(prediction.grad[present].any()), "labelled samples get no gradient")


@CHECKS.add(
    why="Training lowers the loss; if the metric that stands for the task gets worse by that, the "
    "worst checkpoint is kept as the best.",
    mend="Turn the sign of the loss, or set higher_is_better to what the primary metric is.",
)
def _a_lower_loss_is_a_better_primary_metric(subject: Subject) -> None:
    task = _build(subject)
    prediction, target, _ = _batch(task, subject)
    present = torch.ones(BATCH, dtype=torch.bool)
    before = _score(task, prediction, target)
    nearer, first, last = _trained(task, prediction, target, present)
    expect(last < first, f"200 steps of Adam on the prediction move the loss from {first:.4g} to "
                         f"{last:.4g}")  # fmt: skip
    after = _score(task, nearer, target)
    better = after > before if task.higher_is_better else after < before
    fault = f"while the loss fell from {first:.4g} to {last:.4g}, '{task.primary}' went from"
    said = f"and higher_is_better is {task.higher_is_better}"
    expect(better, f"{fault} {before:.4g} to {after:.4g}, {said}")


@CHECKS.add(
    why="Metrics are logged under these names, and must be those of the whole split.",
    mend="compute() returns a dict with exactly metric_names; keep sums and counts as states "
    "(add_state with dist_reduce_fx='sum'), and leave out what is not `present`.",
)
def _metrics_have_their_names_and_add_up_over_batches(subject: Subject) -> None:
    task = _build(subject)
    prediction, target, present = _batch(task, subject)
    whole, parts = task.metric(), task.metric()
    task.update(whole, prediction[present], target[present], present[present])
    for part in (slice(0, 3), slice(3, None)):
        task.update(parts, prediction[part], target[part], present[part])
    values, added = whole.compute(), parts.compute()
    named = set(values) == set(task.metric_names)
    expect(named, f"compute() has {sorted(values)}, and metric_names {sorted(task.metric_names)}")
    for name, value in values.items():
        expect(finite(torch.as_tensor(value)), f"'{name}' is {value}")
        fault = f"'{name}' is {float(value):.6g} of the labelled samples at once, and"
        same = near(torch.as_tensor(added[name]), torch.as_tensor(value), 1e-3)
        expect(same, f"{fault} {float(added[name]):.6g} of all in two batches")


@CHECKS.add(
    why="The report of a run shows them.",
    mend="tables() returns Tables, each with a name per row and column and as many numbers.",
)
def _tables_have_a_name_for_every_row_and_column(subject: Subject) -> None:
    task = _build(subject)
    metric = task.metric()
    task.update(metric, *_batch(task, subject))
    metric.compute()
    for title, table in task.tables(metric).items():
        shape = [len(row) for row in table.values]
        fits = shape == [len(table.columns)] * len(table.rows)
        expect(fits, f"'{title}' has {len(table.rows)} x {len(table.columns)} names, not so values")


@CHECKS.add(
    why="Predictions are written as JSON and picture files, and drawn beside the truth.",
    mend="decode() and decode_target() return the same terms: numbers, text and lists of them, or "
    "uint8 tensors [H, W] or [3, H, W], or float32 ones [H, W] or [C, H, W], at the size of the "
    "picture; draw() returns a picture.",
)
def _predictions_are_decoded_and_drawn_at_the_size_of_the_picture(subject: Subject) -> None:
    task = _build(subject)
    prediction, target, _ = _batch(task, subject)
    picture = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    said, true = task.decode(prediction[0], picture), task.decode_target(target[0], picture)
    missing = set(true) - set(said)
    expect(not missing, f"decode_target() has {sorted(missing)}, which decode() has not")
    for name, value in [*said.items(), *true.items()]:
        _check_term(name, value, picture)
    for decoded in (said, true):
        drawn = task.draw(picture, decoded)
        good = drawn.dtype == torch.uint8 and drawn.shape == picture.shape
        expect(good, f"draw() returns {drawn.dtype} {tuple(drawn.shape)} for a picture of uint8 "
                     f"{tuple(picture.shape)}")  # fmt: skip


def _spec(subject: Subject) -> DatasetSpec:
    """A dataset with a label of every kind, and one where this task looks for it."""
    kind = getattr(subject.cls, "kind", None)
    name = subject.options.get("target", "one")
    own = [label for label in LABELS.values() if label.kind == kind]
    if wanted := getattr(subject.cls, "quantities", ()):
        own = [label for label in own if label.quantity in wanted]
    return DatasetSpec({**LABELS, name: own[0]} if own else LABELS)


def _build(subject: Subject) -> Task:
    task: Task = subject.build()
    return task


def _images() -> Tensor:
    """Smooth at some places and rough at others, in [0, 1]."""
    coarse = torch.rand(BATCH, 3, SIZE[0] // 8, SIZE[1] // 8)
    return torch.nn.functional.interpolate(coarse, size=SIZE, mode="nearest")


def _batch(task: Task, subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """A raw prediction, a target and which of the six samples have one."""
    shape = (task.out_channels, *SIZE) if task.output == "map" else (task.out_channels,)
    prediction = torch.randn(BATCH, *shape) / 2
    present = torch.tensor([True, False, True, True, False, True])
    if task.kind is None:
        return prediction, task.make_target(_images()), present
    return prediction, _labels(task.target_spec(_spec(subject))), present


def _labels(spec: TargetSpec) -> Tensor:
    """As the loader makes them."""
    if spec.kind == "mask":
        mask = torch.randint(0, len(spec.classes), (BATCH, *SIZE), dtype=torch.uint8)
        mask[:, :3] = spec.ignore_index
        return mask
    if spec.kind == "class":
        return torch.arange(BATCH) % len(spec.classes)
    if spec.kind == "box":
        corners = torch.rand(BATCH, 2, 2) * 0.5 + torch.tensor([[0.0], [0.5]])
        return corners.flatten(1)
    if spec.quantity == "direction":
        return F.normalize(torch.randn(BATCH, spec.channels, *SIZE))
    return torch.rand(BATCH, spec.channels, *(SIZE if spec.kind == "map" else ()))


def _trained(
    task: Task, prediction: Tensor, target: Tensor, present: Tensor
) -> tuple[Tensor, float, float]:
    """The prediction after it was trained itself, and its mean loss before and after."""
    prediction = prediction.clone().requires_grad_()
    optimizer = torch.optim.Adam([prediction], lr=0.05)
    losses = []
    for _ in range(201):
        total, count = task.loss(prediction, target, present)
        losses.append(float(total.detach() / count))
        optimizer.zero_grad()
        torch.autograd.backward(total)
        optimizer.step()
    return prediction.detach(), losses[0], losses[-1]


def _score(task: Task, prediction: Tensor, target: Tensor) -> float:
    metric = task.metric()
    task.update(metric, prediction, target, torch.ones(BATCH, dtype=torch.bool))
    return float(metric.compute()[task.primary])


def _check_term(name: str, value: Any, picture: Tensor) -> None:
    if isinstance(value, Tensor):
        fits = value.shape[-2:] == picture.shape[-2:]
        channels = tuple(value.shape[:-2])
        known = channels in ((), (3,)) if value.dtype == torch.uint8 else len(channels) < 2
        good = fits and known and value.dtype in (torch.uint8, torch.float32)
        expect(good, f"'{name}' is {value.dtype} {tuple(value.shape)}, for a picture of "
                     f"{tuple(picture.shape)}")  # fmt: skip
        return
    try:
        json.dumps(value)
    except TypeError:
        raise Fault(f"'{name}' is a {type(value).__name__}, which JSON has not") from None
