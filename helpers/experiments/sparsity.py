"""What the records of the runs of Molchanov et al. 2017 say, beside what the paper says."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from helpers.experiments.records import DATA, cell, contents, published
from helpers.experiments.variational import (
    LENET_5,
    LENET_300_100,
    TABLE_2,
    TABLE_2_SHARES,
    TABLE_3,
    TABLE_4,
    Row,
    Run,
    once,
    splits,
)

PAPER = "Molchanov 2017"
ROWS = (LENET_300_100, LENET_5, *TABLE_3, *TABLE_4)  # what is run once
EXPERIMENT_OF = {
    **{row.name: "sparse-table-3" for row in TABLE_3},
    **{row.name: "sparse-table-4" for row in TABLE_4},
    **{row.name: "sparse" for row in (LENET_300_100, LENET_5)},
}


def found(runs: Iterable[Run], folder: Path = DATA) -> list[dict]:
    """The records that there are of `runs`, without those of runs that diverged."""
    return [content for content in contents(runs, folder) if "metrics" in content]


def recorded(row: Row, folder: Path = DATA) -> dict | None:
    """The record of a row that is run once: of the full schedule, or of the short one, or ``None``."""
    runs = [run for profile in ("full", "short") for run in once(EXPERIMENT_OF[row.name], [row], profile)]
    return next(iter(found(runs, folder)), None)


# What each method is called in records, and before the paper's numbers.
METHODS = {"variational": ("pruned", ""), "L1": ("L1", "L1 ")}


def table_2(folder: Path = DATA):
    """Table 2 as a pandas table: accuracy and sparsity [%] of both methods over the splits, and the paper's."""
    import pandas as pd

    rows = {}
    for row in TABLE_2:
        contents = found(splits("sparse-table-2", [row], "full"), folder)
        for method in METHODS:
            paper, ours = in_the_paper(row, method), over_splits(contents, method)
            rows[row.name, method] = {
                "paper: accuracy [%]": paper["accuracy [%]"],
                "accuracy [%]": ours["accuracy [%]"],
                "paper: sparsity [%]": paper["sparsity [%]"],
                "sparsity [%]": ours["sparsity [%]"],
                "splits": ours["splits"],
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def shares(folder: Path = DATA):
    """DIGITS and NOISE-DIGITS of Table 2 by the part of them that is trained on, as a pandas table."""
    import pandas as pd

    rows = {}
    for first in TABLE_2[:2]:
        for row in (first, *(row for row in TABLE_2_SHARES if row.data == first.data)):
            experiment = "sparse-table-2" if row is first else "sparse-table-2-shares"
            contents = found(splits(experiment, [row], "full"), folder)
            rows[first.name, f"{1 - row.test_share:.0%}"] = {name: over_splits(contents, name) for name in METHODS}
        rows[first.name, "the paper"] = {name: {**in_the_paper(first, name), "splits": "not said"} for name in METHODS}
    flat = {
        where: {(method, measure): value for method, values in row.items() for measure, value in values.items()}
        for where, row in rows.items()
    }
    return pd.DataFrame.from_dict(flat, orient="index").rename_axis(index=["", "trained on"])


def over_splits(contents: list[dict], method: str) -> dict[str, str | int]:
    """Accuracy and sparsity [%] of a method, mean ± standard deviation over the splits that there are records of."""
    predictor, _ = METHODS[method]
    those = [content for content in contents if predictor in content["metrics"]]
    return {
        "accuracy [%]": cell([100 - content["metrics"][predictor]["error"] for content in those], 1),
        "sparsity [%]": cell([100 * share_removed(content, method) for content in those], 1),
        "splits": len(those),
    }


def in_the_paper(row: Row, method: str) -> dict[str, str]:
    """The paper's accuracy and sparsity [%] of a method."""
    _, prefix = METHODS[method]
    names = ("accuracy", "sparsity")
    return {f"{name} [%]": published(PAPER, "table 2", row.name, prefix + name, digits=1) for name in names}


def share_removed(content: dict, method: str) -> float:
    """The share of weights that are removed, 0..1, by the record of a run of Table 2."""
    if method == "L1":
        return content["L1"]["sparsity"]
    return 1 - content["weights kept"] / content["weights"]


def errors(rows: Iterable[Row] = ROWS, folder: Path = DATA):
    """Test error [%] and weights per weight kept, ours and the paper's, of rows that are run once, as a pandas table."""
    import pandas as pd

    table = {}
    for row in rows:
        content = recorded(row, folder)
        metrics = content["metrics"] if content else {}
        pruned = content is not None and "weights kept" in content
        compressed = row.name in COMPRESSED
        ours = {name: cell([metrics[name]["error"]] if name in metrics else []) for name in ("standard", "pruned")}
        table[row.name] = {
            "paper: error [%]": published(PAPER, "errors", row.name),
            "error, standard [%]": ours["standard"],
            "error, pruned [%]": ours["pruned"] if row.kinds else "",
            "paper: fewer weights": f"{float(published(PAPER, 'compression', row.name)):.0f}×" if compressed else "",
            "fewer weights": f"{content['weights'] / content['weights kept']:.0f}×" if pruned else "",
            "profile": content["profile"] if content else "not run",
        }
    return pd.DataFrame.from_dict(table, orient="index")


COMPRESSED = ("MNIST FC sparse", "CIFAR10 sparse, linear", "CIFAR10 sparse, all", LENET_300_100.name, LENET_5.name)


def layers(row: Row, folder: Path = DATA):
    """The share of weights that are removed from each layer [%] by the record of `row`, as a pandas table."""
    import pandas as pd

    content = recorded(row, folder)
    if content is None:
        return pd.DataFrame({"layer": [], "removed [%]": []})
    network, sparsity = row.network(), content["sparsity"]
    return pd.DataFrame(
        {
            "layer": [described(network.get_submodule(name)) for name in sparsity],
            "removed [%]": [round(100 * share, 2) for share in sparsity.values()],
        }
    )


def described(layer: nn.Linear | nn.Conv2d) -> str:
    """What a layer does, for readers: "linear, 784 → 300"."""
    (outputs, inputs, *kernel), convolution = layer.weight.shape, isinstance(layer, nn.Conv2d)
    return f"{f'convolution {kernel[0]} × {kernel[1]}' if convolution else 'linear'}, {inputs} → {outputs}"
