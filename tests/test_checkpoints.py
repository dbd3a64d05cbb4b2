"""A checkpoint is whole or absent, belongs to one configuration, and never runs code."""

import errno
import io
import os
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from helpers import bregman, checkpoints, datasets
from helpers.files import replacing

CPU = torch.device("cpu")
SETTINGS = {"lr": {0: 0.1, 20: 0.01}, "seed": 3, "perturb": "f(rate=0.2)", "parameters": {"weight": [3, 2]}}


def trained():
    """The state of a network and its optimiser after a step, so that the optimiser has momentum to remember."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(5, 2)).square().sum().backward()
    optimizer.step()
    return {"epoch": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


@pytest.fixture
def path(tmp_path):
    """A checkpoint that is in order."""
    path = tmp_path / "run.ckpt"
    checkpoints.save(path, SETTINGS, trained())
    return path


def test_what_is_saved_is_loaded(path):
    state, expected = checkpoints.load(path, SETTINGS, CPU), trained()
    assert state["epoch"] == 1
    torch.testing.assert_close(state["model"], expected["model"], rtol=0, atol=0)
    torch.testing.assert_close(state["optimizer"]["state"], expected["optimizer"]["state"], rtol=0, atol=0)
    assert state["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]


def test_no_file_is_no_state(tmp_path):
    assert checkpoints.load(tmp_path / "none", SETTINGS, CPU) is None


# Writing


@pytest.mark.parametrize(
    "stop",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0"),
        KeyboardInterrupt(),
        pickle.PicklingError("Can't pickle it"),
    ],
    ids=lambda stop: type(stop).__name__,
)
@pytest.mark.parametrize("old", [True, False])
def test_a_write_that_stops_halfway_leaves_the_old_file_and_nothing_else(stop, old, path, monkeypatch):
    before = path.read_bytes()
    if not old:
        path.unlink()

    def half(state, file):
        file.write(before[: len(before) // 2])
        file.flush()
        raise stop

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises((OSError, type(stop))) as caught:
        checkpoints.save(path, SETTINGS, trained())
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == ({path.name: before} if old else {})
    if isinstance(stop, OSError | RuntimeError):
        assert isinstance(caught.value, OSError)
        assert re.search(rf"cannot write the checkpoint {re.escape(str(path))}: .*{stop.args[-1]}", str(caught.value))


@pytest.mark.parametrize("room", [0, 100, 1000])
def test_a_full_disk_is_called_so(room, path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() + len(data) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(checkpoints, "replacing", lambda path: Full())
    with pytest.raises(
        OSError, match=rf"cannot write the checkpoint {re.escape(str(path))}: .*No space left on device$"
    ):
        checkpoints.save(path, SETTINGS, trained())


def test_the_new_file_takes_the_old_one_s_place_only_when_all_of_it_is_on_disk(path, monkeypatch):
    """As seen by who looks at `path` when the file is synchronised, and by who is reading the old one meanwhile."""
    before, seen = path.read_bytes(), []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(path.read_bytes()))
    with path.open("rb") as reader:
        checkpoints.save(path, SETTINGS, {**trained(), "epoch": 2})
        assert reader.read() == before
    assert seen == [before]
    assert checkpoints.load(path, SETTINGS, CPU)["epoch"] == 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_two_that_write_one_file_do_not_meet(path):
    """Here in one process, and so with one number, as processes in two containers may have."""
    with replacing(path) as slow:
        slow.write(b"sl")
        with replacing(path) as fast:
            fast.write(b"fast")
        assert path.read_bytes() == b"fast"
        slow.write(b"ow")
    assert path.read_bytes() == b"slow"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_may_be_read_by_whom_an_ordinary_one_may(tmp_path):
    (tmp_path / "ordinary").write_bytes(b"")
    checkpoints.save(tmp_path / "run.ckpt", SETTINGS, trained())
    assert (tmp_path / "run.ckpt").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_folder_that_is_not_there_is_made(tmp_path):
    checkpoints.save(tmp_path / "new" / "run.ckpt", SETTINGS, trained())
    assert checkpoints.load(tmp_path / "new" / "run.ckpt", SETTINGS, CPU)


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_file(path):
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*run.ckpt"):
        checkpoints.save(path / "run.ckpt", SETTINGS, trained())


# Reading what is no checkpoint


def bytes_of(thing, **how):
    buffer = io.BytesIO()
    torch.save(thing, buffer, **how)
    return buffer.getvalue()


def npz():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


GOOD = bytes_of({"format": checkpoints.FORMAT, "settings": SETTINGS, **trained(), "large": torch.zeros(5000)})
NO_CHECKPOINT = {
    "empty": b"",
    "full stop": b".",
    "cut-off number": b"J.",
    "text": b"<html>404 Not Found</html>",
    "garbage": np.random.default_rng(0).bytes(5000),
    "start": GOOD[:100],
    "half": GOOD[: len(GOOD) // 2],
    "all but the last byte": GOOD[:-1],
    "npz": npz(),
    "tensor": bytes_of(torch.zeros(3)),
    "weights": bytes_of(nn.Linear(2, 3).state_dict()),
    "list": bytes_of([1, 2]),
    "model": bytes_of(nn.Linear(2, 3)),
    "old zipless file": bytes_of({"a": 1}, _use_new_zipfile_serialization=False),
    "other format": bytes_of({"format": 99, "settings": SETTINGS}),
}


@pytest.mark.parametrize("content", NO_CHECKPOINT.values(), ids=NO_CHECKPOINT)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_is_no_checkpoint_is_named_with_what_to_do(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is not a checkpoint .*; delete it to start afresh"):
        checkpoints.load(path, SETTINGS, CPU)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), MemoryError(), torch.OutOfMemoryError("full")]
)
def test_a_good_file_that_cannot_be_read_now_is_not_called_damaged(error, path, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        checkpoints.load(path, SETTINGS, CPU)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (Path(self.target),)


@pytest.mark.parametrize(
    "serialise",
    [pickle.dumps, bytes_of, lambda thing: bytes_of({"format": 1, "settings": SETTINGS, "model": thing})],
    ids=["pickle", "torch.save", "inside a checkpoint"],
)
@pytest.mark.filterwarnings("ignore")
def test_no_code_in_a_file_is_executed(serialise, path, tmp_path):
    target = tmp_path / "owned"
    path.write_bytes(serialise(Malicious(target)))
    with pytest.raises(ValueError, match="is not a checkpoint"):
        checkpoints.load(path, SETTINGS, CPU)
    assert not target.exists()
    torch.load(path, weights_only=False) if serialise is not pickle.dumps else pickle.loads(path.read_bytes())
    assert target.exists()  # the code would have run


# Reading another run's checkpoint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed: 3 there, 4 here"),
        ({"lr": {0: 0.1, 20: 0.02}}, r"lr: {0: 0.1, 20: 0.01} there, {0: 0.1, 20: 0.02} here"),
        ({"perturb": "f(rate=0.5)"}, r"perturb: 'f\(rate=0.2\)' there, 'f\(rate=0.5\)' here"),
        ({"parameters": {"weight": [3, 3]}}, r"parameters: {'weight': \[3, 2\]} there, {'weight': \[3, 3\]} here"),
        ({"samples": 2}, "samples: None there, 2 here"),
    ],
)
def test_another_configuration_is_refused_with_exactly_the_settings_that_differ(change, message, path):
    settings = {**SETTINGS, **change}
    with pytest.raises(ValueError, match=message) as caught:
        checkpoints.load(path, settings, CPU)
    text = str(caught.value)
    assert str(path) in text
    assert "another path to start a new one" in text
    assert not [key for key in settings if key not in change and f"  {key}:" in text]


def test_a_setting_that_is_missing_here_is_a_difference_too(path):
    with pytest.raises(ValueError, match="seed: 3 there, None here"):
        checkpoints.load(path, {k: v for k, v in SETTINGS.items() if k != "seed"}, CPU)


# Recognising data and functions

A = torch.arange(6, dtype=torch.int32).reshape(2, 3)
B = torch.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    "others",
    [
        [A + torch.tensor([0, 0, 1]), B],
        [-A, B],
        [A.reshape(3, 2), B],
        [A.view(torch.float32), B],
        [A, B.double()],
        [B, A],
        [A],
        [A, B[:1], B[1:]],
        [A, B, torch.zeros(0)],
        [A.T.contiguous().reshape(2, 3), B],
    ],
    ids=["value", "sign", "shape", "type", "precision", "order", "fewer", "split", "one more", "arrangement"],
)
def test_a_fingerprint_tells_tensors_apart(others):
    assert checkpoints.fingerprint(others) != checkpoints.fingerprint([A, B])


@pytest.mark.parametrize(
    "same",
    [[A.clone(), B.clone()], [A.T.contiguous().T, B], [A, torch.tensor([1.0, 0.0, 2.0])[::2]], [A, nn.Parameter(B)]],
    ids=["copy", "column by column", "strided", "parameter"],
)
def test_a_fingerprint_is_of_the_values_not_of_the_memory(same):
    assert checkpoints.fingerprint(same) == checkpoints.fingerprint([A, B])


class Noise:
    def __call__(self, x):
        return x


def compose(first, second, x):
    return second(first(x))


def enclosing(number):
    return lambda x: x * number


def with_default(number):
    def scaled(x, by=number):
        return x * by

    return scaled


FUNCTIONS = {
    "none": None,
    "function": datasets.mirror,
    "lambda": lambda x: x,
    "partial": partial(datasets.drop_pixels, rate=0.2),
    "partial of a partial": partial(partial(compose, abs), second=3),
    "instance": Noise(),
    "module": nn.ReLU(),
    "loss": bregman.kl,
    "method": "text".upper,
    "torch": torch.relu,
    "partial with a function": partial(compose, datasets.mirror, second=datasets.mirror),
    "another lambda": lambda x: x + 1,
    "a third lambda": lambda x: x + 2,
    "loss with a number": bregman.PNorm(1.5),
    "loss with another": bregman.PNorm(4.0),
    "loss with a matrix": bregman.Mahalanobis(torch.eye(2)),
    "loss with another matrix": bregman.Mahalanobis(2 * torch.eye(2)),
    "closure": enclosing(2.0),
    "another closure": enclosing(3.0),
    "default": with_default(2.0),
    "another default": with_default(3.0),
    "instance with an instance": partial(compose, Noise(), [object]),
}


@pytest.fixture(scope="module")
def described_elsewhere():
    """{name: what another process calls it}."""
    code = "import tests.test_checkpoints as t; print({k: t.checkpoints.describe(f) for k, f in t.FUNCTIONS.items()})"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment, check=True
    )
    return eval(done.stdout)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_called_the_same_in_every_process(name, described_elsewhere):
    assert checkpoints.describe(FUNCTIONS[name]) == described_elsewhere[name]


def test_different_functions_are_called_differently():
    others = [partial(datasets.drop_pixels, rate=0.3), partial(datasets.drop_pixels, 0.2), bregman.squared_euclidean]
    names = [checkpoints.describe(f) for f in [*FUNCTIONS.values(), *others]]
    assert len(set(names)) == len(names)


def test_a_description_names_the_function_and_what_is_bound_to_it():
    assert checkpoints.describe(partial(datasets.drop_pixels, rate=0.2)) == "helpers.datasets.drop_pixels(rate=0.2)"


def test_functions_that_an_object_holds_tell_it_from_others():
    squares, cubes = bregman.from_phi(lambda y: y.square().sum(-1)), bregman.from_phi(lambda y: y.pow(4).sum(-1))
    assert checkpoints.describe(squares) != checkpoints.describe(cubes)
    assert checkpoints.describe(squares) == checkpoints.describe(bregman.from_phi(squares.generator))


def test_a_folder_in_the_place_of_a_checkpoint_is_not_called_damaged(tmp_path):
    with pytest.raises(IsADirectoryError):
        checkpoints.load(tmp_path, {}, torch.device("cpu"))


def test_a_place_that_cannot_be_written_to_is_found_before_the_first_epoch(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*run\.pt"):
        checkpoints.require_writable(tmp_path / "file" / "run.pt")
    checkpoints.require_writable(tmp_path / "new" / "run.pt")
    assert list((tmp_path / "new").iterdir()) == []
