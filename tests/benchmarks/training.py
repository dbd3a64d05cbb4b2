"""Images per second of training, ours against the plain loop, side by side: ``python -m tests.benchmarks.training``.

The plain loop is what one writes first: a DataLoader over float32 tensors, float32 arithmetic, `nn.Dropout` as it is,
contiguous images. Ours is `training.train`, as the experiments call it: images that stay uint8 until their batch,
cheap masks, channels last, and bfloat16 where the row says so. The two take turns, so that both see the same machine.
"""

import argparse
import time
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from helpers import datasets
from helpers.datasets import Data, Split
from helpers.experiments.declared import TABLE_1, Row
from helpers.experiments.running import compiled
from helpers.training import train


def random_data(row: Row, n: int) -> Data:
    """Random images of the shape that `row` has, since time does not depend on what they show."""
    shape = (1, 28, 28) if row.data == "mnist" else (3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.randint(0, 10, (n,), generator=generator))
    return Data("random", split, split, [])


def plain(row: Row, data: Data, device: torch.device) -> None:
    """One epoch of the plain loop."""
    network = row.network().to(device, memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=row.weight_decay)
    for x, y in DataLoader(
        TensorDataset(data.inputs(data.train.images), data.train.labels), row.batch_size, shuffle=True
    ):
        x, y = x.to(device), y.to(device)
        if row.mirror:
            x = datasets.mirror(x)
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def ours(row: Row, data: Data, device: torch.device) -> None:
    """One epoch of `training.train`."""
    train(
        compiled(row.network().to(device)),
        data.train.images.to(device),
        data.train.labels.to(device),
        epochs=1,
        batch_size=row.batch_size,
        weight_decay=row.weight_decay,
        autocast=row.autocast,
        perturb=datasets.in_turn(data.inputs, *[datasets.mirror] * row.mirror),
        progress=False,
    )


def seconds(loop, row: Row, data: Data, device: torch.device) -> float:
    start = time.perf_counter()
    loop(row, data, device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="default: all of Table 1 on MNIST and CIFAR-10")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, default=12, help="in an epoch")
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    device = torch.device(asked.device)
    print(f"{torch.get_num_threads()} threads, {asked.device}, torch {torch.__version__}; images/s")
    for row in TABLE_1:
        if row.data == "cifar100" or (asked.rows and row.slug not in asked.rows):
            continue
        data = random_data(row, asked.batches * row.batch_size)
        data.moments  # noqa: B018 - computed once, and not in the time
        times = [(seconds(plain, row, data, device), seconds(ours, row, data, device)) for _ in range(asked.turns + 1)]
        a, b = (median(column) for column in zip(*times[1:], strict=True))  # the first turn warms up
        n = asked.batches * row.batch_size
        print(f"{row.name:16} plain {n / a:7.0f}   ours {n / b:7.0f}   ratio {a / b:.2f}", flush=True)


if __name__ == "__main__":
    main()
