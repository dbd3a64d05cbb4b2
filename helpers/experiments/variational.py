"""What is to be run of Molchanov et al. 2017: Tables 2, 3 and 4, LeNet-300-100 and LeNet-5, as data."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from helpers import networks, variational
from helpers.variational import KINDS, Kinds, Linear, MultiplicativeLinear

SPLITS = 10  # of DIGITS and NOISE-DIGITS into training and test examples
MASKS, MASKS_OF_IDEAL = 10, 100  # m of Monte Carlo, and of what stands for the ideal variational predictor
PROFILES = {"full": 1, "short": 10}  # epochs are divided by this


def perceptron(
    widths: Sequence[int] = (300, 100), p: float = 0.0, p_input: float = 0.0, leak: float = 0.0
) -> nn.Module:
    """Grey images of 28 x 28 to logits [N, 10], by hidden layers of `widths`; `leak` is the slope below zero."""
    hidden, n = [], 784
    for width in widths:
        hidden += [nn.Linear(n, width), nn.LeakyReLU(leak), nn.Dropout(p)]
        n = width
    return nn.Sequential(nn.Flatten(), nn.Dropout(p_input), *hidden, nn.Linear(n, 10))


def table_4_network(
    drop: Sequence[float] = (0.0,) * 6, widths: Sequence[int] = (64, 128, 256, 2048, 2048)
) -> nn.Module:
    """Colour images [N, 3, 32, 32] to logits [N, 10], by three convolutions and three fully connected layers.

    The paper gives no widths. With these, and pooling that rounds down, its sparsities of layers give the compression
    that it reports: 8.5 and 9 for the convolutions and the whole in place of 8.6 and 9.
    """
    a, b, c, d, e = widths
    p0, p1, p2, p3, p4, p5 = drop

    def block(i: int, n: int, m: int, p: float) -> dict[str, nn.Module]:
        conv, pool = nn.Conv2d(n, m, 5, padding=2), nn.MaxPool2d(3, 2)
        return {f"conv{i}": conv, f"relu{i}": nn.ReLU(), f"pool{i}": pool, f"drop{i}": nn.Dropout(p)}

    return nn.Sequential(
        OrderedDict(
            drop0=nn.Dropout(p0),
            **block(1, 3, a, p1),
            **block(2, a, b, p2),
            **block(3, b, c, p3),
            flatten=nn.Flatten(),
            **{"fc1": nn.Linear(9 * c, d), "relu4": nn.ReLU(), "drop4": nn.Dropout(p4)},
            **{"fc2": nn.Linear(d, e), "relu5": nn.ReLU(), "drop5": nn.Dropout(p5)},
            fc3=nn.Linear(e, 10),
        )
    )


def linear(features: int) -> nn.Module:
    """Multiclass logistic regression: images to logits [N, 10]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 10))


@dataclass(frozen=True)
class Row:
    """A network, its data, and how it is trained.

    `kinds` says which layers become variational; with none the network is trained by Algorithm 1. `warm_up` is that of
    `elbo.maximise`. `students` are the widths of plain networks that the trained posterior is distilled into. `test_share`
    is the part of DIGITS and NOISE-DIGITS that is not trained on, and without meaning where the split is given.
    """

    name: str
    data: str
    network: Callable[..., nn.Module]
    kinds: Kinds | None = None
    kl: Callable[[Tensor], Tensor] = variational.kl
    epochs: int = 200
    warm_up: tuple[int, int] = (5, 20)
    lr: float = 1e-3
    batch_size: int = 100
    threshold: float = variational.THRESHOLD
    students: tuple[tuple[int, ...], ...] = ()
    mirror: bool = False
    test_share: float = 0.2

    @property
    def slug(self) -> str:
        return self.name.lower().replace(" ", "-")


@dataclass(frozen=True)
class Run:
    """One record to be: a row and a repetition, which is the seed, and the number of the split where there are several."""

    experiment: str
    row: Row
    repetition: int
    profile: str
    variant: str = "trained"

    @property
    def name(self) -> str:
        return f"{self.experiment}.{self.row.slug}.{self.variant}.{self.repetition}.{self.profile}"

    @property
    def teacher(self) -> str:
        return self.name  # each run trains a network of its own

    @property
    def profile_in_words(self) -> str:
        return "all epochs" if self.profile == "full" else "a tenth of the epochs, but all of the students'"

    @property
    def epochs(self) -> int:
        return self.row.epochs // PROFILES[self.profile]

    @property
    def warm_up(self) -> tuple[int, int]:
        start, end = self.row.warm_up
        return start // PROFILES[self.profile], end // PROFILES[self.profile]


# Trained without a divergence: Adam's rate is no use to SGD with momentum.
PLAIN = {"kinds": None, "lr": 0.05}
OLD = {"kinds": {nn.Linear: partial(MultiplicativeLinear, largest=0.0)}, "kl": variational.kl_cubic}

LENET_300_100 = Row(
    *("MNIST LeNet-300-100", "mnist", perceptron, KINDS),
    students=((300, 100), (75, 25), (20, 20)),
)
LENET_5 = Row("MNIST LeNet-5", "mnist", partial(networks.LeNet, p=0.0), KINDS)

LARGE = partial(perceptron, widths=(1000, 1000), leak=0.01)
TABLE_3 = [
    Row("MNIST FC none", "mnist", LARGE, **PLAIN),
    Row("MNIST FC binary", "mnist", partial(LARGE, p=0.5, p_input=0.2), **PLAIN),
    Row("MNIST FC variational", "mnist", LARGE, **OLD),
    Row("MNIST FC sparse", "mnist", LARGE, KINDS),
]

CIFAR10 = partial(Row, data="cifar10", epochs=250, warm_up=(10, 100), mirror=True)
RATES = (0.1, 0.25, 0.25, 0.5, 0.5, 0.5)  # those of Srivastava et al. 2014
ON_CONVOLUTIONS = (*RATES[:4], 0.0, 0.0)
TABLE_4 = [
    CIFAR10("CIFAR10 none", network=table_4_network, **PLAIN),
    CIFAR10("CIFAR10 binary", network=partial(table_4_network, RATES), **PLAIN),
    CIFAR10("CIFAR10 variational", network=partial(table_4_network, ON_CONVOLUTIONS), **OLD),
    CIFAR10("CIFAR10 sparse, linear", network=partial(table_4_network, ON_CONVOLUTIONS), kinds={nn.Linear: Linear}),
    CIFAR10("CIFAR10 sparse, all", network=table_4_network, kinds=KINDS),
]

# The paper gives no schedule for these. An epoch of DIGITS is 15 steps: in 200 of them the rates do not come to rest.
LINEAR = partial(Row, kinds=KINDS, threshold=5.0)
TABLE_2 = [
    LINEAR("DIGITS", "digits", partial(linear, 64), epochs=2000),
    LINEAR("NOISE-DIGITS", "noise-digits", partial(linear, 128), epochs=2000),
    LINEAR("MNIST linear", "mnist", partial(linear, 784)),
]

# The paper does not say either how many of the digits it trains on. With fewer of them the divergence weighs more.
TABLE_2_SHARES = [
    replace(row, name=f"{row.name} tested on {words}", test_share=share)
    for words, share in (("a third", 1 / 3), ("a half", 1 / 2))
    for row in TABLE_2[:2]
]


def splits(experiment: str, rows: Sequence[Row], profile: str, repetitions: int = SPLITS) -> list[Run]:
    """As many repetitions of each row as there are splits, and one on MNIST, whose split is given."""
    return [
        Run(experiment, row, i + 1, profile) for row in rows for i in range(1 if row.data == "mnist" else repetitions)
    ]


def once(experiment: str, rows: Sequence[Row], profile: str, _: int = 1) -> list[Run]:
    """One run of each row: the paper, too, reports one."""
    return [Run(experiment, row, 1, profile) for row in rows]


EXPERIMENTS = {
    "sparse-table-2": partial(splits, "sparse-table-2", TABLE_2),
    "sparse-table-2-shares": partial(splits, "sparse-table-2-shares", TABLE_2_SHARES),
    "sparse-table-3": partial(once, "sparse-table-3", TABLE_3),
    "sparse-table-4": partial(once, "sparse-table-4", TABLE_4),
    "sparse-lenet-300-100": partial(once, "sparse", [LENET_300_100]),
    "sparse-lenet-5": partial(once, "sparse", [LENET_5]),
}
