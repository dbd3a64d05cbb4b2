"""What a reader sees: one function per figure, from tensors to a Matplotlib figure; a module for each notebook.

The figures do not pass through pyplot, so that nothing is shown twice and nothing has to be closed.

Each predictor has one colour everywhere, from the palette of Okabe and Ito, which colour-blind readers can tell apart.
"""

COLOURS = {
    "standard": "#D55E00",
    "Monte Carlo": "#56B4E9",
    "distilled": "#009E73",
    "geometric": "#CC79A7",
    "fast dropout": "#0072B2",
    "ideal": "#000000",
}
MARKERS = {
    "standard": "s",
    "Monte Carlo": "o",
    "distilled": "D",
    "geometric": "^",
    "fast dropout": "v",
    "ideal": "_",
}
