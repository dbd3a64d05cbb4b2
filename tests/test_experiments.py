"""Experiments, on a row small enough for a test: declared once, resumed after a kill, recorded once."""

import json
import multiprocessing
import time

import pandas as pd
import pytest
import torch
from filelock import FileLock
from torch import nn

from helpers import experiments
from helpers.experiments import Row, Run

DECLARED = experiments.ROWS


def small_network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 10))


SMALL = Row("MNIST LeNet", "digits", small_network, epochs=20, lr={0: 0.05, 10: 0.005}, mirror=False)


def small(repetition=1, kind="perturbed", profile="full"):
    return Run(SMALL, kind, repetition, profile)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    move_to(tmp_path, monkeypatch.setattr)
    return tmp_path


def move_to(folder, set_attribute):
    for name in ("RUNS", "WEIGHTS", "WORK"):
        set_attribute(experiments, name, folder / name.lower())
    set_attribute(experiments, "ROWS", [SMALL])
    set_attribute(experiments, "MASKS_OF_IDEAL", 20)


# What is declared


def test_all_of_table_1_is_declared():
    runs = experiments.declared(DECLARED, "full")
    left = [run for run in runs if run.kind == "perturbed"]
    right = {(run.row.name, run.kind) for run in runs if run.row.data != "mnist"}
    assert (len(left), len(right)) == (7 * 5, 5 * 3)
    assert len({run.name for run in runs}) == len(runs)
    paper = json.loads((experiments.ROOT / "data" / "paper.json").read_text("utf-8"))
    assert [row.name for row in DECLARED] == list(paper["table 1 left"])
    assert {name for name, _ in right} == set(paper["table 1 right"])


@pytest.mark.parametrize("row", DECLARED, ids=lambda row: row.slug)
def test_a_row_s_network_fits_its_data(row):
    shape = (1, 28, 28) if row.data == "mnist" else (3, 32, 32)
    with torch.no_grad():
        assert row.network().eval()(torch.zeros(1, *shape)).shape == (1, 100 if row.data == "cifar100" else 10)


def test_distillation_starts_at_the_last_rate_of_the_baseline():
    assert {row.slug: row.distillation_lr for row in DECLARED}["cifar10-quick"] == {0: 0.005, 20: 0.0005}


def test_a_short_run_has_a_tenth_of_the_epochs():
    assert small(profile="short").schedule(30, {0: 1.0, 20: 0.1}) == {"epochs": 3, "lr": {0: 1.0, 2: 0.1}}


# What is recorded


def test_a_run_writes_its_record_once(home):
    record = experiments.perform(small(), progress=False)
    assert set(record["metrics"]) == {"standard", "Monte Carlo", "distilled"}
    assert record["metrics"]["distilled"]["KL to ideal"] < record["metrics"]["standard"]["KL to ideal"]
    assert record["metrics"]["standard"]["error"] < 15
    assert {"settings", "seed", "seconds", "device", "versions", "commit", "date", "profile"} <= record.keys()
    written = small().record.stat()
    assert experiments.perform(small(), progress=False) == record
    assert small().record.stat().st_mtime_ns == written.st_mtime_ns
    assert len(list((home / "weights").iterdir())) == 2


def test_kept_weights_are_those_of_the_networks(home):
    from safetensors.torch import load_file

    experiments.perform(small(), progress=False)
    kept = load_file(home / "weights" / f"{small().teacher}.safetensors")
    trained = torch.load(home / "work" / f"{small().teacher}.pt", weights_only=True)["model"]
    assert kept.keys() == trained.keys()
    assert all(torch.equal(kept[key], trained[key]) for key in kept)


def test_a_run_that_diverges_is_recorded_as_such_and_not_counted(monkeypatch):
    wild = Row("MNIST LeNet", "digits", small_network, epochs=2, lr={0: 1e30})
    monkeypatch.setattr(experiments, "ROWS", [wild])
    record = experiments.perform(Run(wild, "perturbed", 1, "full"), progress=False)
    assert "learning rate" in record["diverged"]
    assert "metrics" not in record
    assert experiments.state(Run(wild, "perturbed", 1, "full")) == "diverged"
    assert (experiments.table()["error [%]"] == "not run").all()


def test_the_table_sets_ours_beside_the_paper_s():
    for repetition in (1, 2):
        experiments.perform(small(repetition), progress=False)
    table = experiments.table()
    errors = [json.loads(small(i).record.read_text())["metrics"]["distilled"]["error"] for i in (1, 2)]
    mean, spread = pd.Series(errors).agg(["mean", "std"])
    assert table.loc[("MNIST LeNet", "distilled"), "error [%]"] == f"{mean:.2f} ± {spread:.2f}"
    assert table.loc[("MNIST LeNet", "distilled"), "paper: error [%]"] == "0.67 ± 0.01"
    assert table.loc[("MNIST LeNet", "standard"), "repetitions"] == "2 of 5"


# What is interrupted


def work(folder):
    torch.set_num_threads(1)
    move_to(folder, setattr)
    experiments.perform(small(), progress=False)


@pytest.mark.parametrize("until", ["teacher.full.pt", "perturbed.1.full.pt"], ids=["in training", "in distillation"])
def test_a_run_that_is_killed_goes_on_to_the_same_result(until, tmp_path):
    expected = experiments.perform(small(), progress=False)["metrics"]
    folder = tmp_path / "killed"
    process = multiprocessing.get_context("spawn").Process(target=work, args=(folder,))
    process.start()
    checkpoint = folder / "work" / f"table-1.mnist-lenet.{until}"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert checkpoint.exists()
    assert not (folder / "runs").exists(), "it was killed too late to show anything"
    move_to(folder, setattr)
    assert experiments.state(small()) in ("interrupted", "missing")
    assert experiments.perform(small(), progress=False)["metrics"] == expected


def test_a_record_that_was_being_written_is_written_again(monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda a, b: stop() if str(b).endswith(".json") else __import__("os").rename(a, b))
        with pytest.raises(KeyboardInterrupt):
            experiments.perform(small(), progress=False)
    assert experiments.state(small()) == "interrupted"
    assert not list(experiments.RUNS.iterdir())
    assert experiments.perform(small(), progress=False)["metrics"]


def test_two_processes_do_not_work_on_one_row():
    experiments.WORK.mkdir(parents=True)
    with (
        FileLock(experiments.WORK / f"{small().teacher}.lock"),
        pytest.raises(BlockingIOError, match="another process"),
    ):
        experiments.perform(small(2), progress=False)


# The command line


def test_the_command_line_runs_lists_and_shows(capsys):
    experiments.main(["list", "MNIST LeNet", "--repetitions", "1"])
    assert capsys.readouterr().out.split() == ["missing", small().name]
    experiments.main(["run", "mnist-lenet", "--repetitions", "1"])
    experiments.main(["list", "--repetitions", "1"])
    assert capsys.readouterr().out.split() == ["done", small().name] * 2
    experiments.main(["table"])
    assert "1 of 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mnist-lenett"], "did you mean 'mnist-lenet'"),
        (["run", "--device", "cuda:9"], "no device 'cuda:9'"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, message):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(SystemExit, match=message):
        experiments.main(arguments)


@pytest.mark.parametrize(
    ("text", "message"), [('{"format": 99}', "format 99.*update"), ("{", "not a record"), ("[]", "not a record")]
)
def test_a_record_that_cannot_be_read_is_named(text, message):
    experiments.RUNS.mkdir(parents=True)
    small().record.write_text(text)
    with pytest.raises(ValueError, match=message):
        experiments.perform(small(), progress=False)
