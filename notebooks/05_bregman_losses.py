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
# # Bregman losses: which losses lead to the mean
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dropout-distillation/dropout-distillation/blob/v0.1.0/notebooks/05_bregman_losses.ipynb)
#
# *After this page you will be able to* draw a Bregman divergence, make one from any convex function, and
# decide of a loss whether a student trained with it ends at the mean of its teachers, at another average, or
# somewhere else. *It runs* under half a minute on a laptop's processor. *It needs* Theorem 1 (notebook
# 04), and no network connection.

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
from torch.distributions import Dirichlet
from torch.nn import functional as F

from helpers import bregman, predictors, widgets
from helpers.checks import bregman_losses as checks
from helpers.plots import bregman_losses as plots

SEED = 0

# %% [markdown]
# ## The gap under a tangent
#
# Distillation compares what a teacher says, $y$, with what the student says, $\hat y$, by a loss
# $\ell(y, \hat y)$. Take a strictly convex, differentiable function $\varphi$ and draw its tangent at
# $\hat y$. The function lies above the tangent, and touches it at $\hat y$ alone. How high it lies above it
# at $y$ is a *Bregman divergence* (section 4.1 of the paper):
#
# $$\ell(y, \hat y) = \varphi(y) - \varphi(\hat y) - \langle y - \hat y,\, \nabla\varphi(\hat y)\rangle.$$
#
# It is never negative, and zero only for $y = \hat y$. Multiply out, and three parts are left, of which only
# the last knows both arguments, and is *linear* in $y$:
#
# $$\ell(y, \hat y) = \underbrace{\varphi(y)}_{g_1(y)}
#   + \underbrace{\langle \hat y, \nabla\varphi(\hat y)\rangle - \varphi(\hat y)}_{g_2(\hat y)}
#   + \langle y, \underbrace{-\nabla\varphi(\hat y)}_{g_3(\hat y)}\rangle.$$
#
# That is the form that part ii) of Theorem 1 asks for.

# %%
def divergence(phi, grad_phi, y, y_hat):
    """The gap at y [..., K] between φ and its tangent at ŷ [..., K], [...]."""
    return phi(y) - phi(y_hat) - ((y - y_hat) * grad_phi(y_hat)).sum(-1)


torch.manual_seed(SEED)
y, y_hat = torch.rand(2, 1000, 3, dtype=torch.float64)
by_hand = divergence(bregman.kl.phi, bregman.kl.grad_phi, y, y_hat)

# %% tags=["nbval-check-output"]
parts = bregman.kl.g1(y) + bregman.kl.g2(y_hat) + (y * bregman.kl.g3(y_hat)).sum(-1)
print("the gap is the loss:", torch.allclose(by_hand, bregman.kl(y, y_hat)))
print("and so are its three parts:", torch.allclose(parts, bregman.kl(y, y_hat)))
print("never negative:", bool((by_hand > -1e-12).all()))

# %% [markdown]
# Move $\hat y$ and choose $\varphi$. On the left the green bar is the gap at $y$. On the right the same gap
# for every $y$. The dotted line shows what happens if the arguments are exchanged: but for the square it is
# another function, so it matters which argument is the teacher.

# %%
curves = {
    "y²": bregman.squared_euclidean,
    "y log y": bregman.kl,
    "y log y + (1-y) log(1-y)": bregman.logistic,
    "-log y": bregman.itakura_saito,
    "exp y": bregman.exponential,
}


def gap(name, y_hat):
    return plots.gap(curves[name], name, y_hat)


steps = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
widgets.sliders_figure(gap, {"φ": (list(curves), "y log y"), "ŷ": (steps, 0.3)})

# %% [markdown]
# The same figure for the negative entropy, which generates KL, and for $-\log y$, whose divergence is that of
# Itakura and Saito, for readers of a still page. Both get steep towards zero: a student that gives too little
# to something that has a probability pays much for it.

# %%
gap("y log y", 0.3)

# %%
gap("-log y", 0.3)

# %% [markdown]
# ## The family
#
# | name in `bregman` | $\varphi(y)$ | domain of $y$ | $\ell(y, \hat y)$ |
# |---|---|---|---|
# | `squared_euclidean` | $\lVert y\rVert^2$ | all $y$ | $\lVert y - \hat y\rVert^2$ |
# | `mahalanobis(A)`, $A$ symmetric and positive definite | $y^\top A\, y$ | all $y$ | $(y - \hat y)^\top A\,(y - \hat y)$ |
# | `kl` | $\sum y \log y$ | $y \ge 0$ | $\sum y \log\frac{y}{\hat y} - y + \hat y$ |
# | `logistic` | $\sum y \log y + (1-y)\log(1-y)$ | $0 \le y \le 1$ | $\sum y\log\frac{y}{\hat y} + (1-y)\log\frac{1-y}{1-\hat y}$ |
# | `itakura_saito` | $-\sum \log y$ | $y > 0$ | $\sum \frac{y}{\hat y} - \log\frac{y}{\hat y} - 1$ |
# | `exponential` | $\sum e^{y}$ | all $y$ | $\sum e^{y} - e^{\hat y}(1 + y - \hat y)$ |
# | `p_norm(p)`, $1 < p < \infty$ | $\frac12 \lVert y\rVert_p^2$ | all $y$ | as the definition says |
#
# For distributions the last two terms of `kl` cancel, and it is the Kullback–Leibler divergence that we know.
# A few of them for $y = (0.7, 0.2, 0.1)$ and $\hat y = (0.4, 0.4, 0.2)$:

# %% tags=["nbval-check-output"]
a, b = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.4, 0.4, 0.2]).double()
A = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
family = {
    **{loss.name: loss for loss in curves.values()},
    "mahalanobis": bregman.mahalanobis(A),
    "p_norm(3)": bregman.p_norm(3),
}
for name, loss in family.items():
    print(f"{name:18} ℓ(y, ŷ) = {loss(a, b):.4f}   ℓ(ŷ, y) = {loss(b, a):.4f}")

# %% [markdown]
# ### A divergence from any φ that you write
#
# `bregman.from_phi` takes a convex function and leaves the tangent to automatic differentiation. An example
# that will matter below: let $\varphi$ be the logarithm of the sum of exponentials, a function of *logits*.
# Its gradient is the softmax, so the gap between two vectors of logits is
#
# $$\varphi(z) - \varphi(\hat z) - \langle z - \hat z, \mathrm{softmax}(\hat z)\rangle
#   = \mathrm{KL}\big(\mathrm{softmax}(\hat z)\,\|\,\mathrm{softmax}(z)\big),$$
#
# the Kullback–Leibler divergence with its arguments *exchanged*. (Adding one constant to all logits changes
# nothing on either side: along that direction $\varphi$ is straight.)

# %% tags=["nbval-check-output"]
of_logits = bregman.from_phi(lambda z: z.logsumexp(-1))
torch.manual_seed(SEED)
z, z_hat = torch.randn(2, 1000, 4, dtype=torch.float64)
reversed_kl = bregman.reverse_kl(z.softmax(-1), z_hat.softmax(-1))
print("the divergence of log Σ exp is reverse KL:", torch.allclose(of_logits(z, z_hat), reversed_kl))

# %% [markdown]
# ## The mean is the best constant, for all of them
#
# Let $Y$ be random with mean $\mu = \mathbb{E}[Y]$: for us the prediction of a randomly gated network. Which
# single $q$ has the least expected loss $\mathbb{E}\,\ell(Y, q)$? For a Bregman divergence
#
# $$\mathbb{E}\,\ell(Y, q) = \mathbb{E}\,\ell(Y, \mu) + \ell(\mu, q),$$
#
# since the left side is $\mathbb{E}\varphi(Y) - \varphi(q) - \langle \mu - q, \nabla\varphi(q)\rangle$: the
# randomness of $Y$ has gone from the inner product, which is linear. The first term on the right does not
# know $q$, and the second is zero for $q = \mu$ and positive for any other. So the mean is the best constant,
# whatever $\varphi$ is.
#
# To see it we take random distributions of $Y$, each with five values in the triangle of probabilities over
# three classes, and as rivals of the mean all $q$ of a fine grid in that triangle. No optimiser is
# needed: if the mean is the best constant, then no rival beats it, but for rounding.

# %%
torch.manual_seed(SEED)
RUNS, VALUES, STEPS = 40, 5, 60
Y = Dirichlet(torch.full((3,), 0.7).double()).sample((RUNS, VALUES))  # [R, M, K]
weights = Dirichlet(torch.ones(VALUES).double()).sample((RUNS,))  # [R, M]
mean = (weights[..., None] * Y).sum(1)  # [R, K]
grid = torch.tensor([(i, j, STEPS - i - j) for i in range(1, STEPS) for j in range(1, STEPS - i)]).double() / STEPS


def expected(loss, q):
    """E ℓ(Y, q) for each distribution of Y and each q [G, K] or [R, G, K]: [R, G]."""
    return (weights[..., None] * loss(Y[:, :, None], q.reshape(-1, 1, *q.shape[-2:]))).sum(1)


def mean_is_best(loss):
    """Whether no rival has a smaller expected loss than the mean, for any of the distributions."""
    return bool((expected(loss, mean[:, None]) <= expected(loss, grid) + 1e-12).all())


# %% tags=["nbval-check-output"]
print(f"{len(grid):,} rivals for each of {RUNS} distributions")
for name, loss in family.items():
    first, second = expected(loss, mean[:, None]), loss(mean[:, None], grid)
    identity = torch.allclose(expected(loss, grid), first + second)
    print(f"{name:18} E ℓ(Y, q) = E ℓ(Y, μ) + ℓ(μ, q): {identity}; the mean is best: {mean_is_best(loss)}")

# %% [markdown]
# ## And for nothing else
#
# The converse is true as well: a loss $\ell(y, \hat y) \ge 0$ that vanishes for $y = \hat y$, is smooth
# enough, and has the mean as its *only* best constant for *every* random $Y$, is a Bregman divergence (Banerjee, Guo
# and Wang, 2005). For numbers the proof is short. Let $h(y) = \partial \ell(y, q) / \partial q$. If $Y$ has
# only the values $a < q < b$, with mean $q$, then the derivative of the expected loss must vanish there:
#
# $$\frac{b - q}{b - a}\, h(a) + \frac{q - a}{b - a}\, h(b) = 0
#   \quad\Rightarrow\quad \frac{h(a)}{q - a} = \frac{h(b)}{q - b}.$$
#
# This holds for all such $a$ and $b$, so both sides are one constant $c(q)$, and $h(y) = c(q)\,(q - y)$: the
# derivative is linear in $y$. Call $\varphi$ a function with $\varphi'' = c$, and integrate from $y$, where
# the loss is zero, by parts:
#
# $$\ell(y, q) = \int_y^q \varphi''(t)\,(t - y)\,dt = \varphi(y) - \varphi(q) - (y - q)\,\varphi'(q).$$
#
# And $\varphi$ is strictly convex: for a constant $Y = y$ no other constant is best, hence $\ell(y, q) > 0$ for
# $q \ne y$, and $\varphi$ lies above each of its tangents. ∎
#
# The proof also says where to find $\varphi$: hold the second argument still at any point $r$. Of a Bregman
# divergence $\ell(y, r)$ is $\varphi(y)$ less a straight line, and a straight line does not change a gap. So
# *every loss can be asked what it would be if it were a Bregman divergence*: build the divergence of that
# slice, and compare.
#
# Some losses, like the cross-entropy, are not zero at $y = \hat y$. A term that depends on $y$ alone changes
# no minimiser, so we first subtract $\ell(y, y)$.

# %%
def excess(loss):
    """ℓ(y, ŷ) - ℓ(y, y), which is zero at equality."""
    return lambda y, y_hat: loss(y, y_hat) - loss(y, y)


def rebuilt(loss, r):
    """The Bregman divergence that the excess of `loss` would have to be, found from its slice at r [K]."""
    return bregman.from_phi(lambda y: excess(loss)(y, r.expand_as(y)))


def is_bregman(loss):
    """Whether that divergence is the excess loss, on random pairs of distributions."""
    torch.manual_seed(SEED)
    y, y_hat = Dirichlet(torch.ones(3).double()).sample((2, 200))
    r = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return torch.allclose(rebuilt(loss, r)(y, y_hat), excess(loss)(y, y_hat), atol=1e-8)


# %% tags=["nbval-check-output"]
print("members of the family, rebuilt from a slice:", all(is_bregman(loss) for loss in family.values()))
print("reverse KL, rebuilt from a slice:", is_bregman(bregman.reverse_kl))

# %% [markdown]
# ## Which common losses qualify?
#
# Thirteen losses that are used between a teacher's probabilities $y$ and a student's $\hat y$. For each of
# them three questions, all answered by number:
#
# 1. *Is it affine in* $y$, but for a term without $\hat y$? This is the condition of Theorem 1, ii). Such a
#    term drops out of a difference $\ell(y, \hat y) - \ell(y, \hat y')$, which must then be affine in $y$: on
#    the way from $y_1$ to $y_2$ it follows the straight line.
# 2. *Is the mean its best constant?*
# 3. *Is it, but for a function of* $y$, *the Bregman divergence of its own slice?*

# %%
def softened(p, T):
    """Probabilities at temperature T: the softmax of log p / T."""
    return (p.log() / T).softmax(-1)


def huber(delta):
    return lambda y, q: F.huber_loss(*torch.broadcast_tensors(q, y), reduction="none", delta=delta).sum(-1)


def hinge(y, q):
    """The margin by which the largest other score comes too close to q_k, weighted by y_k (Crammer and Singer)."""
    margins = 1 + q[..., None, :] - q[..., :, None] - torch.eye(q.shape[-1])  # [..., k, other class]
    return (y * margins.amax(-1)).sum(-1)


def jensen_shannon(y, q):
    middle = (y + q) / 2
    return (bregman.kl(y, middle) + bregman.kl(q, middle)) / 2


losses = {
    "KL(y ‖ q)": bregman.kl,
    "cross-entropy": lambda y, q: -(y * q.log()).sum(-1),
    "squared error (Brier)": bregman.squared_euclidean,
    "Huber, δ = 1": huber(1.0),
    "spherical score": lambda y, q: -(y * q).sum(-1) / q.norm(dim=-1),
    "focal, γ = 2": lambda y, q: -(y * (1 - q) ** 2 * q.log()).sum(-1),
    "hinge": hinge,
    "Huber, δ = 0.1": huber(0.1),
    "L1": lambda y, q: (y - q).abs().sum(-1),
    "cosine distance": lambda y, q: 1 - F.cosine_similarity(*torch.broadcast_tensors(y, q), dim=-1),
    "KL at temperature 4": lambda y, q: bregman.kl(softened(y, 4), softened(q, 4)),
    "Jensen–Shannon": jensen_shannon,
    "reverse KL(q ‖ y)": bregman.reverse_kl,
}


def is_affine(loss):
    """Whether differences of the loss are affine in y, on random distributions."""
    torch.manual_seed(SEED)
    a, b, q, r = Dirichlet(torch.ones(3).double()).sample((4, 200))
    share = torch.rand(200, dtype=torch.float64)
    difference = lambda y: loss(y, q) - loss(y, r)
    on_the_way = difference(share[:, None] * a + (1 - share[:, None]) * b)
    return torch.allclose(on_the_way, share * difference(a) + (1 - share) * difference(b), atol=1e-9)


best = {name: grid[expected(loss, grid).argmin(1)] for name, loss in losses.items()}  # [R, K] each
away = {name: (q - mean).abs().sum(-1).mean().item() / 2 for name, q in best.items()}

# %% tags=["nbval-check-output"]
verdicts = {name: (is_affine(loss), mean_is_best(loss), is_bregman(loss)) for name, loss in losses.items()}
print(f"{'loss':22} {'affine in y':12} {'mean is best':13} {'Bregman divergence'}")
for name, (affine, leads_to_mean, divergence_of_slice) in verdicts.items():
    print(f"{name:22} {affine!s:12} {leads_to_mean!s:13} {divergence_of_slice}")
agree = all(verdict[1] == verdict[2] for verdict in verdicts.values())
print("\nthe last two questions have the same answer for every loss:", agree)

# %% [markdown]
# So there are three kinds. The last two columns agree, as the theorem and its converse say. The first column
# is more generous: a loss may satisfy part ii) of Theorem 1 and still not lead to the mean.
#
# **Bregman divergences, but for a function of** $y$. *Cross-entropy* is KL plus the entropy of $y$. *Huber*
# with $\delta = 1$, PyTorch's default, is half the squared error here, because two probabilities never differ
# by more than one. The *spherical score* comes from $\varphi(y) = \lVert y \rVert$. In statistics such losses
# are called strictly *proper*.
#
# **Affine in** $y$**, but not proper.** For *focal* loss and *hinge* the gap between $J$ and $J'$ does not
# depend on the student, as for KL, and one mask per step is as good as all of them. But what $J$ itself asks
# for is not $f_{\text{dropout}}$: the focal loss wants a less certain prediction, and the hinge asks only
# which class has more than half: it is best in that corner of the triangle, or in the centre if there is no
# such class.
#
# **Not affine in** $y$**.** Here $J'$ has another minimiser than $J$, whose minimiser is the mean. *L1* leads
# to a median, *Huber* with a small $\delta$ to a compromise of mean and median. The *cosine distance* divides
# each $y$ by its own length, so it averages directions. KL at a *temperature* averages softened members, and
# *Jensen–Shannon* and *reverse KL* have $y$ inside a logarithm that $\hat y$ multiplies, or shares.
#
# How far from the mean the best constant lies, on average over the forty distributions, as a share of
# probability that would have to move (total variation distance; the grid alone accounts for less than a
# hundredth):

# %%
pd.DataFrame({"distance of the best constant from the mean": away}).round(3)

# %% tags=["nbval-check-output"]
entropy = lambda p: -torch.xlogy(p, p).sum(-1).mean()
majority, corner = mean.max(-1).values > 0.5, best["hinge"].max(-1).values > 0.95
print("where the mean is best, the grid finds it (to 0.02):", all(away[n] < 0.02 for n, v in verdicts.items() if v[1]))
print("focal loss wants a less certain prediction than the mean:", bool(entropy(best["focal, γ = 2"]) > entropy(mean)))
print("the hinge wants a corner if one class has more than half, and otherwise none:", torch.equal(majority, corner))
print("reverse KL wants a more certain one than the mean:", bool(entropy(best["reverse KL(q ‖ y)"]) < entropy(mean)))

# %% [markdown]
# The landscape $\mathbb{E}\,\ell(Y, q)$ over the triangle for one distribution of $Y$, whose values are the dots: the larger a
# dot, the likelier its value. Dark is low; each shade covers the same area. In the first row the circle sits on the cross. So
# it seems to do for the focal loss, but only because this mean is close to the centre of the triangle, so that a loss that
# wants a less certain prediction has little left to change; over all forty distributions it is as far off as the table says.

# %%
shown = ["KL(y ‖ q)", "squared error (Brier)", "Huber, δ = 1", "spherical score"]
shown += ["focal, γ = 2", "L1", "KL at temperature 4", "reverse KL(q ‖ y)"]
clearest = int((best["reverse KL(q ‖ y)"] - mean).abs().sum(-1).argmax())
heights = {name: expected(losses[name], grid)[clearest] for name in shown}
plots.landscapes(grid, heights, Y[clearest], weights[clearest], "ABC")

# %% [markdown]
# ## L1 finds the median
#
# For numbers $\mathbb{E}\,|Y - q|$ has the slope $P(Y < q) - P(Y > q)$: each member pulls with the same force
# however far away it is, and the forces balance at the median. With two classes that is all there is to it.
# (With more, the medians of the classes need not sum to one, and the best distribution is a compromise.)

# %% tags=["nbval-check-output"]
torch.manual_seed(SEED)
members = torch.rand(101, 1, dtype=torch.float64) ** 2  # a skewed ensemble: the probability of one of two classes
rivals = torch.linspace(0, 1, 1001, dtype=torch.float64)
cost = lambda q: (members - q).abs().mean(0)
print("no rival beats the median:", bool((cost(members.median()) <= cost(rivals) + 1e-12).all()))
print("some rival beats the mean:", bool((cost(members.mean()) > cost(rivals)).any()))

# %% [markdown]
# ## Reverse KL finds the geometric mean, which weight scaling approximates
#
# Write $g = \frac1Z \prod_y y^{P(y)}$ for the renormalised geometric mean of $Y$, taken class by class. Then
#
# $$\mathbb{E}\,\mathrm{KL}(q\,\|\,Y) = \sum_k q_k \log q_k - \sum_k q_k\,\mathbb{E}\log Y_k
#   = \mathrm{KL}(q\,\|\,g) - \log Z,$$
#
# and the best constant is $g$. We have met the reason above: seen from the logits, reverse KL *is* a Bregman
# divergence, that of $\log\sum\exp$. So it leads to the mean of the *logits*, and the softmax of mean logits
# is $g$.
#
# For a softmax regression with dropout on its inputs the mean of the logits is the logit of the mean input,
# and that is what weight scaling computes. Eight inputs, 256 masks, all of them counted:

# %%
torch.manual_seed(SEED)
regression = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3)).double()
with torch.no_grad():
    regression[1].weight.mul_(6)
x = torch.randn(1, 8, dtype=torch.float64)


def over_masks(loss, q):
    """The mean over all masks of ℓ(f, q) for each q [G, K], as [G]."""
    return predictors.exact(regression, x, output=lambda z: loss(z.softmax(-1)[:, None], q))[0]


arithmetic, geometric = predictors.exact(regression, x), predictors.exact(regression, x, "geometric")
scaled = predictors.standard(regression, x)
forward, reverse = (over_masks(loss, grid) for loss in (bregman.kl, bregman.reverse_kl))

# %% tags=["nbval-check-output"]
print("weight scaling is the geometric mean of all 256 masks:", torch.allclose(scaled, geometric))
print("reverse KL: no rival beats weight scaling:", bool((over_masks(bregman.reverse_kl, scaled) <= reverse).all()))
print("forward KL: no rival beats the mean of the masks:", bool((over_masks(bregman.kl, arithmetic) <= forward).all()))
print("forward KL: some rival beats weight scaling:", bool((over_masks(bregman.kl, scaled) > forward).any()))

# %% [markdown]
# Forward KL distils to what Monte Carlo dropout estimates; reverse KL distils to what weight scaling
# approximates.
#
# ## A temperature moves the target from one mean to the other
#
# Distillation is often done at a temperature: the probabilities of teacher and student are softened,
# $y_T = \mathrm{softmax}(\log y / T)$, and the loss is $\mathrm{KL}(y_T \,\|\, \hat y_T)$. With one fixed
# teacher nothing is lost. With a teacher that changes in every step, the student's *softened* prediction goes
# to the mean of the *softened* members, and that is not the softened mean. For $T = 1$ it is the arithmetic
# mean. For large $T$ softening becomes linear in the logarithm,
# $y_T \approx \frac1K\big(1 + (\log y - \overline{\log y})/T\big)$, where the bar is the average over
# classes. Then logarithms are averaged, and the end is the geometric mean.

# %%
def best_constant(loss, Y, weights):
    """The distribution [K] with the least expected loss, by a quasi-Newton search from the mean."""
    logits = (weights @ Y).log().requires_grad_()
    search = torch.optim.LBFGS([logits], max_iter=300, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe")

    def step():
        search.zero_grad()
        value = weights @ loss(Y, logits.softmax(-1))
        value.backward()
        return value

    search.step(step)
    return logits.detach().softmax(-1)


def at_temperature(T):
    return lambda y, q: T**2 * bregman.kl(softened(y, T), softened(q, T))  # T² keeps the size of the gradient


values, share = Y[clearest], weights[clearest]
means = {"arithmetic mean": share @ values, "geometric mean": (share @ values.log()).softmax(-1)}
temperatures = [1, 2, 4, 8, 16, 32, 64, 128]
ends = [best_constant(at_temperature(T), values, share) for T in temperatures]
distances = {name: [(q - p).abs().sum().item() / 2 for q in ends] for name, p in means.items()}
plots.between(temperatures, distances)

# %% tags=["nbval-check-output"]
to_arithmetic, to_geometric = distances.values()
print("at T = 1 it is the arithmetic mean:", to_arithmetic[0] < 1e-6)
print("at T = 128 it is nearer to the geometric mean, ten times:", to_arithmetic[-1] > 10 * to_geometric[-1])

# %% [markdown]
# ## Exercises
#
# **1. The other way round.** The mean is the best *second* argument. Which $q$, in the *first* place, has the least mean
# of $\ell(q, Y)$ over the members? Set the gradient with respect to $q$ to zero. Which averages that you know come out
# for $y \log y$ and for $-\log y$? (Here $q$ need not sum to one.)

# %%
def my_best_first(grad_phi, inverse, members):
    """The best q [K] for members [M, K], all equally likely. `inverse` undoes `grad_phi`; both take and return [..., K]."""
    ### BEGIN SOLUTION
    return inverse(grad_phi(members).mean(0))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.best_first(my_best_first)

# %% [markdown]
# **2. From the loss back to** $\varphi$**.** The loss
# $\ell(y, \hat y) = \sum_k (y_k - \hat y_k)^2\,(y_k + 2 \hat y_k)$ is a Bregman divergence for
# $y, \hat y > 0$. Find its $\varphi$. (Any straight line may be added to it.) Write it with PyTorch's operations, as the
# check takes its gradient.

# %%
def my_phi(y):
    """φ of each row of y [N, K], as [N]."""
    ### BEGIN SOLUTION
    return (y**3).sum(-1)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.generator(my_phi)

# %% [markdown]
# **3. What a temperature does.** The members are the rows of `f`, all equally likely. Write down, without any
# search, the $q$ for which the mean over the members of $\mathrm{KL}(y_T \,\|\, q_T)$ is least, where
# $p_T = \mathrm{softmax}(\log p / T)$ for any distribution $p$.

# %%
def my_best_constant(f, T):
    """The best q [K] for members f [M, K] at temperature T."""
    ### BEGIN SOLUTION
    mean = (f.log() / T).softmax(-1).mean(0)  # what q must be when it is softened
    return (T * mean.log()).softmax(-1)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.best_constant(my_best_constant)

# %% [markdown]
# ## What we saw, and what the paper says

# %%
kinds = [sum(affine and best for affine, best, _ in verdicts.values())]
kinds += [sum(affine and not best for affine, best, _ in verdicts.values())]
kinds += [sum(not affine for affine, _, _ in verdicts.values())]
Markdown(f"""
*Here*: of {len(losses)} losses, {kinds[0]} are Bregman divergences but for a function of y, and lead to the mean;
{kinds[1]} more satisfy part ii) of Theorem 1 but lead elsewhere; {kinds[2]} do not satisfy it. The best
constant of reverse KL is {away["reverse KL(q ‖ y)"]:.3f} away from the mean on average, that of L1 {away["L1"]:.3f}, that
of KL at temperature 4 {away["KL at temperature 4"]:.3f}, and that of the focal loss {away["focal, γ = 2"]:.3f}.

*The paper* (section 4.1) gives no numbers here. It names 2 losses that satisfy part ii), the squared Euclidean
distance and KL, and says that all Bregman divergences do.
""")

# %% [markdown]
# There is no disagreement, but a distinction which the paper does not need, since it uses KL throughout. Part ii) says
# that $J$ and $J'$ have the same minimiser. For that minimiser to be $f_{\text{dropout}}$ (where the student can
# express it), the loss must also be least at $\hat y = y$, as a divergence is; focal loss and hinge satisfy part ii)
# but not this. The forty random distributions stand for nothing in particular: another seed moves the distances and
# none of the verdicts.
#
# **In one sentence:** the losses that lead a student to the mean of random teachers are the Bregman
# divergences, up to a term that knows only the teacher, and no others; L1 leads to a median, and reverse KL to the
# geometric mean that weight scaling approximates.
