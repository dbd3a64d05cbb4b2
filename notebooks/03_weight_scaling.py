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
# # Weight scaling: where it is exact, and how it fails
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dropout-distillation/dropout-distillation/blob/v0.1.0/notebooks/03_weight_scaling.ipynb)
#
# *After this page you will be able to* prove in three cases that one pass with scaled weights is an average over all
# masks, name the step of the proof that a nonlinearity breaks, and say what makes the error grow. *It runs* under a
# minute on a laptop's processor. *It needs* notebook 02, which defines the two means, and no network connection.

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
import math

import torch
from IPython.display import Markdown, display
from torch import nn
from torch.distributions import Normal

from helpers import bregman, gates, moments, predictors, widgets
from helpers.checks import weight_scaling as checks
from helpers.plots import weight_scaling as plots

SEED = 0
torch.manual_seed(SEED)
torch.set_default_dtype(torch.float64)  # on this page "exact" is meant to ten digits


def largest(a, b):
    """The largest difference between two predictions."""
    return (a - b).abs().max().item()


# %% [markdown]
# ## The rule
#
# A gate $\sigma$ is 1 (keep) with probability $1-p$ and 0 (drop) with probability $p$, the *rate*. The *weight scaling
# rule* predicts with one network, that of all units, in which every gate stands at its mean. Hinton and others (2012)
# multiplied the weights by $1-p$ after training; our dropout layers divide by $1-p$ in training (*inverted* dropout),
# so that $\tilde\sigma = \sigma/(1-p)$ has mean one and no scaling is left to do. The two are the same rule. Section
# 3.1 of the paper names the assumption behind it, layer by layer:
#
# $$\mathbb{E}_\sigma[h(z)] \approx h(\mathbb{E}_\sigma[z]).$$
#
# An equality for all weights and inputs would need $h$ to be linear, up to a constant. A classifier is not, if only for its
# softmax. Still there are networks for which the rule is exactly an average over all masks, if we ask for the right average.
#
# ## Exact, first: softmax regression and the geometric mean
#
# One linear layer, gated inputs, a softmax: $f_\sigma(x) = \mathrm{softmax}(W(\tilde\sigma \circ x) + b)$, where $\circ$
# multiplies entry by entry. Its renormalised geometric mean (*Deep Learning*, equations 7.54 and 7.55) is what is
# proportional to $\exp \mathbb{E}_\sigma[\log f_\sigma(x)_k]$.
#
# *Proof.* The logarithm of a softmax is a logit less a number that is the same for all classes $k$:
#
# $$\log f_\sigma(x)_k = w_k^\top(\tilde\sigma\circ x) + b_k - c_\sigma,
#   \qquad c_\sigma = \log\sum_j \exp\big(w_j^\top(\tilde\sigma\circ x) + b_j\big).$$
#
# Take the mean over $\sigma$. The first part is linear in $\tilde\sigma$, whose mean is one, and becomes
# $w_k^\top x + b_k$. The last part becomes $\mathbb{E}_\sigma[c_\sigma]$, a number that does not depend on $k$, and the
# renormalisation removes it. What remains is $\mathrm{softmax}(Wx + b)$: weight scaling. ∎
#
# The book shows it for gates that are fair coins. Nothing in the proof needs that: any rate will do, a rate for each
# input, even gates that depend on each other, as long as each $\tilde\sigma_i$ has mean one. By number, over the 1,024
# masks of ten inputs:

# %%
x = torch.randn(20, 10)
geometric_gap, arithmetic_gap = {}, {}
for p in (0.1, 0.3, 0.5, 0.9):
    regression = nn.Sequential(nn.Dropout(p), nn.Linear(10, 4))
    nn.init.normal_(regression[1].weight)
    standard = predictors.standard(regression, x)
    geometric_gap[p] = largest(predictors.exact(regression, x, mean="geometric"), standard)
    arithmetic_gap[p] = largest(predictors.exact(regression, x), standard)

# %% tags=["nbval-check-output"]
for p in geometric_gap:
    print(
        f"rate {p}: equal to the geometric mean to 1e-10: {geometric_gap[p] < 1e-10}; "
        f"differs from the arithmetic mean by more than 0.01: {arithmetic_gap[p] > 0.01}"
    )

# %% [markdown]
# The second column matters as much as the first. Even here weight scaling is *not* the ideal predictor, which is the
# arithmetic mean of the probabilities; it is exactly another mean.
#
# The inputs of the last layer may be anything that no gate has touched. A network with hidden layers, and as many
# nonlinearities as you like, that drops units before its *last layer only* is softmax regression on its features.
# The paper's LeNet is such a network.

# %%
lenet_like = nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 4))
everywhere = nn.Sequential(nn.Linear(10, 8), nn.Dropout(0.3), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))
gated_relu = nn.Sequential(nn.Dropout(0.3), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))


def geometric_is_standard(model, tolerance=1e-10):
    return largest(predictors.exact(model, x, mean="geometric"), predictors.standard(model, x)) < tolerance


# %% tags=["nbval-check-output"]
print("a hidden ReLU, gates after it only:", geometric_is_standard(lenet_like))
print("gates in front of the hidden layer:", geometric_is_standard(gated_relu))
print("gates right before and after the ReLU, no linear layer between:", geometric_is_standard(everywhere))

# %% [markdown]
# (The third is exact because a ReLU lets a gate through: $\max(0, \tilde\sigma z) = \tilde\sigma\max(0, z)$ for
# $\tilde\sigma \ge 0$, so that its two gates act as one before the last layer. With ReLUs it takes a gated term to
# which something is added, another gated term or a bias, to break the rule. A tanh breaks it with a single gate, and
# max pooling with gated units that it only compares.)
#
# ## Exact, second: linear regression with Gaussian noise
#
# Now the prediction is a density:
# $f_\sigma(y \mid x) = \mathcal{N}\big(y;\, w^\top(\tilde\sigma\circ x) + b,\, \tau^2\big)$.
#
# *Proof.* The mean over masks of $\log f_\sigma$ is $-\frac{1}{2\tau^2}\mathbb{E}_\sigma[(y-\mu_\sigma)^2]$ plus a
# constant, with $\mu_\sigma = w^\top(\tilde\sigma\circ x) + b$. Write $\mu$ for the mean of $\mu_\sigma$:
# $\mathbb{E}_\sigma[(y-\mu_\sigma)^2] = (y-\mu)^2 + \mathrm{Var}_\sigma[\mu_\sigma]$. The variance does not depend on
# $y$, and the renormalisation removes it. What remains is $\mathcal{N}(y; \mu, \tau^2)$ with $\mu = w^\top x + b$:
# weight scaling. ∎
#
# The arithmetic mean is a mixture of as many Gaussians as there are masks. It has the same mean but a larger variance,
# $\tau^2 + \mathrm{Var}_\sigma[\mu_\sigma]$. A geometric mean forgets that the masks disagree.

# %%
p, tau = 0.5, 0.5
linear = nn.Sequential(nn.Dropout(p), nn.Linear(10, 1))
nn.init.normal_(linear[1].weight, std=0.5)
one = x[:1]

y = torch.linspace(-12, 12, 4801)
masks, weights = gates.enumerated(gates.stochastic_layers(linear), gates.gate_shapes(linear, one), 0, 2**10)
with gates.fixed(linear, masks), torch.no_grad():
    mu = linear(one.expand(2**10, 10))  # [M, 1]
log_f = Normal(mu, tau).log_prob(y)  # [M, T]


def normalised(density):
    return density / torch.trapezoid(density, y)


arithmetic = weights @ log_f.exp()
geometric = normalised((weights @ log_f).exp())
scaled = Normal(linear.eval()(one).item(), tau).log_prob(y).exp()
plots.densities(y, log_f[torch.randperm(2**10)[:25]].exp(), {"ideal": arithmetic, "geometric": geometric, "standard": scaled})

# %% tags=["nbval-check-output"]
centre, spread = torch.trapezoid(arithmetic * y, y), weights @ (mu[:, 0] - weights @ mu[:, 0]) ** 2
variance = torch.trapezoid(arithmetic * (y - centre) ** 2, y)
print("the geometric mean is the standard density to 1e-10:", largest(geometric, scaled) < 1e-10)
print("arithmetic and standard have the same mean:", abs(centre - linear(one)).item() < 1e-8)
print("the variance of the arithmetic mean is τ² + Var:", abs(variance - tau**2 - spread).item() < 1e-8)

# %% [markdown]
# ## Exact, third: deep networks without nonlinearities
#
# Let every layer be linear and every layer's input be gated, each layer with gates of its own:
# $z_\sigma(x) = W_L\,\tilde\Sigma_L \cdots W_2\,\tilde\Sigma_2\, W_1\,\tilde\Sigma_1\, x$, with the gates on the
# diagonals of the $\tilde\Sigma$.
#
# *Proof.* A logit is a sum over paths from input to output; each path has a product of weights and a product of
# gates, *one from each layer*. Gates of different layers are independent, so the mean of the product is the product
# of the means, which are all one. The mean logits are therefore those of weight scaling, and the argument for softmax
# regression does the rest. Biases are paths that start later. ∎
#
# This proof does need independence. Tie the layers together, so that unit $i$ of each layer shares one gate, and the
# mean of $\tilde\sigma_i\tilde\sigma_i$ is $1/(1-p)$, not 1.

# %%
deep_gap = {}
for p in (0.2, 0.5, 0.8):
    layers = [layer for _ in range(3) for layer in (nn.Dropout(p), nn.Linear(5, 5))]
    deep = nn.Sequential(*layers)  # 15 gates, 32,768 masks
    few = torch.randn(5, 5)
    own_gap = largest(predictors.exact(deep, few, mean="geometric"), predictors.standard(deep, few))

    masks, weights = gates.enumerated(gates.stochastic_layers(deep[:2]), {"0": torch.Size([5])}, 0, 2**5)
    with gates.fixed(deep, dict.fromkeys(("0", "2", "4"), masks["0"])), torch.no_grad():
        tied = weights @ deep(few[:1].expand(2**5, 5))
    tied_gap = largest(tied, deep.eval()(few[0]))
    deep_gap[p] = own_gap, tied_gap

# %% tags=["nbval-check-output"]
for p, (own, tied_gap) in deep_gap.items():
    print(f"rate {p}: three linear layers, exact to 1e-10: {own < 1e-10}; with tied gates: {tied_gap < 1e-10}")

# %% [markdown]
# ## One nonlinearity is enough
#
# The step that every proof used is $\mathbb{E}[\text{linear}(\tilde\sigma)] = \text{linear}(\mathbb{E}[\tilde\sigma])$.
# Put one ReLU between gates and logits. Its input $z = \sum_i w_i\tilde\sigma_i x_i$ has a mean and a variance,
#
# $$\mathrm{Var}_\sigma[z] = \frac{p}{1-p}\sum_i w_i^2 x_i^2,$$
#
# and the ReLU is convex, so by Jensen's inequality its mean is never below the ReLU of the mean: weight scaling makes
# *hidden units too small*. For Gaussian $z$ of mean $\mu$ and standard deviation $s$ the gap is largest at
# $\mu = 0$, where it is $s/\sqrt{2\pi}$, and it vanishes when $|\mu| \gg s$. So whatever makes $s$ larger against
# $\mu$ makes the rule worse. Here is the gap of one unit with twelve inputs. (At high rates one or two inputs are
# left, and their sum is no Gaussian any more.)

# %%
w, inputs = torch.randn(12), torch.randn(1, 12)
w = w - inputs[0] * (inputs[0] @ w - 0.5) / inputs[0].square().sum()  # so that z has the mean 1/2
rates = torch.linspace(0.05, 0.9, 18)
gap, gaussian = [], []
for p in rates.tolist():
    unit = nn.Sequential(nn.Dropout(p), nn.Linear(12, 1, bias=False), nn.ReLU())
    unit[1].weight.data = w[None]
    mean = predictors.exact(unit, inputs, output=lambda z: z).item()  # all 4,096 masks
    gap.append(mean - predictors.standard(unit, inputs, output=lambda z: z).item())
    z_variance = p / (1 - p) * (w * inputs[0]).square().sum()
    gaussian.append(moments.rectified(torch.tensor(0.5), z_variance)[0].item() - 0.5)
gap, gaussian = torch.tensor(gap), torch.tensor(gaussian)
plots.rectified(rates, gap, gaussian)

# %% tags=["nbval-check-output"]
print("the mean of the ReLU is never below the ReLU of the mean:", bool((gap > -1e-12).all()))
print("the gap grows with the rate:", bool((gap.diff() > 0).all()))

# %% [markdown]
# ## What makes it worse: depth, rate, weight scale
#
# Random networks of four units per layer, every layer's input gated, small enough to enumerate: up to 16 gates. With
# ReLUs or without, twelve networks of each kind. For each we measure how far weight scaling is from the two means:
# from the *geometric* one, which it claims to be, and from the *ideal* predictor, which we want.


# %%
def random_network(seed, relu, depth=2, rate=0.5, scale=1.0, units=4):
    """Gates before each linear layer; weights of variance scale² · 2/fan-in in front of a ReLU, else scale²/fan-in."""
    generator = torch.Generator().manual_seed(1000 * SEED + seed)
    layers = []
    for i in range(depth + 1):
        linear = nn.Linear(units, units)
        gain = 2 if relu and i < depth else 1
        linear.weight.data = scale * (gain / units) ** 0.5 * torch.randn(units, units, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [nn.Dropout(rate), linear] + [nn.ReLU()] * (relu and i < depth)
    return nn.Sequential(*layers)


def both_means(model, x):
    """The arithmetic and the geometric mean over all masks, [N, K] each."""
    return predictors.exact(model, x), predictors.exact(model, x, mean="geometric")


inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(SEED))


def distances(model):
    standard = predictors.standard(model, inputs)
    return torch.stack([bregman.kl(mean, standard).mean() for mean in both_means(model, inputs)])


def sweep(name, values):
    """KL from the two means to weight scaling, [networks, values, 2], with and without ReLUs."""

    def rows(relu, seed):
        return torch.stack([distances(random_network(seed, relu, **{name: value})) for value in values])

    kinds = {"ReLU": True, "linear": False}
    return {kind: torch.stack([rows(relu, seed) for seed in range(12)]) for kind, relu in kinds.items()}


settings = {"depth": [0, 1, 2, 3], "rate": [0.1, 0.3, 0.5, 0.7], "scale": [0.5, 1.0, 1.5, 2.0]}
sweeps = {name: sweep(name, values) for name, values in settings.items()}
titles = {"depth": "hidden layers", "rate": "rate p", "scale": "weight scale"}
plots.growth({titles[name]: (settings[name], sweeps[name]) for name in settings})

# %% tags=["nbval-check-output"]
geometric = {name: values["ReLU"][..., 1].mean(0) for name, values in sweeps.items()}  # mean over the networks
for name, values in sweeps.items():
    rises = bool((geometric[name][:3].diff() > 0).all())
    ends = f"{settings[name][0]} to {settings[name][2]}"
    print(f"{name}: from the geometric mean, with ReLUs it grows from {ends}: {rises}", end="; ")
    print(f"without them it is zero to 1e-10: {bool((values['linear'][..., 1].abs() < 1e-10).all())}")
print("without hidden layers it is zero in both:", bool(geometric["depth"][0].abs() < 1e-10))

# %% [markdown]
# (The bars are one standard error over the networks.) The pink lines tell of the hidden layers alone: dashed they lie
# on zero, which is the third proof; solid they rise with rate and scale, and with depth as far as two hidden layers.
# The black lines (distance from the ideal) have in them what the softmax does, which no linear network escapes either:
# in all three panels the dashed one is even the higher of the two. From two hidden layers to three both solid lines
# change by about one standard error only: with twelve networks neither the fall of the black one nor the rise of the
# pink one is certain.
#
# ## Move the rate and the scale
#
# One input, two classes, two hidden layers of five units that are dropped; grey, some of the 1,024 gated networks;
# black, their mean, the ideal; pink, their geometric mean; orange, weight scaling. On the left, where the layers are
# linear, orange covers pink whatever you do. On the right it does so at small rates and small weights only.

# %%
line = torch.linspace(-3, 3, 81)


def one_input(kind, rate, scale):
    """Probability of class 1 along the line under a few masks, and by three predictors."""
    generator = torch.Generator().manual_seed(75)  # picked among a hundred, for a curve that is not flat
    activation = {"linear": nn.Identity, "ReLU": nn.ReLU}[kind]
    model = nn.Sequential(
        nn.Linear(1, 5), activation(), nn.Dropout(rate),
        nn.Linear(5, 5), activation(), nn.Dropout(rate), nn.Linear(5, 2),
    )
    for parameter in model.parameters():
        fan_in = parameter.shape[-1] if parameter.ndim == 2 else 5
        parameter.data = scale * (2 / fan_in) ** 0.5 * torch.randn(parameter.shape, generator=generator)
    x = line[:, None]
    masks, _ = gates.enumerated(gates.stochastic_layers(model), gates.gate_shapes(model, x), 0, 1024)
    members = []
    for i in torch.randperm(1024, generator=generator)[:40].tolist():
        with gates.fixed(model, {name: mask[i] for name, mask in masks.items()}), torch.no_grad():
            members.append(model(x).softmax(-1)[:, 1])
    means = {"ideal": predictors.exact(model, x), "geometric": predictors.exact(model, x, mean="geometric")}
    curves = {name: q[:, 1] for name, q in {**means, "standard": predictors.standard(model, x)}.items()}
    return torch.stack(members), curves


def show(rate, scale):
    networks = {kind: one_input(kind, rate, scale) for kind in ("linear", "ReLU")}
    return plots.slices(line, networks, f"rate {rate:.1f}, scale {scale:.2f}")


widgets.sliders_figure(
    show,
    {
        "rate p": ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 0.5),
        "weight scale": ([0.25, 0.5, 0.75, 1.0, 1.5, 2.0], 1.0),
    },
)

# %% [markdown]
# The same figure for rate 1/2 and scale 1, for readers of a still page.

# %%
show(0.5, 1.0)

# %% [markdown]
# ## Exercises
#
# **1. The rule of 2012.** Let masks $d$ *not* rescale: $f_d(v) = \mathrm{softmax}(W(d\circ v) + b)$, as in the book's
# equation 7.57, with each $d_i = 0$ with probability $p$. Write the renormalised geometric mean over all masks in one
# pass, for weights [K, n], biases [K] and inputs [N, n].

# %%
def my_scaled(w, b, v, p):
    """The geometric mean over all masks of softmax regression, [N, K]."""
    ### BEGIN SOLUTION
    return ((1 - p) * v @ w.T + b).softmax(-1)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.scaled(my_scaled)

# %% [markdown]
# **2. The geometric mean itself.** From predictions $f$ [M, N, K] under $M$ masks and the masks' probabilities [M],
# compute the renormalised geometric mean [N, K]. It must work for a thousand masks, too, and for probabilities as small as
# $10^{-200}$, whose plain product underflows to zero.

# %%
def my_geometric_mean(f, weights):
    """exp(Σ P(σ) log f_σ), divided by its sum over the classes, [N, K]."""
    ### BEGIN SOLUTION
    return torch.tensordot(weights, f.log(), 1).softmax(-1)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.geometric_mean(my_geometric_mean)

# %% [markdown]
# **3. What the geometric mean forgets.** For linear regression with weights $w$ [n], inputs $x$ [N, n], inverted
# dropout of rate $p$ and noise of standard deviation $\tau$, write the variance of $y$ under the *arithmetic* mean of
# all gated densities, [N].

# %%
def my_ensemble_variance(w, x, p, tau):
    """Variance of the mixture of all gated Gaussians, [N]."""
    ### BEGIN SOLUTION
    return tau**2 + p / (1 - p) * (x**2 @ w**2)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.ensemble_variance(my_ensemble_variance)

# %% [markdown]
# ## What we saw, and what the paper says

# %%
paper = json.loads((home / "data" / "paper.json").read_text("utf-8"))
published = paper["table 1 left"]
relu = {name: values["ReLU"].mean(0) for name, values in sweeps.items()}
worst = max(*geometric_gap.values(), *(own for own, _ in deep_gap.values()), 1e-16)
digits = math.floor(-math.log10(worst))
depths = ", ".join(f"{value:.3f}" for value in relu["depth"][:, 1].abs().tolist())
errors = "; ".join(
    f"{name} {row['standard']:.2f} % and {row['Monte Carlo'][0]:.2f} %"
    for name, row in published.items() if name in ("MNIST LeNet", "MNIST LeNetAll", "CIFAR10 Quick")
)
display(Markdown(f"""
*Here*: in the exact cases weight scaling and the geometric mean of all masks agree to {digits} digits.
With ReLUs and 0, 1, 2 and 3 hidden layers their distance is {depths} nats on average; from the ideal predictor
weight scaling is {relu["depth"][0, 0]:.3f} nats away even without a hidden layer.

*The paper* ({paper["source"]}), test error of standard dropout and of averaging 100 masks: {errors}.
In its section 3.1 it calls weight scaling only weakly motivated, since mean and activation cannot be exchanged in general.
"""))

# %% [markdown]
# The numbers do not contradict each other. LeNet drops units before its last layer only: weight scaling *is* the
# geometric mean there, and the two errors are equal (though the average of masks is another mean). LeNetAll and Quick
# have gates in front of nonlinearities and pooling. For LeNetAll the errors differ by two digits of 10,000, which is
# noise, for Quick by 1.4 points. A distance in nats need not show in the error, which counts only which class comes
# first. Nor are our distances those of trained networks: the networks here have random weights, while training with
# dropout asks every mask for the same labels. The book adds a warning: no theory says how accurate the rule is in deep
# networks, yet it often works well.
#
# **In one sentence:** weight scaling is the geometric mean over all masks as long as what lies between gates and
# softmax is linear and no two layers share gates; it is the ideal predictor not even then, and nonlinearities behind the
# gates in general take it away from the geometric mean as well.
