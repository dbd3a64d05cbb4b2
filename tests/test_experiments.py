"""Experiments, on a row small enough for a test: declared once, resumed after a kill, recorded once."""

import contextlib
import errno
import io
import json
import math
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import datasets, gates, networks, precision, predictors, training
from helpers.experiments import averaging, cluster, declared, records, running, tables
from helpers.experiments.__main__ import main
from helpers.experiments.declared import Row, Run
from helpers.experiments.running import perform
from helpers.seeding import derived
from tests.conftest import compiler, git, graphs_are_compiled


def small_network(widths=(20,)):
    (units,) = widths
    return nn.Sequential(nn.Flatten(), nn.Linear(64, units), nn.ReLU(), nn.Dropout(0.5), nn.Linear(units, 10))


SMALL = Row("MNIST LeNet", "digits", small_network, epochs=20, lr={0: 0.05, 10: 0.005}, mirror=False, autocast=None)


def small(repetition=1, kind="perturbed", profile="full", **changes):
    return Run("table-1", SMALL, kind, repetition, profile, S=kind, **changes)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Nothing is run but the small row, and nothing is written outside the test's folder."""
    monkeypatch.setattr(declared, "TABLE_1", [SMALL])
    monkeypatch.setattr(declared, "EXPERIMENTS", {"mnist-lenet": lambda *how: declared.table_1(SMALL, *how)})
    monkeypatch.setattr(records, "TABLE_1", [SMALL])
    return tmp_path / "data"


def run_here(run, folder):
    return perform(run, progress=False, folder=folder)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("once") / "data"
    run_here(small(), folder)
    return folder


@pytest.fixture
def done(once, folder):
    """The record of the small row's first run, which is done in `folder`: for tests that begin after it."""
    shutil.copytree(once, folder)
    return records.read(records.record(small(), folder))


# What is declared

ROWS = declared.TABLE_1
EXPERIMENTS = declared.EXPERIMENTS


def test_all_of_table_1_is_declared():
    runs = [run for row in ROWS for run in declared.table_1(row, "full")]
    left = [run for run in runs if run.S == "perturbed"]
    right = {(run.row.name, run.S) for run in runs if run.row.data != "mnist"}
    assert (len(left), len(right)) == (7 * 5, 5 * 3)
    paper = json.loads((records.DATA / "paper.json").read_text("utf-8"))
    assert [row.name for row in ROWS] == list(paper["table 1 left"])
    assert {name for name, _ in right} == set(paper["table 1 right"])


def test_figure_3_has_eight_sizes_on_either_side_distilled_on_two_kinds_of_images_and_from_labels():
    left, right = (EXPERIMENTS[f"figure-3-{side}"]("full") for side in ("left", "right"))
    assert len(left) == len(right) == (8 * 4 - 1) * 5 + 1, (
        "the copy of the teacher saw training images once, in Table 1"
    )
    whole = [run for run in left if run.widths in (None, (32, 32, 64, 64))]
    assert [run for run in left if run in right] == whole
    of_table_1 = [*(f"perturbed.{i + 1}" for i in range(5)), "train.1"]
    assert [run.name for run in whole if not run.labels] == [f"table-1.cifar10-quick.{n}.full" for n in of_table_1]
    ways = {("perturbed", None), ("train", None), ("perturbed", "with dropout"), ("perturbed", "without dropout")}
    assert {(run.S, run.labels) for run in left} == {(run.S, run.labels) for run in right} == ways
    left, right = ({run.widths for run in side if run.widths} for side in (left, right))
    assert left == {(32, 32, 64, n) for n in range(8, 65, 8)}
    assert right == {(4 * n, 4 * n, 8 * n, 8 * n) for n in range(1, 9)}
    sizes = [
        networks.parameter_count(networks.Quick(widths=widths)) for widths in declared.WIDTHS["figure-3-left"].values()
    ]
    assert sizes[0] == 145_578
    assert sizes == sorted(sizes, reverse=True)


def test_the_placements_have_teachers_of_their_own():
    runs = EXPERIMENTS["placement"]("short", 3)
    assert len({run.teacher for run in runs}) == len(runs) == 4 * 3
    for run in runs:
        names = [type(layer).__name__ for layer in run.row.network()]
        assert (names.index("Dropout") < names.index("MaxPool2d")) == ("before" in run.row.name)


def test_the_trials_on_mnist_change_the_learning_rate_and_in_one_of_them_the_place_of_dropout():
    runs = EXPERIMENTS["learning-rate"]("full", 1)
    lenet, lenetall = (row for row in ROWS if row.data == "mnist")
    tried = [(lenet, "mnist-lenet"), (lenetall, "mnist-lenetall"), (lenetall, "mnist-lenetall-after-pooling")]
    assert [run.row.slug for run in runs] == [f"{slug}-at-10-times-the-rate" for _, slug in tried]
    for run, (row, slug) in zip(runs, tried, strict=True):
        assert run.row.lr == {0: 0.01, 20: 0.001} and row.lr == {0: 0.001, 20: 0.0001}
        moved = slug.endswith("after-pooling")
        assert replace(run.row, name=row.name, lr=row.lr, network=row.network) == row
        assert (run.row.network == row.network) != moved
        names = [name for name, _ in run.row.network().named_children()]
        if row is lenetall:
            assert (
                (names.index("pool1") < names.index("drop1")) == (names.index("pool2") < names.index("drop2")) == moved
            )


@pytest.mark.parametrize(("side", "size"), [("figure-3-left", 56), ("figure-3-right", 4)])
def test_the_trials_of_a_small_student_share_the_teacher_and_the_size(side, size):
    runs = [run for run in EXPERIMENTS["small-student"]("full", 1) if run.variant.startswith("larger-steps")]
    runs = [run for run in runs if run.experiment == side]
    runs += [run for run in EXPERIMENTS[side]("full", 1) if run.variant in (f"distilled-{size}", f"train-{size}")]
    assert len(runs) == 4
    assert len({run.teacher for run in runs}) == len({run.widths for run in runs}) == 1
    tried = {(run.S, run.row.distillation_lr[0], run.row.distillation_lr[20]) for run in runs}
    assert tried == {(S, *lr) for S in ("perturbed", "train") for lr in ((0.005, 0.0005), (0.05, 0.005))}


def test_a_student_that_has_as_long_has_the_schedule_of_networks_from_labels():
    (run,) = (run for run in EXPERIMENTS["small-student"]("full", 1) if run.variant == "as-long-train-2")
    (rival,) = (run for run in EXPERIMENTS["figure-3-right"]("full", 1) if run.variant == "plain-2")
    schedule = run.schedule(run.row.distillation_epochs, run.row.distillation_lr)
    assert schedule == rival.schedule(rival.row.epochs, rival.row.lr) == {"epochs": 300, "lr": {0: 0.05, 200: 0.005}}
    assert run.widths == rival.widths


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("figure-3-right.cifar10-quick.labels-6.2.full", [("labels-6", 2)]),
        ("figure-3-left.cifar10-quick.labels-6", []),  # there are labels-64
        ("table-1.CIFAR10 Quick", [("perturbed", 1), ("perturbed", 2), ("train", 1), ("unseen", 1)]),
        ("cifar10-quick", [("perturbed", 1), ("perturbed", 2), ("train", 1), ("unseen", 1)]),
    ],
)
def test_runs_are_named_one_by_one_and_by_how_their_names_begin(name, runs, monkeypatch):
    monkeypatch.setattr(declared, "EXPERIMENTS", EXPERIMENTS)
    if runs:
        found = declared.declared([name], "full", 2)
        assert [(run.variant, run.repetition) for run in found] == runs
        assert declared.declared([name, found[-1].name], "full", 2) == found
    else:
        with pytest.raises(ValueError, match="did you mean"):
            declared.declared([name])


def test_no_two_runs_have_one_name():
    runs = [run for experiment in EXPERIMENTS.values() for run in experiment("full")]
    by_name = {run.name: run for run in runs}
    assert all(by_name[run.name] == run for run in runs)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
def test_a_row_s_network_fits_its_data(row):
    shape = (1, 28, 28) if row.data == "mnist" else (3, 32, 32)
    with torch.no_grad():
        assert row.network().eval()(torch.zeros(1, *shape)).shape == (1, 100 if row.data == "cifar100" else 10)


def test_distillation_starts_at_the_last_rate_of_the_baseline():
    assert declared.QUICK.distillation_lr == {0: 0.005, 20: 0.0005}


def test_a_short_run_has_a_tenth_of_the_epochs():
    assert small(profile="short").schedule(30, {0: 1.0, 20: 0.1}) == {"epochs": 3, "lr": {0: 1.0, 2: 0.1}}


# What is recorded


def test_a_run_writes_its_record_once(folder):
    content = run_here(small(), folder)
    assert set(content["metrics"]) == {"standard", "Monte Carlo", "distilled"}
    assert content["metrics"]["distilled"]["KL to ideal"] < content["metrics"]["standard"]["KL to ideal"]
    assert content["metrics"]["standard"]["error"] < 15
    assert {"settings", "seed", "seconds", "device", "versions", "commit", "date", "profile"} <= content.keys()
    written = records.record(small(), folder).stat()
    assert run_here(small(), folder) == content
    assert records.record(small(), folder).stat().st_mtime_ns == written.st_mtime_ns
    assert len(list((folder / "weights").iterdir())) == 2


def test_masks_are_averaged_once_for_all_kinds_of_S(folder):
    assert set(run_here(small(1, "train"), folder)["metrics"]) == {"standard", "distilled"}


def test_each_repetition_draws_masks_of_its_own(done, folder, monkeypatch):
    monkeypatch.setattr(running.distillation, "distill", lambda teacher, inputs, *, student, **_: student.eval())
    other = run_here(small(2), folder)
    assert other["metrics"]["standard"] == done["metrics"]["standard"], "they share a teacher"
    assert all(other["Monte Carlo by masks"][m] != done["Monte Carlo by masks"][m] for m in map(str, declared.MASKS))


def test_a_teacher_is_trained_by_one_process_at_a_time(folder, monkeypatch):
    held = []

    def trained(network, *_):
        held.append(records.held(small().teacher, folder))
        return network

    monkeypatch.setattr(running, "trained", trained)
    running.taught(small(), None, torch.device("cpu"), False, folder)
    assert held == [True]


def test_the_distance_of_monte_carlo_falls_with_the_number_of_masks(done):
    curve = done["Monte Carlo by masks"]
    distances = [curve[str(m)]["KL to ideal"] for m in declared.MASKS]
    assert distances == sorted(distances, reverse=True)
    # The excess over the ideal falls as 1/m, and the ideal itself has 400 masks: (1 + 1/400) / (1/100 + 1/400) = 80.
    assert 20 < distances[0] / distances[-1] < 320


def test_what_is_declared_reaches_both_algorithms(folder, monkeypatch):
    row = replace(SMALL, mirror=True, weight_decay=0.03, batch_size=32, autocast=torch.bfloat16)
    seen = {}

    def train(network, inputs, labels, **how):
        seen["training"] = inputs, how
        return network.eval()

    def distill(teacher, inputs, *, student, **how):
        seen["distillation"] = inputs, how
        return student

    monkeypatch.setattr(running.training, "train", train)
    monkeypatch.setattr(running.distillation, "distill", distill)
    run_here(Run("table-1", row, "unseen", 3, "full", S="unseen"), folder)
    data = datasets.load("digits")
    (trained_on, training_), (distilled_on, distillation_) = seen["training"], seen["distillation"]
    assert torch.equal(trained_on, data.train.images) and torch.equal(distilled_on, data.test.images)
    assert (training_["seed"], distillation_["seed"]) == (0, 3)
    assert (training_["lr"], distillation_["lr"]) == ({0: 0.05, 10: 0.005}, {0: 0.005, 20: 0.0005})
    half_white = torch.zeros(4000, 1, 8, 8, dtype=torch.uint8)
    half_white[..., :4] = 255
    torch.manual_seed(0)
    for how in (training_, distillation_):
        assert (how["weight_decay"], how["batch_size"], how["autocast"]) == (0.03, 32, torch.bfloat16)
        mirrored = (how["perturb"](half_white)[:, 0, 0, 7] == 1).double().mean()
        assert abs(mirrored - 0.5) < 5 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize("labels", ["with dropout", "without dropout"])
def test_a_small_network_trained_from_labels_has_dropout_only_where_it_is_declared(labels, folder, monkeypatch):
    received = []
    monkeypatch.setattr(running.training, "train", lambda network, *_, **how: received.append(network) or network)
    run = Run("figure-3-right", SMALL, "labels-10", 1, "full", widths=(10,), labels=labels)
    running.small_network(run, datasets.load("digits"), torch.device("cpu"), False, folder)
    (network,) = received
    assert bool(gates.stochastic_layers(network)) == (labels == "with dropout")


@pytest.mark.parametrize("side", ["figure-3-left", "figure-3-right"])
def test_a_smaller_student_starts_as_its_side_of_the_figure_says(side):
    teacher = small_network()
    start = running.first_student(Run(side, SMALL, "distilled-10", 1, "full", widths=(10,)), teacher)[1].weight
    of_teacher = (start[:, None] == teacher[1].weight).all(-1).any(1)
    if side == "figure-3-right":  # units of the teacher
        assert of_teacher.all()
    else:  # a fresh start
        assert not of_teacher.any() and abs(start.std() / 0.01 - 1) < 5 / math.sqrt(2 * 640)


def test_kept_weights_are_those_of_the_networks(done, folder):
    from safetensors.torch import load_file

    for name, kind in ((small().teacher, torch.float32), (small().name, torch.float16)):
        kept = load_file(records.weights(name, folder))
        trained = torch.load(records.checkpoint(name, folder), weights_only=True)["model"]
        assert kept.keys() == trained.keys()
        assert all(kept[key].dtype == kind and torch.equal(kept[key], trained[key].to(kind)) for key in kept)


def test_a_teacher_whose_weights_are_kept_is_not_trained_again(done, folder, tmp_path, monkeypatch):
    expected = run_here(small(2), folder)
    elsewhere = tmp_path / "elsewhere"  # where there is no checkpoint
    for kept in ("weights", "runs"):
        shutil.copytree(folder / kept, elsewhere / kept)
    records.record(small(2), elsewhere).unlink()
    monkeypatch.setattr(training, "train", None)
    assert metrics(run_here(small(2), elsewhere)) == metrics(expected)


def test_kept_weights_that_are_damaged_or_of_another_network_are_named(done, folder):
    path = records.weights(small().teacher, folder)
    wider = replace(SMALL, network=lambda: small_network(widths=(30,)))
    with pytest.raises(ValueError, match=r"(?s)teacher.full.safetensors does not hold .* remove it.*size mismatch"):
        run_here(Run("table-1", wider, "perturbed", 2, "full"), folder)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"teacher.full.safetensors does not hold .* remove it"):
        run_here(small(2), folder)


def test_another_teacher_has_another_ideal(done, folder):
    path = records.weights(small().teacher, folder)
    old = path.read_bytes()
    run_here(replace(small(), teacher_seed=1), folder.with_name("other"))
    (new,) = folder.with_name("other").glob("weights/*teacher-1*")
    path.write_bytes(new.read_bytes())  # as somebody's new version might
    content = run_here(small(2), folder)
    assert content["metrics"]["standard"] != done["metrics"]["standard"]
    assert content["metrics"]["Monte Carlo"]["KL to ideal"] < content["metrics"]["standard"]["KL to ideal"] / 4
    assert old != path.read_bytes()


def test_smaller_students_are_distilled_or_trained_from_labels(folder):
    distilled = run_here(small(widths=(10,)), folder)
    assert set(distilled["metrics"]) == {"standard", "distilled"}
    for how in ("with dropout", "without dropout"):
        labelled = run_here(replace(small(widths=(10,), labels=how), variant=how), folder)
        assert distilled["parameters"] == labelled["parameters"] == 64 * 10 + 10 + 10 * 10 + 10
        average = {f"from labels, {how}, Monte Carlo"} if how == "with dropout" else set()
        assert set(labelled["metrics"]) == {"standard", f"from labels, {how}"} | average
        assert labelled["metrics"][f"from labels, {how}"]["error"] < 30
        assert labelled["metrics"]["standard"] == distilled["metrics"]["standard"]


def test_a_small_network_from_labels_is_averaged_over_its_own_masks(folder):
    run = replace(small(widths=(10,), labels="with dropout"), variant="labels-10")
    found = run_here(run, folder)["metrics"]
    network = small_network((10,))
    network.load_state_dict(torch.load(records.checkpoint(run.name, folder), weights_only=True)["model"])
    data = datasets.load("digits")
    x, labels = data.inputs(data.test.images), data.test.labels
    exact, scaled = (F.nll_loss(q(network, x).log(), labels).item() for q in (predictors.exact, predictors.standard))
    assert found["from labels, with dropout"]["NLL"] == pytest.approx(scaled, rel=1e-5)
    average = found["from labels, with dropout, Monte Carlo"]["NLL"]
    assert abs(average - exact) < 0.2 * abs(scaled - exact)


def test_figure_3_is_read_from_its_records(folder, monkeypatch):
    sizes = {20: (20,), 5: (5,)}
    monkeypatch.setattr(declared, "QUICK", SMALL)
    for module in (declared, records):
        monkeypatch.setattr(module, "WIDTHS", {"figure-3-left": sizes})
    monkeypatch.setattr(records, "QUICK", SMALL)
    runs = declared.figure_3("figure-3-left", "short", 2)
    assert len(runs) == (4 * 2 - 1) * 2, "Table 1 has no students of other kinds of images but on CIFAR"
    monkeypatch.setattr(records, "figure_3", lambda side, profile: declared.figure_3(side, profile, 2))
    assert records.by_size("figure-3-left", "short", folder) == {}
    assert (records.sizes("short", folder)["distilled: error [%]"] == "not run").all()
    for run in runs:
        run_here(run, folder)
    curves = records.by_size("figure-3-left", "short", folder)
    labelled = {f"from labels, {how}" for how in ("with dropout", "with dropout, Monte Carlo", "without dropout")}
    assert set(curves) == {"distilled", "distilled on training images", *labelled}
    assert curves["from labels, with dropout"] != curves["from labels, with dropout, Monte Carlo"]
    assert {size: len(found) for size, found in curves.pop("distilled on training images").items()} == {5: 2}
    assert all({size: len(found) for size, found in curve.items()} == {20: 2, 5: 2} for curve in curves.values())
    table = records.sizes("short", folder)
    found, large = curves["distilled"][20], networks.parameter_count(SMALL.network())
    assert list(table.index) == [("the penultimate layer shrinks", 20), ("the penultimate layer shrinks", 5)]
    assert table["parameters left [%]"].iloc[-1] == round(100 * (65 * 5 + 6 * 10) / large)
    mean = (found[0]["error"] + found[1]["error"]) / 2
    spread = abs(found[0]["error"] - found[1]["error"]) / math.sqrt(2)
    assert table["distilled: error [%]"].iloc[0] == f"{mean:.2f} ± {spread:.2f}"


@pytest.mark.parametrize(
    "errors, text",
    [
        ([], "not run"),
        ([30.0], "30.00"),
        ([30.0, 32.0], "31.00 ± 1.41"),
        ([30.0, 90.0, 32.0], "31.00 ± 1.41; 1 of 3 not learned"),
        ([90.0], "1 of 1 not learned"),
    ],
)
def test_networks_that_have_not_learned_are_counted_apart(errors, text):
    assert records.of_learned([{"error": error} for error in errors], "error") == text


def test_a_run_that_diverges_is_recorded_as_such_and_not_counted(folder, monkeypatch):
    wild = replace(SMALL, epochs=2, lr={0: 1e30})
    content = run_here(Run("table-1", wild, "perturbed", 1, "full"), folder)
    assert "learning rate" in content["diverged"]
    assert "metrics" not in content
    assert records.state(small(), folder) == "diverged"
    table = records.left(folder=folder)
    assert (table["error [%]"] == "not run").all()
    assert list(table["repetitions"]) == ["0 of 1, 1 diverged", "0 of 5, 1 diverged", "0 of 5, 1 diverged"]


def test_a_last_repetition_that_diverged_does_not_hide_the_teacher(done, folder, monkeypatch):
    def diverge(*args, **kwargs):
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(running.distillation, "distill", diverge)
    assert "diverged" in run_here(small(5), folder)
    table = records.left(folder=folder)
    assert table.loc[("MNIST LeNet", "standard"), "repetitions"] == "1 of 1"
    assert table.loc[("MNIST LeNet", "distilled"), "repetitions"] == "1 of 5, 1 diverged"


def test_of_teachers_as_many_are_counted_as_are_declared(folder):
    runs = [replace(small(i), experiment="placement", teacher_seed=i) for i in (1, 2, 3)]
    score = dict.fromkeys(records.MEASURES, 1.0)
    for run in runs[:2]:
        running.write(records.record(run, folder), {"format": 1, "metrics": {"standard": score}})
    cells = records.cells(runs, "standard", folder)
    assert (cells["error [%]"], cells["repetitions"]) == ("1.00 ± 0.00", "2 of 3")


def test_the_table_sets_ours_beside_the_paper_s(folder):
    errors = [run_here(small(i), folder)["metrics"]["distilled"]["error"] for i in (1, 2)]
    table = records.left(folder=folder)
    mean, spread = pd.Series(errors).agg(["mean", "std"])
    assert table.loc[("MNIST LeNet", "distilled"), "error [%]"] == f"{mean:.2f} ± {spread:.2f}"
    assert table.loc[("MNIST LeNet", "distilled"), "paper: error [%]"] == "0.67 ± 0.01"
    assert table.loc[("MNIST LeNet", "distilled"), "repetitions"] == "2 of 5"
    assert "±" not in table.loc[("MNIST LeNet", "standard"), "error [%]"]  # they share one teacher


def test_a_row_that_was_run_for_a_tenth_of_the_epochs_only_is_shown_and_says_so(folder):
    cells = ["error [%]", "repetitions", "epochs"]

    def shown(profile="full"):
        return list(records.left(profile, folder).loc[("MNIST LeNet", "distilled"), cells])

    assert shown() == ["not run", "0 of 5", "not run"]
    for profile, error in (("short", 7.0), ("full", 5.0)):
        score = dict.fromkeys(records.MEASURES, error)
        content = {"format": 1, "metrics": {predictor: score for predictor in records.PREDICTORS}}
        running.write(records.record(small(profile=profile), folder), content)
        assert shown() == {"short": ["7.00", "1 of 5", "2 of 20"], "full": ["5.00", "1 of 5", "20 of 20"]}[profile]
    assert shown("short") == ["7.00", "1 of 5", "2 of 20"]


def test_a_mean_of_infinities_is_one():
    assert [records.cell(values) for values in ([], [1.0], [1.0, math.inf], [math.inf])] == [
        "not run",
        "1.00",
        "∞",
        "∞",
    ]


def test_the_right_half_has_each_kind_beside_the_paper_s(folder, monkeypatch):
    row = replace(SMALL, name="CIFAR10 Quick", data="cifar10")
    monkeypatch.setattr(records, "TABLE_1", [row])
    for error, kind in enumerate(declared.KINDS, 1):
        if error == 3:
            assert records.right(folder=folder)["epochs"].to_list() == ["20 of 20", "20 of 20", "not run"]
        content = {"format": 1, "metrics": {"distilled": dict.fromkeys(records.MEASURES, float(error))}}
        running.write(records.record(Run("table-1", row, kind, 1, "full", S=kind), folder), content)
    table = records.right(folder=folder).loc["CIFAR10 Quick"]
    assert table["error [%]"].to_dict() == {"perturbed": "1.00", "train": "2.00", "unseen": "3.00"}
    assert table["paper: error [%]"].to_dict() == {"perturbed": "17.20", "train": "17.15", "unseen": "17.23"}


def test_where_records_come_from_is_said_in_a_sentence():
    def content(commit, date, **device):
        return {"commit": commit, "date": date, "versions": {"torch": "2.9"}, **device}

    first = content("1234567890", "2026-01-02T03:04", device="cpu")
    second = content("abcdefghij+", "2026-01-01T03:04", processor="x86_64")
    assert records.origin([]) == "There are no records."
    assert records.origin([first]) == "*1 record, 2026-01-02; commit 123456789; device cpu; PyTorch 2.9.*"
    both = "*2 records, 2026-01-01 to 2026-01-02; commits 123456789, abcdefghi+; devices cpu, x86_64; PyTorch 2.9.*"
    assert records.origin([first, second]) == both


def test_every_record_in_the_repository_can_be_read_and_was_declared():
    runs = {run.name: run for profile in declared.PROFILES for make in EXPERIMENTS.values() for run in make(profile)}
    paths = sorted((records.DATA / "runs").glob("*.json"))
    assert paths
    for path in paths:
        content, run = records.read(path), runs[path.stem]
        assert content["profile"] == run.profile
        assert content["row"] == run.row.name
        assert not content["commit"].endswith("+"), "made by code that was in no commit"
        assert running.made_for(run, path) == content, "made with other settings than are declared"
        if not isinstance(run, Run):
            continue  # test_variational_experiments.py has the settings of the others
        assert content["settings"]["network"] == repr(run.row.network())


def test_where_git_is_not_installed_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert running.commit() == "unknown"


def committed(folder):
    """A commit of all that is in `folder`, in a repository of its own."""
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", "-C", folder, *who, *command], check=True)


@git
def test_code_that_was_changed_since_its_commit_is_marked_with_a_plus(tmp_path, monkeypatch):
    code = tmp_path / "helpers" / "code.py"
    code.parent.mkdir()
    code.write_text("a = 1\n")
    committed(tmp_path)
    monkeypatch.setattr(running, "ROOT", tmp_path)
    clean = running.commit()
    (tmp_path / "notes").touch()
    assert len(clean) == 40
    assert running.commit() == clean, "what lies beside the code is not the code"
    code.write_text("a = 2\n")
    assert running.commit() == f"{clean}+"


@git
def test_a_repository_around_this_one_has_not_made_the_code(tmp_path, monkeypatch):
    committed(tmp_path)
    (tmp_path / "suite" / "helpers").mkdir(parents=True)
    monkeypatch.setattr(running, "ROOT", tmp_path)
    assert len(running.commit()) == 40
    monkeypatch.setattr(running, "ROOT", tmp_path / "suite")
    assert running.commit() == "unknown"


def test_the_commit_is_that_of_the_code_when_it_was_loaded(monkeypatch):
    monkeypatch.setattr(running, "commit", lambda: "what somebody has checked out meanwhile")
    monkeypatch.setattr(running, "measured", lambda *_: {})
    content = running.carried_out(small(), torch.device("cpu"), False, None)
    assert content["commit"] == running.COMMIT != running.commit()


# What is interrupted


def work(folder):
    torch.set_num_threads(1)
    run_here(small(), folder)


def metrics(content):
    return content["metrics"], content.get("Monte Carlo by masks")


@pytest.mark.parametrize("until", ["teacher", "student"], ids=["in training", "in distillation"])
def test_a_run_that_is_killed_goes_on_to_the_same_result(until, tmp_path, done):
    other = tmp_path / "killed"
    process = multiprocessing.get_context("spawn").Process(target=work, args=(other,))
    process.start()
    checkpoint = records.checkpoint(small().teacher if until == "teacher" else small().name, other)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert checkpoint.exists()
    assert not (other / "runs").exists(), "it was killed too late to show anything"
    assert (records.state(small(), other), records.state(small(2), other)) == ("interrupted", "missing")
    assert metrics(run_here(small(), other)) == metrics(done)


def test_masks_that_were_averaged_before_a_kill_are_not_drawn_again(done, folder, monkeypatch):
    parts = list(range(0, 400, averaging.PART))  # of the ideal; then come the numbers of masks of Figure 2
    other, calls, monte_carlo = folder.with_name("other"), [], predictors.monte_carlo

    def killed_at(call):
        def stand_in(teacher, x, m, seed, **how):
            calls.append(m)
            if len(calls) == call:
                raise KeyboardInterrupt
            return monte_carlo(teacher, x, m, seed, **how)

        return stand_in

    for call in (3, len(parts) + 4):  # in the ideal, and among the others
        monkeypatch.setattr(predictors, "monte_carlo", killed_at(call))
        with pytest.raises(KeyboardInterrupt):
            run_here(small(), other)
    monkeypatch.setattr(predictors, "monte_carlo", killed_at(None))
    assert metrics(run_here(small(), other)) == metrics(done)
    assert sum(calls) == 400 + 100 + averaging.PART + 3  # of those that were killed, the third is from 2 to 5 masks


def test_an_average_is_that_of_all_masks_drawn_so_far(tmp_path):
    torch.manual_seed(0)
    teacher, x = small_network(), torch.randn(30, 1, 8, 8)
    found = averaging.averages(teacher, x, (1, 3, 10), 7, tmp_path / "teacher.pt", progress=False)
    parts = {m: predictors.monte_carlo(teacher, x, n, seed=derived(7, m)) for m, n in ((1, 1), (3, 2), (10, 7))}
    sums = {1: parts[1], 3: parts[1] + 2 * parts[3], 10: parts[1] + 2 * parts[3] + 7 * parts[10]}
    for m, total in sums.items():
        torch.testing.assert_close(found[m], total / m)


def test_averages_of_other_inputs_are_not_taken_for_these(tmp_path):
    torch.manual_seed(0)
    teacher, x = small_network(), torch.randn(5, 1, 8, 8)
    averaging.averages(teacher, x, (1, 3), 7, tmp_path / "teacher.pt", progress=False)
    with pytest.raises(ValueError, match="another configuration:\n  inputs"):
        averaging.averages(teacher, x + 1, (1, 3), 7, tmp_path / "teacher.pt", progress=False)
    with pytest.raises(ValueError, match="another configuration:\n  masks"):
        averaging.averages(teacher, x, (1, 4), 7, tmp_path / "teacher.pt", progress=False)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a checkpoint that can be read"):
        averaging.averages(teacher, x, (1, 3), 7, tmp_path / "teacher.pt", progress=False)


def test_a_record_that_was_being_written_is_written_again(folder, monkeypatch):
    rename = os.rename

    def stop_at_records(old, new):
        if str(new).endswith(".json"):
            raise KeyboardInterrupt
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", stop_at_records)
        with pytest.raises(KeyboardInterrupt):
            run_here(small(), folder)
    assert records.state(small(), folder) == "interrupted"
    assert not list((folder / "runs").iterdir())
    assert run_here(small(), folder)["metrics"]


def test_two_processes_do_not_work_on_one_run(folder):
    with records.lock(small(2).name, folder):
        assert records.state(small(2), folder) == "running"
        with pytest.raises(BlockingIOError, match="another process"):
            run_here(small(2), folder)
    assert records.state(small(2), folder) == "missing"


def test_who_looks_at_a_run_for_a_moment_does_not_keep_it_from_being_carried_out(kept, folder, monkeypatch):
    monkeypatch.setattr(running, "carried_out", lambda *_: kept)
    looked = threading.Event()

    def look():
        with records.lock(small(2).name, folder):
            looked.set()
            time.sleep(0.2)

    threading.Thread(target=look).start()
    looked.wait()
    assert run_here(small(2), folder) == kept


def test_looking_at_what_there_is_writes_nothing(kept, folder, monkeypatch):
    elsewhere = folder.with_name("elsewhere")
    assert records.state(small(), elsewhere) == "missing"
    assert not elsewhere.exists()
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(Path, "mkdir", None)
    assert (run_here(small(), folder), records.state(small(), folder)) == (kept, "done")
    assert sorted(folder.rglob("*")) == before


def test_a_run_is_not_called_running_because_its_lock_is_for_reading_only(folder, monkeypatch):
    with records.lock(small().name, folder):
        pass

    def read_only(*args):
        raise OSError(errno.EROFS, "Read-only file system")

    assert records.lock_file(small().name, folder).exists()
    monkeypatch.setattr(os, "open", read_only)
    assert records.state(small(), folder) == "missing"


# On several machines


def local_cluster(**how):
    from dask.distributed import LocalCluster

    default = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    return LocalCluster(**default | how)


def test_a_cluster_makes_the_same_records(folder, tmp_path):
    runs = [small(), small(2), small(1, "train")]
    expected = [metrics(run_here(run, folder)) for run in runs]
    with local_cluster(n_workers=2, processes=True) as workers:
        address, other = workers.scheduler_address, tmp_path / "cluster"
        done = list(cluster.perform_all(runs, address, folder=other))
        assert sorted(run.name for run in done) == sorted(run.name for run in runs)
        found = [metrics(records.read(records.record(run, other))) for run in runs]
        assert [run.name for run in cluster.perform_all(runs, address, folder=other)] == [run.name for run in runs]
    assert found == expected  # Dask gives its workers one thread, and tests have one too


def test_without_dask_there_is_no_cluster(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(SystemExit, match="dask"):
        main(["run", "--scheduler", "tcp://127.0.0.1:9", "--folder", str(folder)])


def test_a_run_that_another_process_has_does_not_stop_the_cluster(folder, capsys):
    with local_cluster() as workers, records.lock(small().name, folder):
        how = ["--scheduler", workers.scheduler_address, "--folder", str(folder)]
        main(["run", "--repetitions", "2", *how])
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split() for line in lines) == [["done", small(2).name], ["running", small().name]]


def test_a_run_that_fails_does_not_keep_the_cluster_from_the_others(folder):
    runs = [
        Run("table-1", replace(SMALL, name="CIFAR100 NiN", data="nowhere"), "perturbed", 1, "full"),
        small(),
        small(2),
    ]
    done = []
    with local_cluster() as workers, pytest.raises(ValueError, match="no data set 'nowhere'"):
        done.extend(cluster.perform_all(runs, workers.scheduler_address, folder=folder))
    assert [records.state(run, folder) for run in runs] == ["missing", "done", "done"]


def test_what_a_worker_with_a_disk_of_its_own_has_done_is_written_here(done, folder, monkeypatch):
    monkeypatch.setattr(cluster, "taught", lambda *_: None)
    monkeypatch.setattr(cluster, "perform", lambda *_, **__: done)
    with local_cluster() as workers:
        assert list(cluster.perform_all([small()], workers.scheduler_address, folder=folder)) == [small()]
    assert records.read(records.record(small(), folder)) == done


def test_a_folder_is_the_same_for_a_worker_in_another_directory(tmp_path, monkeypatch):
    folders = []
    monkeypatch.setattr(
        "helpers.experiments.__main__.perform_all", lambda runs, scheduler, device, folder: folders.append(folder) or []
    )
    monkeypatch.chdir(tmp_path)
    main(["run", "--scheduler", "tcp://127.0.0.1:9", "--folder", "here"])
    assert folders == [Path.cwd() / "here"]


def test_who_waits_for_workers_is_told_how_to_start_one(kept, folder, monkeypatch, capsys):
    monkeypatch.setattr(running, "carried_out", lambda *_: kept)
    with local_cluster(n_workers=0) as workers:
        waiting = cluster.perform_all([small(), small(2)], workers.scheduler_address, folder=folder)
        assert next(waiting) == small()
        assert not capsys.readouterr().err
        workers.scale(1)
        assert next(waiting) == small(2)
        hint = f"start one: dask worker {workers.scheduler_address} --nthreads 1"
    assert hint in capsys.readouterr().err


def test_the_device_is_looked_for_where_the_work_is_done(folder, monkeypatch):
    with local_cluster() as workers:
        how = ["--device", "cuda:99", "--scheduler", workers.scheduler_address, "--folder", str(folder)]
        with pytest.raises(SystemExit, match="no device 'cuda:99'"):
            main(["run", "--repetitions", "1", *how])
    how[3] = "tcp://127.0.0.1:9"
    monkeypatch.setattr("helpers.experiments.__main__.perform_all", partial(cluster.perform_all, timeout=0.5))
    with pytest.raises(SystemExit, match="no Dask scheduler"):
        main(["run", *how])


def test_workers_with_several_threads_are_refused_before_any_work(folder, monkeypatch):
    """Their runs would draw from each other's random numbers, which belong to the process."""
    from dask.distributed import Client

    refusal = r"workers at .* more than one thread.*`dask worker ADDRESS --nthreads 1`.*`--nworkers N`"
    with local_cluster(threads_per_worker=2) as workers, Client(workers) as client:
        with monkeypatch.context() as patch, pytest.raises(ValueError, match=refusal):
            patch.setattr(Client, "submit", None)
            list(cluster.perform_all([small()], workers.scheduler_address, folder=folder))
        # As on a worker that comes later:
        for task, *arguments in ((cluster.teach, small()), (cluster.after, None, small())):
            with pytest.raises(ValueError, match=refusal):
                client.submit(task, *arguments, "cpu", folder).result()
    assert not folder.exists()


def test_a_scheduler_that_does_not_answer_is_named(folder):
    message = r"no Dask scheduler answers at tcp://127.0.0.1:9.*--nthreads 1`, or leave --scheduler out"
    with pytest.raises(ConnectionError, match=message):
        list(cluster.perform_all([small()], "tcp://127.0.0.1:9", folder=folder, timeout=0.5))


# On a GPU, as far as a processor can show it


def test_more_networks_are_compiled_than_pytorch_allows_by_itself(monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    for units in range(1, 13):
        network = nn.Sequential(nn.Linear(units, 3))
        running.compile_whole(network)
        with graphs_are_compiled():
            network(torch.ones(2, units))


@compiler
def test_compiled_gates_have_the_distribution_of_eager_ones():
    """False alarms: a count beyond 5.5 σ in one of 64 positions, or in one of 63 pairs: 5e-6."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.25)).train()
    running.compile_whole(network)
    n = 20_000
    with graphs_are_compiled(), torch.no_grad():
        kept = (network(torch.ones(n, 64)) != 0).double()
    assert (kept.mean(0) - 0.75).abs().max() < 5.5 * (0.75 * 0.25 / n) ** 0.5
    both = (kept[:, 1:] * kept[:, :-1]).mean(0)
    assert (both - 0.75**2).abs().max() < 5.5 * (0.75**2 * (1 - 0.75**2) / n) ** 0.5


@compiler
def test_a_run_with_compiled_networks_is_as_good(folder, monkeypatch):
    """What a GPU would do (compile, bfloat16, PyTorch's own gates), done on this processor."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(gates, "cheap_masks", lambda model: contextlib.nullcontext())
    row = replace(SMALL, autocast=torch.bfloat16)
    eager = run_here(small(), folder / "eager")
    monkeypatch.setattr(running, "compiled", lambda network: running.compile_whole(network) or network)
    with graphs_are_compiled():
        found = run_here(replace(small(), row=row), folder)
    for predictor in ("standard", "distilled"):
        ours, theirs = (content["metrics"][predictor] for content in (found, eager))
        assert abs(ours["error"] - theirs["error"]) < 4  # 20 of the 500 digits
        assert abs(ours["NLL"] - theirs["NLL"]) < 0.1
    assert found["metrics"]["distilled"]["KL to ideal"] < found["metrics"]["standard"]["KL to ideal"] / 2
    assert (eager["computed in"], found["computed in"]) == ("torch.float32", "torch.bfloat16")


@pytest.mark.parametrize(
    ("device", "triton", "expected"), [("cpu", True, False), ("cuda", True, True), ("cuda", False, False)]
)
def test_networks_are_compiled_on_a_gpu_if_there_is_triton(monkeypatch, device, triton, expected):
    network, compiled = nn.Linear(1, 1), []
    monkeypatch.setattr(running, "compile_whole", compiled.append)
    monkeypatch.setattr(running, "device_of", lambda network: torch.device(device))
    monkeypatch.setattr(running, "find_spec", lambda name: name if triton else None)
    assert running.compiled(network) is network
    assert compiled == [network] * expected


@pytest.mark.parametrize(("device", "expected"), [("cpu", predictors.BATCH), ("cuda", averaging.BATCH_ON_GPU)])
def test_a_gpu_averages_larger_batches(monkeypatch, tmp_path, device, expected):
    sizes, x = [], torch.ones(2, 3)

    def monte_carlo(teacher, x, m, seed, *, batch_size):
        sizes.append(batch_size)
        return x

    monkeypatch.setattr(predictors, "monte_carlo", monte_carlo)
    monkeypatch.setattr(averaging, "device_of", lambda network: torch.device(device))
    averaging.averages(nn.Linear(3, 3), x, [1, 2], 0, tmp_path / "teacher.pt", progress=False)
    assert sizes == [expected] * 2


def test_a_gpu_that_is_too_small_says_which_batch_size_to_try(folder, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(running.distillation, "distill", full)
        with pytest.raises(MemoryError, match=r"batches of 128.*last checkpoint.*--batch-size 64") as caught:
            run_here(small(), folder)
    assert records.checkpoint(small().teacher, folder).exists()
    (advice,) = re.findall(r"`(.*?)`", str(caught.value))
    other = folder.with_name("other")
    main(["run", "--repetitions", "1", "--folder", str(folder), *advice.replace("ANOTHER", str(other)).split()])
    assert records.read(records.record(small(), other))["settings"]["batch_size"] == 64
    assert run_here(small(), folder)["metrics"]


def test_a_gpu_that_is_too_small_for_a_teacher_says_so_from_a_cluster_too(folder, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(running.training, "train", full)
    with (
        local_cluster() as workers,
        pytest.raises(SystemExit, match=r"batches of 128.*last checkpoint.*--batch-size 64"),
    ):
        how = ["--scheduler", workers.scheduler_address, "--folder", str(folder)]
        main(["run", "--repetitions", "1", *how])


def test_a_device_that_is_full_is_a_device(monkeypatch):
    def fails(error):
        def zeros(*args, **kwargs):
            raise error

        monkeypatch.setattr(torch, "zeros", zeros)

    fails(torch.OutOfMemoryError("CUDA out of memory"))
    running.require_device("cuda")
    fails(RuntimeError("CUDA error: busy\nCUDA kernel errors might be reported later"))
    with pytest.raises(ValueError, match=r"no device 'cuda' here.*\(CUDA error: busy\)$"):
        running.require_device("cuda")


# The command line


def test_the_command_line_runs_lists_and_shows(capsys, folder):
    here = ["--folder", str(folder)]
    main(["list", "MNIST LeNet", "--repetitions", "1", *here])
    assert capsys.readouterr().out.split() == ["missing", small().name]
    main(["run", "mnist-lenet", "--repetitions", "1", *here])
    main(["list", "--repetitions", "1", *here])
    assert capsys.readouterr().out.split() == ["done", small().name] * 2
    main(["table", *here])
    assert "1 of 5" in capsys.readouterr().out


def test_above_each_table_is_what_it_shows(capsys, folder):
    main(["table", "--folder", str(folder)])
    printed = capsys.readouterr().out.split("\n\n")
    assert [table.splitlines()[0] for table in printed if table] == [*tables.BY_PROFILE, *tables.OTHERS]
    (placements,) = [table for table in printed if "0 of 5" in table and "before pooling" in table]
    assert placements.startswith("Quick with dropout before and after pooling (a tenth of the epochs)")


@pytest.mark.parametrize("command", ["list", "table"])
def test_an_output_that_has_no_sign_for_something_is_no_error(command, folder, monkeypatch):
    row = replace(SMALL, name="MNIST LeNet ± ‖")
    monkeypatch.setattr(declared, "EXPERIMENTS", {"mnist-lenet": lambda *how: declared.table_1(row, *how)})
    printed = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", printed)
    main([command, "--folder", str(folder)])
    printed.flush()
    assert b"\\xb1" in printed.buffer.getvalue()


def test_a_run_that_another_process_has_is_passed_over(capsys, folder):
    with records.lock(small().name, folder):
        main(["run", "--repetitions", "2", "--folder", str(folder)])
    assert capsys.readouterr().out.split() == ["running", small().name, "done", small(2).name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mnist-lenett"], "did you mean 'mnist-lenet'"),
        (["run", "--device", "cuda:99"], "no device 'cuda:99'"),
        (["run", "--device", "abacus"], "no device 'abacus'"),
        (["run", "--batch-size", "0"], "at least 1, not 0"),
        (["list", "--repetitions", "0"], "at least 1, not 0"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, message, folder):
    with pytest.raises(SystemExit, match=message):
        main([*arguments, "--folder", str(folder)])


@pytest.mark.parametrize(
    "error", [ImportError("no mlxtend"), PermissionError("not yours"), ConnectionError("no network")]
)
def test_what_keeps_one_run_from_being_done_keeps_no_other(error, folder, monkeypatch, capsys):
    def perform(run, *args, **kwargs):
        if run.repetition == 1:
            raise error
        running.write(records.record(run, folder), {"format": 1})

    monkeypatch.setattr("helpers.experiments.__main__.perform", perform)
    with pytest.raises(SystemExit, match=str(error)):
        main(["run", "--repetitions", "2", "--folder", str(folder)])
    assert capsys.readouterr().out.split() == ["missing", small().name, "done", small(2).name]


def test_all_tables_are_shown_or_none(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["table", "mnist-lenet", "--folder", str(folder)])
    assert "unrecognized arguments: mnist-lenet" in capsys.readouterr().err


def test_who_interrupts_is_told_how_to_go_on(folder, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "carried_out", interrupt)
    with pytest.raises(SystemExit) as caught:
        main(["run", "--folder", str(folder)])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "python -m helpers.experiments: interrupted; run it again to go on\n"


def test_batches_of_another_size_have_a_folder_of_their_own(done, folder, monkeypatch):
    monkeypatch.setattr(records, "DATA", folder / ".." / folder.name)
    with pytest.raises(SystemExit, match="a --folder of their own"):
        main(["run", "--batch-size", "64", "--folder", str(folder)])
    with pytest.raises(ValueError, match="batch_size: 128 there, 64 here"):
        run_here(replace(small(), row=replace(SMALL, batch_size=64)), folder)


OTHER_SETTINGS = [
    ({"batch_size": 64}, "batch_size: 128 there, 64 here"),
    ({"weight_decay": 0.0}, "weight_decay: 0.0005 there, 0.0 here"),
    ({"mirror": True}, "mirror: False there, True here"),
    ({"epochs": 30}, "training: {'epochs': 20, .*} there, {'epochs': 30, .*} here"),
]


@pytest.fixture
def kept(folder):
    """What a run leaves that has been carried out, without the work."""
    content = {"format": 1, "settings": json.loads(json.dumps(running.settings(small())))}
    running.write(records.record(small(), folder), content)
    running.keep(small(), small_network(), small_network(), folder)
    return content


def test_a_record_without_settings_is_named(kept, folder):
    running.write(records.record(small(), folder), {"format": 1})
    with pytest.raises(ValueError, match=r"mnist-lenet.*is not a record of a run \(it has no settings\); remove it"):
        run_here(small(), folder)


@pytest.mark.parametrize(("change", "message"), OTHER_SETTINGS)
def test_records_and_teachers_that_were_made_with_other_settings_are_not_taken(kept, change, message, folder):
    row = replace(SMALL, **change)
    other = Run("figure-3-right", row, "distilled-10", 1, "full", widths=(10,))
    for run in (replace(small(), row=row), other):
        with pytest.raises(
            ValueError, match=rf"(?s)made with other settings.*{message}.*a --folder of their own"
        ) as caught:
            run_here(run, folder)
        assert str(caught.value).count(" there, ") == 1
    assert not records.record(other, folder).exists()


def test_what_a_record_does_not_name_and_how_pytorch_prints_a_network_do_not_matter(kept, folder):
    del kept["settings"]["mirror"]
    kept["settings"]["network"] = "Sequential in other words"
    running.write(records.record(small(), folder), kept)
    assert run_here(small(), folder) == kept


def test_weights_without_their_record_are_trained_again(folder, monkeypatch):
    """As where a process was killed after it had written them, and the row was changed before the next."""
    running.keep(small(), small_network(), small_network(), folder)
    trained = []
    monkeypatch.setattr(running, "trained", lambda network, *_: trained.append(True) or network.eval())
    running.taught(small(), None, torch.device("cpu"), False, folder)
    assert trained


def test_a_data_set_that_cannot_be_had_does_not_keep_other_rows_from_theirs(folder, monkeypatch, capsys):
    def offline(name):
        raise ConnectionError(f"{name} could not be downloaded")

    load = running.datasets.load
    monkeypatch.setattr(running.datasets, "load", lambda name: offline(name) if name == "cifar10" else load(name))
    colour = Run("table-1", replace(SMALL, name="CIFAR10 Quick", data="cifar10"), "perturbed", 1, "full")
    monkeypatch.setattr(declared, "EXPERIMENTS", {"all": lambda *how: [colour, small()]})
    with pytest.raises(SystemExit, match="cifar10 could not be downloaded"):
        main(["run", "--folder", str(folder)])
    assert capsys.readouterr().out.split() == ["missing", colour.name, "done", small().name]


def test_a_full_disk_is_named_and_nothing_is_lost(folder, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(SystemExit, match="No space left on device"):
            main(["run", "--repetitions", "1", "--folder", str(folder)])
    assert run_here(small(), folder)["metrics"]


UNREADABLE = [
    ('{"format": 99}', "format 99.*update"),
    ("{", "not a record.*remove it, and it is run again"),
    ("[]", "not a record.*remove it, and it is run again"),
]


@pytest.mark.parametrize(("text", "message"), UNREADABLE)
def test_a_record_that_cannot_be_read_is_named(text, message, folder):
    path = records.record(small(), folder)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        run_here(small(), folder)


@pytest.mark.parametrize("where", ["here", "on a cluster"])
def test_a_record_that_cannot_be_read_does_not_keep_the_other_runs_from_theirs(kept, where, folder, capsys):
    """Of three runs the first has a record that is damaged, and the others have theirs already."""
    records.record(small(), folder).rename(records.record(small(2), folder))
    running.write(records.record(small(3), folder), kept)
    records.record(small(), folder).write_text("{")
    how, scheduler = ["--repetitions", "3", "--folder", str(folder)], []
    expected = ["unreadable", small().name, "done", small(2).name, "done", small(3).name]
    with contextlib.ExitStack() as stack:
        if where == "on a cluster":
            scheduler = ["--scheduler", stack.enter_context(local_cluster()).scheduler_address]
        stack.enter_context(pytest.raises(SystemExit, match="not a record of a run"))
        main(["run", *how, *scheduler])
    assert capsys.readouterr().out.split() == expected
    main(["list", *how])
    assert capsys.readouterr().out.split() == expected
