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
# # Your own network
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dropout-distillation/dropout-distillation/blob/v0.1.0/notebooks/10_your_network.ipynb)
#
# *After this page you will be able to* find out what is random in a network that you did not write, measure how far its
# standard prediction is from that of its ensemble, distil it without labels, hand the result on, and say what of the
# ensemble's doubt the result still has. *It runs* about two minutes on a laptop's processor. *It needs* the tour
# (notebook 00), and no network connection.

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
import tempfile
import time

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import torchvision.models as zoo
from IPython.display import Markdown, display
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.distributions import Categorical

from helpers import datasets, evaluation, gates, networks, predictors, training, widgets
from helpers.checks import your_network as checks
from helpers.distillation import distill
from helpers.experiments import records
from helpers.plots import tour
from helpers.plots import your_network as plots

SEED = 0

# %% [markdown]
# ## Bring a network
#
# The promise of the paper is to improve *any* network trained with dropout, "without necessarily having access to
# the training data". So here is one that was not written for this suite: in the manner of the first network that
# many people met in PyTorch, it drops channels by a layer and units by a function call inside `forward`, and
# returns logarithms of probabilities. (They can stand for logits: their softmax gives the probabilities back.)

# %%
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 5)
        self.conv2_drop = nn.Dropout2d(0.5)
        self.fc1 = nn.Linear(512, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.norm1(self.conv1(x)), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = F.relu(self.fc1(x.flatten(1)))
        x = F.dropout(x, 0.5, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


# %% [markdown]
# Somebody has trained it on 2,500 digits, which we shall not touch again. We have 1,500 other digits *without
# labels*, and 1,000 with labels to see how we fare.

# %%
digits = datasets.load("mnist-small")
x, y = digits.inputs(digits.train.images), digits.train.labels
x_test, y_test = digits.inputs(digits.test.images), digits.test.labels

torch.manual_seed(SEED)
order = torch.randperm(len(x))
theirs, ours = order[:2500], order[2500:]
model = training.train(Net(), x[theirs], y[theirs], epochs=12, lr=0.02, seed=SEED)
unlabelled = x[ours]

# %% [markdown]
# ## What is random in it?
#
# `gates.stochastic_layers` lists every module that draws random numbers in training. The network itself is among them
# (with an empty name): its own code calls `F.dropout`, which a search for dropout layers would miss. It is found by
# reading the module's code: code that names both `F.dropout` and `self.training` draws in training mode and stops in
# eval mode. Gates made by hand with `torch.rand` are found in the same way. A dropout layer that is called behind
# `if self.training:` is refused by name: call it always, since in eval mode it does nothing.

# %%
def what_is_random(model):
    """A table of the stochastic layers of `model`, and their rates where they have one."""
    rates = gates.rates(model)
    rows = [
        {"name": name or "(the network)", "kind": type(layer).__name__, "rate": rates.get(name, "in its own code")}
        for name, layer in gates.stochastic_layers(model).items()
    ]
    return pd.DataFrame(rows)


what_is_random(model)

# %% [markdown]
# The same question for some networks of torchvision. (On the device "meta" their weights take no memory: nothing
# is computed.)

# %% tags=["nbval-check-output"]
with torch.device("meta"):
    for build in (zoo.alexnet, zoo.vgg16, zoo.mobilenet_v3_small, zoo.efficientnet_b0, zoo.vit_b_16, zoo.resnet18):
        found = [type(layer).__name__ for layer in gates.stochastic_layers(build()).values()]
        kinds = " and ".join(f"{found.count(kind)} {kind}" for kind in dict.fromkeys(found))
        print(f"{build.__name__:20} {kinds or 'nothing: there is no ensemble, and nothing to distil'}")

# %% [markdown]
# ## Is there anything to gain?
#
# That depends on how far the *standard* prediction, one pass in eval mode, is from the ensemble's average. Labels are
# not needed to see it: the Kullback–Leibler divergence from a Monte Carlo average says it for unlabelled inputs. We
# compare with the distance of two Monte Carlo averages from each other, below which nothing can be seen.

# %%
some = unlabelled[:500]
ideal, again = (predictors.monte_carlo(model, some, m=200, seed=seed) for seed in (1, 2))
standard = predictors.standard(model, some)


def distance(p, q):
    """Mean KL(p ‖ q) over examples, in nats."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1).mean().item()


gap, floor = distance(ideal, standard), distance(ideal, again)
Markdown(
    f"The standard prediction is {gap:.4f} nats from the ensemble's average; two averages of 200 masks are {floor:.4f} "
    f"nats from each other. What there is to gain is {gap / floor:.0f} times the least that we could see."
)

# %% tags=["nbval-check-output"]
print("there is something to gain:", gap > 3 * floor)

# %% [markdown]
# ## Distil
#
# One call. The student starts as a copy of the network. Nothing happens to the network itself: not to its weights,
# and not to the statistics in its BatchNorm, which `model.train()` followed by a few passes would have spoiled.

# %%
before = {name: value.clone() for name, value in model.state_dict().items()}
student = distill(model, unlabelled, epochs=20, lr=0.01, seed=SEED)

# %% tags=["nbval-check-output"]
print("the network is as it was:", all(torch.equal(value, before[name]) for name, value in model.state_dict().items()))
print("the student is a plain", type(student).__name__, "of the same size:",
      networks.parameter_count(student) == networks.parameter_count(model))
with torch.no_grad():
    print("and says the same each time:", torch.equal(student(x_test), student(x_test)))

# %% [markdown]
# ## Measure again
#
# On the test digits, which neither of them has seen.

# %%
def predictions_of(model, student, x):
    """{predictor: probabilities [N, K]}, and those of many masks as the yardstick."""
    return {
        "standard": predictors.standard(model, x),
        "Monte Carlo": predictors.monte_carlo(model, x, m=100, seed=3),
        "distilled": predictors.standard(student, x),
    }, predictors.monte_carlo(model, x, m=200, seed=4)


found, ideal_test = predictions_of(model, student, x_test)
table = evaluation.table(found, {"standard": 1, "Monte Carlo": 100, "distilled": 1}, y_test, ideal_test)
table.round({"error [%]": 1, "NLL [nats]": 3, "ECE [%]": 1, "KL(ideal ‖ ·) [nats]": 4})

# %%
kl = table["KL(ideal ‖ ·) [nats]"].to_dict()
tour.summary(kl, found, y_test)

# %% tags=["nbval-check-output"]
print("the student is nearer to the ensemble than the standard prediction:", kl["distilled"] < kl["standard"])
print("by a factor of two at least:", kl["distilled"] < kl["standard"] / 2)

# %% [markdown]
# The distance is what distillation promises, and it keeps that promise. Whether the ensemble is *worth* following is
# another question, which only labels can answer:

# %%
error, nll = table["error [%]"], table["NLL [nats]"]
verdict = {
    f"test error ({error['standard']:.1f} % for the standard prediction, {error['Monte Carlo']:.1f} % for 100 masks)": error,
    f"likelihood ({nll['standard']:.3f} and {nll['Monte Carlo']:.3f} nats)": nll,
}
for measure, values in verdict.items():
    better = values["Monte Carlo"] < values["standard"]
    display(Markdown(f"By {measure} the ensemble is {'better' if better else 'not better'} here."))
display(Markdown("On 1,000 digits the difference of two errors is uncertain by about half a percentage point."))

# %% [markdown]
# A network that has been trained for a short time with much dropout often has an ensemble that is too modest: it is right
# more often than it believes, and stands above the dashed line in the picture. Its student is as modest, because that is
# what it was asked to be. If a few hundred labels are at hand, compare `evaluation.table` before you decide.
#
# And what does it cost? Seconds for 200 digits, measured side by side. (`predictors.monte_carlo` does not repeat what
# comes before the first gate, here both convolutions; the plain loop does.)

# %%
def seconds(predict):
    """The shortest of three turns."""
    turns = []
    for _ in range(3):
        start = time.perf_counter()
        predict()
        turns.append(time.perf_counter() - start)
    return min(turns)


def plain_loop():
    with gates.sampling(model), torch.no_grad():
        return torch.stack([model(x_test[:200]).softmax(-1) for _ in range(100)]).mean(0)


costs = {
    "the student, one pass": seconds(lambda: predictors.standard(student, x_test[:200])),
    "100 masks, predictors.monte_carlo": seconds(lambda: predictors.monte_carlo(model, x_test[:200], m=100)),
    "100 masks, the plain loop": seconds(plain_loop),
}
ratios = {name: cost / min(costs.values()) for name, cost in costs.items()}
pd.DataFrame({"seconds": costs, "times the student": ratios}).round({"seconds": 3, "times the student": 1})

# %% [markdown]
# How much faster the same average can be had depends on where the first gate sits. `make bench` has compared several
# networks on a machine that did nothing else; this is its record: the seconds for 100 masks, and how many times as long
# they take in a plain loop, with two other libraries, and, for the perceptron, where all examples share their masks, so
# that dropped units need not be computed (`shared_masks=True`; a ratio below one is faster).

# %%
display(Markdown(records.origin([records.read(records.benchmark("averaging"))])))
records.speed().round(2).astype(object).fillna("")

# %% [markdown]
# LeNet and VGG16 drop units in their last layers only, and what comes before need not be repeated. The others drop units
# early. There a pass is not saved but made cheaper: masks come from raw random bits, several of them go through the
# network together, and as many as fit into the processor's cache.
#
# ## Hand it on
#
# The student is a `Net` like any other, in eval mode. Its weights can be stored as they always were, and loaded
# where this suite is not installed. A compiled or exported program is as good.

# %% tags=["nbval-check-output"]
scratch = tempfile.TemporaryDirectory()
file = Path(scratch.name) / "student.safetensors"
save_file(student.state_dict(), file)
copy_of_it = Net()
copy_of_it.load_state_dict(load_file(file))
copy_of_it.eval()

exported = torch.export.export(student, (x_test[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
with torch.no_grad():
    print("loaded, it predicts the same:", torch.equal(copy_of_it(x_test), student(x_test)))
    print("exported, too:", torch.allclose(exported(x_test), student(x_test), atol=1e-5))

# %% [markdown]
# With the packages `onnx` and `onnxscript` the same program goes to ONNX, for runtimes without Python:
#
# ```python
# torch.onnx.export(student, (x_test[:1],), "student.onnx", dynamo=True, dynamic_shapes=({0: "N"},))
# ```
#
# A word of care: the rate in `F.dropout(x, 0.5, …)` is written in the code of `Net`, where nobody can set it to
# zero. This student is deterministic in eval mode, in which it comes, and would drop units again after
# `student.train()`. Of dropout *layers* the rates are set to zero, and stay there.
#
# ## What the student keeps of the doubt, and what it loses
#
# An ensemble can doubt in two ways. Its members may agree that the answer is open; or each may be sure of something
# else. The entropy of the average is the sum of both (notebook 04):
#
# $$\underbrace{H\big(\mathbb{E}_\sigma f_\sigma(x)\big)}_{\text{all doubt}} =
#   \underbrace{\mathbb{E}_\sigma H\big(f_\sigma(x)\big)}_{\text{the members'}} +
#   \underbrace{I(y; \sigma \mid x)}_{\text{their disagreement}}.$$
#
# The student matches the average, so it can have the left side, all doubt, but not its division into the two parts on
# the right, which are properties of many predictions. We look at three kinds of inputs: digits, digits turned by 60
# degrees, and small grey patches from two photographs, which are no digits at all.

# %%
def turned(images, degrees):
    """Images [N, 1, H, W] turned about their centre."""
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    matrix = torch.stack([angle.cos(), -angle.sin(), angle.new_zeros(()), angle.sin(), angle.cos(), angle.new_zeros(())])
    where = F.affine_grid(matrix.view(1, 2, 3).expand(len(images), 2, 3), images.shape, align_corners=False)
    return F.grid_sample(images, where, align_corners=False, padding_mode="border")


def patches(n):
    """`n` grey patches of 28 × 28 pixels from photographs, as inputs [n, 1, 28, 28]."""
    grey = [torch.from_numpy(photograph.mean(-1)) for photograph in load_sample_images().images]
    tiles = torch.cat([image.unfold(0, 28, 28).unfold(1, 28, 28).flatten(0, 1) for image in grey])
    chosen = tiles[torch.randperm(len(tiles))[:n]]
    return digits.inputs(chosen[:, None].round().to(torch.uint8))


torch.manual_seed(SEED)
strangers = patches(600)
inputs = {"digits": x_test[:200], "turned by 60°": turned(x_test[:200], 60), "patches of photographs": strangers[:200]}


def members_of(model, x, m=100):
    """What each of m gated networks says, [m, N, K]."""
    with gates.sampling(model), torch.no_grad():
        return torch.stack([model(x).softmax(-1) for _ in range(m)])


def said_by(model, student, x):
    """{predictor: probabilities [N, K]}, and the ensemble's mutual information [N] of label and mask, in nats."""
    members = members_of(model, x)
    mean = members.mean(0)
    said = {"ideal": mean, "standard": predictors.standard(model, x), "distilled": predictors.standard(student, x)}
    return said, Categorical(mean).entropy() - Categorical(members).entropy().mean(0)


def doubt(said, information):
    """{whose: doubt [N] in nats}: the entropy of each prediction, and the mutual information of label and mask."""
    return {**{name: Categorical(q).entropy() for name, q in said.items()}, "mutual information": information}


torch.manual_seed(SEED)
doubts = {kind: doubt(*said_by(model, student, images)) for kind, images in inputs.items()}
plots.doubts(doubts)

# %% [markdown]
# *How many inputs of each kind have a predictive entropy below the value on the axis: the ensemble's average in black,
# the standard prediction in orange, the student in green.*

# %%
table_of_doubt = pd.DataFrame(
    {kind: {name: values.mean().item() for name, values in found.items()} for kind, found in doubts.items()}
)
table_of_doubt.rename(
    index={
        "ideal": "entropy, ensemble",
        "standard": "entropy, standard",
        "distilled": "entropy, student",
        "mutual information": "mutual information, ensemble",
    }
).round(3)

# %% [markdown]
# On digits, which are like what it was distilled on, the student doubts as the ensemble does. On inputs of other
# kinds nobody has told it what the ensemble thinks. It can be told: the paper's set $S$ is whatever inputs one has,
# and they need neither labels nor a right answer. We distil once more, with other turned digits and other patches
# among the inputs.

# %%
wider = torch.cat([unlabelled[:900], turned(unlabelled[900:1200], 60), strangers[300:]])
wide_student = distill(model, wider, epochs=15, lr=0.01, seed=SEED)

apart = {}
for kind, images in inputs.items():
    mean = predictors.monte_carlo(model, images, m=200, seed=5)
    pair = {"S: digits": student, "S: digits, turned digits, patches": wide_student}
    apart[kind] = {"standard": distance(mean, predictors.standard(model, images))}
    apart[kind] |= {name: distance(mean, predictors.standard(one, images)) for name, one in pair.items()}
pd.DataFrame(apart).rename_axis("KL(ideal ‖ ·) [nats]").round(3)

# %% tags=["nbval-check-output"]
narrow, wide = "S: digits", "S: digits, turned digits, patches"
for kind in ("turned by 60°", "patches of photographs"):
    print(f"{kind}: seen in S, it is followed better: {apart[kind][wide] < apart[kind][narrow]}")
print("on digits both students beat the standard prediction:",
      max(apart["digits"][narrow], apart["digits"][wide]) < apart["digits"]["standard"])

# %% [markdown]
# Compare both with the row *standard*. Where that is near the ensemble already, a student has nothing to gain, and
# something to lose.
#
# Can doubt tell a stranger from a digit? For each measure, the probability that a random patch gets a higher value
# than a random digit (the area under the ROC curve: 0.5 is chance, 1 is perfect, and below 0.5 it is the *digits* that
# get the higher values). The mutual information is there for the ensemble alone.

# %%
def telling(measure):
    """Area under the ROC curve of `measure`, from kind of input to values [N]."""
    digit, stranger = measure("digits"), measure("patches of photographs")
    return roc_auc_score(np.r_[np.zeros(len(digit)), np.ones(len(stranger))], torch.cat([digit, stranger]).numpy())


areas = {name: telling(lambda kind, name=name: doubts[kind][name]) for name in doubts["digits"]}
areas["distilled, wider S"] = telling(lambda kind: Categorical(predictors.standard(wide_student, inputs[kind])).entropy())
pd.DataFrame({"area under the ROC curve": areas}).round(3)

# %% tags=["nbval-check-output"]
print("entropy tells them apart, the student's too:", min(areas["ideal"], areas["distilled"]) > 0.9)
print("on the patches nearly all doubt is shared by the members:",
      bool(doubts["patches of photographs"]["mutual information"].mean() < 0.1 * doubts["patches of photographs"]["ideal"].mean()))

# %% [markdown]
# The members' disagreement (the mutual information) is often recommended for this purpose. About *these* strangers they
# do not disagree: nearly every one says that it cannot tell, the entropy is close to its largest value, $\log 10 = 2.3$
# nats, and the mutual information is small. Which doubt betrays a stranger depends on the strangers; on turned digits
# there is more disagreement.

# %% [markdown]
# ## Turn a digit
#
# Turn one digit with the slider. In the middle, what the predictors say of it; on the right, the mean entropy over
# 100 digits turned by that angle, and the ensemble's mutual information, for which the student has no counterpart. (The
# student here is the second one, which has seen turned digits. On a single digit it may favour another class than the
# ensemble, as on this one at 60 degrees.)

# %%
ANGLES = list(range(0, 181, 30))
torch.manual_seed(SEED)
views = [turned(x_test[:100], degrees) for degrees in ANGLES]
by_angle = [said_by(model, wide_student, images) for images in views]
means = [{name: values.mean().item() for name, values in doubt(*found).items()} for found in by_angle]
curves = {name: [mean[name] for mean in means] for name in means[0]}
shown = int((y_test == 4).nonzero()[0])


def turn(degrees):
    i = ANGLES.index(degrees)
    said = {name: by_angle[i][0][name][shown] for name in ("standard", "distilled", "ideal")}
    return plots.turning(degrees, views[i][shown], said, ANGLES, curves)


widgets.slider_figure(turn, steps=ANGLES, value=60, label="degrees")

# %% [markdown]
# The same figure at 60 degrees, for readers of a still page.

# %%
turn(60)

# %% [markdown]
# ## Networks that read
#
# The paper leaves recurrent networks to future work, and the transformer is younger than the paper. Nothing in Theorem 1 asks
# what kind of network the teacher is. Here two networks take a digit as a sequence of 28 rows. One is an LSTM of two layers,
# with dropout between its layers (inside PyTorch's own code, where a gate cannot even be set) and before the last layer. The
# other is a layer of a transformer: dropout hides some rows from others in its attention, and three layers of dropout follow.

# %%
class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(28, 48, num_layers=2, dropout=0.5, batch_first=True)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(48, 10)

    def forward(self, x):
        states, _ = self.lstm(x.flatten(1, 2))  # [N, 28, 48]
        return self.last(self.drop(states[:, -1]))


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.row = nn.Linear(28, 48)
        self.place = nn.Parameter(torch.randn(28, 48) / 2)  # tells one row from another
        self.layer = nn.TransformerEncoderLayer(48, nhead=4, dim_feedforward=96, dropout=0.3, batch_first=True)
        self.last = nn.Linear(48, 10)

    def forward(self, x):
        rows = self.row(x.flatten(1, 2)) + self.place  # [N, 28, 48]
        return self.last(self.layer(rows).mean(1))


def compared(build, epochs, lr):
    """The network that `build` makes, trained, and its predictors on 300 digits as a table, one of them its student."""
    torch.manual_seed(SEED)
    teacher = training.train(
        build(), x[theirs], y[theirs], epochs=epochs, lr={0: lr, 3 * epochs // 4: lr / 10}, seed=SEED
    )
    student = distill(teacher, unlabelled, epochs=epochs, lr={0: lr / 2, 2 * epochs // 3: lr / 20}, seed=SEED)
    found, ideal = predictions_of(teacher, student, x_test[:300])
    return teacher, evaluation.table(found, {"standard": 1, "Monte Carlo": 100, "distilled": 1}, y_test[:300], ideal)


recurrent, of_recurrent = compared(Recurrent, epochs=12, lr=0.2)
attentive, of_attentive = compared(Attentive, epochs=8, lr=0.1)
display(pd.concat({"LSTM": what_is_random(recurrent), "attention": what_is_random(attentive)}))
reading = pd.concat({"LSTM": of_recurrent, "attention": of_attentive})
reading.round({"error [%]": 1, "NLL [nats]": 3, "ECE [%]": 1, "KL(ideal ‖ ·) [nats]": 4})

# %% tags=["nbval-check-output"]
kl_reading = reading["KL(ideal ‖ ·) [nats]"]
for name in ("LSTM", "attention"):
    nearer = kl_reading[name, "distilled"] < kl_reading[name, "standard"]
    print(f"{name}: the student is nearer to the ensemble than the standard prediction:", bool(nearer))

# %% [markdown]
# Both students are several times nearer to their ensembles. The errors decide nothing: on 300 digits an error of 12 %
# has a standard error of nearly two percentage points, so that students with a few tenths more than their ensembles are
# not shown to be worse. In likelihood neither ensemble is better than the standard prediction here, and their students
# are not either.

# %% [markdown]
# ## Exercises
#
# **1. How far from its ensemble?** Write the mean of $\mathrm{KL}(\text{ideal} \,\|\, \text{standard})$ over some
# inputs, with $m$ masks for the ideal, in plain PyTorch, without this package. The network comes in eval mode; its gates
# are `nn.Dropout`; it has BatchNorm in it; it returns logits $[N, K]$; and it must be afterwards what it was.

# %%
def my_gap(model, x, m):
    """Mean KL(Monte Carlo average of m masks ‖ one pass without gates) over inputs x, a scalar in nats."""
    ### BEGIN SOLUTION
    dropouts = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    with torch.no_grad():
        standard = model(x).softmax(-1)
        for layer in dropouts:
            layer.train()  # and nothing else: BatchNorm would learn from what passes through
        ideal = sum(model(x).softmax(-1) for _ in range(m)) / m
        for layer in dropouts:
            layer.eval()
    return (torch.xlogy(ideal, ideal) - torch.xlogy(ideal, standard)).sum(-1).mean()
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.gap(my_gap)

# %% [markdown]
# **2. Ask a human about the rest.** A network may answer only where it is sure: rank the inputs by the entropy of
# the prediction, keep the surest share of them (the *coverage*, rounded to whole inputs, at least one), and return
# the share of wrong answers among those.

# %%
def my_risk(q, labels, coverage):
    """Share of wrong answers among the surest inputs, a scalar, for predictions q [N, K] and labels [N]."""
    ### BEGIN SOLUTION
    entropy = -torch.xlogy(q, q).sum(-1)
    surest = entropy.argsort()[: max(1, round(coverage * len(q)))]
    return (q[surest].argmax(-1) != labels[surest]).double().mean()
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.risk(my_risk)

# %% [markdown]
# ## What we saw, and what the paper says

# %%
wrong = reading["error [%]"]
paper = json.loads((home / "data" / "paper.json").read_text("utf-8"))
widest = max(max(row.values()) - min(row.values()) for row in paper["table 1 right"].values())
display(Markdown(f"""
*Here*: a convolutional network with dropout in two forms, distilled on {len(unlabelled):,} unlabelled digits that it had not
been trained on, went from {kl["standard"]:.4f} to {kl["distilled"]:.4f} nats from its ensemble's average, its
expected calibration error from {table.loc["standard", "ECE [%]"]:.1f} to {table.loc["distilled", "ECE [%]"]:.1f} %, its test error from
{table.loc["standard", "error [%]"]:.1f} to {table.loc["distilled", "error [%]"]:.1f} %.

Of the networks that read, the LSTM went from {kl_reading["LSTM", "standard"]:.4f} to {kl_reading["LSTM", "distilled"]:.4f} nats, its test
error from {wrong["LSTM", "standard"]:.1f} to {wrong["LSTM", "distilled"]:.1f} % (its ensemble: {wrong["LSTM", "Monte Carlo"]:.1f} %), and the
one with attention from {kl_reading["attention", "standard"]:.4f} to {kl_reading["attention", "distilled"]:.4f} nats, its error from
{wrong["attention", "standard"]:.1f} to {wrong["attention", "distilled"]:.1f} % (its ensemble: {wrong["attention", "Monte Carlo"]:.1f} %); on
300 digits each of these errors is uncertain by about two points.

*The paper* distils convolutional networks with dropout layers, also on inputs that the teacher was not trained on (its
Table 1, right half), and finds that it hardly matters which of three kinds of images the student sees: for no network do
the test errors differ by more than {widest:.2f} points. It does not measure calibration or doubt, and leaves recurrent
networks to future work.
"""))

# %% [markdown]
# All three kinds in the paper are images of the same objects, and it found little difference between them; on
# photographs we found a large one (notebook 07). With inputs of another kind it matters, too: the student follows the
# ensemble well where it was shown what the ensemble says, and less well elsewhere. And it keeps one number, how much
# doubt there is, and loses where the doubt comes from.
#
# **In one sentence:** a network with dropout, some unlabelled inputs like those to come, and one call give a plain
# network that predicts and doubts like the ensemble's average; what the members disagreed about is gone.
