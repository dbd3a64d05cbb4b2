"""The declared runs of Molchanov et al. 2017: what is declared, and a small one from start to record and table."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from helpers import sparse, variational
from helpers.experiments import declared, records, sparsifying, sparsity
from helpers.experiments import variational as runs
from helpers.experiments.running import perform

PAPER = json.loads((records.DATA / "paper.json").read_text("utf-8"))[sparsity.PAPER]


def network(widths=(12,)):
    (units,) = widths
    return nn.Sequential(nn.Flatten(), nn.Linear(64, units), nn.ReLU(), nn.Linear(units, 10))


SMALL = runs.Row(
    *("MNIST LeNet-300-100", "digits", network, variational.KINDS),
    **{"epochs": 4, "warm_up": (1, 3), "lr": 0.01, "students": ((12,), (4,))},
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sparsifying, "STUDENT", {"epochs": 2, "lr": 0.05, "batch_size": 64})
    monkeypatch.setattr(sparsifying, "l1_logistic_regression", lambda data, score: ({"error": 5.0}, {"sparsity": 0.4}))


# What is declared


def test_every_published_row_is_declared():
    assert {row.name for row in runs.TABLE_2} == set(PAPER["table 2"])
    assert {row.name for row in sparsity.ROWS} == set(PAPER["errors"])
    assert set(sparsity.COMPRESSED) == set(PAPER["compression"])
    names = [run.name for name in runs.EXPERIMENTS for run in declared.declared([name])]
    assert len(names) == len(set(names)) == 10 + 10 + 1 + 4 * 10 + 4 + 5 + 2


@pytest.mark.parametrize("row", [*runs.TABLE_2, *sparsity.ROWS], ids=lambda row: row.slug)
def test_a_row_s_network_fits_its_data_and_becomes_variational(row):
    shape = {"digits": (1, 8, 8), "noise-digits": (1, 8, 16), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[row.data]
    model = sparsifying.first_network(runs.Run("x", row, 1, "full")).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, *shape)).shape == (1, 10)
    assert bool(variational.layers(model)) == (row.kinds is not None)


def test_the_widths_of_table_4_give_the_published_compression():
    """From the published sparsity of each layer. The paper's own figures, 8.6, 9 and 57, are rounded, as its sparsities are."""
    model = runs.table_4_network()
    weights = torch.tensor([m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)])
    all_layers = torch.tensor([0.367, 0.820, 0.901, 0.993, 0.998, 0.819])
    linear_only = torch.tensor([0.0, 0.0, 0.0, 0.991, 0.9986, 0.936])

    def compression(sparsities, part=slice(None)):
        return (weights[part].sum() / (weights * (1 - sparsities))[part].sum()).item()

    assert compression(all_layers, slice(3)) == pytest.approx(8.6, rel=0.03)
    assert compression(linear_only) == pytest.approx(9, rel=0.03)
    assert compression(all_layers) == pytest.approx(57, rel=0.07)
    assert compression(linear_only, slice(3, None)) == pytest.approx(171, rel=0.06)


def test_noise_digits_have_a_digit_on_the_left_and_its_equal_in_moments_on_the_right():
    data = sparsifying.data_of(runs.TABLE_2[1], split=3)
    left, right = data.train.images.float().split(8, dim=-1)
    assert data.train.images.shape[1:] == (1, 8, 16)
    assert len(data.train.images) + len(data.test.images) == 1797
    # Values below 0 and above 255 are cut off, which takes away some of the noise's spread.
    assert abs(left.mean() - right.mean()) < 12
    assert 0.7 < right.std() / left.std() < 1
    assert abs(torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1]) < 0.02
    other = sparsifying.data_of(runs.TABLE_2[1], split=4)
    assert not torch.equal(other.train.labels, data.train.labels)


# What is recorded


def test_a_run_is_recorded_pruned_stored_and_distilled(tmp_path):
    run = runs.Run("sparse", SMALL, 1, "full")
    content = perform(run, progress=False, folder=tmp_path)
    assert set(content["metrics"]) == {"standard", "Monte Carlo", "pruned", "L1"}
    assert content["weights"] == 64 * 12 + 120
    assert 0 < content["weights kept"] <= content["weights"]
    assert content["multiply-adds"] == {"dense": content["weights"], "sparse": content["weights kept"]}
    assert set(content["students"]) == {"12", "4"}
    assert content["students"]["4"]["parameters"] == 65 * 4 + 50
    assert content["settings"]["warm_up"] == [1, 3]
    stored = records.weights(run.name, tmp_path)
    small = sparse.load(network(), stored)
    assert sum(int(m.sum()) for m in variational.kept(small).values()) == content["weights kept"]
    assert len(stored.read_bytes()) == content["bytes"]["sparse"]
    assert content["by threshold"]["3.0"]["error"] == content["metrics"]["pruned"]["error"]
    assert records.state(run, tmp_path) == "done"

    table = sparsity.errors([SMALL], tmp_path)
    assert table.loc[SMALL.name, "error, pruned [%]"] == f"{content['metrics']['pruned']['error']:.2f}"
    assert table.loc[SMALL.name, "profile"] == "full"
    assert list(sparsity.layers(SMALL, tmp_path)["layer"]) == ["linear, 64 → 12", "linear, 12 → 10"]
    assert sparsity.described(nn.Conv2d(3, 8, 5)) == "convolution 5 × 5, 3 → 8"


def test_every_record_in_the_repository_has_the_settings_that_are_declared():
    declared_runs = {run.name: run for make in runs.EXPERIMENTS.values() for run in make("full")}
    paths = sorted((records.DATA / "runs").glob("sparse*.full.json"))
    assert paths
    for path in paths:
        recorded = records.read(path)["settings"]
        expected = json.loads(json.dumps(sparsifying.settings(declared_runs[path.stem])))
        for name in ("epochs", "warm_up", "data", "lr", "batch_size", "threshold", "kl", "network", "students"):
            assert recorded[name] == expected[name]
        assert recorded.get("test_share", 0.2) == expected["test_share"]  # the first records did not name it


def test_what_is_declared_reaches_training_pruning_and_distillation(tmp_path, monkeypatch):
    row = replace(SMALL, kl=variational.kl_bound, mirror=True, threshold=5.0, batch_size=32, students=((12,),))
    seen = {}

    def maximise(network, images, labels, **how):
        for layer in variational.layers(network).values():
            nn.init.constant_(layer.log_sigma2, -2.0)  # there are weights on either side of both thresholds, 3 and 5
        seen["training"] = network, how
        return network.eval()

    def distill(teacher, inputs, *, student, **how):
        seen["distillation"] = student, how
        return student

    monkeypatch.setattr(sparsifying, "THRESHOLDS", (5.0,))  # the smallest would leave nothing, with a warning
    monkeypatch.setattr(sparsifying.elbo, "maximise", maximise)
    monkeypatch.setattr(sparsifying.distillation, "distill", distill)
    content = perform(runs.Run("sparse", row, 2, "full"), progress=False, folder=tmp_path)
    (posterior, training), (student, distillation) = seen["training"], seen["distillation"]
    assert training["kl"] is variational.kl_bound
    assert (training["lr"], training["batch_size"], training["warm_up"]) == (0.01, 32, (1, 3))
    assert (training["seed"], distillation["seed"]) == (2, 2)
    kept = variational.kept(posterior, 5.0)
    assert content["weights kept"] == sum(int(mask.sum()) for mask in kept.values())
    for name, layer in variational.layers(posterior).items():
        assert torch.equal(student.get_submodule(name).weight, layer.weight)

    n = 4000
    half_white = torch.zeros(n, 1, 8, 8, dtype=torch.uint8)
    half_white[..., :4] = 255
    torch.manual_seed(0)
    mirrored = (training["perturb"](half_white)[:, 0, 0, 7] == 1).double().mean()
    assert abs(mirrored - 0.5) < 5 * 0.5 / math.sqrt(n)
    dropped = (distillation["perturb"](half_white)[:, 0, 0, 0] == 0).double().mean()
    assert abs(dropped - 0.2) < 5 * 0.4 / math.sqrt(n)


def test_a_network_without_a_posterior_is_trained_by_algorithm_1(tmp_path):
    row = replace(SMALL, kinds=None, lr=0.05)
    content = perform(runs.Run("sparse", row, 1, "full"), progress=False, folder=tmp_path)
    assert set(content["metrics"]) == {"standard"}
    assert "weights kept" not in content


def test_a_short_run_has_a_tenth_of_the_epochs():
    run = runs.Run("sparse", runs.LENET_300_100, 1, "short")
    assert (run.epochs, run.warm_up) == (20, (0, 2))


def test_a_run_that_stops_among_its_students_goes_on_to_the_same_result(tmp_path, monkeypatch):
    run, distill, calls = runs.Run("sparse", SMALL, 1, "full"), sparsifying.distillation.distill, []
    whole = perform(run, progress=False, folder=tmp_path / "undisturbed")

    def stops_at_the_second(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return distill(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sparsifying.distillation, "distill", stops_at_the_second)
        perform(run, progress=False, folder=tmp_path / "stopped")
    resumed = perform(run, progress=False, folder=tmp_path / "stopped")
    for what in ("metrics", "students", "by threshold", "weights kept"):
        assert resumed[what] == whole[what]


def test_as_many_splits_are_declared_as_are_asked_for():
    names = ["sparse-table-2"]
    assert len(declared.declared(names)) == 2 * runs.SPLITS + 1  # of MNIST there is one
    assert len(declared.declared(names, "full", 3)) == 2 * 3 + 1


def test_table_2_is_made_of_the_splits_that_are_there(tmp_path, monkeypatch):
    row = replace(runs.TABLE_2[0], epochs=3)
    monkeypatch.setattr(sparsity, "TABLE_2", [row])
    for split in (1, 2):
        perform(runs.Run("sparse-table-2", row, split, "full"), progress=False, folder=tmp_path)
    table = sparsity.table_2(tmp_path)
    assert list(table["splits"]) == [2, 2]
    assert table.loc[("DIGITS", "L1"), "accuracy [%]"] == "95.0 ± 0.0"
    assert table.loc[("DIGITS", "L1"), "sparsity [%]"] == "40.0 ± 0.0"
    assert table.loc[("DIGITS", "variational"), "paper: sparsity [%]"] == "78.9 ± 2.1"


def test_of_the_digits_the_part_that_is_declared_is_trained_on(tmp_path, monkeypatch):
    row = replace(runs.TABLE_2_SHARES[1], epochs=3)
    data = sparsifying.data_of(row, split=1)
    assert (row.data, len(data.train.images), len(data.test.images)) == ("noise-digits", 1198, 599)
    monkeypatch.setattr(sparsity, "TABLE_2_SHARES", [row])
    perform(runs.Run("sparse-table-2-shares", row, 1, "full"), progress=False, folder=tmp_path)
    table = sparsity.shares(tmp_path)
    assert table.index.to_list() == [
        *(("DIGITS", "80%"), ("DIGITS", "the paper")),
        *(("NOISE-DIGITS", "80%"), ("NOISE-DIGITS", "67%"), ("NOISE-DIGITS", "the paper")),
    ]
    assert table["L1", "accuracy [%]"].to_list() == ["not run", "95.7 ± 1.0", "not run", "95.0", "94.7 ± 1.0"]
    assert table["variational", "splits"].to_list() == [0, "not said", 0, 1, "not said"]


def test_what_has_not_been_run_says_so(tmp_path):
    table = sparsity.errors(folder=tmp_path)
    assert set(table["profile"]) == {"not run"}
    assert sparsity.table_2(tmp_path)["accuracy [%]"].eq("not run").all()
    assert sparsity.recorded(SMALL, tmp_path) is None


def test_the_l1_penalty_removes_weights_and_is_chosen_by_cross_validation(monkeypatch):
    monkeypatch.undo()
    data = sparsifying.data_of(runs.TABLE_2[0], split=1)
    few = replace_images(data, 120)
    scores, found = sparsifying.l1_logistic_regression(few, partial(error_of, few.test.labels))
    assert 0.2 < found["sparsity"] < 0.95
    assert scores < 35


def replace_images(data, n):
    train = type(data.train)(data.train.images[:n], data.train.labels[:n])
    return replace(data, train=train)


def error_of(labels, q):
    return 100 * (q.argmax(-1) != labels).double().mean().item()
