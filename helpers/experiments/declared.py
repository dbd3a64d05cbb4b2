"""What is to be run: every cell of Table 1 and every point of Figs. 2 and 3 of the paper, as data.

What is to be run of Molchanov et al. 2017 is in variational.py.

A *row* is a network, its data, and the schedule by which its baseline, the teacher, is trained. A *run* is what makes
one record: one row, one student, one repetition.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from helpers import networks
from helpers.experiments import variational
from helpers.experiments.variational import PROFILES

REPETITIONS = 5
MASKS = (1, 2, 5, 10, 20, 50, 100)  # m of Monte Carlo dropout: Table 1 has the last, Fig. 2 all of them
MASKS_OF_IDEAL = {"full": 400, "short": 100}  # m of the Monte Carlo that stands for the ideal predictor
KINDS = ("perturbed", "train", "unseen")  # of S: the left half of Table 1 has the first, the right half all three


@dataclass(frozen=True)
class Row:
    """A row of Table 1. `lr` is {epoch: learning rate from then on}.

    The paper leaves the batch size, the L2 coefficient and most dropout rates open: they are those of the networks' own
    papers where these say them, and otherwise those of Caffe's examples (64 and 5e-4 on MNIST). Quick's, 128 and 5e-4, are
    ours: Caffe's example of it has 100 and 0.004. All images are standardised; NiN and AllConv were published with global
    contrast normalisation and ZCA whitening, of which this paper says nothing.
    """

    name: str
    data: str
    network: Callable[..., nn.Module]
    epochs: int
    lr: dict[int, float]
    batch_size: int = 128
    weight_decay: float = 5e-4
    mirror: bool = True
    autocast: torch.dtype | None = torch.bfloat16

    distillation_epochs = 30  # for all rows

    @property
    def slug(self) -> str:
        return self.name.lower().replace(" ", "-")

    @property
    def distillation_lr(self) -> dict[int, float]:
        """20 epochs at the baseline's last rate, then 10 at a tenth of it."""
        last = self.lr[max(self.lr)]
        return {0: last, 20: last / 10}


MNIST = partial(Row, data="mnist", epochs=30, lr={0: 1e-3, 20: 1e-4}, batch_size=64, mirror=False)
NIN = partial(Row, epochs=260)
ALLCONV = partial(Row, epochs=350, lr={0: 0.05, 200: 5e-3, 250: 5e-4, 300: 5e-5}, weight_decay=1e-3)
NIN_100, ALLCONV_100 = partial(networks.NiN, classes=100), partial(networks.AllConv, classes=100)
LENET = MNIST("MNIST LeNet", network=networks.LeNet, autocast=None)
LENETALL = MNIST("MNIST LeNetAll", network=networks.LeNetAll)
QUICK = Row("CIFAR10 Quick", "cifar10", networks.Quick, epochs=300, lr={0: 0.05, 200: 0.005})

TABLE_1 = [
    LENET,
    LENETALL,
    QUICK,
    NIN("CIFAR10 NiN", "cifar10", networks.NiN, lr={0: 0.1, 200: 0.01, 230: 1e-3}, weight_decay=1e-4),
    ALLCONV("CIFAR10 AllConv", "cifar10", networks.AllConv),
    ALLCONV("CIFAR100 AllConv", "cifar100", ALLCONV_100),
    NIN("CIFAR100 NiN", "cifar100", NIN_100, lr={0: 0.02, 200: 2e-3, 230: 2e-4}),
]

# What the paper does not say of Quick: the dropout rate, and on which side of the pooling dropout sits.
PLACEMENTS = {
    (before, p): replace(
        QUICK,
        name=f"CIFAR10 Quick {'before' if before else 'after'} pooling at {p}",
        network=partial(networks.Quick, p=p, drop_before_pool=before),
    )
    for before in (False, True)
    for p in (0.25, 0.5)
}


def faster(row: Row) -> Row:
    """`row` at ten times its learning rates."""
    return replace(
        row, name=f"{row.name} at 10 times the rate", lr={start: 10 * rate for start, rate in row.lr.items()}
    )


# Whether the learning rate of the paper's MNIST schedule leaves its networks under-trained where batches have 64 images;
# and whether LeNetAll drops what its pools return. {name of the row in Table 1: rows that are tried beside it}.
DROPS_POOLED = replace(
    LENETALL, name="MNIST LeNetAll after pooling", network=partial(networks.LeNetAll, drop_before_pool=False)
)
FASTER = {LENET.name: [faster(LENET)], LENETALL.name: [faster(LENETALL), faster(DROPS_POOLED)]}

# Fig. 3. Left: units of the penultimate layer. Right: every layer has this many eighths of its units.
WIDTHS = {
    "figure-3-left": {units: (32, 32, 64, units) for units in range(64, 0, -8)},
    "figure-3-right": {eighths: (4 * eighths, 4 * eighths, 8 * eighths, 8 * eighths) for eighths in range(8, 0, -1)},
}


class LargerSteps(Row):
    """Its students are distilled at the rates of their teacher's training."""

    @property
    def distillation_lr(self) -> dict[int, float]:
        """20 epochs at the baseline's first rate, then 10 at its last."""
        return {0: self.lr[0], 20: self.lr[max(self.lr)]}


class AsLong(Row):
    """Its students are distilled for as long, and at the same rates, as networks are trained from labels."""

    @property
    def distillation_epochs(self) -> int:
        return self.epochs

    @property
    def distillation_lr(self) -> dict[int, float]:
        return self.lr


# Whether small steps keep a student from its teacher if some of its layers start afresh, or have lost units; and whether time
# does, for which half of the units are tried, and the smallest student that has a rival. {(side, size): {trial: (row, S)}}.
LARGER_STEPS, AS_LONG = LargerSteps(**vars(QUICK)), AsLong(**vars(QUICK))
WITH_LARGER_STEPS = {"larger-steps": (LARGER_STEPS, "perturbed"), "larger-steps-train": (LARGER_STEPS, "train")}
FOR_LONGER = {"as-long-train": (AS_LONG, "train")}
TRIALS = {
    ("figure-3-left", 56): WITH_LARGER_STEPS,
    ("figure-3-right", 4): WITH_LARGER_STEPS | FOR_LONGER,
    ("figure-3-right", 2): FOR_LONGER,
}


@dataclass(frozen=True)
class Run:
    """One record to be.

    Parameters
    ----------
    experiment, variant : what it belongs to, and what sets it apart there; both are in the record's name.
    repetition : 1, 2, ...; the seed of the student, and of Monte Carlo's masks.
    profile : "full", the paper's schedule, or "short", a tenth of it.
    S : kind of unlabelled inputs.
    widths : of a student that is smaller than its teacher (networks with an argument `widths`).
    labels : "with dropout" or "without dropout" if, for comparison, a network of that size is trained on labels instead.
    teacher_seed : of the teacher's first weights and training. Repetitions share one teacher, as the paper's seem to.
    """

    experiment: str
    row: Row
    variant: str
    repetition: int
    profile: str
    S: str = "perturbed"
    widths: tuple[int, ...] | None = None
    labels: str | None = None
    teacher_seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.experiment}.{self.row.slug}.{self.variant}.{self.repetition}.{self.profile}"

    @property
    def profile_in_words(self) -> str:
        masks = MASKS_OF_IDEAL[self.profile]
        fewer = f"a tenth of the epochs; {masks} masks stand for the ideal predictor, not {MASKS_OF_IDEAL['full']}"
        return "all epochs" if self.profile == "full" else fewer

    @property
    def way(self) -> str:
        """How its small network is made, which is also what its record calls the network's scores."""
        return f"from labels, {self.labels}" if self.labels else "distilled"

    @property
    def average(self) -> str | None:
        """What its record calls the average over masks of its small network, which if it has dropout is an ensemble, too."""
        return f"{self.way}, Monte Carlo" if self.labels == "with dropout" else None

    @property
    def teacher(self) -> str:
        """The name of the teacher's checkpoint: one for all runs that share it."""
        seed = f"-{self.teacher_seed}" * (self.teacher_seed > 0)
        return f"table-1.{self.row.slug}.teacher{seed}.{self.profile}"

    def schedule(self, epochs: int, lr: dict[int, float]) -> dict:
        """Epochs and learning rates under the run's profile, as `train` and `distill` take them."""
        divisor = PROFILES[self.profile]
        return {"epochs": max(1, epochs // divisor), "lr": {start // divisor: rate for start, rate in lr.items()}}


def table_1(row: Row, profile: str, repetitions: int = REPETITIONS) -> list[Run]:
    """A row of Table 1: its left half with all repetitions and, on CIFAR, one run for each other kind of S."""
    runs = [Run("table-1", row, "perturbed", i + 1, profile) for i in range(repetitions)]
    if row.data.startswith("cifar"):
        runs += [Run("table-1", row, kind, 1, profile, S=kind) for kind in KINDS[1:]]
    return runs


def figure_3(side: str, profile: str, repetitions: int = REPETITIONS) -> list[Run]:
    """One side of Fig. 3: networks of all sizes, distilled, and trained from labels.

    The paper does not say what its students saw: here there are some that saw perturbed images, as in the left half of Table 1,
    and others that saw the training images as they are. Nor does it say whether its networks trained from labels had dropout,
    so there are both. Both sides begin with the same networks, those with all units: as students they are copies of their
    teacher, which Table 1 has.
    """
    students = {"distilled": "perturbed", "train": "train"}
    labels = {"labels": "with dropout", "plain": "without dropout"}
    ways = {
        **{name: {"S": S} for name, S in students.items()},
        **{name: {"labels": how} for name, how in labels.items()},
    }
    (all_units, *_), (_, *smaller) = WIDTHS["figure-3-left"].items(), WIDTHS[side].items()

    def runs(experiment: str, variant: str, size: int, widths: tuple[int, ...]) -> list[Run]:
        name, way = f"{variant}-{size}", ways[variant]
        return [Run(experiment, QUICK, name, i + 1, profile, widths=widths, **way) for i in range(repetitions)]

    return [
        *(run for run in table_1(QUICK, profile, repetitions) if run.S in students.values()),
        *(run for variant in labels for run in runs("figure-3-left", variant, *all_units)),
        *(run for variant in ways for size in smaller for run in runs(side, variant, *size)),
    ]


def small_student(profile: str, repetitions: int = REPETITIONS) -> list[Run]:
    """Students of Fig. 3, distilled with larger steps than the paper's, or for longer."""
    return [
        Run(side, row, f"{trial}-{size}", i + 1, profile, S=S, widths=WIDTHS[side][size])
        for (side, size), trials in TRIALS.items()
        for trial, (row, S) in trials.items()
        for i in range(repetitions)
    ]


def placement(profile: str, repetitions: int = REPETITIONS) -> list[Run]:
    """Quick with dropout before and after pooling, at two rates. Each repetition has a teacher of its own."""
    return [
        Run("placement", row, "perturbed", i + 1, profile, teacher_seed=i + 1)
        for row in PLACEMENTS.values()
        for i in range(repetitions)
    ]


def learning_rate(profile: str, repetitions: int = REPETITIONS) -> list[Run]:
    """The MNIST rows of Table 1 at ten times the learning rate, LeNetAll with dropout on either side of its pools."""
    return [
        Run("learning-rate", row, "perturbed", i + 1, profile)
        for rows in FASTER.values()
        for row in rows
        for i in range(repetitions)
    ]


EXPERIMENTS = {
    **{row.slug: partial(table_1, row) for row in TABLE_1},
    "figure-2": partial(table_1, QUICK),  # the errors at every m are in the records of Table 1
    "figure-3-left": partial(figure_3, "figure-3-left"),
    "figure-3-right": partial(figure_3, "figure-3-right"),
    "small-student": small_student,
    "placement": placement,
    "learning-rate": learning_rate,
    **variational.EXPERIMENTS,
}


def declared(names: Iterable[str], profile: str = "full", repetitions: int | None = None) -> list[Run]:
    """The runs called `names`; all for none.

    A name is an experiment's ("MNIST LeNet", "mnist-lenet", "figure-3-left"), a run's, or how runs' names begin, up to one
    of their dots ("figure-3-right.cifar10-quick.labels-6"). Of each experiment there are `repetitions`, or as many as it has
    by default, unless it has only one.

    Raises
    ------
    ValueError : for a name that is none, with the nearest one that is.
    """
    how = (profile,) if repetitions is None else (profile, repetitions)
    of = {experiment: runs(*how) for experiment, runs in EXPERIMENTS.items()}
    every = {run.name: run for runs in of.values() for run in runs}
    found = {}
    for name in [name.lower().replace(" ", "-") for name in names] or of:
        runs = of.get(name) or [run for run in every.values() if f"{run.name}.".startswith(f"{name}.")]
        if not runs:
            near = difflib.get_close_matches(name, [*of, *every], n=1, cutoff=0)[0]
            raise ValueError(
                f"there is no {name!r}; did you mean {near!r}? There are {', '.join(of)}, and the runs that `list` prints"
            )
        found |= {run.name: run for run in runs}
    return list(found.values())
