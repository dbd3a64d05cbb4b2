"""Monte Carlo predictions of a whole test set, which on a processor can take longer than a distillation: each is saved when
it is there, for an interrupted run and for other runs of the teacher."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers import checkpoints, predictors
from helpers.inputs import device_of
from helpers.seeding import derived

PART = 25  # masks of the ideal predictor that are averaged between two checkpoints
BATCH_ON_GPU = 512  # images in a pass: with the few that stay in a processor's cache a GPU would mostly wait


def ideal(teacher: nn.Module, x: Tensor, masks: int, path: Path, progress: bool) -> Tensor:
    """What stands for the ideal predictor's probabilities [N, K] of `x`: the Monte Carlo prediction with many masks."""
    return averages(teacher, x, [*range(PART, masks, PART), masks], 0, path, progress)[masks]


def averages(
    teacher: nn.Module, x: Tensor, masks: Sequence[int], seed: int, path: Path, progress: bool
) -> dict[int, Tensor]:
    """The Monte Carlo prediction [N, K] with each number of `masks`, which grow; the first masks of each are all those of
    the one before. Those that are saved near `path` are read, and the others are added to them.

    Raises
    ------
    ValueError : if the file is damaged, or was written with other inputs or numbers of masks.
    OSError : if it cannot be written. The next call goes on from the last that was.
    """
    of_teacher = checkpoints.fingerprint(teacher.state_dict().values())  # another teacher has other averages
    path = path.with_name(f"{path.stem}.averages-{of_teacher:08x}-{seed}{path.suffix}")
    settings = {"masks": list(masks), "inputs": checkpoints.fingerprint([x])}
    mean = (checkpoints.load(path, settings, x.device) or {"mean": {}})["mean"]
    batch_size = predictors.BATCH if device_of(teacher).type == "cpu" else BATCH_ON_GPU
    with tqdm(
        total=masks[-1], initial=max(mean, default=0), desc="averaging", unit="mask", leave=False, disable=not progress
    ) as bar:
        for before, m in pairwise((0, *masks)):
            if m not in mean:
                new = predictors.monte_carlo(teacher, x, m - before, derived(seed, m), batch_size=batch_size)
                mean[m] = mean[before].lerp(new, (m - before) / m) if before else new
                checkpoints.save(path, settings, {"mean": mean})
                bar.update(m - before)
    return mean
