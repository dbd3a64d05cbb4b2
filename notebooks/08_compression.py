# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Smaller students
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dropout-distillation/dropout-distillation/blob/v0.1.0/notebooks/08_compression.ipynb)
#
# *After this page you will be able to* distil an ensemble into a network that is smaller than its members, count what
# that saves, and say what a small student needs to follow.
# *It runs* about two minutes on a laptop's processor. *It needs* [the tour](00_tour.ipynb), and no network connection.

# %%
# Set-up, the same cell in every notebook: find the suite, or fetch it (Colab), and install what is missing or too old.
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from packaging.version import Version

REPOSITORY, TAG = "https://github.com/dropout-distillation/dropout-distillation", "v0.1.0"
home = next((p for p in [Path.cwd(), *Path.cwd().parents] if (p / "helpers" / "gates.py").exists()), None)
if home is None:
    home = Path("dropout-distillation").resolve()
    if not home.exists():
        subprocess.run(["git", "clone", "-q", "--depth", "1", "-b", TAG, REPOSITORY, str(home)], check=True)
needed = {"ipywidgets": "7.7", "mlxtend": "0.23", "safetensors": "0.6.1", "torchmetrics": "1.4"}
missing = [
    f"{name}>={least}"
    for name, least in needed.items()
    if not any(Version(found.version) >= Version(least) for found in distributions(name=name))
]
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *missing], check=True)
sys.path.insert(0, str(home))

# %%
# %matplotlib inline
import json
import statistics
import tempfile

import pandas as pd
import torch
from IPython.display import Markdown, display
from safetensors.torch import load_file
from torch import nn
from torch.utils.benchmark import Timer
from tqdm.auto import tqdm

from helpers import compression, datasets, evaluation, networks, widgets
from helpers.checks import compression as checks
from helpers.experiments import declared, records
from helpers.experiments.running import perform
from helpers.plots import compression as plots

# %% [markdown]
# ## The student need not look like the teacher
#
# Distillation looks for the member $q$ of a family $\mathcal{Q}$ that is nearest to the ideal predictor,
#
# $$\min_{q \in \mathcal{Q}}\; \mathbb{E}_x\big[\mathrm{KL}\big(f_{\text{dropout}}(x) \,\|\, q(x)\big)\big],$$
#
# and nothing says that $\mathcal{Q}$ has to be the teacher's own architecture. If we choose a *narrower* network, one
# step does two things: it averages the ensemble and it compresses it. The paper tries this on *Quick* in two ways
# (section 5.3 and figure 3):
#
# - **left**: only the penultimate layer shrinks, from 64 units to 56, 48, … 8. That layer and the last one, whose
#   inputs it is, start afresh from $\mathcal N(0, 0.01^2)$; the others start from the teacher.
# - **right**: all layers shrink together. Of each layer some units, drawn at random, remain.
#
# What does that save? Parameters and multiply-adds (one multiplication with its addition) can be counted:

# %% tags=["nbval-check-output"]
image = torch.zeros(1, 3, 32, 32)
for side, sizes in declared.WIDTHS.items():
    print(side)
    for size, widths in sizes.items():
        network = networks.Quick(widths=widths)
        count, work = networks.parameter_count(network), compression.multiply_adds(network, image)
        print(f"  {size:>2}: widths {widths!s:<16} {count:>8,} parameters {work:>11,} multiply-adds")

# %% [markdown]
# The two sides save different things. On the left up to 40 % of the *parameters* go, because the layer between the last
# map and the 64 units holds nearly half of them, but the work stays, because convolutions do nearly all of it. On the
# right both go, the parameters nearly with the square of the width and the work a little more slowly, because the first
# convolution sees three colours whatever its width.
#
# ## A miniature, live
#
# Quick on CIFAR-10 takes hours. The same experiment fits into a minute with the 8 × 8 digits and a network of two
# hidden layers with 128 units each. For every size there are three networks: one distilled from the large teacher, on
# *perturbed* training digits as in Table 1 (a fifth of the pixels set to zero) and without a label, and two trained
# from labels, on the digits as they are, as the teacher was, with dropout and without. (The paper calls its networks
# trained from labels *baseline* and does not say whether they had dropout.) The network with dropout is an ensemble, as
# its teacher is, and predicts in two ways: by weight scaling, and by an average over 100 masks (*Monte Carlo*). All of
# them are trained for 60 epochs at the same learning rates. That matters: a student that starts as a copy of its
# teacher needs small steps only, but a narrow one starts with two layers afresh (left), or with a few units of its
# teacher that no longer fit together (right), and may have nearly as far to go as a network trained from labels.

# %%
def perceptron(p=0.5, widths=(128, 128)):
    """Images [N, 1, 8, 8] to logits [N, 10]."""
    a, b = widths
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(64, a), nn.ReLU(), nn.Dropout(p)),
        *(nn.Linear(a, b), nn.ReLU(), nn.Dropout(p)),
        nn.Linear(b, 10),
    )


class Row(declared.Row):
    """Its students are trained for as long, and at the same rates, as networks trained from labels."""

    distillation_epochs, distillation_lr = 60, {0: 0.05, 40: 0.01}


schedule = {"epochs": 60, "lr": {0: 0.05, 40: 0.01}, "batch_size": 32, "mirror": False, "autocast": None}
miniature = Row("Miniature", "digits", perceptron, **schedule)
scratch = tempfile.TemporaryDirectory()  # records are kept for as long as this page runs
SIZES = (128, 32, 8)
WAYS = {
    "distilled": None,
    "from labels, with dropout": "with dropout",
    "from labels, without dropout": "without dropout",
}

curves, parameters = {}, {}
work = [(side, way, size) for side in ("figure-3-left", "figure-3-right") for way in WAYS for size in SIZES]
for side, way, size in tqdm(work, leave=False, unit="network"):
    widths = (128, size) if side == "figure-3-left" else (size, size)
    side_run = side if size < 128 else "figure-3-left"  # with all units both sides have the same, which need run only once
    run = declared.Run(side_run, miniature, f"{way}-{size}", 1, "full", widths=widths, labels=WAYS[way])
    record = perform(run, progress=False, folder=Path(scratch.name))
    for curve, predictor in records.curves_of(run).items():
        curves.setdefault(side, {}).setdefault(curve, {})[size] = [record["metrics"][predictor]]
    parameters.setdefault(side, {})[size] = record["parameters"]
teacher = {"standard": record["metrics"]["standard"]["error"]}

# %%
titles = {"figure-3-left": "the penultimate layer shrinks", "figure-3-right": "both hidden layers shrink"}
plots.figure_3({titles[side]: (curves[side], parameters[side]) for side in curves}, teacher)

# %% [markdown]
# *Test error against the share of parameters that is left; both axes are logarithmic.* With 500 test digits an error of
# 2 % has a standard error of 0.6 percentage points, so that only a large difference says something. There is one: the
# network with 8 units in both layers that was trained with dropout, at the left end of the right figure, whether it is
# averaged or not. The others are two to three standard errors of a difference (0.9 points) wide at most, which among so
# many can be chance. In numbers:

# %%
tables = {
    (titles[side], way): {size: round(found[0]["error"], 1) for size, found in points.items()}
    for side, ways in curves.items()
    for way, points in ways.items()
}
pd.DataFrame.from_dict(tables, orient="index").rename_axis(columns="units: test error [%]")

# %% [markdown]
# How much does the schedule matter? The paper gives one for distillation, in its section 5.1: 30 epochs, from the last
# learning rate of the teacher on, which is here 0.01 and then 0.001. Of smaller students (section 5.3) it says nothing
# else, and we take it to hold for them, too. With that the smallest has not arrived:

# %%
as_in_the_paper = declared.Row("Miniature as in the paper", "digits", perceptron, **schedule)
run = declared.Run("figure-3-right", as_in_the_paper, "distilled-8", 1, "full", widths=(8, 8))
found = {
    "60 epochs from a rate of 0.05": curves["figure-3-right"]["distilled"][8][0],
    "30 epochs from a rate of 0.01": perform(run, progress=False, folder=Path(scratch.name))["metrics"]["distilled"],
}
compared = pd.DataFrame.from_dict(found, orient="index")[["error", "KL to ideal"]]
compared.round({"error": 1, "KL to ideal": 3}).set_axis(["error [%]", "KL to ideal [nats]"], axis="columns")

# %% tags=["nbval-check-output"]
right = {
    way: {size: found[0] for size, found in points.items()} for way, points in curves["figure-3-right"].items()
}
distilled, labelled = right["distilled"], right["from labels, with dropout"]
print("a distilled student with 8 units has never seen a label, and is mostly right:", distilled[8]["error"] < 50)
print(
    "its error is less than half of that of a network trained with dropout:",
    distilled[8]["error"] < 0.5 * labelled[8]["error"],
)
averaged = right["from labels, with dropout, Monte Carlo"]
print("an average over its masks does not mend that:", averaged[8]["error"] > 0.8 * labelled[8]["error"])
print(
    "with a quarter of the units a student is nearer to the ideal than its teacher's weight scaling:",
    distilled[32]["KL to ideal"] < record["metrics"]["standard"]["KL to ideal"],
)
print(f"and has {parameters['figure-3-right'][32] / parameters['figure-3-right'][128]:.0%} of its parameters")

# %% [markdown]
# Why does dropout hurt small networks? With a rate of one half only half of the units are there at a time, and half of
# 8 is too little for ten digits. (It is not weight scaling that fails: the average of 100 masks is about as often
# wrong.) A distilled student has no gates: all of its units work in every example, and the teacher, whose ensemble is
# regular already, tells it what to regularise towards. The teacher's answers also say which other digits an image
# resembles. The table does not tell whether that helps: networks trained from labels without dropout do as well as
# students here.
#
# ## Choose a size
#
# Move the slider. On the left is what one image costs; the time is measured on the machine on which this page runs,
# for batches of 1,000 digits on one thread. Time does not fall as fast as the arithmetic: a small layer does not keep
# a processor busy.

# %%
digits = datasets.load("digits")
batch = digits.inputs(digits.train.images[:1000])


def cost(network, batch):
    """What one example of `batch` costs: parameters, multiply-adds, and microseconds."""
    network.eval()
    with torch.no_grad():
        timer = Timer("network(batch)", globals={"network": network, "batch": batch})
        seconds = timer.blocked_autorange(min_run_time=0.2)
    return {
        "parameters": networks.parameter_count(network),
        "multiply-adds": compression.multiply_adds(network, batch),
        "time": 1e6 * seconds.median / len(batch),
    }


costs = {size: cost(perceptron(widths=(size, size)), batch) for size in SIZES}


def draw(size):
    return plots.choice(f"A student with {size} units per layer", size, costs, curves["figure-3-right"])


widgets.slider_figure(draw, steps=list(reversed(SIZES)), value=32, label="units per layer")

# %% [markdown]
# The same figure for 32 units, for readers of a still page.

# %%
draw(32)

# %% [markdown]
# ## Figure 3: the records
#
# What follows was not run here; it is read from the files in `data/runs` that the runs wrote, one for each network. The
# schedule is the one that the paper has for Table 1: 30 epochs, from the teacher's last learning rate on. For Table 1 its
# students saw perturbed photographs; for this figure it does not say what they saw. Ours saw perturbed ones (the curve
# *distilled*), or the training photographs as they are (the other one). With all units a student is a copy of its teacher,
# as in Table 1 (notebook 07), so that both sides begin with the same one. Networks that are trained from labels take the
# 300 epochs of a teacher. Those that have been run are, with dropout, six eighths of all units and less on the right, of
# some of them also the average over 100 masks of their own; without dropout, all units, with which both sides begin, six
# eighths, and half and less on the right, and 8 units on the left. On the right there are two students of each size that
# saw photographs as they are, and their line has a band: each of the two keeps other units of the teacher, drawn at random.

# %%
quick_parameters = {
    side: {size: networks.parameter_count(networks.Quick(widths=widths)) for size, widths in sizes.items()}
    for side, sizes in declared.WIDTHS.items()
}
quick_runs = records.of_left_half(declared.QUICK)
recorded = {side: records.by_size(side) for side in records.SIDES}


def means(side, way):
    """{size: mean of each measure over the repetitions} of networks that have learned."""
    learned = {size: [s for s in found if evaluation.learned(s)] for size, found in recorded[side][way].items()}
    return {n: {m: statistics.mean(s[m] for s in found) for m in found[0]} for n, found in learned.items() if found}


def figure(measure):
    teacher = {p: statistics.mean(s[measure] for s in records.scores(quick_runs, p)) for p in ("standard", "Monte Carlo")}
    sides = {title: (recorded[side], quick_parameters[side]) for side, title in records.SIDES.items()}
    return plots.figure_3(sides, teacher, measure)


figure("error")

# %%
figure("KL to ideal")

# %% [markdown]
# *Test error, and distance to the ideal, of small networks; all axes are logarithmic. The lines are the predictors of
# the whole teacher. The crosses are networks without dropout that have not begun to learn; why, is told below.* In numbers:

# %%
students = declared.declared(records.SIDES)
display(Markdown(records.origin(records.contents(students))))
records.sizes()

# %% tags=["nbval-check-output"]
one, every = (means(side, "distilled") for side in records.SIDES)
standard = records.scores(quick_runs, "standard")[0]
chance = evaluation.standard_error(one[56]["error"], 10_000)
print("left: the first step costs more than chance can:", one[56]["error"] - one[64]["error"] > 4 * chance)
print("left: the next ones, down to 32 units, cost less:", abs(one[32]["error"] - one[56]["error"]) < 2 * chance)
print("left, 32 units: nearer to the ideal than weight scaling:", one[32]["KL to ideal"] < standard["KL to ideal"])
print("left, 32 units: but more often wrong:", one[32]["error"] > standard["error"])
print("right, six eighths: further from the ideal:", every[6]["KL to ideal"] > standard["KL to ideal"])

# %% [markdown]
# **On the left** look first at the students that saw perturbed photographs, and there at the first step and at those that
# follow. The student with 64 units is a copy of its teacher. The one with 56 has lost a few per cent of the parameters, and
# its last two layers start from random numbers, as the paper prescribes: its error is nearly three points higher. The next
# units, down to 32, cost hardly anything, and with 8 of them and 60 % of the parameters the error has risen by only one point
# more. So the missing units are not what hurts most; the fresh start is the first suspect. The paper's students lose 0.8
# points in all (from 17.20 to 18.02 %) with 40 % of the parameters gone; our first step alone costs more than three times
# that.
#
# The units had to be cheap, whatever is distilled. Quick has no activation between its last two layers: without gates they
# are one linear map, from 1,024 numbers to ten. A softmax ignores what all logits have in common, so that nine units can
# express every such map. From 64 units to 16 the family $\mathcal{Q}$ is the same, and only 8 units restrict it. Here is
# the student of Table 1, with its last two layers multiplied out to one:

# %% tags=["nbval-check-output"]
student = networks.Quick().double()
student.load_state_dict(load_file(records.weights("table-1.cifar10-quick.perturbed.1.full")))
first, last = student.fc1, student.fc2
folded = nn.Linear(first.in_features, last.out_features).double()
maps = torch.rand(100, first.in_features).double()  # whatever numbers enter
with torch.no_grad():
    folded.weight.copy_(last.weight @ first.weight)
    folded.bias.copy_(last.weight @ first.bias + last.bias)
    print("the same logits:", torch.allclose(folded(maps), last(first(maps))))
    rank = torch.linalg.matrix_rank(folded.weight - folded.weight.mean(0)).item()
before = networks.parameter_count(student)
after = before - sum(map(networks.parameter_count, (first, last))) + networks.parameter_count(folded)
print(f"{after:,} of {before:,} parameters, {after / before:.0%}")
print("the rank of the map, without what all logits have in common:", rank)

# %% [markdown]
# So 38 % of the parameters of this student, or of the teacher's single pass, can go by algebra alone, with all of its
# answers as they were. What the left half of the figure asks is less how small a student may be than whether two layers
# that start afresh are learned again. (With gates between them, as in the members of the ensemble, the two layers do not
# multiply out.)
#
# Why should a fresh start be so dear? There are two reasons to suspect. The steps are small: a learning rate of 0.005 is
# right for a copy that needs touching up, but the new layers have to be learned. And on perturbed photographs the ensemble
# itself is at a loss (notebook 07), so that they learn from poor examples. Both have been tried, with 56 units on the left
# and with half of all units on the right (the rows of 300 epochs are of another trial, which comes further down):

# %%
display(Markdown(records.origin(records.contents(declared.small_student("full")))))
records.small_students()

# %% tags=["nbval-check-output"]
seen = "distilled on training images"
one_seen, every_seen = (means(side, seen) for side in records.SIDES)
print("Left, students that saw training images:")
as_often = all(abs(one_seen[n]["error"] - one_seen[56]["error"]) < chance for n in range(16, 56, 8))
print("16 to 48 units: as often right as 56:", as_often)
print("8 units: fewer errors than weight scaling of the whole:", one_seen[8]["error"] < standard["error"])
print("8 units: three times nearer to the ideal:", one_seen[8]["KL to ideal"] < standard["KL to ideal"] / 3)

# %% [markdown]
# On the left it is the images. On the training photographs as they are, with the same small steps, the student with 56 units
# makes fewer errors than even the whole copy of the teacher does after perturbed ones, and is nearly six times nearer to the
# ideal than a student of its own size after perturbed ones. A copy has kept from its teacher what it knows of photographs;
# layers that start afresh know only what they are shown. Larger steps make it worse on either kind of image. (One run each.)
#
# With these images the left half of the figure is the paper's. From 56 units to 16 the error stays where it is and so does
# the distance to the ideal, as they should where the family is the same; with 8 units, the first that restrict it, the
# distance rises. And from the copy of the teacher to the student with 8 units and 60 % of the parameters the error rises by
# half a point. It is still below that of weight scaling with all parameters, as the paper's 18.02 % are below its 18.15 %,
# and the student is more than five times nearer to the ideal. (Labels without dropout have no use for the other 56 units
# either: the orange triangles of the left half, of which more further down, are at 18.0 % with 64 units and 17.6 % with 8.
# In the second figure one of them is missing. Its distance is infinite, since the network with 8 units is so sure of some
# answers that another class, which the ensemble does not rule out, has a probability that rounds to zero.)

# %% tags=["nbval-check-output"]
(largest_steps,) = records.scores([r for r in declared.small_student("full", 1) if r.variant == "larger-steps-4"], "distilled")
print("Right, students that saw training images:")
print("seven eighths: three times nearer than weight scaling:", every_seen[7]["KL to ideal"] < standard["KL to ideal"] / 3)
print("seven eighths: as often right, or more:", every_seen[7]["error"] < standard["error"] + chance)
for size, name in {6: "six", 5: "five"}.items():
    print(f"{name} eighths: nearer to the ideal:", every_seen[size]["KL to ideal"] < standard["KL to ideal"])
    print(f"{name} eighths: but more often wrong:", every_seen[size]["error"] > standard["error"] + chance)
nearer = all(every_seen[n]["KL to ideal"] < every[n]["KL to ideal"] / 3 for n in range(3, 8))
print("seven to three eighths: three times nearer than after perturbed images:", nearer)
more_than_twice = all(2 < every[n]["KL to ideal"] / every_seen[n]["KL to ideal"] < 3 for n in (1, 2))
print("two eighths and one: more than twice as near:", more_than_twice)
print("four eighths: a third of the errors are spared:", every_seen[4]["error"] < every[4]["error"] * 2 / 3)
print("four eighths, larger steps, perturbed images: no better than guessing:", largest_steps["error"] > 89)

# %% [markdown]
# **On the right** units that are drawn at random leave all layers at once, and what remains no longer fits together. On
# perturbed photographs a student with seven eighths of the units is about as far from the ideal, and about as often
# wrong, as the students on the left with their fresh start; with six it is further from the ideal than weight scaling
# of the whole network, and every further eighth costs. Here, too, the images are most of it: photographs as they are
# bring the students with seven to three eighths at least three times nearer, and those with two and one more than twice.
# Those with seven are four times nearer to the ideal than weight scaling with all parameters, and as often right;
# those with six and five are still nearer, but more often wrong. With half of all units larger steps change
# little on photographs as they are. On perturbed ones they were the student's end: nine of ten of its answers are
# wrong, as many as if it had not looked. Large steps can carry units to where their ReLU never fires, and from there no
# gradient leads back.

# %% tags=["nbval-check-output"]
ways = ("with dropout", "with dropout, Monte Carlo", "without dropout")
gated, averaged, ungated = (means("figure-3-right", f"from labels, {way}") for way in ways)
print("Right, networks from labels with dropout: how many more errors than students that saw training images")
by = {"by weight scaling": gated, "averaged over 100 masks": averaged}
for n in gated:
    more = {how: found[n]["error"] - every_seen[n]["error"] for how, found in by.items() if n in found}
    print(f"  {n}/8 of the units: {', '.join(f'{points:4.1f} points {how}' for how, points in more.items())}")
nearer = all(1.5 * every_seen[n]["KL to ideal"] < gated[n]["KL to ideal"] for n in gated)
print("the students are nearer to the ensemble, at two thirds of the distance or less:", nearer)
worse = all(every[n]["error"] > gated[n]["error"] + 4 * chance for n in gated)
print("students that saw perturbed ones are wrong more often than these networks:", worse)

# %% [markdown]
# **From labels** the same networks learn for 300 epochs, and what comes of it depends on dropout. The paper does not say
# whether its networks had any. *With* dropout, as their teacher was trained, they are wrong more often than students that
# saw photographs as they are, at every size that has been run: by two to three points with six to four eighths of the
# units, by five with three, and by eight and seventeen with two and one. That is the paper's finding: its students win as
# long as no more than 40 % of the parameters go. Ours win further, and by ever more from half of the units down: six
# eighths of the units leave 57 % of the parameters, and one eighth leaves 2 %. (Students of perturbed photographs lose at
# each of these sizes. Two runs of each student of photographs as they are, and one of every other network.)
#
# Not all of that is the student's merit. A network with dropout is an ensemble, and the rule that misleads the single pass
# of the teacher misleads its own. Averaged over 100 masks each network whose average has been taken is wrong less often, by
# more than three points. The one with five eighths is then ahead of the students, by more than a point; the one with three
# is level with it, and those with two and one are still behind. The student needs one pass for what it does.

# %% tags=["nbval-check-output"]
of_ensemble = statistics.mean(s["error"] for s in records.scores(quick_runs, "Monte Carlo"))
print("Right, networks from labels without dropout, and in brackets students that saw training images")
for n, found in ungated.items():
    scores = " and ".join(
        f"{found[measure]:5.2f} {unit} ({every_seen[n][measure]:5.2f})"
        for measure, unit in {"error": "%", "NLL": "nats"}.items()
    )
    print(f"  {n}/8 of the units: {scores}")
print("8/8: wrong less often than the average of the ensemble:", ungated[8]["error"] < of_ensemble - 2 * chance)
print("6/8: about as often:", abs(ungated[6]["error"] - of_ensemble) < chance)
print("4/8: about as often as weight scaling of the whole:", abs(ungated[4]["error"] - standard["error"]) < chance)
further = all(ungated[n]["KL to ideal"] > 1.5 * every_seen[n]["KL to ideal"] for n in ungated)
print("all of them are one and a half times as far from the ensemble as the student, or more:", further)

# %% [markdown]
# *Without* dropout it is the other way round. With all units, and with six, four, three and two eighths of them, a network
# that has begun to learn makes fewer errors than either student of its size: by about two points with all, by three to six
# with fewer. The whole one is right more often than the average of the whole ensemble (what dropout costs Quick is on page
# 07), the one that has lost 43 % of its parameters about as often, and the one that has lost 74 % about as often as the
# teacher in a single pass.
#
# In likelihood there is a turning point. The whole network without dropout is too sure of itself where it is wrong, and there
# the student is far ahead; from six eighths on it is behind. This is the reason that the paper gives: to follow an
# ensemble regularises, which helps a network that can overfit, and a smaller one cannot. In the paper it is error that
# turns, at a size that is not far away.
#
# One of three networks with two eighths, and the only one with one, have not learned at all: whatever the photograph, every
# class is as likely as every other. That is a question of luck as well as of size. Quick starts from small weights, with a
# standard deviation of $10^{-4}$ in the first layer, so that at first its logits hardly depend on the image. Until the
# first layer has grown it is the biases that move, to and fro with the labels that happen to be in a batch. Once they have
# taken all units of a layer below zero no gradient comes back to the weights before it, for any image, and weight decay
# does the rest. The fewer units there are, the likelier that is. Of ten networks for each size, trained as for the records
# (but in float32, on 20,000 photographs, none of them mirrored), so many get away from where they started (this needs
# CIFAR-10, as some cells of page 07 do, and two or three minutes):

# %%
def gets_away(widths, p, seed, steps=400):
    """Whether the weights of the first layer grow a hundredfold before a layer is dead, and in so many steps."""
    torch.manual_seed(seed)
    network = networks.Quick(p, widths=widths)
    first, rate = network.conv1.weight, declared.QUICK.lr[0]
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=declared.QUICK.weight_decay)
    small = first.std().item()
    for _ in range(steps):
        batch = torch.randint(len(labels), (declared.QUICK.batch_size,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(photographs[batch]), labels[batch]).backward()
        optimizer.step()
        if not first.grad.any():
            return False
        if first.std() > 100 * small:
            return True
    return False


if (datasets.CACHE / "cifar10.npz").exists():
    cifar10 = datasets.load("cifar10")
    photographs, labels = cifar10.inputs(cifar10.train.images[:20_000]), cifar10.train.labels[:20_000]
    kinds = {"without dropout": 0.0, "with dropout": 0.5}
    away = {
        f"{size}/8": {
            kind: sum(gets_away(declared.WIDTHS["figure-3-right"][size], p, seed) for seed in range(10))
            for kind, p in kinds.items()
        }
        for size in tqdm((3, 2, 1), leave=False, unit="size")
    }
    display(pd.DataFrame.from_dict(away, orient="index").rename_axis(columns="of ten networks"))
else:
    print('CIFAR-10 is not here: run datasets.load("cifar10"), and this cell again')

# %% [markdown]
# Without dropout nine get away with three eighths of the units, three with two, and one with one; with dropout all but
# seven of those with one eighth. So the two records of networks that have not learned are no surprise, and that of one
# eighth *with* dropout is one of a lucky few. What one eighth can do without dropout, if it gets away, has not been run. A
# student begins with units of a trained teacher, and has no such start to survive.
#
# So whether a student wins depends on what dropout costs its rival, and at a rate of one half it costs Quick more than it
# saves, whole or small: in the single pass, and in the units that each member lacks. A student follows its teacher's
# ensemble, which has paid that price. What labels do not bring is the ensemble. In a single pass each of these networks,
# with dropout or without, is at least one and a half times as far from it as the student of its size that saw photographs as
# they are.

# %% [markdown]
# Or do students lose for want of time? Networks from labels take 300 epochs, with steps ten times larger; a student has had
# 30. Those with half and with two eighths of the units have been distilled once for as long, at the same rates, on
# photographs as they are. Each began with the same units of the teacher as the first student of 30 epochs:

# %% tags=["nbval-check-output"]
for size, name in {4: "half", 2: "two eighths"}.items():
    first, second = recorded["figure-3-right"][seen][size]
    (as_long,) = records.scores([r for r in declared.small_student("full", 1) if r.variant == f"as-long-train-{size}"], "distilled")
    networks_of_size = {"a student, 30 epochs": first, "the same, 300 epochs": as_long, "other units, 30 epochs": second}
    networks_of_size |= {"from labels with dropout": gated[size], "from labels without dropout": ungated[size]}
    print(f"Right, {name} of the units")
    for kind, found in networks_of_size.items():
        print(f"  {kind:27} {found['error']:.1f} %, {found['NLL']:.2f} nats, {found['KL to ideal']:.3f} nats from the ideal")
    behind, still = (student["error"] - ungated[size]["error"] for student in (first, as_long))
    print("  two fifths of what it was behind, or more:", behind - still > 0.4 * behind)

# %% [markdown]
# Time is a part of it. With ten times the epochs either student makes between two and three errors in a hundred fewer, and is
# nearer to the ideal by a sixth. It is then far ahead of the network that learned with dropout, and still three to four points
# behind the one that learned without, although it began with units of a trained teacher and had as many steps of the same
# size. What is left agrees with the paper's reason: a network that is too small to overfit spends its units better on the
# labels than on all that an ensemble has to say of each image. (One run each.)
#
# Luck is a part, too. The second student of 30 epochs differs from the first in the units that it was left with (and in the
# order of the photographs). With half of them that spares it one error in a hundred, and with two eighths it is after 30
# epochs about as near to the ideal as the first is after 300. Which units should remain is a question that drawing them at
# random leaves open.
#
# The slider once more, now for Quick. Its errors are those of the records; the time is that of this machine, for batches
# of 64 photographs on one thread.

# %%
photographs = torch.randn(64, 3, 32, 32)  # the time does not depend on what they show
all_layers = declared.WIDTHS["figure-3-right"]
quick_costs = {size: cost(networks.Quick(widths=widths), photographs) for size, widths in all_layers.items()}


def draw_quick(size):
    title = f"A student with {size} eighths of Quick's units"
    return plots.choice(title, size, quick_costs, recorded["figure-3-right"])


widgets.slider_figure(draw_quick, steps=list(reversed(all_layers)), value=4, label="eighths of the units")

# %% [markdown]
# The same figure for half of the units, for readers of a still page.

# %%
draw_quick(4)

# %% [markdown]
# ## Exercises
#
# **1. Count.** How many parameters has Quick with widths $(a, b, c, d)$? Three convolutions of 5 × 5 with $a$, $b$ and
# $c$ filters on an image of three colours; the last map has 4 × 4 positions; a linear layer of $d$ units sees all of
# them; a last one has ten outputs. Do not forget the biases.

# %%
def my_count(widths):
    """Number of parameters of Quick with widths (a, b, c, d) and ten classes."""
    ### BEGIN SOLUTION
    a, b, c, d = widths
    return (3 * 25 + 1) * a + (25 * a + 1) * b + (25 * b + 1) * c + (16 * c + 1) * d + (d + 1) * 10
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.count(my_count)

# %% [markdown]
# **2. Thin a layer.** Two linear layers follow each other, with a ReLU between them. Only the units `kept` (their
# numbers, sorted) of the first are to remain. Make the two smaller layers.

# %%
def my_thinning(first, second, kept):
    """Two new `nn.Linear`: `first` with the units `kept` only, and `second` for these inputs."""
    ### BEGIN SOLUTION
    a, b = nn.Linear(first.in_features, len(kept)), nn.Linear(len(kept), second.out_features)
    with torch.no_grad():
        a.weight.copy_(first.weight[kept])
        a.bias.copy_(first.bias[kept])
        b.weight.copy_(second.weight[:, kept])
        b.bias.copy_(second.bias)
    return a, b
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.thinning(my_thinning)

# %% [markdown]
# ## What we saw, and what the paper says

# %%
whole, small = (parameters["figure-3-right"][size] for size in (128, 8))
saw = f"""
*Here*, on digits: with {small / whole:.0%} of the parameters the distilled student's test error is
{distilled[8]["error"]:.1f} %; a network of that size trained from labels has
{labelled[8]["error"]:.1f} % with dropout and
{right["from labels, without dropout"][8]["error"]:.1f} % without.
"""
paper = json.loads((home / "data" / "paper.json").read_text("utf-8"))
says = """
*The paper* ({source}, Quick on CIFAR-10): about {share} % of the network's parameters can go, by
shrinking its penultimate layer alone, at an error of {error} %, which is below the standard prediction
of the whole network, {standard} %. If all layers shrink, the student wins against networks trained from
labels up to a compression of {right} %, and loses when it gets smaller.
"""
display(Markdown(saw + says.format(**paper["figure 3"])))

# %% [markdown]
# On 500 digits errors near 2 % cannot be told apart. On Quick the paper's first finding, about the penultimate layer,
# holds for students that saw photographs as they are: 40 % of the parameters can go (38 % by algebra alone), and the
# error is still below that of weight scaling with all of them. On perturbed photographs, which the paper names for
# Table 1, it does not: the units are as cheap to lose there, but a fresh start is dear.
#
# The second finding, about all layers, holds on Quick, too, for those students and for networks trained from labels
# *with* dropout, if both predict in a single pass: there the student wins at every size that has been run, with 43 to
# 98 % of the parameters gone, beyond the paper's 40 %. So it does on digits where both layers are small. Dropout is
# what a small network can least afford: against networks trained *without* it Quick's students lose wherever these have
# begun to learn, down to two eighths of the units, and on digits there is no winner, as what differs is less than 500
# digits can tell.
#
# The paper's students lose where they get too small, and it gives a reason: distillation regularises, and a network
# that is too small to overfit needs no regulariser, so that its units are better spent on the labels. In likelihood
# ours bear it out: with all units the student is far ahead of the network without dropout, and with six eighths and
# fewer behind it. Our comparison of schedules on digits suggests another one, which does not exclude the first: a
# student that has lost most of its units needs more epochs, or larger steps, than 30 at the teacher's last rates, if
# that is what all students get there. On Quick larger steps alone were no remedy: in one of four runs the error fell, by less
# than a point, in two it rose, and in one the student was lost. With ten times the epochs as well students with half and
# with two eighths of the units made up two fifths of what they were behind, and a little more.
#
# **In one sentence:** distillation fits whatever network you choose to the ensemble's average, and if that network is
# large enough to follow, trained for long enough, and shown inputs like those that it will meet, size costs little.
