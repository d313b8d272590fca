"""lib.optimisation: each schedule's learning rates by formula, and what each optimiser is given."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from lib.optimisation import make_optimizer, make_schedule, warming_average
from lib.study import InputError, Training

RATE = 0.1


def settings(schedule: str = "constant", epochs: int = 6, optimizer: str = "sgd", **options) -> Training:
    return Training(epochs=epochs, learning_rate=RATE, optimizer=optimizer, schedule=schedule, schedule_options=options)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(2, 1)


def rates(chosen: Training, steps: int = 1, scores=None, larger_is_better: bool = True) -> list[list[float]]:
    """The learning rate of every optimiser step of every epoch, as the training loop makes them."""
    optimizer = make_optimizer(network(), chosen)
    schedule = make_schedule(optimizer, chosen, steps, larger_is_better)
    table = []
    for epoch in range(chosen.epochs):
        row = []
        for _ in range(steps):
            row.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(scores[epoch] if scores else 0.0)
        table.append(row)
    return table


def by_epoch(chosen: Training, **keys) -> list[float]:
    table = rates(chosen, steps=2, **keys)
    assert all(row[0] == row[1] for row in table)  # no change within an epoch
    return [row[0] for row in table]


def test_constant():
    assert by_epoch(settings()) == [RATE] * 6


@pytest.mark.parametrize("options, power", [({}, 0.9), ({"power": 2.0}, 2.0)])
def test_poly(options, power):
    """lr * (1 - epoch / epochs) ** power"""
    expected = [RATE * (1 - epoch / 6) ** power for epoch in range(6)]
    assert by_epoch(settings("poly", **options)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("options, positions", [
    ({"T_0": 2, "T_mult": 2}, [0 / 2, 1 / 2, 0 / 4, 1 / 4, 2 / 4, 3 / 4, 0 / 8, 1 / 8]),
    ({"T_0": 3, "T_mult": 1}, [0 / 3, 1 / 3, 2 / 3, 0 / 3, 1 / 3, 2 / 3, 0 / 3, 1 / 3]),
    ({}, [0 / 5, 1 / 5, 2 / 5, 3 / 5, 4 / 5, 0 / 10, 1 / 10, 2 / 10]),
])
def test_cosine_restarts(options, positions):
    """lr * (1 + cos(pi * position in its cycle)) / 2"""
    expected = [RATE * (1 + math.cos(math.pi * position)) / 2 for position in positions]
    assert by_epoch(settings("cosine_restarts", epochs=8, **options)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scores, larger_is_better, expected", [
    ([0.1, 0.2, 0.2, 0.2, 0.2, 0.2], True, [1, 1, 1, 1, 1, 0.1]),  # two bad epochs are forgiven, the third is not
    ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], True, [1, 1, 1, 1, 1, 1]),
    ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], False, [1, 1, 1, 1, 1, 1]),  # a falling loss is better
    ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], True, [1, 1, 1, 1, 0.1, 0.1]),
])
def test_plateau(scores, larger_is_better, expected):
    chosen = settings("plateau", factor=0.1, patience=2)
    found = by_epoch(chosen, scores=scores, larger_is_better=larger_is_better)
    assert found == pytest.approx([RATE * factor for factor in expected])


def test_one_cycle():
    """Twenty steps: up from lr / 25 to lr at 30 %, then down to lr / 25 / 10^4, both along a cosine."""
    found = [rate for row in rates(settings("one_cycle", epochs=5), steps=4) for rate in row]
    top, end = 0.3 * 20 - 1, 19

    def cosine(start, stop, share):
        return stop + (start - stop) / 2 * (1 + math.cos(math.pi * share))

    expected = [cosine(RATE / 25, RATE, step / top) if step <= top else
                cosine(RATE, RATE / 25e4, (step - top) / (end - top)) for step in range(20)]
    assert found == pytest.approx(expected, rel=1e-6)
    early = [rate for row in rates(settings("one_cycle", epochs=5, warm_up=0.1), steps=4) for rate in row]
    assert early.index(max(early)) == 1


@pytest.mark.parametrize("schedule, options", [("poly", {}), ("cosine_restarts", {"T_0": 2}), ("one_cycle", {}),
                                               ("plateau", {"patience": 0}), ("constant", {})])
def test_a_schedule_goes_on_where_it_was_left(schedule, options):
    chosen = settings(schedule, **options)

    def run(stop_after: int | None) -> list[float]:
        optimizer = make_optimizer(network(), chosen)
        made, found = make_schedule(optimizer, chosen, 2, True), []
        for epoch in range(6):
            if epoch == stop_after:
                state, groups = made.state(), optimizer.state_dict()
                optimizer = make_optimizer(network(), chosen)
                made = make_schedule(optimizer, chosen, 2, True)
                optimizer.load_state_dict(groups)
                made.load(state)
            for _ in range(2):
                found.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                made.after_step()
            made.after_epoch(0.5)
        return found

    assert run(3) == run(None)


@pytest.mark.parametrize("schedule, options, message", [
    ("polynomial", {}, "training.schedule: unknown 'polynomial'"),
    ("poly", {"pwoer": 1}, r"unknown key training.schedule_options.pwoer \(did you mean power"),
    ("constant", {"power": 1}, "unknown key training.schedule_options.power; known here: none"),
    ("cosine_restarts", {"T_0": 2.5}, "training.schedule_options.T_0: expected int"),
    ("poly", {"steps": 3}, "unknown key training.schedule_options.steps"),  # that is the training's own
    ("cosine_restarts", {"T_0": 0}, "training.schedule_options"),
    ("cosine_restarts", {"T_mult": 0}, "training.schedule_options"),
    ("plateau", {"factor": 1.5}, "training.schedule_options"),
    ("one_cycle", {"warm_up": 2.0}, "training.schedule_options"),
])
def test_bad_options_are_input_errors(schedule, options, message):
    chosen = settings(schedule, **options)
    with pytest.raises(InputError, match=message):
        make_schedule(make_optimizer(network(), chosen), chosen, 2, True)


@pytest.mark.parametrize("name, kind", [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam),
                                        ("adamw", torch.optim.AdamW), ("rmsprop", torch.optim.RMSprop)])
def test_optimisers_take_the_study_s_settings(name, kind):
    optimizer = make_optimizer(network(), Training(optimizer=name, learning_rate=0.25, weight_decay=0.5, momentum=0.75))
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.5) and group.get("momentum", 0.75) == 0.75
    with pytest.raises(InputError, match=r"training.optimizer: unknown 'admaw' \(did you mean 'adamw'"):
        make_optimizer(network(), Training(optimizer="admaw"))


def test_frozen_parameters_are_left_out():
    model = network()
    model.bias.requires_grad_(False)
    optimizer = make_optimizer(model, settings())
    assert [p is model.weight for group in optimizer.param_groups for p in group["params"]] == [True]


def test_one_step_of_sgd_by_hand():
    """Nesterov momentum 0.9, decay 0.5: g = 2 + 0.5 * 1; v = g; w - lr * (g + 0.9 v) = 1 - 0.1 * 4.75"""
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    model = torch.nn.Module()
    model.register_parameter("weight", weight)
    optimizer = make_optimizer(model, Training(optimizer="sgd", learning_rate=0.1, weight_decay=0.5, momentum=0.9))
    weight.grad = torch.tensor([2.0])
    optimizer.step()
    assert weight.item() == pytest.approx(0.525)


def test_two_steps_of_rmsprop_by_hand():
    """Decay 0.5, momentum 0.9, smoothing 0.99 (torch's), gradients 1.5 and then what makes 2 with the decay:
    v = 0.01 * 2^2, b = 2 / sqrt(v) = 10, w = 1 - 0.1 * 10 = 0; v = 0.99 v + 0.01 * 4, b = 0.9 * 10 + 2 / sqrt(v)."""
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    model = torch.nn.Module()
    model.register_parameter("weight", weight)
    chosen = Training(optimizer="rmsprop", learning_rate=0.1, weight_decay=0.5, momentum=0.9)
    optimizer = make_optimizer(model, chosen)
    weight.grad = torch.tensor([1.5])
    optimizer.step()
    assert weight.item() == pytest.approx(0, abs=1e-6)
    weight.grad = torch.tensor([2.0])
    optimizer.step()
    assert weight.item() == pytest.approx(-0.1 * (9 + 2 / math.sqrt(0.99 * 0.04 + 0.04)), rel=1e-5)


def test_a_moving_average_warms_up_and_then_keeps_its_decay():
    """Weights 0, 1, 2, ...: by hand, with decays 2/11, 3/12, ... up to the one given."""
    network = torch.nn.Linear(1, 1, bias=False)
    average = AveragedModel(network, multi_avg_fn=warming_average(0.3), use_buffers=True)
    expected = 0.0
    for step in range(6):
        with torch.no_grad():
            network.weight.fill_(float(step))
        average.update_parameters(network)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = step if step == 0 else decay * expected + (1 - decay) * step
        assert float(average.module.weight.detach()) == pytest.approx(expected)


def test_a_young_average_says_what_the_network_says():
    """With batch normalisation, 30 steps in: a constant decay of 0.99 would still hold the first statistics."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(*[layer for _ in range(4) for layer in (torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8))])
    average = AveragedModel(network, multi_avg_fn=warming_average(0.99), use_buffers=True)
    frames = torch.randn(64, 8) * 5 + 3
    for _ in range(30):
        network(frames)  # weights stay: only the statistics move
        average.update_parameters(network)
    with torch.no_grad():
        there, here = network.eval()(frames), average.module.eval()(frames)
    assert float((there - here).abs().mean()) < 0.2 * float(there.abs().mean())
    assert int(average.module[1].num_batches_tracked) == 30
