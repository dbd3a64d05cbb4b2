"""Carrying out the runs of Molchanov et al. 2017: train a posterior, prune it, average it, distil it."""

import copy
import inspect
import shutil
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import (
    checkpoints,
    compression,
    datasets,
    distillation,
    elbo,
    evaluation,
    gates,
    networks,
    predictors,
    sparse,
    training,
    variational,
)
from helpers.datasets import Data, Split
from helpers.experiments.records import checkpoint, weights
from helpers.experiments.variational import MASKS, MASKS_OF_IDEAL, Row, Run
from helpers.files import write
from helpers.inputs import device_of
from helpers.seeding import seeded

Score = Callable[[Tensor], dict[str, float]]

STUDENT = {"epochs": 10, "lr": 0.05, "batch_size": 64}  # how students are distilled
LARGE = 10**6  # parameters, from which on it pays to compile the divergence
THRESHOLDS = (0.0, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0)  # of log α; the row has one of its own, and these show what others do


def settings(run: Run) -> dict:
    """What makes the run what it is, for its record."""
    return {
        **of_row(run),
        "kl": checkpoints.describe(run.row.kl),
        "network": repr(first_network(run)),
        "distillation": STUDENT,
        "masks": MASKS,
        "masks of the ideal": MASKS_OF_IDEAL,
    }


def of_row(run: Run) -> dict:
    """Those of the settings that the run's row decides on."""
    names = ("data", "lr", "batch_size", "threshold", "mirror", "students", "test_share")
    return {"epochs": run.epochs, "warm_up": run.warm_up, **{name: getattr(run.row, name) for name in names}}


def first_network(run: Run) -> nn.Module:
    """The untrained network of a run."""
    with seeded(run.repetition, torch.device("cpu")):
        network = run.row.network()
    return network if run.row.kinds is None else variational.variational(network, run.row.kinds)


def measured(run: Run, device: torch.device, progress: bool, folder: Path) -> dict:
    """Scores on the test set, {"metrics": {predictor: {measure: value}}}, and what is left of the network."""
    data = data_of(run.row, run.repetition)
    network = trained(first_network(run).to(device), run, data, progress, checkpoint(run.name, folder))
    x, labels = data.inputs(data.test.images), data.test.labels
    standard = predictors.standard(network, x)
    stochastic = bool(gates.stochastic_layers(network))
    ideal = predictors.monte_carlo(network, x, MASKS_OF_IDEAL, seed=0) if stochastic else standard
    score = partial(evaluation.scores, labels=labels, ideal=ideal)
    metrics = {"standard": score(standard)}
    if stochastic:
        metrics["Monte Carlo"] = score(predictors.monte_carlo(network, x, MASKS, seed=run.repetition))
    if run.row.kinds is None:
        return {"metrics": metrics, "parameters": networks.parameter_count(network)}

    small = variational.pruned(network.cpu(), run.row.threshold)
    metrics["pruned"] = score(predictors.standard(small, x))
    found = {"metrics": metrics, **size(small, x, run, folder), "by threshold": by_threshold(network, x, score)}
    if run.row.data.endswith("digits"):
        metrics["L1"], found["L1"] = l1_logistic_regression(data, score)
    students = {"-".join(map(str, widths)): widths for widths in run.row.students}
    found["students"] = {
        name: student_of(
            network.to(device), widths, run, data, score, progress, checkpoint(f"{run.name}.{name}", folder)
        )
        for name, widths in students.items()
    }
    return found


def trained(network: nn.Module, run: Run, data: Data, progress: bool, path: Path) -> nn.Module:
    row, device = run.row, device_of(network)
    common = {
        "epochs": run.epochs,
        "batch_size": row.batch_size,
        "perturb": datasets.in_turn(data.inputs, *[datasets.mirror] * row.mirror),
        "seed": run.repetition,
        "progress": progress,
        "checkpoint": path,
    }
    images, labels = (part.to(device) for part in data.train)
    if row.kinds is None:
        return training.train(network, images, labels, lr=row.lr, **common)
    compile = networks.parameter_count(network) > LARGE and can_compile()
    return elbo.maximise(network, images, labels, lr=row.lr, warm_up=run.warm_up, kl=row.kl, compile=compile, **common)


def can_compile() -> bool:
    """Whether this machine has what PyTorch compiles with for a processor: a C++ compiler, and Python's headers."""
    return shutil.which("c++") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


def size(small: nn.Module, x: Tensor, run: Run, folder: Path) -> dict:
    """What is left of a pruned network, layer by layer, and what it takes on disk; the first run keeps the file."""
    stored, whole = sparse.dump(small), sparse.dump(small, dense=True)
    if run.repetition == 1 and len(stored) < 2**20:
        write(weights(run.name, folder), stored)
    masks = variational.kept(small)
    return {
        "sparsity": variational.sparsity(small),
        "weights": sum(mask.numel() for mask in masks.values()),
        "weights kept": sum(int(mask.sum()) for mask in masks.values()),
        "bytes": {"dense": len(whole), "sparse": len(stored)},
        "multiply-adds": {"dense": compression.multiply_adds(small, x), "sparse": sparse.multiply_adds(small, x)},
    }


def by_threshold(network: nn.Module, x: Tensor, score: Score) -> dict[float, dict[str, float]]:
    """{threshold of log α: scores of the pruned network, and how many weights it has for each one that is kept}."""
    found = {}
    for threshold in THRESHOLDS:
        small = variational.pruned(network, threshold)
        found[threshold] = {**score(predictors.standard(small, x)), "compression": variational.compression(small)}
    return found


def student_of(
    network: nn.Module, widths: tuple[int, ...], run: Run, data: Data, score: Score, progress: bool, path: Path
) -> dict:
    """A plain network of `widths`, distilled from the ideal variational predictor, and its scores and size."""
    with seeded(run.repetition, torch.device("cpu")):
        student = run.row.network(widths=widths)
    same = [layer.weight.shape for layer in variational.layers(network).values()]
    if [m.weight.shape for m in student.modules() if isinstance(m, nn.Linear)] == same:
        student = variational.pruned(copy.deepcopy(network).cpu(), float("inf"))  # the means are where it starts
    S = datasets.unlabelled(data, "perturbed")
    device = device_of(network)
    student = distillation.distill(
        network,
        S.inputs.to(device),
        student=student.to(device),
        perturb=S.perturb,
        seed=run.repetition,
        progress=progress,
        checkpoint=path,
        **STUDENT,
    ).cpu()
    x = data.inputs(data.test.images)
    return {
        "metrics": score(predictors.standard(student, x)),
        "parameters": networks.parameter_count(student),
        "multiply-adds": compression.multiply_adds(student, x),
        "bytes": len(sparse.dump(student, dense=True)),
    }


def data_of(row: Row, split: int) -> Data:
    """The row's data; of DIGITS and NOISE-DIGITS a random part is for testing, another one in each split."""
    if not row.data.endswith("digits"):
        return datasets.load(row.data)
    whole = datasets.load("digits")
    images = torch.cat([whole.train.images, whole.test.images])
    labels = torch.cat([whole.train.labels, whole.test.labels])
    random = torch.Generator().manual_seed(split)
    if row.data == "noise-digits":
        images = beside_noise(images, random)
    order = torch.randperm(len(images), generator=random)
    test, train = order.tensor_split([round(row.test_share * len(images))])
    return Data(row.data, Split(images[train], labels[train]), Split(images[test], labels[test]), whole.class_names)


def beside_noise(images: Tensor, random: torch.Generator) -> Tensor:
    """uint8 images [N, 1, H, W] to [N, 1, H, 2W]: the right half is Gaussian noise with the mean and variance of the
    pixels, cut to their range."""
    std, mean = torch.std_mean(images.float())
    noise = mean + std * torch.randn(images.shape, generator=random)
    return torch.cat([images, noise.round().clamp(0, 255).to(torch.uint8)], dim=-1)


def l1_logistic_regression(data: Data, score: Callable[[Tensor], Any]) -> tuple[Any, dict[str, float]]:
    """The test set's score, and the sparsity, of scikit-learn's logistic regression with an L1 penalty, whose strength is
    cross-validated."""
    from sklearn.linear_model import LogisticRegressionCV

    new = "use_legacy_attributes" in inspect.signature(LogisticRegressionCV).parameters  # since scikit-learn 1.8
    only_l1 = {"l1_ratios": (1,), "use_legacy_attributes": False} if new else {"penalty": "l1"}
    x, x_test = (data.inputs(split.images).flatten(1).numpy() for split in (data.train, data.test))
    model = LogisticRegressionCV(
        **only_l1, solver="saga", tol=1e-3, max_iter=2000, random_state=0, scoring="accuracy"
    ).fit(x, data.train.labels.numpy())
    q = torch.from_numpy(model.predict_proba(x_test)).float()
    return score(q), {"sparsity": float((model.coef_ == 0).mean()), "C": float(np.ravel(model.C_)[0])}
