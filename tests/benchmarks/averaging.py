"""Averaging over masks and distillation, ours against what one writes first and against peers: ``make bench``.

All methods of a row see the same network, data and threads, and take turns, so that they see the same machine; what is
shown is the median over the turns. A loop over masks takes the same time for each of them, so it is timed with one mask and
with a few, and the line through the two is followed to the end. Memory is what a process of its own needs at its peak beyond
the network and the data. The table is printed; with all networks and methods it is also written to
data/benchmarks/averaging.json.
"""

import argparse
import copy
import os
import platform
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from itertools import islice, product
from statistics import median

import pandas as pd
import psutil
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from helpers import datasets, networks, predictors
from helpers.distillation import distill
from helpers.experiments.declared import TABLE_1
from helpers.experiments.records import FORMAT, ROOT, benchmark
from helpers.experiments.running import COMMIT, write
from tests.benchmarks import training

M = 100  # masks
FEW = 4  # of them, with which a loop is timed

RECORD = benchmark("averaging")


def mlp() -> nn.Module:
    hidden = [nn.Linear(784, 1000), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1000, 1000), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*hidden, nn.Linear(1000, 10))


# Network, and shape of the inputs: as many as take a plain pass between a tenth of a second and a few.
NETWORKS = {
    "LeNet": (networks.LeNet, (1000, 1, 28, 28)),
    "LeNetAll": (networks.LeNetAll, (256, 1, 28, 28)),
    "Quick": (networks.Quick, (128, 3, 32, 32)),
    "MLP": (mlp, (1000, 784)),
    "VGG16": (lambda: torchvision.models.vgg16(num_classes=10), (8, 3, 224, 224)),
}


# ---- methods: (network, x, masks) -> probabilities [N, K] ----------------------------------------------------------


def ours(model: nn.Module, x: Tensor, m: int) -> Tensor:
    return predictors.monte_carlo(model, x, m)


def shared(model: nn.Module, x: Tensor, m: int) -> Tensor:
    return predictors.monte_carlo(model, x, m, shared_masks=True)


def plain(model: nn.Module, x: Tensor, m: int) -> Tensor:
    for module in model.modules():
        module.training = isinstance(module, nn.Dropout)
    with torch.no_grad():
        return torch.stack([model(x).softmax(-1) for _ in range(m)]).mean(0)


def torch_uncertainty(model: nn.Module, x: Tensor, m: int) -> Tensor:
    from torch_uncertainty.methods import mc_dropout

    # In a loop: its other way, one batch of m copies, takes m times the memory, gigabytes for a thousand digits.
    with torch.no_grad():
        return mc_dropout(model, m, on_batch=False).eval()(x).softmax(-1).view(m, len(x), -1).mean(0)


def baal(model: nn.Module, x: Tensor, m: int) -> Tensor:
    from baal.bayesian.caching_utils import MCCachingModule
    from baal.bayesian.dropout import MCDropoutModule

    with MCCachingModule(MCDropoutModule(copy.deepcopy(model))).eval() as model, torch.no_grad():
        return torch.stack([model(x).softmax(-1) for _ in range(m)]).mean(0)


METHODS = {
    "ours": ours,
    "ours, shared masks": shared,
    "plain loop": plain,
    "torch-uncertainty": torch_uncertainty,
    "baal": baal,
}
OURS = ("ours", "ours, shared masks")
PACKAGES = {"torch-uncertainty": "torch_uncertainty", "baal": "baal"}


def installed(method: str) -> bool:
    return method not in PACKAGES or find_spec(PACKAGES[method]) is not None


# ---- time ----------------------------------------------------------------------------------------------------------


def seconds(run: Callable[[], object]) -> float:
    """The median time of `run`, which is repeated for half a second at least."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=0.5).median


def in_turns(methods: dict[str, Callable[[], float]], turns: int) -> dict[str, float]:
    """The median over `turns` of what each of `methods` returns; a turn more, before them, warms up."""
    times = [{name: method() for name, method in methods.items()} for _ in range(turns + 1)][1:]
    return {name: median(turn[name] for turn in times) for name in methods}


def extrapolated(method: Callable, model: nn.Module, x: Tensor) -> float:
    """Seconds that a loop over M masks takes, from two shorter ones."""
    one, few = (seconds(partial(method, model, x, m)) for m in (1, FEW))
    return one + (few - one) / (FEW - 1) * (M - 1)


def averaging(name: str, turns: int) -> dict:
    """(a) M masks: seconds of ours, and how many times as long the others take."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(shape)

    def time_of(method: str) -> float:
        if method in OURS:
            return seconds(lambda: METHODS[method](model, x, M))
        return extrapolated(METHODS[method], model, x)

    methods = [method for method in METHODS if installed(method) and (method != "ours, shared masks" or name == "MLP")]
    found = in_turns({method: lambda method=method: time_of(method) for method in methods}, turns)
    ratios = {f"{method} / ours": found[method] / found["ours"] for method in methods if method != "ours"}
    return {"examples": len(x), "ours [s]": found["ours"], **ratios}


def distillation(name: str, turns: int, batches: int = 8) -> dict:
    """(b) A step of distillation against a step of training, ours and the plain one."""
    row = next(row for row in TABLE_1 if row.name.endswith(name))
    data = training.random_data(row, batches * row.batch_size)
    data.moments  # noqa: B018 - computed once, and not in the time
    perturb = datasets.in_turn(data.inputs, *[datasets.mirror] * row.mirror)
    network, device = row.network(), torch.device("cpu")

    def step() -> None:
        how = {"autocast": row.autocast, "perturb": perturb, "weight_decay": row.weight_decay, "progress": False}
        distill(network, data.train.images, epochs=1, batch_size=row.batch_size, **how)

    found = in_turns(
        {
            "distil": lambda: seconds(step),
            "train": lambda: training.seconds(training.ours, row, data, device),
            "plain": lambda: training.seconds(training.plain, row, data, device),
        },
        turns,
    )
    return {
        "distillation step [ms]": 1000 * found["distil"] / batches,
        "distillation / our training": found["distil"] / found["train"],
        "distillation / plain training": found["distil"] / found["plain"],
    }


def enumeration(turns: int, n: int = 16, masks: int = 2**11) -> dict:
    """(c) All 2^n masks of n gates for 64 examples, against a loop over some of them, followed to the end."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(20, n), nn.ReLU(), nn.Dropout(0.5), nn.Linear(n, 10)), torch.randn(64, 20)

    def loop() -> None:
        total, h = 0.0, model[1](model[0](x))
        for mask in islice(product([0.0, 1.0], repeat=n), masks):
            total = total + model[3](h * torch.tensor(mask) * 2).softmax(-1) / 2**n

    with torch.no_grad():
        found = in_turns(
            {"ours": lambda: seconds(lambda: predictors.exact(model, x)), "loop": lambda: seconds(loop)}, turns
        )
    return {"ours [s]": found["ours"], "loop / ours": found["loop"] * 2**n / masks / found["ours"]}


# ---- memory --------------------------------------------------------------------------------------------------------


def peak(name: str, method: str) -> float:
    """(d) Megabytes at the peak of M masks, beyond the network and the data, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.averaging", "--peak", name, method]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."})
    return float(done.stdout.split()[-1])


def print_peak(name: str, method: str) -> None:
    make, shape = NETWORKS[name]
    model, x = make().eval(), torch.randn(shape)
    METHODS[method](model, x[:1], 2)  # what is imported and set up once is not counted
    resident, done, highest = psutil.Process().memory_info, threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.002):
            highest[0] = max(highest[0], resident().rss)

    before, watcher = resident().rss, threading.Thread(target=watch)
    watcher.start()
    METHODS[method](
        model, x, M if method in OURS else FEW
    )  # a loop holds no more for more masks, but for their outputs
    done.set()
    watcher.join()
    print(max(0, highest[0] - before) / 2**20)


# --------------------------------------------------------------------------------------------------------------------


def show(title: str, rows: dict[str, dict]) -> None:
    print(
        f"\n{title}\n{pd.DataFrame.from_dict(rows, orient='index').round(3).to_string(na_rep='not measured')}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.averaging", description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help=f"default: {', '.join(NETWORKS)}")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak", nargs=2, metavar=("NETWORK", "METHOD"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(asked.threads)
    if asked.peak:
        print_peak(*asked.peak)
        return
    there = [method for method in METHODS if installed(method)]
    print(f"{asked.threads} threads, torch {torch.__version__}")
    for method in METHODS.keys() - set(there):
        print(f"{method} is not installed")

    tables = {"averaging": {}, "distillation": {}, "exact": {}, "peak memory [MB]": {}}
    for name in asked.networks:
        tables["averaging"][name] = averaging(name, asked.turns)
    show(f"(a) {M} masks", tables["averaging"])
    for name in [name for name in ("LeNetAll", "Quick") if name in asked.networks]:
        tables["distillation"][name] = distillation(name, asked.turns)
    show("(b) a step of distillation", tables["distillation"])
    tables["exact"]["2^16 masks"] = enumeration(asked.turns)
    show("(c) every mask", tables["exact"])
    for name in asked.networks:
        methods = [method for method in there if method != "ours, shared masks" or name == "MLP"]
        tables["peak memory [MB]"][name] = {method: peak(name, method) for method in methods}
    show("(d) peak memory [MB]", tables["peak memory [MB]"])
    content = {
        "format": FORMAT,
        "benchmark": "averaging",
        "masks": M,
        "turns": asked.turns,
        "threads": asked.threads,
        "processor": platform.processor() or platform.machine(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": COMMIT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **tables,
    }
    if asked.networks == list(NETWORKS) and there == list(METHODS):
        write(RECORD, content)
        print(f"\nwritten to {RECORD.relative_to(ROOT)}")
    else:
        print("\nnot recorded: the record has all networks and methods")


if __name__ == "__main__":
    main()
