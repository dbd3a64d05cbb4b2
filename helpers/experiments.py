"""The paper's Table 1 as declared experiments: ``python -m helpers.experiments list | run [ROW ...] | table``.

A *row* of the table is a network, its data, and the schedule by which its baseline, the teacher, is trained. A *run* is one
row, one kind of the set S and one repetition: it trains the teacher (or finds it trained), averages it by Monte Carlo,
distils it, and writes one record to ``data/runs``. What is interrupted goes on from its last checkpoint.

Needs the extra ``notebooks``.
"""

import argparse
import difflib
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from helpers import checkpoints, datasets, distillation, evaluation, networks, predictors, training
from helpers.files import replacing
from helpers.seeding import seeded

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "data" / "runs"  # records
WEIGHTS = ROOT / "data" / "weights"  # one teacher and one student of each row
WORK = ROOT / "data" / "cache" / "runs"  # checkpoints and locks, not in git

FORMAT = 1
REPETITIONS = 5
MASKS, MASKS_OF_IDEAL = 100, 400  # m of Monte Carlo dropout as in the paper, and of what stands for the ideal predictor
KINDS = ("perturbed", "train", "unseen")  # of S: the left half of Table 1 has the first, the right half all three
PROFILES = {"full": 1, "short": 10}  # epochs are divided by this
PREDICTORS = ("standard", "Monte Carlo", "distilled")


@dataclass(frozen=True)
class Row:
    """A row of Table 1. `lr` is {epoch: learning rate from then on}.

    The paper leaves the batch size, the L2 coefficient and most dropout rates open: they are those of the networks' own
    papers where these say them, and otherwise those of Caffe's examples (64 and 5e-4 on MNIST).
    """

    name: str
    data: str
    network: Callable[[], nn.Module]
    epochs: int
    lr: dict[int, float]
    batch_size: int = 128
    weight_decay: float = 5e-4
    mirror: bool = True
    autocast: torch.dtype | None = torch.bfloat16

    @property
    def slug(self) -> str:
        return self.name.lower().replace(" ", "-")

    @property
    def distillation_lr(self) -> dict[int, float]:
        """20 epochs at the baseline's last rate, then 10 at a tenth of it."""
        last = self.lr[max(self.lr)]
        return {0: last, 20: last / 10}


DISTILLATION_EPOCHS = 30
MNIST = partial(Row, data="mnist", epochs=30, lr={0: 1e-3, 20: 1e-4}, batch_size=64, mirror=False)
NIN = partial(Row, epochs=260)
ALLCONV = partial(Row, epochs=350, lr={0: 0.05, 200: 5e-3, 250: 5e-4, 300: 5e-5}, weight_decay=1e-3)
NIN_100, ALLCONV_100 = partial(networks.NiN, classes=100), partial(networks.AllConv, classes=100)

ROWS = [
    MNIST("MNIST LeNet", network=networks.LeNet, autocast=None),
    MNIST("MNIST LeNetAll", network=networks.LeNetAll),
    Row("CIFAR10 Quick", "cifar10", networks.Quick, epochs=300, lr={0: 0.05, 200: 0.005}),
    NIN("CIFAR10 NiN", "cifar10", networks.NiN, lr={0: 0.1, 200: 0.01, 230: 1e-3}, weight_decay=1e-4),
    ALLCONV("CIFAR10 AllConv", "cifar10", networks.AllConv),
    ALLCONV("CIFAR100 AllConv", "cifar100", ALLCONV_100),
    NIN("CIFAR100 NiN", "cifar100", NIN_100, lr={0: 0.02, 200: 2e-3, 230: 2e-4}),
]


@dataclass(frozen=True)
class Run:
    """One record to be: a row, a kind of S, a repetition (1, 2, ...) and a profile."""

    row: Row
    kind: str
    repetition: int
    profile: str

    @property
    def name(self) -> str:
        return f"table-1.{self.row.slug}.{self.kind}.{self.repetition}.{self.profile}"

    @property
    def record(self) -> Path:
        return RUNS / f"{self.name}.json"

    @property
    def teacher(self) -> str:
        return f"table-1.{self.row.slug}.teacher.{self.profile}"

    def schedule(self, epochs: int, lr: dict[int, float]) -> dict:
        """Epochs and learning rates under the run's profile, as `train` and `distill` take them."""
        divisor = PROFILES[self.profile]
        return {"epochs": max(1, epochs // divisor), "lr": {start // divisor: rate for start, rate in lr.items()}}


def declared(rows: Iterable[Row], profile: str, repetitions: int = REPETITIONS) -> list[Run]:
    """The runs of `rows`: the left half of Table 1 with its repetitions and, on CIFAR, one of each other kind of S."""
    runs = []
    for row in rows:
        runs += [Run(row, "perturbed", i + 1, profile) for i in range(repetitions)]
        runs += [Run(row, kind, 1, profile) for kind in KINDS[1:] if row.data.startswith("cifar")]
    return runs


def perform(run: Run, device: str = "cpu", progress: bool = True) -> dict:
    """The record of `run`, which is carried out first unless it has been.

    Raises
    ------
    BlockingIOError : if another process is working on the same row.
    ValueError : if a record has a newer format, or a checkpoint is damaged or belongs to other settings.
    OSError : if a file cannot be written. Training goes on from the last checkpoint at the next call.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(WORK / f"{run.teacher}.lock", timeout=0):
            if not run.record.exists():
                record = carried_out(run, torch.device(device), progress)
                with replacing(run.record) as file:
                    file.write((json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    except Timeout as error:
        raise BlockingIOError(f"another process is working on {run.row.name} ({run.profile})") from error
    return read(run.record)


def carried_out(run: Run, device: torch.device, progress: bool) -> dict:
    """The run's record: what was run, what came of it, and on what."""
    start, code = time.perf_counter(), commit()  # of the code that runs; the files may change meanwhile
    try:
        outcome = {"metrics": measured(run, device, progress)}
    except FloatingPointError as error:
        outcome = {"diverged": str(error)}
    row = run.row
    return {
        "format": FORMAT,
        "experiment": "table 1",
        "row": row.name,
        "S": run.kind,
        "repetition": run.repetition,
        "seed": run.repetition,
        "profile": run.profile,
        "profile in words": "the paper's schedule" if run.profile == "full" else "a tenth of the paper's epochs",
        "settings": {
            "training": run.schedule(row.epochs, row.lr),
            "distillation": run.schedule(DISTILLATION_EPOCHS, row.distillation_lr),
            **{name: getattr(row, name) for name in ("data", "batch_size", "weight_decay", "mirror")},
            "autocast": str(row.autocast),
            "network": repr(row.network()),
            "masks": MASKS,
            "masks of the ideal": MASKS_OF_IDEAL,
        },
        **outcome,
        "seconds": round(time.perf_counter() - start, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": code,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def measured(run: Run, device: torch.device, progress: bool) -> dict[str, dict[str, float]]:
    """The scores of the three predictors on the test set, {predictor: {measure: value}}."""
    row = run.row
    data = datasets.load(row.data)
    S = datasets.unlabelled(data, run.kind)
    mirror = [datasets.mirror] if row.mirror else []
    common = {"batch_size": row.batch_size, "weight_decay": row.weight_decay, "autocast": row.autocast}
    common["progress"] = progress

    with seeded(0, torch.device("cpu")):
        teacher = row.network().to(device)
    training.train(  # all repetitions share the baseline, as in the paper; it is trained once and then found
        teacher,
        data.train.images.to(device),
        data.train.labels.to(device),
        perturb=datasets.in_turn(data.inputs, *mirror),
        checkpoint=WORK / f"{run.teacher}.pt",
        **run.schedule(row.epochs, row.lr),
        **common,
    )
    student = distillation.distill(
        teacher,
        S.inputs.to(device),
        perturb=datasets.in_turn(S.perturb, *mirror),
        seed=run.repetition,
        checkpoint=WORK / f"{run.name}.pt",
        **run.schedule(DISTILLATION_EPOCHS, row.distillation_lr),
        **common,
    )
    if run.kind == "perturbed" and run.repetition == 1:
        keep(run.teacher, teacher)
        keep(run.teacher.replace("teacher", "student"), student)
    x, labels = data.inputs(data.test.images), data.test.labels
    ideal = ideal_of(teacher, x, WORK / f"{run.teacher}.ideal.pt")
    predictions = {
        "standard": predictors.standard(teacher, x),
        "Monte Carlo": predictors.monte_carlo(teacher, x, MASKS, seed=run.repetition),
        "distilled": predictors.standard(student, x),
    }
    return {name: evaluation.scores(q, labels, ideal) for name, q in predictions.items()}


def ideal_of(teacher: nn.Module, x: Tensor, path: Path) -> Tensor:
    """What stands for the ideal predictor's probabilities [N, K] of `x`, computed once for all runs of a row."""
    settings = {"teacher": checkpoints.fingerprint(teacher.state_dict().values()), "masks": MASKS_OF_IDEAL}
    if (stored := checkpoints.load(path, settings, x.device)) is None:
        stored = {"ideal": predictors.monte_carlo(teacher, x, MASKS_OF_IDEAL, seed=0)}
        checkpoints.save(path, settings, stored)
    return stored["ideal"]


def keep(name: str, network: nn.Module) -> None:
    """Write the weights of `network` to ``data/weights``."""
    from safetensors.torch import save

    state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    with replacing(WEIGHTS / f"{name}.safetensors") as file:
        file.write(save(state))


def commit() -> str:
    """The git commit of the code, with "+" if it has been changed since; "unknown" outside a repository."""
    git = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True)
    head = git(["git", "rev-parse", "HEAD"])
    changed = git(["git", "status", "--porcelain", "--", "helpers"]).stdout.strip()
    return head.stdout.strip() + "+" * bool(changed) if head.returncode == 0 else "unknown"


def read(path: Path) -> dict:
    """A record.

    Raises
    ------
    ValueError : if it has a format that this version does not know, or is no record.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        known = record["format"] <= FORMAT
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a record of a run: {error!r}") from error
    if not known:
        raise ValueError(f"{path} has format {record['format']}; this version reads up to {FORMAT}: update the suite")
    return record


def state(run: Run) -> str:
    """ "done", "diverged", "running" (some run of this row is), "interrupted" or "missing"."""
    if run.record.exists():
        return "diverged" if "diverged" in read(run.record) else "done"
    if not (WORK / f"{run.teacher}.pt").exists():
        return "missing"
    lock = FileLock(WORK / f"{run.teacher}.lock", timeout=0)
    try:
        with lock:
            return "interrupted" if (WORK / f"{run.name}.pt").exists() else "missing"
    except Timeout:
        return "running"


def table(profile: str = "full"):
    """Table 1 as a pandas table: ours from the records, mean ± standard deviation over repetitions, beside the paper's."""
    import pandas as pd

    paper = json.loads((ROOT / "data" / "paper.json").read_text("utf-8"))
    cells = {}
    for row in ROWS:
        for predictor in PREDICTORS:
            published = paper["table 1 left"][row.name][predictor]
            cells[row.name, predictor] = {
                "paper: error [%]": "{:.2f} ± {:.2f}".format(*published)
                if isinstance(published, list)
                else f"{published:.2f}",
                **ours([run for run in declared([row], profile) if run.kind == "perturbed"], predictor),
            }
    return pd.DataFrame.from_dict(cells, orient="index")


def ours(runs: list[Run], predictor: str) -> dict[str, str]:
    """Each measure of `predictor` over the records of `runs`: mean ± standard deviation, or "not run"."""
    records = [read(run.record) for run in runs if run.record.exists()]
    found = [record["metrics"][predictor] for record in records if "metrics" in record]
    cells = {}
    for measure, unit, digits in (("error", "%", 2), ("NLL", "nats", 4), ("ECE", "%", 2), ("KL to ideal", "nats", 4)):
        values = [scores[measure] for scores in found]
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 and predictor != "standard" else ""
        cells[f"{measure} [{unit}]"] = f"{statistics.mean(values):.{digits}f}{spread}" if values else "not run"
    return {**cells, "repetitions": f"{len(found)} of {len(runs)}"}


def find(names: Iterable[str]) -> list[Row]:
    """The rows called `names` ("MNIST LeNet" or "mnist-lenet"), or all of them for none.

    Raises
    ------
    ValueError : for a name that is none, with the nearest one that is.
    """
    rows = {row.slug: row for row in ROWS}
    slugs = [name.lower().replace(" ", "-") for name in names]
    for slug in slugs:
        if slug not in rows:
            near = difflib.get_close_matches(slug, rows, n=1, cutoff=0)[0]
            raise ValueError(f"there is no row {slug!r}; did you mean {near!r}? The rows: {', '.join(rows)}")
    return [rows[slug] for slug in slugs] or ROWS


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.experiments", description="Run the paper's Table 1.")
    parser.add_argument("command", choices=["list", "run", "table"])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="default: all, see list")
    parser.add_argument("--profile", choices=PROFILES, default="full", help="short: a tenth of the epochs")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    asked = parser.parse_args(arguments)
    try:
        runs = declared(find(asked.rows), asked.profile, asked.repetitions)
        if asked.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"there is no device {asked.device!r} here; leave --device out to run on the processor")
        match asked.command:
            case "list":
                for run in runs:
                    print(f"{state(run):12} {run.name}")
            case "table":
                print(table(asked.profile).to_string())
            case "run":
                for run in runs:
                    perform(run, asked.device, progress=sys.stderr.isatty())
                    print(f"{state(run):12} {run.name}", flush=True)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
