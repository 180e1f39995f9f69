"""TorchJD's methods as balancers, against TorchJD itself and against formulas."""

import builtins
import importlib.util
import math
from typing import Any

import pytest
import torch
from mtlkit_balancers.any_torchjd import LINEAR, STATE, UNSUITABLE, TorchJD
from torch import Tensor

from mtlkit import StepStats

torchjd = pytest.importorskip("torchjd")
aggregation = importlib.import_module("torchjd.aggregation")
scalarization = importlib.import_module("torchjd.scalarization")

TASKS = ("seg", "cls", "bbox")
JACOBIAN = torch.tensor(
    [[1.0, 2.0, -1.0, 0.5, 0.0], [-2.0, 0.5, 1.0, 1.0, 1.0], [0.5, -1.0, 3.0, -2.0, 0.5]],
    dtype=torch.float64,
)
GRAMIAN = JACOBIAN @ JACOBIAN.T
LOSSES = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)
STATS = StepStats(losses=LOSSES, gramian=GRAMIAN, step=3, seed=7)

WEIGHTINGS: dict[str, dict[str, Any]] = {
    "AlignedMTL": {"scale_mode": "rmse"},
    "CAGrad": {"c": 0.4},
    "DualProj": {},
    "FairGrad": {"alpha": 2.0},
    "GradVac": {},
    "IMTLG": {},
    "Krum": {"n_byzantine": 0},
    "MGDA": {"max_iters": 7},
    "PCD": {"tau": 0.1},
    "PCGrad": {},
    "UPGrad": {},
}
VECTOR = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
SCALARISERS: dict[str, dict[str, Any]] = {
    "COSMOS": {"lambda_": 1.5, "weights": VECTOR},
    "Constant": {"weights": VECTOR},
    "GeometricMean": {},
    "IMTLL": {},
    "Mean": {},
    "PBI": {"theta": 2.0, "weights": VECTOR, "reference": VECTOR / 8},
    "Random": {},
    "STCH": {"mu": 0.5, "reference": VECTOR / 8},
    "Sum": {},
    "UW": {},
}
METHODS = WEIGHTINGS | SCALARISERS | {"TrimmedMean": {"trim_number": 1}}


def plain(options: dict[str, Any]) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in options.items()}


def balancer(method: str, tasks: tuple[str, ...] = TASKS, **options: Any) -> TorchJD:
    return TorchJD(tasks, method=method, options=options or plain(METHODS[method]))


def some(index: list[int], stats: StepStats = STATS) -> StepStats:
    rows = torch.tensor(index)
    assert stats.gramian is not None
    return StepStats(
        losses=stats.losses[rows], gramian=stats.gramian[rows[:, None], rows], index=rows
    )


def test_every_method_of_torchjd_is_here_or_refused_with_a_reason() -> None:
    names = {name.removesuffix("Weighting") for name in aggregation.__all__}
    names |= set(scalarization.__all__)
    abstract = {"Aggregator", "GramianWeightedAggregator", "WeightedAggregator", "Scalarizer", ""}
    assert names - abstract == METHODS.keys() | UNSUITABLE.keys()


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("suffix", ["", "Weighting"])
def test_a_weighting_gives_torchjds_weights_and_raw_gradients_to_heads(
    name: str, suffix: str
) -> None:
    theirs = getattr(aggregation, f"{name}Weighting")(**WEIGHTINGS[name])
    ours = TorchJD(TASKS, method=name + suffix, options=WEIGHTINGS[name])
    assert (ours.needs, ours.linear, ours.heads) == ("gramian", False, "raw")
    torch.set_rng_state(STATS.rng("torchjd").get_state())
    torch.testing.assert_close(ours.weights(STATS), theirs(GRAMIAN), rtol=1e-12, atol=0)
    assert ours.report == {"failures": 0.0}
    assert ours.param_objective(STATS) is None


@pytest.mark.parametrize("name", SCALARISERS)
def test_a_scalariser_gives_the_slope_of_its_scalar_to_all_gradients(name: str) -> None:
    options = SCALARISERS[name]
    theirs = getattr(scalarization, name)(**options | ({"shape": 3} if name in STATE else {}))
    ours = balancer(name)
    assert (ours.needs, ours.heads) == ("losses", "weighted")
    assert ours.linear == (name in LINEAR)
    bases = torch.stack([LOSSES + sign * row for sign in (1, -1) for row in torch.eye(3) * 1e-4])
    values = []
    for base in bases:
        torch.set_rng_state(STATS.rng("torchjd").get_state())
        values.append(theirs(base).detach())
    up, down = torch.stack(values).chunk(2)
    torch.testing.assert_close(ours.weights(STATS), (up - down) / 2e-4, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in SCALARISERS if name in LINEAR])
def test_a_linear_scalariser_needs_no_losses(name: str) -> None:
    before = StepStats(losses=torch.zeros(3, dtype=torch.float64), step=3, seed=7)
    assert torch.equal(balancer(name).weights(before), balancer(name).weights(STATS))


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"Krum", "PCD", "TrimmedMean"}))
def test_only_active_tasks_count_and_vectors_are_cut_to_them(name: str) -> None:
    vectors = {k: v for k, v in METHODS[name].items() if isinstance(v, Tensor)}
    two = TorchJD(
        ("seg", "bbox"),
        method=name,
        options=plain(METHODS[name] | {k: v[[0, 2]] for k, v in vectors.items()}),
    )
    found = balancer(name).weights(some([0, 2]))
    alone = StepStats(losses=LOSSES[[0, 2]], gramian=some([0, 2]).gramian)
    expected = two.weights(alone)
    if name not in ("GradVac", "PCGrad"):  # for two tasks their order does not matter
        assert torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


def test_vectors_go_by_task_id_or_by_order() -> None:
    by_id = balancer("UPGrad", pref_vector={"bbox": 4.0, "seg": "1", "cls": 2})
    in_order = balancer("UPGrad", pref_vector=[1, 2, 4])
    theirs = aggregation.UPGradWeighting(pref_vector=VECTOR)(GRAMIAN)
    assert torch.equal(by_id.weights(STATS), theirs)
    assert torch.equal(in_order.weights(STATS), theirs)


def test_options_of_the_projection_are_options_of_the_method() -> None:
    projector = importlib.import_module("torchjd.linalg").QuadprogProjector(reg_eps=0.5)
    expected = aggregation.UPGradWeighting(projector=projector)(GRAMIAN)
    assert torch.equal(balancer("UPGrad", reg_eps=0.5).weights(STATS), expected)
    text = balancer("UPGrad", norm_eps="1e3")  # as YAML reads it; no Gramian is that large
    torch.testing.assert_close(text.weights(STATS), torch.full_like(LOSSES, 1 / 3))


@pytest.mark.parametrize(("name", "sign"), [("UW", -1), ("IMTLL", 1)])
def test_learned_parameters_are_those_of_the_active_tasks(name: str, sign: int) -> None:
    ours = balancer(name).double()
    (parameter,) = ours.parameters()
    s = torch.tensor([0.3, -0.2, 0.7], dtype=torch.float64)
    parameter.data.copy_(s)
    factor = 0.5 if name == "UW" else 1.0
    active = torch.tensor([0, 2])
    expected = factor * torch.exp(sign * s[active])
    torch.testing.assert_close(ours.weights(some([0, 2])), expected)
    objective = ours.param_objective(some([0, 2]))
    assert objective is not None
    objective.backward()
    slope = factor * sign * (torch.exp(sign * s) * LOSSES - 1)
    slope[1] = 0
    torch.testing.assert_close(parameter.grad, slope)


@pytest.mark.parametrize("name", ["GradVac", "PCGrad", "Random"])
def test_random_numbers_are_the_steps_and_the_global_ones_stay(name: str) -> None:
    tasks = ("a", "b", "c", "d")
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = torch.get_rng_state()
    drawn = []
    for step in range(20):
        stats = StepStats(losses=torch.ones(4), gramian=rows @ rows.T, step=step)
        one, other = balancer(name, tasks), balancer(name, tasks)
        drawn.append(one.weights(stats))
        torch.rand(step)
        assert torch.equal(drawn[-1], other.weights(stats))
    assert len({tuple(weights.tolist()) for weights in drawn}) > 1
    torch.set_rng_state(before)
    balancer(name, tasks).weights(stats)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["GradVac", "PCD"])
def test_a_stateful_weighting_moves_on_with_commits_alone(name: str) -> None:
    theirs = getattr(aggregation, f"{name}Weighting")(**WEIGHTINGS[name])
    ours = balancer(name)
    for step in range(4):
        stats = StepStats(losses=LOSSES, gramian=GRAMIAN * (1 + step % 2) ** 2, step=step)
        ours.weights(stats)
        weights = ours.weights(stats)
        torch.set_rng_state(stats.rng("torchjd").get_state())
        torch.testing.assert_close(weights, theirs(stats.gramian), rtol=1e-12, atol=0)
        ours.commit(stats, weights)
    fresh = balancer(name)
    assert not torch.equal(fresh.weights(STATS), ours.weights(STATS))
    fresh.load_state_dict(ours.state_dict())
    assert torch.equal(fresh.weights(STATS), ours.weights(STATS))


def test_what_a_stateful_weighting_knows_of_inactive_tasks_stays() -> None:
    ours = balancer("GradVac")
    ours.commit(STATS, ours.weights(STATS))
    (before,) = (buffer.clone() for buffer in ours.buffers())
    ours.commit(some([0, 2]), LOSSES[[0, 2]])
    (after,) = ours.buffers()
    changed = before != after
    assert changed.tolist() == [[False, False, True], [False] * 3, [True, False, False]]


def test_without_its_primary_task_pcd_does_nothing() -> None:
    assert balancer("PCD").weights(some([1, 2])).tolist() == [0, 0]


def test_a_vector_about_secondary_tasks_is_without_the_first() -> None:
    taus = torch.tensor([0.9, 0.1], dtype=torch.float64)
    expected = aggregation.PCDWeighting(tau=taus)(GRAMIAN)
    assert torch.equal(balancer("PCD", tau={"bbox": 0.1, "cls": 0.9}).weights(STATS), expected)


def test_trimmed_mean_is_the_same_however_columns_are_shared_out() -> None:
    ours = balancer("TrimmedMean")
    assert (ours.needs, ours.heads) == ("columns", "raw")
    columns: Any = None  # it asks nothing of the other processes
    rows = JACOBIAN.float()
    parts = [ours.combine(rows[:, part], STATS, columns) for part in (slice(2), slice(2, 5))]
    torch.testing.assert_close(torch.cat(parts), rows.median(0).values)
    assert ours.weights(STATS).tolist() == [1, 1, 1]
    two = ours.combine(rows[:2], some([0, 1]), columns)
    torch.testing.assert_close(two, rows[:2].mean(0))
    assert ours.report == {"failures": 1.0}


def test_a_method_that_fails_gives_way_to_the_mean() -> None:
    krum = balancer("Krum")
    torch.testing.assert_close(krum.weights(some([0, 2])), torch.full((2,), 0.5).double())
    assert krum.report == {"failures": 1.0}
    mean = balancer("GeometricMean")
    assert mean.weights(StepStats(losses=LOSSES * 0)).tolist() == [1 / 3] * 3


def test_losses_keep_their_type() -> None:
    for name in ("Mean", "GeometricMean", "UW", "Constant"):
        assert balancer(name).weights(StepStats(losses=LOSSES.float())).dtype == torch.float32


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("upgrd", {}, "TorchJD has no method 'upgrd'; did you mean 'UPGrad'? Available: Aligne"),
        ("zzz", {}, "TorchJD has no method 'zzz'. Available: AlignedMTL, CAGrad, COSMOS, Constan"),
        ("Scalarizer", {}, "TorchJD has no method 'Scalarizer'. Available: "),
        ("CAGrad", {}, "TorchJD's CAGrad needs the option 'c'"),
        ("CAGrad", {"C": 1}, "TorchJD's CAGrad has no option 'C'; did you mean 'c'? Available: c,"),
        ("UW", {"shape": 3}, "TorchJD's UW has no option 'shape'. Available: none"),
        ("CAGrad", {"c": "x"}, "option 'c' of TorchJD's CAGrad expects a number, but is 'x'"),
        ("CAGrad", {"c": True}, "option 'c' of TorchJD's CAGrad expects a number, but is True"),
        ("CAGrad", {"c": math.nan}, "option 'c' of TorchJD's CAGrad expects a number, but is nan"),
        ("CAGrad", {"c": -1}, "TorchJD's CAGrad cannot be used on 3 tasks with these options: c m"),
        ("UPGrad", {"norm_eps": -1}, "norm_eps must be non-negative, but got -1"),
        ("MGDA", {"max_iters": 1.5}, "option 'max_iters' of TorchJD's MGDA expects a whole number"),
        (
            "AlignedMTL",
            {"scale_mode": "mean"},
            "option 'scale_mode' of TorchJD's AlignedMTL expects one of min, median, rmse, but is ",
        ),
        (
            "Constant",
            {"weights": {"seg": 1, "cls": 2}},
            "option 'weights' of TorchJD's Constant expects one number for each of seg, cls, bbox,",
        ),
        ("Constant", {"weights": [1, 2]}, "option 'weights' of TorchJD's Constant expects one "),
        ("Constant", {"weights": 2}, "option 'weights' of TorchJD's Constant expects one number "),
        ("Krum", {"n_byzantine": 1}, "TorchJD's Krum cannot be used on 3 tasks with these options"),
        (
            "DWA",
            {},
            "TorchJD's DWA cannot be used here: it keeps its history where checkpoints do ",
        ),
        ("CRMOGMWeighting", {}, "TorchJD's CRMOGM cannot be used here: it smooths the weights of "),
    ],
)
def test_mistakes_are_refused_on_one_line(
    method: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        TorchJD(TASKS, method=method, options=options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", UNSUITABLE)
def test_who_cannot_be_used_here_names_a_balancer_that_can(name: str) -> None:
    instead = UNSUITABLE[name][1]
    with pytest.raises(ValueError, match=f"--balancer {instead}" if instead else "cannot be used"):
        TorchJD(TASKS, method=name)
    assert not instead or instead in importlib.import_module("mtlkit").names("balancer")


def test_without_torchjd_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *given: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "torchjd":
            raise ModuleNotFoundError(f"No module named '{name}'")
        return real(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match=r'not installed: pip install "mtlkit\[torchjd\]"$'):
        TorchJD(TASKS, method="UPGrad")


@pytest.mark.parametrize(
    ("method", "package"), [("CAGrad", "cvxpy"), ("UPGrad", "quadprog"), ("FairGrad", "scipy")]
)
def test_without_an_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, method: str, package: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.import_module("torchjd._mixins"),
        "find_spec",
        lambda name, *more: None if name == package else real(name, *more),
    )
    with pytest.raises(ValueError, match=rf'{package}.*pip install "torchjd\['):
        TorchJD(TASKS, method=method, options=WEIGHTINGS[method])
