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
# # Dropout: what is dropped, how, and why it helps
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dropout-distillation/dropout-distillation/blob/v0.1.0/notebooks/01_dropout.ipynb)
#
# *After this page you will be able to* write dropout and Algorithm 1 yourself, say what a gate may drop and what it
# does to the gradient, and show by an experiment that noise alone is not what makes dropout work. *It runs* about one
# minute on a laptop's processor. *You need* to know gradient descent; no network connection is needed.

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
from itertools import product

import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from torch import nn

from helpers import datasets, gates, predictors, training, widgets
from helpers.checks import dropout as checks
from helpers.plots import dropout as plots

# %% [markdown]
# ## What a gate can drop
#
# A *gate* $\sigma$ is a coin: with probability $p$, the *rate*, it drops a part of a layer, and with
# probability $1-p$ it keeps it. The paper (section 2) has two places for it. *Dropout* gates the units $z$ that
# enter a layer with weights $\Theta$, *DropConnect* gates the weights:
#
# $$h(z) = a\big(\Theta\,(\sigma \circ z)\big), \qquad h(z) = a\big((\Sigma \circ \Theta)\,z\big),$$
#
# where $\circ$ multiplies entry by entry and $a$ is the activation function. Two more are in use. In images,
# neighbouring pixels of a channel say nearly the same, so that to drop one of them hides little; `nn.Dropout2d` drops
# whole *channels*. And a gate need not be a coin: Srivastava et al. (2014) multiply by a *Gaussian* number of
# mean 1.
#
# Here is one draw of each, for $p = 0.5$. What is shown is the factor by which something is multiplied; what is kept is also
# divided by $1-p$, for a reason that the next section gives.

# %%
p = 0.5
torch.manual_seed(0)

units = F.dropout(torch.ones(16, 16), p)
channels = F.dropout2d(torch.ones(1, 16, 4, 4), p)[0].flatten(1)
connections = F.dropout(torch.ones(16, 16), p)
gaussian = 1 + (p / (1 - p)) ** 0.5 * torch.randn(16, 16)

plots.kinds(
    {"units": units, "channels": channels, "connections": connections, "Gaussian": gaussian},
    {
        "units": ("unit", "example"),
        "channels": ("pixel", "channel"),
        "connections": ("from unit", "to unit"),
        "Gaussian": ("unit", "example"),
    },
)

# %% [markdown]
# The first and the third picture follow the same law and mean different things. The first is a row for each of
# 16 examples; the third is a whole weight matrix, and *one* example needs all of it. That makes DropConnect
# expensive: 128 examples in a layer of 1000 × 1000 weights need 128 million gates, half a gigabyte if they are
# kept as numbers. `gates.DropConnect` draws them a few millions at a time, and in the backward pass draws the
# same ones again.
#
# All four multiply by a number of mean 1, and of variance $p/(1-p)$. For one coin that is two lines of
# arithmetic: $\mathbb{E}[\sigma] = 1-p$ and $\mathrm{Var}[\sigma] = p(1-p)$, and $\sigma$ is divided by $1-p$.
# So a Gaussian gate $\mathcal{N}(1, p/(1-p))$ has the first two moments of a coin with rate $p$.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
p, n = 0.25, 100_000
draws = {
    "units": F.dropout(torch.ones(n), p),
    "channels": F.dropout2d(torch.ones(n, 1, 2, 2), p)[:, 0, 0, 0],
    "connections": gates.DropConnect(1, 1, p, bias=False).train().requires_grad_(False),
    "Gaussian": 1 + (p / (1 - p)) ** 0.5 * torch.randn(n),
}
layer = draws["connections"]
draws["connections"] = (layer(torch.ones(n, 1)) / layer.weight)[:, 0]
for kind, factor in draws.items():
    mean_is_one = abs(factor.mean().item() - 1) < 0.02
    variance_fits = abs(factor.var().item() - p / (1 - p)) < 0.02
    print(f"{kind:>12}: mean 1: {mean_is_one}, variance p / (1 - p): {variance_fits}")

# %% [markdown]
# ## Why gates are inverted
#
# The first papers multiplied by $\sigma$ in training and by $1-p$ at test time. Today everybody uses *inverted*
# dropout: in training the kept part is divided by $1-p$, and at test time nothing happens. Mask by mask the
# two are the same network with its weights in other units. The inverted form has two merits: the network that
# is used has no dropout code left in it, and changing $p$, or switching dropout off, leaves the scale of what
# the next layer sees as it is.
#
# In training mode `nn.Dropout` multiplies by the mask and by $1/(1-p)$; in eval mode it does nothing. Its backward pass
# multiplies the gradient by the *same* mask and the same factor, as the gradient with respect to the input shows: where
# a unit was dropped it is zero, and nothing is learned through that unit from this example.

# %%
torch.manual_seed(0)
dropout = nn.Dropout(p=0.75)
x = torch.full((3, 5), 1.0, requires_grad=True)
y = dropout(x)
(2 * y).sum().backward()
print("forward\n", y.detach(), "\nbackward: the derivative of 2 y with respect to x\n", x.grad)

# %% tags=["nbval-check-output"]
print("every value is 0 or 1 / (1 - p) = 4:", bool(((y == 0) | (y == 4)).all()))
print("the gradient is 2 / (1 - p) times the mask:", torch.equal(x.grad, 2 * y))
print("in eval mode nothing happens:", dropout.eval()(x) is x)

# %% [markdown]
# **Exercise 1. Inverted dropout.** Write it for x [N, D]. `torch.rand_like(x)` draws a number between 0 and 1
# for each entry.

# %%
def my_dropout(x, p):
    """x with each entry dropped with probability p, and scaled so that its mean stays: [N, D]."""
    ### BEGIN SOLUTION
    kept = torch.rand_like(x) >= p
    return x * kept / (1 - p)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.dropout(my_dropout)

# %% [markdown]
# ## Algorithm 1, step by step
#
# Dropout training wants the expected loss over examples *and* masks to be low,
# $\mathbb{E}_{x,y,\sigma}\,\ell(y, f_{\Theta,\sigma}(x))$ (equation 1), and lowers its mean over the training set
# (equation 2) by stochastic gradient descent: each step draws a few examples, and for each of them a mask. These are all
# its lines, for 1,297 digits of 8 × 8 pixels and one hidden layer with dropout.

# %%
digits = datasets.load("digits")
x_train, y_train = digits.inputs(digits.train.images).flatten(1), digits.train.labels
x_test, y_test = digits.inputs(digits.test.images).flatten(1), digits.test.labels


def network(p, hidden=128):
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(p), nn.Linear(hidden, 10))


torch.manual_seed(0)
model = network(p=0.5).train()  # in training mode nn.Dropout draws gates
theta, B = list(model.parameters()), 64
for t in range(800):
    pi = torch.randint(len(x_train), (B,))  # sample B examples
    prediction = model(x_train[pi])  # sample σ¹ … σᴮ: it happens in here, a row of gates for each example
    eta = 0.5 / (1 + t / 200)  # update the learning rate
    loss = F.cross_entropy(prediction, y_train[pi])  # the mean over j of ℓ(y_j, f_{Θ,σʲ}(x_j))
    with torch.no_grad():
        for parameter, gradient in zip(theta, torch.autograd.grad(loss, theta), strict=True):
            parameter -= eta * gradient

# %% [markdown]
# `training.train` is the same loop with momentum, a schedule, checks of what it is given, and a progress bar.

# %%
torch.manual_seed(0)
trained = training.train(network(p=0.5), x_train, y_train, epochs=30, lr=0.05, weight_decay=0.0)


def error(model, x, y):
    """Share of wrong predictions of the deterministic pass, in %."""
    return 100 * (predictors.standard(model, x).argmax(-1) != y).double().mean().item()


errors = {"a dozen lines": error(model, x_test, y_test), "training.train": error(trained, x_test, y_test)}
pd.DataFrame({"test error [%]": errors}).round(1)

# %% [markdown]
# ## One mask for each example, or one for the mini-batch
#
# The paper's second footnote says that the examples of a mini-batch may share one mask, which saves time. What
# does it cost? The expected gradient is the same, its variance is not. With masks of their own the noise of B
# examples averages out and the variance falls as 1/B. With a shared mask all examples of the mini-batch are
# wrong in the same direction, and past some point more examples do not help.
#
# Below, a network after three epochs of training is given the same 256 examples in mini-batches of B, and only
# the masks are drawn again and again. `gates.fixed` sets the gates to what we say; a mask [units] is shared, a
# mask [N, units] is not.

# %%
def mask_variance(model, x, y, draw_mask, draws=20):
    """Variance over masks of the gradient of the mean loss, summed over all weights."""
    gradients = []
    for _ in range(draws):
        with gates.fixed(model, {"2": draw_mask(len(x))}):
            loss = F.cross_entropy(model(x), y)
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        gradients.append(torch.cat([part.flatten() for part in gradient]))
    return torch.stack(gradients).var(0).sum().item()


kinds = {
    "one mask for each example": lambda n: (torch.rand(n, 128) >= 0.5).float(),
    "one mask for the mini-batch": lambda n: (torch.rand(128) >= 0.5).float(),
}
torch.manual_seed(0)
young = training.train(network(p=0.5), x_train, y_train, epochs=3, lr=0.05, weight_decay=0.0)
sizes, pool = [4, 16, 64, 256], torch.randperm(len(x_train))[:256]
variances = {kind: [] for kind in kinds}
for kind, draw in kinds.items():
    for size in sizes:
        values = [mask_variance(young, x_train[rows], y_train[rows], draw) for rows in pool.split(size)]
        variances[kind].append(sum(values) / len(values))
plots.gradient_noise(sizes, variances)

# %% tags=["nbval-check-output"]
own, shared = variances.values()
print("own masks: 64 times as many examples lower the variance more than 45 times:", own[0] / own[-1] > 45)
print("a shared mask: less than 20 times:", shared[0] / shared[-1] < 20)

# %%
late = [mask_variance(trained, x_train[pool], y_train[pool], draw, draws=100) for draw in kinds.values()]
display(
    Markdown(f"""
At {sizes[-1]} examples a shared mask leaves {shared[-1] / own[-1]:.0f} times the variance that masks of their
own leave. The factor depends on how alike the gradients of different examples are: early in training many
want the same change; in the network that was trained to the end the factor is {late[1] / late[0]:.0f}.
""")
)

# %% [markdown]
# **Exercise 2. A shared mask.** Change your dropout so that all N examples of the mini-batch meet the same
# mask.

# %%
def my_shared_dropout(x, p):
    """x with the same columns dropped in every row, and scaled so that its mean stays: [N, D]."""
    ### BEGIN SOLUTION
    kept = torch.rand(x.shape[1]) >= p
    return x * kept / (1 - p)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.shared_dropout(my_shared_dropout)

# %% [markdown]
# ## In linear regression dropout is a penalty
#
# Drop the inputs of a linear regression $y \approx Xw$, with $X$ [N, D]. Each $\sigma_j/(1-p)$ has mean 1 and variance
# $p/(1-p)$, and the gates are independent. So the prediction $\sum_j \frac{\sigma_j}{1-p} x_{nj} w_j$ for example $n$ has the
# mean $\sum_j x_{nj} w_j$ and the variance $\frac{p}{1-p}\sum_j x_{nj}^2 w_j^2$. The mean of a squared error is the squared
# error of the mean plus the variance; summed over the examples:
#
# $$\mathbb{E}_\sigma\left\|y - \frac{1}{1-p}(\sigma\circ X)\,w\right\|^2 = \left\|y - Xw\right\|^2
#   + \frac{p}{1-p}\sum_j \left(\sum_n x_{nj}^2\right) w_j^2 .$$
#
# This is ridge regression, but with a coefficient for each feature: the sum of its squares ($N$ times its variance, if
# the feature has mean zero), times the odds $p/(1-p)$. First we test the identity by enumeration. Both sides are sums
# over examples, each of which draws a mask of its own, so it is enough to go once through the $2^4$ masks.

# %%
torch.manual_seed(0)
scales = torch.tensor([0.25, 0.5, 1.0, 2.0], dtype=torch.float64)
X = torch.randn(200, 4, dtype=torch.float64) * scales
y = X @ (1 / scales) + torch.randn(200, dtype=torch.float64)  # each feature contributes as much as the others


def expected_loss(w, p):
    """Left-hand side: the mean over all 2⁴ masks, which each example draws for itself."""
    total = 0.0
    for mask in product([0.0, 1.0], repeat=4):
        sigma = torch.tensor(mask, dtype=torch.float64)
        probability = ((1 - p) * sigma + p * (1 - sigma)).prod()
        total += probability * (y - X * sigma / (1 - p) @ w).square().sum()
    return total


def penalised_loss(w, p):
    """Right-hand side."""
    return (y - X @ w).square().sum() + p / (1 - p) * (X.square().sum(0) * w.square()).sum()


# %% tags=["nbval-check-output"]
for p in (0.1, 0.5, 0.9):
    w = torch.randn(4, dtype=torch.float64)
    agree = torch.allclose(expected_loss(w, p), penalised_loss(w, p), rtol=1e-12)
    print(f"p = {p}: both sides agree: {agree}")

# %% [markdown]
# **Exercise 3. The closed form.** Set the gradient of the right-hand side to zero and solve for $w$.
# `torch.linalg.solve(A, b)` solves $Aw = b$.

# %%
def my_dropout_regression(X, y, p):
    """The weights [D] that minimise the squared error under dropout of the inputs at rate p."""
    ### BEGIN SOLUTION
    gram = X.T @ X
    penalty = p / (1 - p) * torch.diag(gram.diagonal())
    return torch.linalg.solve(gram + penalty, X.T @ y)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.regression(my_dropout_regression)

# %% [markdown]
# Training with sampled masks gets there without knowing any of this. And the weighting matters. If the features are
# orthogonal ($X^\top X$ diagonal, as for features of mean zero that are not correlated), each weight shrinks to the *same
# share* $1-p$ of its least-squares value, whatever the units in which its feature is measured. Ordinary L2, with one
# coefficient for all (here the mean of the four), shrinks the weights of large features less and crushes those of small
# ones.

# %%
def sampled_regression(X, y, p, steps=2000):
    """Gradient descent, a fresh mask for each example and step; the mean of the last half of the steps."""
    w, mean, eta = torch.zeros(X.shape[1], dtype=X.dtype), 0.0, 0.2 * (1 - p)
    for t in range(steps):
        Z = X * (torch.rand_like(X) >= p) / (1 - p)
        w = w - eta * Z.T @ (Z @ w - y) / len(X)
        if t >= steps // 2:
            mean = mean + w / (steps - steps // 2)
    return mean


def ordinary_ridge(X, y, p):
    coefficient = p / (1 - p) * X.square().sum(0).mean()
    return torch.linalg.solve(X.T @ X + coefficient * torch.eye(4, dtype=X.dtype), X.T @ y)


dropout_regression = checks.enumerated_regression  # least squares over all masks, so that the page needs no answer
rates = list(range(0, 100, 10))
ways = {"dropout": dropout_regression, "sampled": sampled_regression, "ordinary L2": ordinary_ridge}
paths = {name: torch.stack([solve(X, y, rate / 100) for rate in rates]) for name, solve in ways.items()}


def look_at(percent):
    return plots.shrinkage(percent, rates, paths, scales.tolist())


widgets.slider_figure(look_at, steps=rates, value=50, label="rate p [%]")

# %% [markdown]
# The same figure for a rate of one half, for readers of a still page.

# %%
look_at(50)

# %% tags=["nbval-check-output"]
uneven = paths["ordinary L2"][5] / paths["ordinary L2"][0]
distance = (paths["sampled"] - paths["dropout"]).abs() / paths["dropout"][0]
print("sampled training is within 5 % of least squares from the closed form:", bool((distance < 0.05).all()))
Q = torch.linalg.qr(X).Q * scales  # features that are exactly orthogonal
even = dropout_regression(Q, y, 0.3) / dropout_regression(Q, y, 0.0)
print("with orthogonal features each weight keeps a share 1 - p:", torch.allclose(even, torch.full_like(even, 0.7)))
print("ordinary L2 shrinks the smallest feature most:", int(uneven.argmin()) == 0)

# %% [markdown]
# ## The noise alone is not the point: dropout boosting
#
# For deep networks dropout is no simple penalty. Is it then the noise that regularises? Warde-Farley et al.
# (2014) devised a control: *dropout boosting* draws exactly the same masks, and passes the gradient back
# through the same gated network, but each step raises the likelihood that the *ensemble* gives to the label,
# not that of its gated member.
#
# With softmax outputs the two differ in one place. Let $z_\sigma(x)$ be the logits of a gated network, $e_y$ the
# one-hot label. Dropout's gradient is $\sum_k (f_\sigma - e_y)_k\,\nabla z_{\sigma,k}$ with the probabilities
# $f_\sigma = \mathrm{softmax}(z_\sigma)$: what *this member* gets wrong, passed back. The *ensemble* is all gated
# networks together. Take for its prediction the geometric mean over the masks, divided by what makes the probabilities
# sum to one (notebook 02 compares it with the ordinary mean). The logarithm of a softmax is its logits less a number
# that is the same for all classes, so that this mean has the logits $\mathbb{E}_\sigma z_\sigma$. With their softmax
# $\tilde f$, the gradient of the ensemble's loss is
#
# $$\mathbb{E}_\sigma\left[\sum_k (\tilde f - e_y)_k\,\nabla z_{\sigma,k}\right],$$
#
# what *everybody together* gets wrong, passed back through one random member at a time. With a single hidden
# layer the mean of the logits is the deterministic pass, so that nothing below is approximated.

# %%
def step_loss(model, x, one_hot, way):
    """A function whose gradient is that of dropout, or of dropout boosting, for the masks drawn now."""
    z = model(x)  # through random gates, in both ways
    logits = z
    if way == "boosting":
        with gates.deterministic(model):
            logits = model(x)  # of the ensemble: the mean of z over masks
    wrong = logits.softmax(-1).detach() - one_hot
    return (wrong * z).sum(-1).mean()


# %% [markdown]
# A check by enumeration, in a network with six gates: boosting's gradient, averaged over all $2^6$ masks, is
# the gradient of the plain network without dropout, and dropout's is not. In expectation boosting *is* plain
# training.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
small = nn.Sequential(nn.Linear(64, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 10)).double()
x_few, y_few = x_train[:20].double(), F.one_hot(y_train[:20], 10).double()
weights = list(small.parameters())


def mean_gradient(way):
    total = [torch.zeros_like(w) for w in weights]
    for mask in product([0.0, 1.0], repeat=6):
        with gates.fixed(small, {"2": torch.tensor(mask)}):
            z = small(x_few)
        with gates.deterministic(small):
            ensemble = small(x_few)
        wrong = (z if way == "dropout" else ensemble).softmax(-1).detach() - y_few
        gradient = torch.autograd.grad((wrong * z).sum(-1).mean(), weights)
        total = [a + g / 2**6 for a, g in zip(total, gradient, strict=True)]
    return torch.cat([g.flatten() for g in total])


small.eval()
plain = torch.autograd.grad(-(y_few * small(x_few).log_softmax(-1)).sum(-1).mean(), weights)
plain = torch.cat([g.flatten() for g in plain])
for way in ("boosting", "dropout"):
    print(f"the mean gradient of {way} is that of plain training:", torch.allclose(mean_gradient(way), plain))

# %% [markdown]
# Now the experiment. To make overfitting visible we train on 300 digits, of which about 27 % carry a wrong
# label, four times over with other digits, labels and initial weights each time, and judge on 500 clean test
# digits.

# %%
def fit(way, seed, steps=600):
    """Test loss [nats] and test error [%] after training on 300 digits with noisy labels."""
    torch.manual_seed(seed)
    rows = torch.randperm(len(x_train))[:300]
    labels = torch.where(torch.rand(300) < 0.3, torch.randint(10, (300,)), y_train[rows])
    x, one_hot = x_train[rows], F.one_hot(labels, 10).float()
    model = network(0.0 if way == "no dropout" else 0.5).train()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        pi = torch.randint(300, (64,))
        sgd.zero_grad()
        step_loss(model, x[pi], one_hot[pi], way).backward()
        sgd.step()
    return F.cross_entropy(model.eval()(x_test), y_test).item(), error(model, x_test, y_test)


ways = ("no dropout", "dropout", "boosting")
results = torch.tensor([[fit(way, seed) for seed in range(4)] for way in ways]).double()  # [ways, seeds, 2]
losses = {way: row[:, 0].tolist() for way, row in zip(ways, results, strict=True)}
plots.paired(losses, "test loss [nats]")

# %% tags=["nbval-check-output"]
mean_loss = {way: sum(values) / len(values) for way, values in losses.items()}
print("dropout has a lower test loss than no dropout:", mean_loss["dropout"] < mean_loss["no dropout"])
print("dropout has a lower test loss than boosting:", mean_loss["dropout"] < mean_loss["boosting"])
gain = {way: mean_loss["no dropout"] - mean_loss[way] for way in ways}
print("boosting has less than half of dropout's gain:", gain["boosting"] < gain["dropout"] / 2)

# %%
table = pd.DataFrame(results.mean(1).numpy(), index=ways, columns=["test loss [nats]", "test error [%]"])
table.round(2)

# %% [markdown]
# Same masks, same noise, and the benefit is gone. What regularises is that *each member has to be right on its
# own*, whoever else is there. (Noise may even hurt: boosting's steps are noisier than plain training's, and
# lead to the same place at best.)
#
# ## What it does to features
#
# A unit that must be of use in any company cannot rely on others to correct it. The classic picture is of an
# autoencoder with 256 rectified linear units, trained on digits to return its input, with and without dropout.
# We draw what a unit adds to the output when it is active, for the 64 units that add most: blue is ink that it adds, red
# is ink that it takes away.

# %%
mnist = datasets.load("mnist-small")
strokes, unseen = (mnist.inputs(part.images).flatten(1) for part in (mnist.train, mnist.test))


def autoencoder(p, epochs=12):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Dropout(p), nn.Linear(256, 784))
    adam = torch.optim.Adam(model.parameters(), lr=0.002)
    for _ in range(epochs):
        for rows in torch.randperm(len(strokes)).split(64):
            adam.zero_grad()
            (model(strokes[rows]) - strokes[rows]).square().sum(1).mean().backward()
            adam.step()
    return model.eval()


autoencoders = {"without dropout": autoencoder(0.0), "dropout, p = 0.5": autoencoder(0.5)}
with torch.no_grad():  # the column of each unit's outgoing weights, times how much the unit moves
    drawn = {name: (model[3].weight * model[:2](unseen).std(0)).T for name, model in autoencoders.items()}
plots.features({name: units.reshape(256, 28, 28) for name, units in drawn.items()})

# %% [markdown]
# Without dropout most units look like noise: only their sum means something. They are *co-adapted*. With
# dropout they are pieces of pen strokes and of digits. To put a number on it, drop a share of the units at test
# time (the others are scaled up, as in training) and look at what is left of the reconstruction of unseen digits.

# %%
def broken(model, share):
    """Mean squared error per unseen image when a share of the hidden units is dropped."""
    torch.manual_seed(0)
    with torch.no_grad():
        h = F.dropout(model[:2](unseen), share)
        return (model[3](h) - unseen).square().sum(1).mean().item()


shares = [0, 10, 20, 30, 40, 50, 60]
damage = {name: [broken(model, share / 100) for share in shares] for name, model in autoencoders.items()}
plots.robustness(shares, damage)

# %% tags=["nbval-check-output"]
without, with_dropout = damage.values()
print("with all units, the autoencoder without dropout is better:", without[0] < with_dropout[0])
print("with half of them, the one with dropout is better:", with_dropout[5] < without[5])
print("and without dropout the error has grown more than tenfold:", without[5] > 10 * without[0])

# %% [markdown]
# The figure also shows the price: with all units present, dropout reconstructs *worse*. It buys robustness,
# which helps where there is something to overfit.
#
# ## What we saw, and what the papers say

# %%
fall, wrong = table["test loss [nats]"], table["test error [%]"]
display(
    Markdown(f"""
*Here.* Early in training a shared mask leaves {shared[-1] / own[-1]:.0f} times the gradient variance of masks
of their own, at {sizes[-1]} examples. Sampled dropout regression agrees with its closed form to
{100 * distance.max():.1f} % of a weight. On 300 digits with noisy labels dropout brings the test loss from
{fall["no dropout"]:.2f} to {fall["dropout"]:.2f} nats (error {wrong["no dropout"]:.2f} to {wrong["dropout"]:.2f} %),
while boosting with the same masks takes it to {fall["boosting"]:.2f} nats ({wrong["boosting"]:.2f} %). With half of
its units gone, the autoencoder's error grows {without[5] / without[0]:.0f}-fold without dropout and
{with_dropout[5] / with_dropout[0]:.1f}-fold with it.

*The papers.* Rota Bulò et al. (2016, footnote 2) allow a shared mask for its speed and give no numbers for its
price. The book (Goodfellow et al. 2016, section 7.12) reports that dropout boosting shows almost no
regularisation compared with training the whole network as one model. Srivastava et al. (2014, figure 7) show the
features.
""")
)

# %% [markdown]
# The book calls the penalty's weight the *variance* of a feature; it is its second moment, which is the same
# for features with mean zero. Our boosting experiment has one hidden layer, where the ensemble's geometric mean
# is exact; with dropout in several layers it can only be approximated. The features of the original figure come
# from 60,000 digits, and are cleaner than ours.
#
# **In one sentence:** a gate multiplies by a random number of mean one, Algorithm 1 draws one mask for each
# example, and what helps is not the noise but that every member of the ensemble has to be right by itself.
