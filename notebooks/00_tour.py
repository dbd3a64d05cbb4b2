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
# # A tour of dropout distillation
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dropout-distillation/dropout-distillation/blob/v0.1.0/notebooks/00_tour.ipynb)
#
# *After this page you will be able to* say what a network trained with dropout should predict, why its usual prediction
# is something else, and how to turn it into a network that predicts the right thing in a single pass. *It runs* about
# one minute on a laptop's processor. *You need* to know what a softmax is; no network connection is needed.

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

import torch
from IPython.display import Markdown, display

from helpers import datasets, evaluation, gates, networks, predictors, training, widgets
from helpers.checks import tour as checks
from helpers.distillation import distill
from helpers.plots import tour as plots

# %% [markdown]
# ## One network that is very many
#
# *Dropout* zeroes each unit of a layer with probability $p$, the *rate*, anew for every example and every
# training step. The coin that decides about one unit is its *gate*. Write $\Theta$ for the weights, $\sigma$ for
# all the gates together, the *mask*, and $f_{\Theta,\sigma}$ for the network that is left when the gates have fallen. With
# $n$ gates there are $2^n$ such networks, all made from the same weights. Training with dropout trains all of
# them: it lowers the expected loss
#
# $$\mathbb{E}_{x,y,\sigma}\big[\,\ell(y, f_{\Theta,\sigma}(x))\,\big]$$
#
# by drawing, in each step, a few examples and a gate for every unit (Algorithm 1 of the paper). We do that with
# 4,000 handwritten digits and **LeNetAll**, the small convolutional network of the paper that drops units after
# *every* layer but the last.

# %%
digits = datasets.load("mnist-small")
x_train, y_train = digits.inputs(digits.train.images), digits.train.labels
x_test, y_test = digits.inputs(digits.test.images), digits.test.labels

torch.manual_seed(0)
teacher = training.train(networks.LeNetAll(p=0.5), x_train, y_train, epochs=10, lr=0.01)

# %% tags=["nbval-check-output"]
print(teacher)
print(f"\n{networks.parameter_count(teacher):,} parameters")
print(f"{len(x_train):,} training digits, {len(x_test):,} test digits")

# %% [markdown]
# How many networks is that? `gates.gate_shapes` passes one digit through and notes what enters each dropout layer.

# %% tags=["nbval-check-output"]
shapes = gates.gate_shapes(teacher, x_test)
n = sum(shape.numel() for shape in shapes.values())
for name, shape in shapes.items():
    print(f"{name}: {' × '.join(map(str, shape)):>12} = {shape.numel():>6,} gates")
print(f"together 2^{n:,} networks that share one set of weights")

# %% [markdown]
# ## What should they predict together?
#
# An ensemble predicts by the average of its members. For dropout that is the *ideal predictor*
#
# $$f_{\text{dropout}}(x) = \mathbb{E}_{\sigma}\big[f_{\Theta,\sigma}(x)\big],$$
#
# the mean of the *probabilities* over all masks (the paper's equation 3). Here is the digit for which 20 masks had the
# most different favourites, seen by six others: the same weights, the same digit, six masks. Six are few, and may
# happen to share a favourite; how divided the ensemble is, the black mean of 500 shows. (Comments in the code give the
# shapes of tensors: $M$ masks, $N$ examples, $K$ classes.)

# %%
with gates.sampling(teacher), torch.no_grad():
    votes = torch.stack([teacher(x_test).argmax(-1) for _ in range(20)])  # [M, N]
quarrel = [len(votes[:, i].unique()) for i in range(len(x_test))]
hard = int(torch.tensor(quarrel).argmax())

with gates.sampling(teacher), torch.no_grad():
    copies = x_test[hard].expand(500, -1, -1, -1)  # each copy meets a mask of its own
    gated = teacher(copies).softmax(-1)  # [500, K]
plots.ensemble(x_test[hard], gated)

# %% [markdown]
# The sum over $2^n$ masks is out of reach, so everybody approximates it. There are two usual ways.
#
# - **Standard dropout**, or *weight scaling*: forget the gates, scale the weights by $1-p$, and make *one* pass.
#   (PyTorch divides what it keeps by $1-p$ in training instead, which comes to the same.) It is cheap. But the softmax
#   of a mean is not the mean of the softmaxes, nor is the maximum of means, which a pooling layer then takes, the mean
#   of the maxima: each nonlinearity brings an error of its own.
# - **Monte Carlo dropout**: sample $m$ masks and average, $\frac1m\sum_i f_{\Theta,\sigma^i}(x)$ (equation 4).
#   The error falls as $1/\sqrt m$, and the price is $m$ passes.

# %%
q_standard = predictors.standard(teacher, x_test)
q_monte_carlo = predictors.monte_carlo(teacher, x_test, m=100, seed=1)

# The yardstick for everything below: more masks, and others. Of Monte Carlo's distance to it a quarter
# is the yardstick's own noise.
ideal = predictors.monte_carlo(teacher, x_test, m=300, seed=2)

# %% [markdown]
# ## Distil the average into one network
#
# **Dropout distillation** looks for one deterministic network $q_\Omega$, the *student*, that predicts what the ensemble,
# its *teacher*, predicts on average. It lowers $\ell(f_{\text{dropout}}(x), q_\Omega(x))$ over unlabelled inputs. That
# again has the impossible average in it, but the paper's Theorem 1 says that we may leave it out: if $\ell$ is a Bregman
# divergence, such as the Kullback–Leibler divergence,
#
# $$\mathbb{E}_{\sigma}\big[\ell(f_{\Theta,\sigma}(x),\, q)\big] = \ell\big(f_{\text{dropout}}(x),\, q\big) - \Delta,$$
#
# where $\Delta$ does not depend on $q$. Chasing *one randomly gated teacher per example* therefore leads to their
# mean. This is all of Algorithm 2; the labels appear nowhere:
#
# ```python
# for x in batches(unlabelled):
#     f = teacher(x).softmax(-1)             # one random mask for each example, no gradient
#     q = student(x).softmax(-1)             # deterministic
#     loss = KL(f, q).mean()
#     student -= learning_rate * gradient(loss)
# ```
#
# The inputs, the paper's set $S$, are the training digits with a fifth of their pixels set to zero, as in the paper, so that
# the student also sees digits that the teacher has not learned by heart.

# %%
S = datasets.unlabelled(digits, "perturbed")
student = distill(teacher, S.inputs, perturb=S.perturb, epochs=12, lr=0.01)

q_distilled = predictors.standard(student, x_test)

# %% [markdown]
# ## The result
#
# Four measures on the 1,000 test digits, all better when lower: the error; the negative log-likelihood (NLL); the
# expected calibration error (ECE), which asks whether a network that is 90 % sure is right nine times in ten; and
# KL(ideal ‖ ·), the distance to the ideal predictor, which is what distillation lowers. NLL and KL contain a natural
# logarithm, and so are in nats. On 1,000 digits the difference of two errors is uncertain by nearly half a percentage
# point, so that a ranking by error alone would mostly be luck; the distance to the ideal is not.

# %% tags=["table"]
predictions = {"standard": q_standard, "Monte Carlo": q_monte_carlo, "distilled": q_distilled}
table = evaluation.table(predictions, {"standard": 1, "Monte Carlo": 100, "distilled": 1}, y_test, ideal)
table.round({"error [%]": 1, "NLL [nats]": 3, "ECE [%]": 1, "KL(ideal ‖ ·) [nats]": 4})

# %% tags=["nbval-check-output"]
distance = table["KL(ideal ‖ ·) [nats]"].to_dict()
facts = {
    "the student has the size of the teacher": len(student) == len(teacher)
    and networks.parameter_count(student) == networks.parameter_count(teacher),
    "the student draws no gates": not gates.stochastic_layers(student),
    "distilled is closer to the ideal than standard": bool(distance["distilled"] < distance["standard"]),
    "at most a third as far": bool(distance["distilled"] <= distance["standard"] / 3),
}
for fact, holds in facts.items():
    print(f"{fact}: {holds}")

# %% [markdown]
# ## Where they disagree
#
# The digits on which the standard prediction is furthest from the ideal. Look at the vertical distance from the
# black bars (ideal): on most of them the orange squares (standard) favour another class, on the others they are much
# less sure; the green diamonds (distilled) are nearer, though on digits as hard as these they may miss the ideal's
# favourite, too. Far from the ideal need not mean wrong: the ensemble's own favourite is not always the label. (The
# digits were picked for the errors of one of the three, so this is a look at where weight scaling departs from the
# average; the fair contest is the table.)

# %%
doubt = (q_standard - ideal).abs().sum(-1)
worst = doubt.topk(6).indices
shown = {name: q[worst] for name, q in {**predictions, "ideal": ideal}.items()}
plots.disagreements(x_test[worst], y_test[worst], shown)

# %% [markdown]
# ## Does it know how sure it is?
#
# On the left, once more the distance to the ideal. On the right a *reliability diagram*: it sorts the test digits by
# confidence, cuts them into groups of equal size, and asks how often each group is right. On the dashed line confidence
# and accuracy agree; above it a network is too modest, below it too sure. After a short training with much dropout all
# three are too modest; weight scaling adds to that.

# %% tags=["picture"]
plots.summary(distance, predictions, y_test)

# %% [markdown]
# ## Move the number of masks
#
# How fast does Monte Carlo settle? Move the slider and watch the blue average, for the digit that the ensemble
# quarrels about. Standard and distilled do not move: they are one pass, whatever $m$ is. The black line is the mean
# of all 500 masks, so that the blue one must end on it. The grey band says where the average of $m$ fresh masks
# would end up in about 95 of 100 cases, once $m$ is more than a few.

# %%
lines = {"standard": q_standard[hard], "distilled": q_distilled[hard], "ideal": gated.mean(0)}
label = int(gated.mean(0).argmax())


def settle(m):
    return plots.settling(m, gated, lines, label)


widgets.slider_figure(settle, steps=[1, 2, 5, 10, 20, 50, 100, 200, 500], value=10, label="masks m")

# %% [markdown]
# The same figure for ten masks, for readers of a still page. (A single run may leave the band for a while, as about
# five in a hundred do at any given $m$.) On a single digit, the hardest of a thousand at that, either of the one-pass
# predictions may happen to be the closer one; over all digits the table above decides.

# %%
settle(10)

# %% [markdown]
# How many masks is the student worth, then? KL goes with the *square* of a small error, so that over many digits the distance
# of an average falls as $1/m$, and against a yardstick of 300 masks it is about $c\,(\frac1m + \frac1{300})$. The table has it
# for 100 masks, which gives $c$. (With few masks, whose errors are not small, it falls more slowly: the number is rather too
# high.)

# %%
c = distance["Monte Carlo"] / (1 / 100 + 1 / 300)
worth = c / (distance["distilled"] - c / 300)
display(Markdown(f"In one pass the student comes as near to the ideal as an average of some **{worth:.0f} masks**."))

# %% [markdown]
# ## Exercises
#
# **1. Monte Carlo dropout.** Write the mean of equation 4. `with gates.sampling(model):` makes the gates of
# `model` random and nothing else.

# %%
def my_monte_carlo(model, x, m):
    """Mean over m masks of the predicted probabilities, [N, K]."""
    ### BEGIN SOLUTION
    with gates.sampling(model), torch.no_grad():
        return sum(model(x).softmax(-1) for _ in range(m)) / m
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.monte_carlo(my_monte_carlo)

# %% [markdown]
# **2. The Kullback–Leibler divergence.** Write $\mathrm{KL}(y\,\|\,\hat y) = \sum_k y_k \log\frac{y_k}{\hat y_k}$ for
# each row of two tensors [N, K]. A class with $y_k = 0$ counts for nothing ($0 \log 0 = 0$); `torch.xlogy(a, b)` is
# $a \log b$ with that rule. Which of the two arguments is the teacher?

# %%
def my_kl(y, y_hat):
    """KL(y ‖ ŷ) of each row in nats, [N]."""
    ### BEGIN SOLUTION
    return (torch.xlogy(y, y) - torch.xlogy(y, y_hat)).sum(-1)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.kl(my_kl)

# %% [markdown]
# ## What we saw, and what the paper says

# %%
paper = json.loads((home / "data" / "paper.json").read_text("utf-8"))
published = paper["table 1 left"]["MNIST LeNetAll"]
error = table["error [%]"]

closer = distance["standard"] / distance["distilled"]

here = f"""
*Here*, with {len(x_train):,} training digits and {len(x_test):,} test digits: test error of
standard dropout {error["standard"]:.1f} %, Monte Carlo {error["Monte Carlo"]:.1f} %,
distilled {error["distilled"]:.1f} %. The student is {closer:.1f} times closer to the ideal
predictor than standard dropout is, at the same price.
"""
there = """
*The paper* ({source}; MNIST LeNetAll, all 60,000 digits): standard {standard:.2f} %,
Monte Carlo {mc[0]:.2f} ± {mc[1]:.2f} %, distilled {distilled[0]:.2f} ± {distilled[1]:.2f} %.
"""
display(Markdown(here + there.format(source=paper["source"], mc=published["Monte Carlo"], **published)))

# %% [markdown]
# The errors here are larger mainly because the network has seen a fifteenth of the digits for a third of the
# epochs. The order of the three predictors by error can change from seed to seed on so small a test set; that the
# student is much nearer to the ideal than the standard prediction does not.
#
# **In one sentence:** training with dropout trains an ensemble; the usual test-time rule approximates its average
# badly; distillation fits one network to the true average, using one random mask per example, and Theorem 1 says
# why that is legitimate.

