"""What a reader moves: a control, a figure, and a pure function from the one to the other."""

from collections.abc import Callable, Mapping

import ipywidgets
from IPython.display import clear_output, display
from matplotlib.figure import Figure


def slider_figure(draw: Callable[[int], Figure], steps: list[int], value: int, label: str) -> ipywidgets.VBox:
    """A slider over `steps` above the figure that `draw` makes of its value.

    Parameters
    ----------
    draw : from a step to a figure. It is pure, so that it can be tested, and shown in a still page, without a slider.
    steps : the values that the slider stops at.
    value : the step that it starts from.
    label : what the slider says it changes.
    """
    return sliders_figure(draw, {label: (steps, value)})


def sliders_figure(draw: Callable[..., Figure], sliders: Mapping[str, tuple[list, object]]) -> ipywidgets.VBox:
    """Several sliders, one below the other, above the figure that `draw` makes of their values.

    Parameters
    ----------
    draw : from a value of each slider, in their order, to a figure; pure, as in `slider_figure`.
    sliders : {what the slider says it changes: (the values that it stops at, the one that it starts from)}.
    """
    controls = [
        ipywidgets.SelectionSlider(
            options=steps,
            value=value,
            description=label,
            style={"description_width": "initial"},
            layout={"width": "60%"},
        )
        for label, (steps, value) in sliders.items()
    ]
    output = ipywidgets.Output()

    def redraw(_: object = None) -> None:
        with output:
            clear_output(wait=True)  # one figure that changes, instead of one below the other
            display(draw(*(control.value for control in controls)))

    for control in controls:
        control.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*controls, output])
