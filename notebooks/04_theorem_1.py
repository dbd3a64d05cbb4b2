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
# # Theorem 1: why one random mask per example is enough
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dropout-distillation/dropout-distillation/blob/v0.1.0/notebooks/04_theorem_1.ipynb)
#
# *After this page you will be able to* state and prove Theorem 1, say what $\Delta$ is and why a student's
# loss cannot fall below $-\Delta$, and show for a loss that the theorem does not cover what goes wrong. *It
# runs* about half a minute on a laptop's processor. *It needs* the ideal predictor (notebook 02), and no
# network connection.

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
import pandas as pd
import torch
from IPython.display import Markdown
from torch import nn
from torch.distributions import Categorical

from helpers import bregman, datasets, gates, predictors, training, widgets
from helpers.checks import theorem_1 as checks
from helpers.distillation import distill
from helpers.plots import theorem_1 as plots

SEED = 0

# %% [markdown]
# ## Two objectives
#
# The teacher is a network with gates $\sigma$, and $\Theta^*$ are the weights that its training has found; $f_\sigma(x)$ is
# short for $f_{\Theta^*,\sigma}(x)$, what it says with one mask. We look for a student $q$ that is close to the mean over
# all masks, measured by a loss $\ell(y, \hat y)$. That is the objective we *want* (the paper's equation 5):
#
# $$J(q) = \mathbb{E}_x\big[\ell\big(\mathbb{E}_\sigma[f_\sigma(x)],\, q(x)\big)\big].$$
#
# Algorithm 2 draws one mask for each example and takes a step along the gradient of
# $\ell(f_\sigma(x), q(x))$. On average it goes down another objective, the one we *have* (equation 8):
#
# $$J'(q) = \mathbb{E}_x\,\mathbb{E}_\sigma\big[\ell\big(f_\sigma(x),\, q(x)\big)\big].$$
#
# They differ in the place of the mean over masks: inside the loss, or outside. For that mean to be exact we
# take an ensemble that can be counted: a small network for the digits 1, 8 and 9, which are easily confused,
# with ten gates at rate 1/2, hence 1,024 equally likely masks. The triangle of probabilities over three
# classes can also be drawn.

# %%
CLASSES = torch.tensor([1, 8, 9])
digits = datasets.load("digits")


def three_classes(part):
    """Inputs [N, 64] and labels 0, 1, 2 [N] of the digits in `part` that are one of the three."""
    chosen = torch.isin(part.labels, CLASSES)
    return digits.inputs(part.images[chosen]).flatten(1), torch.searchsorted(CLASSES, part.labels[chosen])


x_train, y_train = three_classes(digits.train)
x, y = three_classes(digits.test)
images = digits.test.images[torch.isin(digits.test.labels, CLASSES)].reshape(-1, 8, 8)

torch.manual_seed(SEED)
teacher = nn.Sequential(nn.Linear(64, 10), nn.Tanh(), nn.Dropout(0.5), nn.Linear(10, 3))
teacher = training.train(teacher, x_train, y_train, epochs=15, lr=0.05, seed=SEED)


def all_masks(model, x):
    """What each of the M gated networks says: probabilities [M, N, K], in double precision."""
    layers, shapes = gates.stochastic_layers(model), gates.gate_shapes(model, x)
    masks, _ = gates.enumerated(layers, shapes, 0, 2 ** sum(shape.numel() for shape in shapes.values()))
    members = []
    for i in range(len(next(iter(masks.values())))):
        with gates.fixed(model, {name: mask[i] for name, mask in masks.items()}), torch.no_grad():
            members.append(model(x).double().softmax(-1))
    return torch.stack(members)


f = all_masks(teacher, x)  # [M, N, K]
ideal = f.mean(0)  # f_dropout, equation 3

# %% tags=["nbval-check-output"]
print(f"{f.shape[0]:,} masks, {f.shape[1]} digits, {f.shape[2]} classes")
print("their mean is the ideal predictor:", torch.allclose(ideal.float(), predictors.exact(teacher, x), atol=1e-5))

# %% [markdown]
# The two objectives are one line each. (`bregman.objectives(loss, f, q)` returns both, and their difference.)

# %%
def J(loss, f, q):
    return loss(f.mean(0), q).mean()


def J_prime(loss, f, q):
    return loss(f, q).mean()


# %% [markdown]
# ## The theorem
#
# > **Theorem 1** (section 4). i) *If* $\ell$ *is convex in its first argument, then* $J(q) \le J'(q)$
# > *for every* $q$.
# >
# > ii) *If there are functions with*
# > $\ell(y, \hat y) = g_1(y) + g_2(\hat y) + \langle y, g_3(\hat y)\rangle$,
# > *then there is a number* $\Delta$ *with* $J(q) = J'(q) + \Delta$ *for every* $q$.
#
# The first part says that what we go down is an upper bound of what we want to be low. The second says that it is the
# same function up to a constant: the same gradients, the same minimisers in any family of students. Looking at a single
# mask loses nothing on average; that only makes the gradient noisier. All Bregman divergences have the form that ii)
# asks for, KL and the squared error among them (notebook 05 is about them).
#
# **Proof of i).** Jensen's inequality: a convex function of a mean is at most the mean of the function. Fix
# $x$, hence also $q(x)$. The function $y \mapsto \ell(y, q(x))$ is convex, and $f_\sigma(x)$ is random
# through $\sigma$, so
#
# $$\ell\big(\mathbb{E}_\sigma[f_\sigma(x)],\, q(x)\big) \le \mathbb{E}_\sigma\big[\ell\big(f_\sigma(x),\, q(x)\big)\big].$$
#
# Taking the mean over $x$ on both sides gives $J(q) \le J'(q)$. ∎
#
# **Proof of ii).** A linear function of a mean *is* the mean of the function. Both sides of the inequality
# above are now sums of three terms,
#
# $$g_1\big(\mathbb{E}_\sigma[f_\sigma]\big) + g_2(q) + \langle \mathbb{E}_\sigma[f_\sigma],\, g_3(q)\rangle
#   \qquad\text{and}\qquad
#   \mathbb{E}_\sigma\big[g_1(f_\sigma)\big] + g_2(q) + \langle \mathbb{E}_\sigma[f_\sigma],\, g_3(q)\rangle,$$
#
# of which the last two are the same. They cancel in the difference, and with them all that knows the student:
#
# $$\Delta = \mathbb{E}_x\Big[g_1\big(\mathbb{E}_\sigma[f_\sigma(x)]\big) - \mathbb{E}_\sigma\big[g_1(f_\sigma(x))\big]\Big]. \qquad ∎$$
#
# If $g_1$ is convex, as it is for every Bregman divergence (notebook 05), then $\Delta \le 0$, in agreement with i).

# %% [markdown]
# ## Both parts by number
#
# Six losses and 101 students. The students are made, not trained: a hundred are the ideal predictor with noise of
# different strength on its logits, so that some are near to it and some far away. One more repeats, for each digit, the
# member that is furthest from the ideal. Three of the losses satisfy
# ii): KL, squared error and the focal loss, which is linear in $y$. Reverse KL and L1 satisfy i) only. The
# last one, the loss of Welsch, is one less a bell curve of the distance. It is flat far away, so that
# outliers do not count, and not convex.

# %%
losses = {
    "KL(f ‖ q)": bregman.kl,
    "squared error": bregman.squared_euclidean,
    "focal, γ = 2": lambda y, q: -(y * (1 - q) ** 2 * q.log()).sum(-1),
    "reverse KL(q ‖ f)": bregman.reverse_kl,
    "L1": lambda y, q: (y - q).abs().sum(-1),
    "Welsch, scale 0.2": lambda y, q: -torch.expm1(-(y - q).square().sum(-1) / (2 * 0.2**2)),
}

torch.manual_seed(SEED)
strengths = torch.linspace(0, 4, 100, dtype=torch.float64)
students = [(ideal.log() + strength * torch.randn_like(ideal)).softmax(-1) for strength in strengths]
furthest = (f - ideal).square().sum(-1).argmax(0)  # of the masks, for each digit
students.append(f[furthest, torch.arange(len(x))])

objectives = {
    name: tuple(torch.stack([objective(loss, f, q) for q in students]) for objective in (J, J_prime))
    for name, loss in losses.items()
}
plots.against(objectives)

# %% tags=["nbval-check-output"]
def spread(values):
    return (values.max() - values.min()).item()


print(f"{'loss':22} {'J ≤ J′ always':15} {'J - J′ is a constant'}")
for name, (wanted, had) in objectives.items():
    below = bool((wanted <= had + 1e-12).all())
    print(f"{name:22} {below!s:15} {spread(wanted - had) < 1e-10}")

# %% [markdown]
# In the first row the points lie on a line parallel to the diagonal (for the focal loss on the diagonal: its $g_1$ is zero).
# For reverse KL and L1 they are above it, as i) says, at a distance that depends on the student. For the last loss they come
# close to it, and the student that repeats the furthest masks falls below: a loss that is not convex may have $J > J'$.
#
# The same constant means the same gradient. We take a student with weights, one linear layer, and
# differentiate both objectives with respect to them:

# %% tags=["nbval-check-output"]
torch.manual_seed(SEED)
linear = nn.Linear(64, 3).double()
for name, loss in losses.items():
    one, other = (
        torch.autograd.grad(objective(loss, f, linear(x.double()).softmax(-1)), linear.weight)[0]
        for objective in (J, J_prime)
    )
    print(f"{name:22} ∇J = ∇J′: {torch.allclose(one, other, atol=1e-10)}")

# %% [markdown]
# ## The empirical version
#
# In practice neither mean is exact. There are $n$ examples instead of all possible ones: the paper's $\hat J$ and
# $\hat J'$, equations 6 and 7. And where all masks are needed there are $m$ of them (equation 4); let us write $\hat J_m$
# and $\hat J'_m$ then. But the proof asked nothing of the distribution of $x$ or $\sigma$, and a list of examples or
# masks, each equally likely, is a distribution, too. So the theorem holds for any sample, word for word, with a $\Delta$
# of its own:

# %%
def sampled(f, m, n):
    """`m` random masks of `n` random examples: [m, n, K], and which examples."""
    masks, examples = torch.randint(f.shape[0], (m, n)), torch.randperm(f.shape[1])[:n]
    return f[masks, examples], examples


def gaps(loss, members, examples):
    """Ĵₘ - Ĵ'ₘ of every student on a sample, [Q]."""
    return torch.stack([bregman.objectives(loss, members, q[examples])[2] for q in students])


# %% tags=["nbval-check-output"]
torch.manual_seed(SEED)
first, second, single = sampled(f, 20, 10), sampled(f, 20, 10), sampled(f, 1, 10)
for name in ("KL(f ‖ q)", "squared error"):
    one, other = gaps(losses[name], *first), gaps(losses[name], *second)
    print(f"{name}, 20 masks of 10 digits: Ĵₘ - Ĵ′ₘ is a constant: {spread(one) < 1e-12}")
    print(f"  another sample has another constant: {bool((one[0] - other[0]).abs() > 1e-6)}")
    print(f"  with a single mask it is zero: {bool(gaps(losses[name], *single).abs().max() < 1e-12)}")
moves = spread(gaps(losses["reverse KL(q ‖ f)"], *first))
print(f"reverse KL(q ‖ f), 20 masks of 10 digits: Ĵₘ - Ĵ′ₘ is a constant: {moves < 1e-12}")

# %% [markdown]
# A warning hides in the lines that say that a single mask has no gap. If $m$ masks are drawn once for each example and
# kept, then $\hat J_m$ and $\hat J'_m$ lead to the mean of *those* masks, $\hat f_{\text{dropout}}$, for each example
# its own. With a single one, a student that can fit every example learns by heart the member that each of them happened
# to get. (A student that cannot fit every example averages over similar ones; the more of them there are, the nearer it
# comes to the mean over all masks.) Algorithm 2 therefore draws new masks in every step: what it goes down is the mean
# over all of them. For the squared error the shortfall is known: $m$ masks have on average $(1 - \frac1m)$ of the
# variance that all masks have.

# %%
torch.manual_seed(SEED)
counts = [1, 2, 5, 20]
repeated = {m: torch.stack([bregman.objectives(bregman.squared_euclidean, sampled(f, m, len(x))[0], ideal)[2]
                            for _ in range(400)]) for m in counts}
whole = bregman.objectives(bregman.squared_euclidean, f, ideal)[2]
shares = {m: abs(values.mean() / whole).item() for m, values in repeated.items()}
rows = "".join(f"| {m} | {share:.3f} | {1 - 1 / m:.3f} |\n" for m, share in shares.items())
Markdown(f"| masks m | mean gap of 400 samples / gap of all masks | 1 - 1/m |\n|---|---|---|\n{rows}")

# %% tags=["nbval-check-output"]
print("the share is 1 - 1/m (to 0.01):", all(abs(share - (1 - 1 / m)) < 0.01 for m, share in shares.items()))

# %% [markdown]
# ## What Δ is
#
# **For the squared error** $g_1(y) = \lVert y\rVert^2$, and $-\Delta$ is the mean of squares less the square
# of the mean: the variance of the members, summed over the classes.
#
# **For KL** $g_1(y) = \sum y \log y$ is minus the entropy $H(y)$, so that
#
# $$-\Delta = \mathbb{E}_x\Big[H\big(\mathbb{E}_\sigma[f_\sigma(x)]\big) - \mathbb{E}_\sigma\big[H(f_\sigma(x))\big]\Big].$$
#
# What is unknown about the label, less what stays unknown when the mask is known: that is the *mutual
# information* of label and mask, the score by which BALD chooses examples (Houlsby et al., 2011). It is large
# where the members disagree, each sure of something else, and zero where they all say the same, be it that
# they do not know. We compute each in another way: variance and entropies by library functions, and the
# information from its definition, as the KL divergence of the joint distribution of label and mask from the
# product of the two.

# %%
delta_kl, delta_squares = (bregman.objectives(loss, f, ideal)[2] for loss in (bregman.kl, bregman.squared_euclidean))

variance = f.var(0, correction=0).sum(-1).mean()
information = Categorical(ideal).entropy() - Categorical(f).entropy().mean(0)  # [N]

joint = f / len(f)  # P(mask, label) for each digit, [M, N, K]
product = ideal / len(f)  # P(mask) P(label)
by_definition = torch.xlogy(joint, joint / product).sum((0, 2))  # [N]

# %% tags=["nbval-check-output"]
print("squared error: -Δ is the variance of the members:", torch.allclose(-delta_squares, variance))
print("KL: -Δ is the difference of entropies:", torch.allclose(-delta_kl, information.mean()))
print("    and the mutual information, digit by digit:", torch.allclose(information, by_definition))
certain = Categorical(ideal).entropy()
print("    and never more than the entropy of the mean:", bool((information <= certain + 1e-12).all()))

# %% [markdown]
# The three digits about whose label the masks tell most and the three about which they tell least, with all
# 1,024 members in the triangle.

# %%
order = information.argsort(descending=True)
ends = torch.cat([order[:3], order[-3:]])
NAMES = [str(c) for c in CLASSES.tolist()]
plots.disagreement(images[ends], f[:, ends], information[ends], NAMES)

# %% [markdown]
# Two things follow. *What distillation gives up is the disagreement*: the student keeps the mean, and the
# spread of the dots, which is $-\Delta$, is gone. And *the loss that a distillation prints does not go to
# zero*: it is $J'(q) = J(q) - \Delta$, which is at least $-\Delta$ however good the student is. Here is a
# student distilled for a while on the digits above, with one mask per example and step:

# %%
torch.manual_seed(SEED)
student = distill(teacher, x, epochs=300, lr={0: 0.1, 200: 0.01}, seed=SEED)
q_student, q_standard = (predictors.standard(model, x).double() for model in (student, teacher))

predictions = {"standard": q_standard, "distilled": q_student, "the ideal itself": ideal}
values = {name: [v.item() for v in bregman.objectives(bregman.kl, f, q)] for name, q in predictions.items()}
table = pd.DataFrame(values, index=["J", "J'", "J - J'"]).T
table.round(4)

# %% tags=["nbval-check-output"]
print("J - J′ is the same in each row:", table["J - J'"].max() - table["J - J'"].min() < 1e-9)
print("distilled is nearer to the ideal than standard:", bool(table.loc["distilled", "J"] < table.loc["standard", "J"]))
floor = table.loc["the ideal itself", "J'"]
print("the floor of J′ is the mutual information:", abs(floor - information.mean().item()) < 1e-9)
print("more than nine tenths of the student's J′ are floor:", bool(floor > 0.9 * table.loc["distilled", "J'"]))

# %% [markdown]
# ## A loss for which the minimisers differ
#
# We take the digit on which the members disagree most by variance and ask *every* $q$ of a grid in the
# triangle for its $J$ and $J'$. No training is involved, so whatever we find is a property of the loss. The table says
# how far each minimiser is from the ideal predictor in *total variation*, the probability that would have to move from
# class to class; the grid alone accounts for about 0.01.

# %%
hard = int(f.var(0).sum(-1).argmax())
members, centre = f[:, [hard]], ideal[[hard]]  # [M, 1, K] and [1, K]
STEPS = 60
grid = torch.tensor([(i, j, STEPS - i - j) for i in range(1, STEPS) for j in range(1, STEPS - i)]).double() / STEPS


def along(loss, q):
    """J and J' of the one digit for each of several students q [G, K], [G] each."""
    return loss(centre, q), loss(members, q).mean(0)


def apart(p, q):
    """Total variation distance: the probability that has to move."""
    return (p - q).abs().sum(-1).item() / 2


lows = {name: [grid[values.argmin()] for values in along(loss, grid)] for name, loss in losses.items()}
found = {name: [apart(q, ideal[hard]) for q in pair] for name, pair in lows.items()}
pd.DataFrame(found, index=["minimiser of J to ideal", "minimiser of J' to ideal"]).T.round(3)

# %% tags=["nbval-check-output"]
for name, (a, b) in lows.items():
    print(f"{name:22} J and J′ have the same minimiser: {apart(a, b) < 1e-9}")
geometric = members.log().mean(0)[0].softmax(-1)
print("\nreverse KL ends at the geometric mean:", apart(lows["reverse KL(q ‖ f)"][1], geometric) < 1.5 / STEPS)
print("for the focal loss, too, J alone is not least at the ideal:", found["focal, γ = 2"][0] > 2 / STEPS)

# %% [markdown]
# For reverse KL (a geometric mean), L1 (a median) and Welsch (where the members are most crowded), Algorithm
# 2 would lead away from the ideal predictor however long it runs and however rich the student is. The focal
# loss is a curious case: the theorem applies, and the two minimisers agree, but neither is the ideal
# predictor, since that loss is not least at $y = \hat y$. The theorem says that one mask is as good as all of
# them for a given $J$; that $J$ asks for the right thing is a matter of taking a divergence.
#
# ## Walk through the triangle
#
# Choose a loss, a direction, and a place for the student on the line that goes through the ideal predictor in that
# direction, from edge to edge of the triangle. On the right is the gap $J - J'$. For KL, squared error and the focal
# loss it does not move, wherever you go, and the lowest points of both curves (triangles) are at the same step. For the
# others the gap changes on the way, and tilts $J'$ to another lowest point.

# %%
RIGHT, UP = torch.tensor([-1.0, 1, 0]).double() / 2**0.5, torch.tensor([-1.0, -1, 2]).double() / 6**0.5  # on the page


def line(direction):
    """61 students [G, 3] on the line through the ideal predictor, at so many degrees from the horizontal."""
    angle = torch.deg2rad(torch.tensor(direction).double())
    along_it = angle.cos() * RIGHT + angle.sin() * UP
    edge = ideal[hard].min() / 4  # a little inside the triangle: on its sides KL is infinite
    ahead, behind = (((ideal[hard] - edge) / (-d).clamp_min(1e-9)).min() * d for d in (along_it, -along_it))
    return torch.lerp(ideal[hard] + behind, ideal[hard] + ahead, torch.linspace(0, 1, 61).double()[:, None])


def walk(name, direction, step):
    path = line(direction)
    return plots.walk(step, path, *along(losses[name], path), members[:, 0], name, NAMES)


widgets.sliders_figure(
    walk,
    {
        "loss": (list(losses), "reverse KL(q ‖ f)"),
        "direction [degrees]": (list(range(0, 180, 15)), 0),
        "step": (list(range(0, 61, 3)), 45),
    },
)

# %% [markdown]
# The same figure for KL and for reverse KL, for readers of a still page.

# %%
walk("KL(f ‖ q)", 0, 45)

# %%
walk("reverse KL(q ‖ f)", 0, 45)

# %% [markdown]
# ## Exercises
#
# **1. The gap.** At a rate other than 1/2 masks are not equally likely. Write $\Delta = J - J'$ for any loss and masks
# with the probabilities $P(\sigma)$.

# %%
def my_gap(loss, f, weights, q):
    """Δ for f [M, N, K], P(σ) [M] and q [N, K], a scalar; loss(y [..., K], ŷ [..., K]) returns [...]."""
    ### BEGIN SOLUTION
    ideal = torch.tensordot(weights, f, 1)
    return (loss(ideal, q) - torch.tensordot(weights, loss(f, q), 1)).mean()
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.gap(my_gap)

# %% [markdown]
# **2. What the masks tell.** Write the mutual information of label and mask for each example, in nats, again for masks
# that are not equally likely. Take $0 \log 0$ as 0, as `torch.xlogy` does. It needs neither a loss nor a student.

# %%
def my_information(f, weights):
    """Mutual information [N] of label and mask, from f [M, N, K] and P(σ) [M]."""
    ### BEGIN SOLUTION
    entropy = lambda p: -torch.xlogy(p, p).sum(-1)
    return entropy(torch.tensordot(weights, f, 1)) - torch.tensordot(weights, entropy(f), 1)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.information(my_information)

# %% [markdown]
# **3. A counterexample of your own.** Write a loss that is convex in $y$, zero for equal arguments and
# positive otherwise, and for which the gap nevertheless depends on the student. L1 and reverse KL are two; find a
# third.

# %%
def my_loss(y, y_hat):
    """A loss [...] for distributions y and ŷ [..., K]."""
    ### BEGIN SOLUTION
    return (y - y_hat).pow(4).sum(-1)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.counterexample(my_loss)

# %% [markdown]
# ## What we saw, and what the paper says

# %%
moved = {name: spread(wanted - had) for name, (wanted, had) in objectives.items()}
Markdown(f"""
*Here*: over {len(students)} students the gap J - J' of KL moves by {moved["KL(f ‖ q)"]:.0e} nats, which is rounding, that of
reverse KL by {moved["reverse KL(q ‖ f)"]:.2f} nats. For KL, -Δ is {-delta_kl:.3f} nats, the mutual information of label and
mask; for the squared error it is {-delta_squares:.3f}, the variance of the members. On the digit of most disagreement
the minimiser of J' is {found["reverse KL(q ‖ f)"][1]:.2f} away from the ideal predictor for reverse KL,
{found["L1"][1]:.2f} for L1 and {found["Welsch, scale 0.2"][1]:.2f} for Welsch, and {found["KL(f ‖ q)"][1]:.2f} for KL, as near as the
grid allows.

*The paper* (section 4) states the theorem, proves it in a supplement, and gives no numbers for it. It says of i) that many losses in use are
convex in their first argument, and of ii) that all Bregman divergences satisfy it.
""")

# %% [markdown]
# A theorem leaves nothing to disagree about; the numbers agree with it to rounding. What the page adds are
# its edges: how the gap of other losses moves, that a fixed sample of masks has a target of its own, so that they
# must be drawn anew in every step, and that equal minimisers of $J$ and $J'$ are the ideal predictor only if
# the loss is least at equality. The size of $\Delta$ is that of this small ensemble with much dropout; another
# seed changes it, and none of the facts.
#
# **In one sentence:** if a loss is linear in the teacher's prediction, apart from a term without the student in it,
# then a random member teaches on average the same as the mean of all members: the two objectives differ by a constant,
# which for KL is the information that the mask has about the label.
