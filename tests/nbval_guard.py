"""A pytest plugin that makes nbval's comparison of stored outputs one that cannot pass vacuously.

nbval skips the comparison without a word where a stored cell has no execution count, and there is nothing to compare
where its outputs are images. With this plugin each cell tagged ``nbval-check-output`` fails unless its stored outputs
were compared with the new ones, and unless the same comparison, given a stored output that was changed, rejects it.
Its kernels are those of `tests.kernels`.
"""

import copy

from nbval.plugin import IPyNbCell

import tests.kernels  # noqa: F401 - for what the import does

TAG = "nbval-check-output"
PLANTED = "a planted wrong output"

run_cell = IPyNbCell.runtest
compare = IPyNbCell.compare_outputs


def compare_and_note(self: IPyNbCell, test: list, ref: list, skip_compare: tuple | None = None) -> bool:
    self.rejects_changes = not compare(self, test, planted(ref), skip_compare)
    self.comparison_traceback = []
    return compare(self, test, ref, skip_compare)


def run_and_require_comparison(self: IPyNbCell) -> None:
    self.rejects_changes = None
    run_cell(self)
    if TAG not in self.cell.metadata.get("tags", []):
        return
    if self.rejects_changes is None:
        self.raise_cell_error(
            f"This cell is tagged {TAG}, but its stored output was not compared: run the notebook again"
        )
    if not self.rejects_changes:
        self.raise_cell_error(f"This cell is tagged {TAG}, but has no stored output that nbval compares")


def planted(outputs: list) -> list:
    """`outputs` with every text in them replaced, and nothing added."""
    outputs = copy.deepcopy(outputs)
    for output in outputs:
        if "text" in output:
            output["text"] = PLANTED
        if "text/plain" in output.get("data", {}):
            output["data"]["text/plain"] = PLANTED
    return outputs


IPyNbCell.runtest = run_and_require_comparison
IPyNbCell.compare_outputs = compare_and_note
