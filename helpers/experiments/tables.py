"""The tables that the records make: what stands above each, and the function that makes it."""

from helpers.experiments import records, sparsity

# Of the full schedule, or of the short one.
BY_PROFILE = {
    "Table 1, left: standard, Monte Carlo and distilled": records.left,
    "Table 1, right: what the student is distilled on": records.right,
    "LeNet and LeNetAll at ten times the learning rate": records.learning_rates,
    "Figure 3: students that are smaller than their teacher": records.sizes,
    "Some of them, distilled with larger steps or for longer": records.small_students,
}
# Of the schedule that they have been declared for.
OTHERS = {
    "Quick with dropout before and after pooling (a tenth of the epochs)": records.placements,
    "Sparse variational dropout: Table 2 of Molchanov et al.": sparsity.table_2,
    "Sparse variational dropout: Table 2 by the part of the digits that is trained on": sparsity.shares,
    "Sparse variational dropout: errors and weights": sparsity.errors,
}
