"""Where runs leave their files, and what the records say, beside what the paper says.

Where a record's profile in words is "the paper's schedule", it is an older one and means all epochs of its row, at the rates
in its settings.
"""

import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from helpers import evaluation, networks
from helpers.experiments.declared import (
    FASTER,
    KINDS,
    MASKS,
    PLACEMENTS,
    PROFILES,
    QUICK,
    TABLE_1,
    TRIALS,
    WIDTHS,
    Row,
    Run,
    figure_3,
    learning_rate,
    placement,
    small_student,
    table_1,
)

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
FORMAT = 1

PREDICTORS = ("standard", "Monte Carlo", "distilled")
SIDES = {"figure-3-left": "the penultimate layer shrinks", "figure-3-right": "all layers shrink"}
MEASURES = {"error": ("%", 2), "NLL": ("nats", 4), "ECE": ("%", 2), "KL to ideal": ("nats", 4)}  # unit, digits


def record(run: Run, folder: Path = DATA) -> Path:
    return folder / "runs" / f"{run.name}.json"


def weights(name: str, folder: Path = DATA) -> Path:
    return folder / "weights" / f"{name}.safetensors"


def benchmark(name: str, folder: Path = DATA) -> Path:
    return folder / "benchmarks" / f"{name}.json"


def checkpoint(name: str, folder: Path = DATA) -> Path:
    return folder / "cache" / "runs" / f"{name}.pt"


def lock(name: str, folder: Path = DATA, timeout: float = -1) -> FileLock:
    """What one process at a time may hold; another one waits for `timeout` seconds (-1: for as long as it takes)."""
    path = lock_file(name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, timeout=timeout)


def lock_file(name: str, folder: Path) -> Path:
    return checkpoint(name, folder).with_suffix(".lock")


def held(name: str, folder: Path) -> bool:
    """Whether a process holds that lock, as far as can be seen without making its file."""
    if not lock_file(name, folder).exists():
        return False
    try:
        with lock(name, folder, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # the file is for reading only
        return False


def read(path: Path) -> dict:
    """A record.

    Raises
    ------
    ValueError : if it has a format that this version does not know, or is no record.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        known = content["format"] <= FORMAT
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a record of a run ({error!r}); remove it, and it is run again") from error
    if not known:
        raise ValueError(f"{path} has format {content['format']}; this version reads up to {FORMAT}: update the suite")
    return content


def state(run: Run, folder: Path = DATA) -> str:
    """ "done", "diverged", "unreadable" (its record), "running", "interrupted" (there is a checkpoint, or it was
    begun and there is one of its teacher) or "missing".

    Nothing is written for that, so that a folder can be looked at which is for reading only.
    """
    if record(run, folder).exists():
        try:
            return "diverged" if "diverged" in read(record(run, folder)) else "done"
        except ValueError:
            return "unreadable"
    if held(run.name, folder):
        return "running"
    begun = lock_file(run.name, folder).exists()  # which stays when its process ends
    left = [run.name, run.teacher] if begun else [run.name]
    return "interrupted" if any(checkpoint(name, folder).exists() for name in left) else "missing"


def contents(runs: Iterable[Run], folder: Path = DATA) -> list[dict]:
    """The records that there are of `runs`."""
    return [read(record(run, folder)) for run in runs if record(run, folder).exists()]


def scores(runs: Iterable[Run], predictor: str, folder: Path = DATA) -> list[dict[str, float]]:
    """{measure: value} of `predictor` in each record that there is of `runs`; runs that diverged have none."""
    return [content["metrics"][predictor] for content in contents(runs, folder) if "metrics" in content]


def cell(values: list[float], digits: int = 2) -> str:
    """Mean ± standard deviation over repetitions, or "not run"."""
    if not values:
        return "not run"
    if math.inf in values:
        return "∞"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def cells(runs: list[Run], predictor: str, folder: Path = DATA) -> dict[str, str]:
    """A table's cells: each measure of `predictor` over the records of `runs`, how many of them there are, and how many of
    the runs diverged."""
    there = [next(iter(contents([run], folder)), {}) for run in runs]
    if predictor == "standard":  # one value per teacher, however often it has been distilled, from a run that has one
        teachers = zip((run.teacher for run in runs), there, strict=True)
        there = dict(sorted(teachers, key=lambda pair: ("metrics" in pair[1], "diverged" in pair[1]))).values()
    found = [content["metrics"][predictor] for content in there if "metrics" in content]
    diverged = sum("diverged" in content for content in there)
    values = {f"{name} [{unit}]": cell([s[name] for s in found], digits) for name, (unit, digits) in MEASURES.items()}
    return {**values, "repetitions": f"{len(found)} of {len(there)}" + f", {diverged} diverged" * (diverged > 0)}


def published(*keys: str, digits: int = 2):
    """A number of the paper, or several, as text: its mean ± standard deviation."""
    value = json.loads((DATA / "paper.json").read_text("utf-8"))
    for key in keys:
        value = value[key]
    return " ± ".join(f"{number:.{digits}f}" for number in (value if isinstance(value, list) else [value]))


def longest(row: Row, profile: str = "full", folder: Path = DATA) -> list[Run]:
    """The runs of a row of Table 1 under `profile` or, where none of them has a record, under a shorter one that has."""
    profiles = list(PROFILES)
    by_length = [table_1(row, name) for name in profiles[profiles.index(profile) :]]
    return next((runs for runs in by_length if any_recorded(runs, folder)), by_length[0])


def of_left_half(row: Row, profile: str = "full", folder: Path = DATA) -> list[Run]:
    """Those of the `longest` runs of a row whose students saw perturbed images: all repetitions."""
    return [run for run in longest(row, profile, folder) if run.S == "perturbed"]


def any_recorded(runs: Iterable[Run], folder: Path = DATA) -> bool:
    """Whether any of `runs` has a record."""
    return any(record(run, folder).exists() for run in runs)


def epochs(runs: list[Run], folder: Path = DATA) -> str:
    """How long the teacher of `runs` was trained, and how long the paper's: "26 of 260", or "not run"."""
    row = runs[0].row
    ours = runs[0].schedule(row.epochs, row.lr)["epochs"]
    return f"{ours} of {row.epochs}" if any_recorded(runs, folder) else "not run"


def left(profile: str = "full", folder: Path = DATA):
    """The left half of Table 1 as a pandas table: the paper's errors, and ours with three more measures. Rows that have been
    run under a shorter profile only say so in their epochs."""
    import pandas as pd

    rows = {}
    for row in TABLE_1:
        runs = of_left_half(row, profile, folder)
        for predictor in PREDICTORS:
            paper = {"paper: error [%]": published("table 1 left", row.name, predictor)}
            rows[row.name, predictor] = {**paper, **cells(runs, predictor, folder), "epochs": epochs(runs, folder)}
    return pd.DataFrame.from_dict(rows, orient="index")


def right(profile: str = "full", folder: Path = DATA):
    """The right half of Table 1, the distilled networks by kind of S, as a pandas table."""
    import pandas as pd

    rows = {}
    for row in TABLE_1:
        runs = longest(row, profile, folder)
        for kind in KINDS if len({run.S for run in runs}) > 1 else ():
            paper = {"paper: error [%]": published("table 1 right", row.name, "test" if kind == "unseen" else kind)}
            of_kind = [run for run in runs if kind == run.S]
            rows[row.name, kind] = {**paper, **cells(of_kind, "distilled", folder), "epochs": epochs(of_kind, folder)}
    return pd.DataFrame.from_dict(rows, orient="index")


def placements(folder: Path = DATA):
    """Quick with dropout on either side of the pooling, at two rates, as a pandas table."""
    import pandas as pd

    rows = {}
    for (before, p), row in PLACEMENTS.items():
        runs = [run for run in placement("short") if run.row == row]
        for predictor in PREDICTORS:
            rows["before pooling" if before else "after pooling", p, predictor] = cells(runs, predictor, folder)
    return pd.DataFrame.from_dict(rows, orient="index")


def learning_rates(profile: str = "full", folder: Path = DATA):
    """The MNIST rows of Table 1 at the paper's learning rate and at ten times as much, LeNetAll then also with dropout after
    its pools, as a pandas table."""
    import pandas as pd

    rows = {}
    for row in (row for row in TABLE_1 if row.name in FASTER):
        for tried in (row, *FASTER[row.name]):
            runs = table_1(row, profile) if tried == row else [r for r in learning_rate(profile) if r.row == tried]
            for predictor in PREDICTORS:
                paper = {"paper: error [%]": published("table 1 left", row.name, predictor)}
                rows[tried.name, predictor] = {**paper, **cells(runs, predictor, folder)}
    return pd.DataFrame.from_dict(rows, orient="index")


def by_masks(row: Row, profile: str = "full", folder: Path = DATA) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Fig. 2 for one row: {predictor: {passes: scores of each repetition}}, as far as there are records."""
    runs = of_left_half(row, profile, folder)
    found = contents(runs, folder)
    curves = [content["Monte Carlo by masks"] for content in found if "Monte Carlo by masks" in content]
    if not curves:
        return {}
    one_pass = {name: {1: scores(runs, name, folder)} for name in ("standard", "distilled")}
    return {**one_pass, "Monte Carlo": {m: [curve[str(m)] for curve in curves] for m in MASKS}}


def provenance(folder: Path = DATA):
    """Which code made the records of Table 1, on what, when, and how long it took, as a pandas table."""
    import pandas as pd

    runs = [run for row in TABLE_1 for run in longest(row, folder=folder) if record(run, folder).exists()]
    found = {run.name: read(record(run, folder)) for run in runs}
    return pd.DataFrame.from_dict(
        {
            name: {
                "commit": short(content["commit"]),
                "date": content["date"][:10],
                "device": content["device"],
                "torch": content["versions"]["torch"],
                "minutes of the last process": round(content["seconds"] / 60),
            }
            for name, content in found.items()
        },
        orient="index",
    )


def short(commit: str) -> str:
    """As much of a commit as names it, with the "+" of code that had been changed since."""
    return commit[:9] + "+" * commit.endswith("+")


def origin(found: list[dict]) -> str:
    """A sentence on where records come from: how many there are, when and by which code they were made, and on what."""
    if not found:
        return "There are no records."

    def each(kind: str, values: Iterable[str]) -> str:
        different = sorted(set(values))
        return f"{kind}{'s' * (len(different) > 1)} {', '.join(different)}"

    dates = sorted(content["date"][:10] for content in found)
    commits = each("commit", (short(content["commit"]) for content in found))
    devices = each("device", ((content.get("device") or content["processor"]).replace(", ", " ") for content in found))
    versions = each("PyTorch", (content["versions"]["torch"] for content in found))
    number = f"{len(found)} record{'s' * (len(found) > 1)}"
    return f"*{number}, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {commits}; {devices}; {versions}.*"


def by_size(side: str, profile: str = "full", folder: Path = DATA) -> dict[str, dict[int, list[dict[str, float]]]]:
    """One side of Fig. 3: {name of a curve: {size of the network: scores of each repetition}}, as far as there are records."""
    curves: dict[str, dict[int, list]] = {}
    size_of = {widths: size for size, widths in WIDTHS[side].items()}
    for run in figure_3(side, profile):
        size = size_of[run.widths] if run.widths else max(WIDTHS[side])
        metrics = next(iter(contents([run], folder)), {}).get("metrics", {})
        for curve, predictor in curves_of(run).items():
            if predictor in metrics:  # older records have no average of a network from labels
                curves.setdefault(curve, {}).setdefault(size, []).append(metrics[predictor])
    return curves


def curves_of(run: Run) -> dict[str, str]:
    """The curves of Fig. 3 of which a run has points: {how its network was made: what its record calls the scores}."""
    curves = {f"{run.way} on training images" if run.S == "train" else run.way: run.way}
    return curves | {run.average: run.average} if run.average else curves


def sizes(profile: str = "full", folder: Path = DATA):
    """Fig. 3 as a pandas table: errors of the networks of every size, and the distilled ones' distance to the ideal."""
    import pandas as pd

    whole, rows = networks.parameter_count(QUICK.network()), {}
    for side, widths in WIDTHS.items():
        curves = by_size(side, profile, folder)
        labels = {curve: run.labels for run in figure_3(side, profile) for curve in curves_of(run)}
        for size in widths:
            found = {way: curves.get(way, {}).get(size, []) for way in labels}
            count = networks.parameter_count(QUICK.network(widths=widths[size]))
            rows[SIDES[side], size] = {
                "parameters left [%]": round(100 * count / whole),
                **{f"{way}: error [%]": of_learned(runs, "error") for way, runs in found.items()},
                **{
                    f"{way}: KL to ideal [nats]": of_learned(runs, "KL to ideal")
                    for way, runs in found.items()
                    if not labels[way]
                },
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def of_learned(found: list[dict[str, float]], measure: str) -> str:
    """A `cell` of those networks of Fig. 3 that have learned, and how many have not: from labels that is a matter of luck."""
    values = [s[measure] for s in found if evaluation.learned(s)]
    learned = [cell(values, MEASURES[measure][1])] if values or not found else []
    lost = len(found) - len(values)
    return "; ".join(learned + [f"{lost} of {len(found)} not learned"] * (lost > 0))


def small_students(profile: str = "full", folder: Path = DATA):
    """Students of Fig. 3, distilled in several ways, as a pandas table."""
    import pandas as pd

    rows = {}
    for side, size in TRIALS:
        runs = [run for run in figure_3(side, profile, 1) if not run.labels] + small_student(profile, 1)
        for run in (run for run in runs if run.experiment == side and run.widths == WIDTHS[side][size]):
            how = run.S, run.row.distillation_epochs, run.row.distillation_lr[0]
            rows[SIDES[side], size, *how] = cells([run], "distilled", folder)
    names = ["what shrinks", "size", "S", "epochs", "learning rate"]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(names)


def speed(folder: Path = DATA):
    """How long 100 masks take on several networks, and how many times as long without `predictors.monte_carlo`, as
    ``make bench`` has measured it, as a pandas table."""
    import pandas as pd

    return pd.DataFrame.from_dict(read(benchmark("averaging", folder))["averaging"], orient="index")
