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
# # Inference: what to do about the gates at test time
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/dropout-distillation/dropout-distillation/blob/v0.1.0/notebooks/02_inference.ipynb)
#
# *After this page you will be able to* compute the ideal predictor of a small dropout network exactly, say what
# weight scaling, Monte Carlo, the geometric mean and fast dropout make of it, at what price, and why the place of
# dropout before or after max pooling matters. *It runs* about one minute on a laptop's processor. *It needs* the
# tour (notebook 00), and no network connection.

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
import time

import torch
from IPython.display import Markdown, display
from torch import nn

from helpers import bregman, datasets, evaluation, gates, moments, predictors, training, widgets
from helpers.checks import inference as checks
from helpers.plots import inference as plots

# %% [markdown]
# ## An ensemble small enough to be counted
#
# With the weights trained, a prediction still depends on the gates $\sigma$. The *ideal predictor* is the mean of
# the probabilities over all of them, the paper's equation 3, in which $P(\sigma)$ is the probability of a mask:
#
# $$f_{\text{dropout}}(x) = \mathbb{E}_\sigma\big[f_{\Theta,\sigma}(x)\big]
#   = \sum_{\sigma} P(\sigma)\, f_{\Theta,\sigma}(x), \qquad
#   P(\sigma) = \prod_i p^{1-\sigma_i} (1-p)^{\sigma_i}.$$
#
# With $n$ gates the sum has $2^n$ terms. For once we take a network so narrow that they can all be written down:
# digits of 8 × 8 pixels, two hidden layers of 9 and 7 units, and a gate on each of those.

# %%
digits = datasets.load("digits")
x_train, y_train = digits.inputs(digits.train.images).flatten(1), digits.train.labels
x_test, y_test = digits.inputs(digits.test.images[:60]).flatten(1), digits.test.labels[:60]

SEED = 0
torch.manual_seed(SEED)
narrow = nn.Sequential(
    nn.Linear(64, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 7), nn.ReLU(), nn.Dropout(0.5), nn.Linear(7, 10)
)
narrow = training.train(narrow, x_train, y_train, epochs=30, lr=0.05, seed=SEED)

# %% [markdown]
# `predictors.exact` goes through all masks. For one digit it is no more than this: every mask once, a pass with
# each, a weighted sum.

# %%
def all_masks(model, x):
    """What each of the M gated networks predicts for one input [1, ...]: logits [M, K]; and P(σ), [M]."""
    layers, shapes = gates.stochastic_layers(model), gates.gate_shapes(model, x)
    n = sum(shape.numel() for shape in shapes.values())
    masks, weights = gates.enumerated(layers, shapes, 0, 2**n)
    with gates.fixed(model, masks), torch.no_grad():
        return model(x.expand(2**n, *x.shape[1:])), weights


ideal = predictors.exact(narrow, x_test)  # [N, K]
scaled = predictors.standard(narrow, x_test)
hard = int(bregman.kl(ideal, scaled).argmax())  # the digit on which weight scaling is furthest from it

logits, weights = all_masks(narrow, x_test[hard : hard + 1])
f = logits.softmax(-1).double()  # f_{Θ,σ}(x) for every σ, [M, K]
by_hand = weights @ f  # equation 3

# %% tags=["nbval-check-output"]
print(f"{len(weights):,} masks = 2^{len(weights).bit_length() - 1}")
print("their probabilities sum to 1:", bool(torch.isclose(weights.sum(), torch.tensor(1.0).double())))
print("the sum over masks is predictors.exact:", torch.allclose(by_hand.float(), ideal[hard], atol=1e-5))

# %% [markdown]
# ## Four ways around the sum
#
# **Standard dropout** (weight scaling) exchanges mean and network: one pass with every gate at its mean. Here and in
# PyTorch dropout is *inverted*: in training what is kept is divided by $1-p$, so that a unit is multiplied by
# $\sigma/(1-p)$, which has mean one, and at test time no weight is left to scale.
#
# **Monte Carlo** averages $m$ random masks instead of all of them, the paper's equation 4:
# $\hat f(x) = \frac1m \sum_{i=1}^m f_{\Theta,\sigma^i}(x)$.
#
# **The geometric mean** changes the question. The *Deep Learning* book (equations 7.54 and 7.55) multiplies the
# members instead of adding them, and divides by what makes the sum over classes one:
#
# $$\tilde f(x) = \frac1Z \prod_\sigma f_{\Theta,\sigma}(x)^{P(\sigma)}
#   = \mathrm{softmax}\big(\mathbb{E}_\sigma[\log f_{\Theta,\sigma}(x)]\big).$$
#
# **Fast dropout** (Wang and Manning, 2013) keeps the question and answers it in one pass that carries, for every
# unit, a mean $\mu$ and a variance $v$ over the masks. What enters a unit is a sum of many gated terms, hence nearly
# Gaussian, and a Gaussian goes through each layer in closed form:
#
# | layer | mean | variance |
# |---|---|---|
# | dropout, rate $p$ | $\mu$ | $(v + p\,\mu^2)/(1-p)$ |
# | linear, weights $w$ | $w\mu + b$ | $\sum_i w_i^2 v_i$ |
# | ReLU, $u = \mu/\sqrt v$ | $\mu\,\Phi(u) + \sqrt v\,\phi(u)$ | $(\mu^2 + v)\,\Phi(u) + \mu\sqrt v\,\phi(u) - \text{mean}^2$ |
#
# Here $\Phi$ and $\phi$ are the normal distribution and its density. Three things are approximate: a handful of
# terms is not quite Gaussian; units of one layer are treated as independent although they share the gates below; and the
# softmax of the Gaussian vector of logits at the end has no mean in closed form, so that it is averaged over a fixed set of
# points (`helpers.moments`).

# %%
with torch.no_grad():
    means, covariances = moments.logit_moments(narrow, x_test)  # of the logits, [N, K] and [N, K, K]
q = {
    "standard": scaled,
    "Monte Carlo": predictors.monte_carlo(narrow, x_test, m=20, seed=1),
    "geometric": predictors.exact(narrow, x_test, mean="geometric"),  # all masks
    "fast dropout": predictors.fast_dropout(narrow, x_test),  # moments.expected_softmax(means, covariances)
}
distance = {name: bregman.kl(ideal, prediction).mean().item() for name, prediction in q.items()}
rows = "".join(f"| {name} | {value:.3f} |\n" for name, value in distance.items())
Markdown(f"| predictor (Monte Carlo with 20 masks) | KL(ideal ‖ ·) [nats] |\n|---|---|\n{rows}")

# %% tags=["nbval-check-output"]
standard_kl, geometric_kl = distance["standard"], distance["geometric"]
few_kl, fast_kl = distance["Monte Carlo"], distance["fast dropout"]
print("fast dropout is at most a fifth as far from the ideal as standard:", fast_kl < standard_kl / 5)
print("the geometric mean of all masks is further away than 20 masks:", geometric_kl > few_kl)

# %% [markdown]
# The digit on which weight scaling errs most, seen by all the masks. On the left the probability that they give to the
# class that weight scaling favours; the vertical axis is logarithmic. On the right a quantity before the softmax, the logit
# of that class less that of its runner-up, with the Gaussian that fast dropout has for it. With so few gates the true
# distribution is far from a Gaussian, and has a spike where the masks leave next to nothing that speaks for either class,
# so that little but their biases differs. What matters for the average is that the *spread* is there at all, which weight
# scaling ignores.

# %%
label, rival = scaled[hard].topk(2).indices.tolist()
odds = (logits[:, label] - logits[:, rival]).double()

mean, covariance = (moment[hard] for moment in (means, covariances))
variance = covariance[label, label] + covariance[rival, rival] - 2 * covariance[label, rival]
gaussian = ((mean[label] - mean[rival]).item(), variance.sqrt().item())

lines = {name: p[hard, label].item() for name, p in {"ideal": ideal, **q}.items() if name != "Monte Carlo"}
plots.members(f[:, label], odds, weights, lines, gaussian)

# %% [markdown]
# ## Arithmetic or geometric?
#
# Standard dropout is often defended as an approximation of the *geometric* mean (notebook 03 shows when it is exactly
# that). The two means are different predictions. In a product each member has a veto: one mask that gives a class
# almost nothing pulls it down, however many others favour it. Before the division by $Z$ the geometric mean is never
# above the arithmetic one, class by class, since $\exp$ is convex (Jensen's inequality); after it, the geometric mean
# is here the more confident of the two.

# %%
entropy = lambda p: -torch.xlogy(p, p).sum(-1).mean().item()
product = (weights @ f.log()).exp()  # before the division by Z
standard_geometric_kl = bregman.kl(q["geometric"], scaled).mean().item()
Markdown(
    f"Mean entropy of the predictions: arithmetic {entropy(ideal):.2f} nats, "
    f"geometric {entropy(q['geometric']):.2f}, standard {entropy(scaled):.2f}. "
    f"Distance of standard from the arithmetic mean: {standard_kl:.3f} nats; "
    f"from the geometric mean: {standard_geometric_kl:.3f}."
)

# %% tags=["nbval-check-output"]
print("never above the arithmetic mean before the division by Z:", bool((product <= by_hand + 1e-12).all()))
print("the geometric mean is more confident:", entropy(q["geometric"]) < entropy(ideal))
print("standard is closer to the geometric mean:", standard_geometric_kl < standard_kl)

# %% [markdown]
# ## The 1/√m law
#
# The mean of $m$ independent masks has the right expected value, and each of its probabilities has the standard
# deviation $s/\sqrt m$, where $s$ is that of a single mask. Enumeration gives $s$ as well:
#
# $$s^2 = \mathbb{E}_\sigma[f^2] - \mathbb{E}_\sigma[f]^2.$$
#
# So we know without sampling where the average of $m$ masks lies in 95 of 100 cases: within
# $\pm 1.96\, s/\sqrt m$, as soon as $m$ is large enough for the central limit theorem.

# %%
squares = lambda z: z.softmax(-1).square()
second = predictors.exact(narrow, x_test[hard : hard + 1], output=squares)[0]  # E[f²]
s = (second - ideal[hard] ** 2).sqrt()[label].item()

RUNS, MASKS = 200, 1000
torch.manual_seed(SEED)
with gates.sampling(narrow), torch.no_grad():
    drawn = narrow(x_test[hard].expand(RUNS * MASKS, -1)).softmax(-1)[:, label].reshape(RUNS, MASKS)
errors = drawn.double().cumsum(1) / torch.arange(1, MASKS + 1) - by_hand[label]
plots.law(errors, s)

# %% tags=["nbval-check-output"]
rms = errors.square().mean(0).sqrt()
inside = (errors[:, -1].abs() < 1.96 * s / MASKS**0.5).double().mean().item()
print("a hundred times the masks, a tenth of the error (to 30 %):", bool(7 < rms[9] / rms[999] < 13))
print("after 1,000 masks about 95 % of the runs are in the band (90 to 99 %):", 0.90 <= inside <= 0.99)

# %% [markdown]
# Distances like KL go with the *square* of the error, hence with $1/m$: for small errors
# $\mathrm{KL}(f\,\|\,\hat f) \approx \frac12 \sum_k (\hat f_k - f_k)^2 / f_k$.
#
# ## Ten to twenty masks are often enough
#
# So says the book (section 7.12). To look at it we need a network that is good at its task: 784-256-256-10, with a
# fifth of the pixels and half of the hidden units dropped, trained on 4,000 MNIST digits. Its ideal predictor cannot
# be enumerated; 500 masks take its place.

# %%
mnist = datasets.load("mnist-small")
u_train, v_train = mnist.inputs(mnist.train.images).flatten(1), mnist.train.labels
u_test, v_test = mnist.inputs(mnist.test.images).flatten(1), mnist.test.labels

torch.manual_seed(SEED)
wide = nn.Sequential(
    nn.Dropout(0.2), nn.Linear(784, 256), nn.ReLU(),
    nn.Dropout(0.5), nn.Linear(256, 256), nn.ReLU(),
    nn.Dropout(0.5), nn.Linear(256, 10),
)
wide = training.train(wide, u_train, v_train, epochs=10, lr=0.05, seed=SEED)
yardstick = predictors.monte_carlo(wide, u_test, m=500, seed=9)

# %%
RUNS, MASKS = 5, 100
torch.manual_seed(SEED)
with gates.sampling(wide), torch.no_grad():
    drawn = torch.stack([wide(u_test).softmax(-1) for _ in range(RUNS * MASKS)])  # [R m, N, K]
averages = drawn.reshape(RUNS, MASKS, *drawn.shape[1:]).cumsum(1) / torch.arange(1, MASKS + 1)[:, None, None]
error = 100 * (averages.argmax(-1) != v_test).double().mean(-1)  # [R, m]
nll = -averages[..., torch.arange(len(v_test)), v_test].log().mean(-1)

standard = evaluation.scores(predictors.standard(wide, u_test), v_test, yardstick)
plots.enough(error, nll, (standard["error"], standard["NLL"]))

# %%
few, many = error[:, 19].mean(), error[:, -1].mean()
noise = (many / 100 * (1 - many / 100) / len(v_test)).sqrt() * 100
Markdown(
    f"Test error with 1 mask {error[:, 0].mean():.1f} %, with 10 masks {error[:, 9].mean():.1f} %, "
    f"with 20 masks {few:.1f} %, with 100 masks {many:.1f} %; one standard error of {len(v_test):,} test digits "
    f"is {noise:.1f} percentage points (less for two predictors on the same digits). NLL: {nll[:, 0].mean():.3f}, {nll[:, 9].mean():.3f}, "
    f"{nll[:, 19].mean():.3f} and {nll[:, -1].mean():.3f} nats; "
    f"standard: {standard['error']:.1f} % and {standard['NLL']:.3f} nats."
)

# %% tags=["nbval-check-output"]
print("20 masks are within a standard error of 100, by test error:", bool((few - many).abs() < noise))
print("one mask is worse by more than that:", bool(error[:, 0].mean() - many > noise))

# %% [markdown]
# The first line is a weak test: on so few digits it would not notice a difference of half a percentage point. The NLL,
# which is measured more finely, still falls between 20 and 100 masks, though by far less than between 1 and 10. How
# many are enough depends on what they are for.
#
# Being near to the ideal is one thing, being right is another: the ideal predictor of a network trained so briefly is
# often too modest, and the sharper standard prediction may then have the lower NLL. Whether it does is a matter of how
# well the ensemble is calibrated; how near a predictor is to the ensemble is what this page compares.
#
# ## What each costs
#
# Time per digit on the machine that ran this page, and distance to the ideal. Ten times the masks bring Monte Carlo not
# quite ten times nearer: where masks are few, the error is too large for KL to grow with its square; where they are
# many, the noise of the 500 masks that stand for the ideal counts, too. One mask costs several times as much as
# standard dropout, since `monte_carlo` first looks for the gates and for the part of the network that has to run only
# once; it does so once, however many masks follow. Each further mask costs about a pass or less, since several of them
# share one. Fast dropout costs several passes and then stays where it is: its error is a bias, not noise. Standard
# dropout is the cheapest; and the geometric mean, however many masks it multiplies, ends up about where standard
# dropout is, not at the ideal.

# %%
def timed(predict):
    start = time.perf_counter()
    prediction = predict()
    return 1000 * (time.perf_counter() - start) / len(u_test), bregman.kl(yardstick, prediction).mean().item()


counts = [1, 3, 10, 30, 100]
measured = {
    "standard": [timed(lambda: predictors.standard(wide, u_test))],
    "fast dropout": [timed(lambda: predictors.fast_dropout(wide, u_test))],
    "geometric": [timed(lambda m=m: predictors.geometric(wide, u_test, m, seed=3)) for m in counts],
    "Monte Carlo": [timed(lambda m=m: predictors.monte_carlo(wide, u_test, m, seed=3)) for m in counts],
}
costs = {name: [cost for cost, _ in values] for name, values in measured.items()}
distances = {name: [kl for _, kl in values] for name, values in measured.items()}
plots.price(costs, distances, counts)

# %% tags=["nbval-check-output"]
near, mc, geometric = distances["fast dropout"][0], distances["Monte Carlo"], distances["geometric"]
print("fast dropout is at most half as far from the ideal as standard:", near < distances["standard"][0] / 2)
print("100 masks are nearer than fast dropout, 3 masks are not:", mc[-1] < near < mc[1])
print("the geometric mean of 100 masks is further away than 10 masks averaged:", geometric[-1] > mc[2])

# %% [markdown]
# ## Dropout before or after max pooling
#
# Max pooling takes the largest unit of a window. Where dropout comes *after* it, a gate hides one pooled value, and
# the mean over the gate is that value: weight scaling is right about the layer. Where dropout comes *before*, the
# units of the window are dropped and rescaled, and then the largest is taken. The maximum is convex, so by Jensen's
# inequality its mean is never below the maximum of the means, which is what weight scaling has:
#
# $$\mathbb{E}_\sigma\Big[\max_i \frac{\sigma_i h_i}{1-p}\Big] \;\ge\; \max_i h_i.$$
#
# For positive units $h_{(1)} \ge h_{(2)} \ge \dots$ the mean can be written down. The $k$-th largest is the largest
# that is left if it is kept and the $k-1$ above it are dropped, which has the probability $(1-p)\,p^{k-1}$; and
# $1-p$ cancels against the rescaling:
#
# $$\mathbb{E}_\sigma\Big[\max_i \frac{\sigma_i h_i}{1-p}\Big] = h_{(1)} + p\,h_{(2)} + p^2\,h_{(3)} + \dots$$
#
# The first term is weight scaling's; the others it does not know. They grow with the rate until, as $p \to 1$, the
# mean has become the sum of the window: for $n$ equal units weight scaling's value is then too small by a factor of $n$.

# %%
window = torch.tensor([1.0, 0.8, 0.5, 0.3], dtype=torch.float64)


def pooled(p):
    """The largest dropped and rescaled unit of the window under each of its 16 masks, [16]; and P(σ), [16]."""
    values, weights = all_masks(nn.Sequential(nn.Dropout(p), nn.MaxPool1d(4)), window[None, None])
    return values.flatten(), weights


rates = torch.arange(0.02, 0.99, 0.04).double()
largest = torch.stack([weights @ values for values, weights in (pooled(p) for p in rates.tolist())])
closed_form = (window * rates[:, None] ** torch.arange(4)).sum(-1)

# %% tags=["nbval-check-output"]
values, weights_half = pooled(0.5)
print(f"window {window.tolist()}, rate 0.5")
print(f"mean of the maximum over 16 masks: {weights_half @ values:.4f}; weight scaling: {window.max():.4f}")
print("the closed form holds at every rate:", torch.allclose(largest, closed_form, atol=1e-12))

# %% [markdown]
# Move the rate. On the left the values that the pooled unit takes and how often; on the right its mean.

# %%
def pooling(p):
    return plots.pooling(p, *pooled(p), window, rates, largest)


widgets.slider_figure(pooling, steps=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], value=0.5, label="rate p")

# %% [markdown]
# The same figure for rate 1/2, for readers of a still page.

# %%
pooling(0.5)

# %% [markdown]
# What does it do to a network? Two small convolutional networks for the 8 × 8 digits, which differ in the order of
# two layers. For the first one we also try to mend weight scaling: a single pass in which the pooling layer returns
# the mean over all masks instead of the maximum. Since nothing but a linear layer follows, the logits then have
# their exact means over all masks.

# %%
class ExpectedMaxPool(nn.Module):
    """The mean over all 16 masks of the largest dropped and rescaled unit in windows of 2 × 2."""

    def __init__(self, p):
        super().__init__()
        masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
        self.weighted = [(sigma / (1 - p), torch.where(sigma == 1, 1 - p, p).prod()) for sigma in masks]

    def forward(self, h):  # [N, C, H, W]
        windows = h.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
        return sum(weight * (windows * kept).amax(-1) for kept, weight in self.weighted)


def convolutional(*middle):
    torch.manual_seed(SEED)
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), *middle, nn.Flatten(), nn.Linear(256, 10))
    return training.train(model, x_train.reshape(-1, 1, 8, 8), y_train, epochs=15, lr=0.05, seed=SEED)


before = convolutional(nn.Dropout(0.5), nn.MaxPool2d(2))
after = convolutional(nn.MaxPool2d(2), nn.Dropout(0.5))
images = digits.inputs(digits.test.images)

corrected = nn.Sequential(before[0], before[1], ExpectedMaxPool(0.5), *before[4:])
identity = lambda z: z


def compare(model, prediction):
    """KL to Monte Carlo's arithmetic mean and to its geometric mean."""
    both = predictors.monte_carlo(model, images, 200, seed=1), predictors.geometric(model, images, 200, seed=1)
    return [bregman.kl(mean, prediction).mean().item() for mean in both]


def ratio(gated, single):
    """Mean over images, units and masks of what leaves the layers `gated`, over that of what leaves `single`."""
    mean = predictors.monte_carlo(gated, images, 100, seed=2, output=identity).mean()
    return (mean / predictors.standard(single, images, output=identity).mean()).item()


ratios = [ratio(before[:4], before[:4]), ratio(before[:4], corrected[:3]), ratio(after[:4], after[:4])]
max_before = compare(before, predictors.standard(before, images))
mean_before = compare(before, predictors.standard(corrected, images))
max_after = compare(after, predictors.standard(after, images))
display(Markdown(f"""
| dropout sits | the single pass pools by | mean pooled unit, gated / single | KL(ideal ‖ ·) | KL(geometric ‖ ·) |
|---|---|---|---|---|
| before pooling | the maximum | {ratios[0]:.2f} | {max_before[0]:.4f} | {max_before[1]:.4f} |
| before pooling | the maximum's mean | {ratios[1]:.2f} | {mean_before[0]:.4f} | {mean_before[1]:.4f} |
| after pooling | the maximum | {ratios[2]:.2f} | {max_after[0]:.4f} | {max_after[1]:.4f} |

KL in nats. Both means are of 200 masks. With all masks the distances to the geometric mean in the last two rows would be
zero; what is left of them is the noise of the 200.
"""))

# %% tags=["nbval-check-output"]
print("before pooling, gated units are larger than weight scaling says, by a fifth at least:", ratios[0] > 1.2)
print("after pooling they are not (to 1 %):", abs(ratios[2] - 1) < 0.01)
print("before pooling, weight scaling is far from the geometric mean, too:", max_before[1] > 0.005)
print("with the mean of the maximum it is that mean:", mean_before[1] < 0.001)
print("but it is further from the ideal:", mean_before[0] > max_before[0])

# %% [markdown]
# The last line is a surprise, and worth a thought. Weight scaling has *two* errors here. It takes the maximum of means for
# the mean of the maximum, which makes the pooled units too small, and with them the differences between logits; and it
# takes the softmax of mean logits for the mean of softmaxes, which makes predictions too sure (that was the geometric
# mean). The first is a bias of the layer, and pooling by the mean over all masks removes it; but it had happened to cancel
# part of the second. In the network with dropout after its pool there is only the second error, and it is larger than in
# the first network once the pool of that one is mended; a reason may be that no other unit of the window stands in for one
# that is dropped, but the two networks were also trained apart. A rule for inference has to be right about the whole
# network; mending one layer may take it further away, though it need not (notebook 07 mends the pools of two larger
# networks). Distillation, in contrast, fits the outputs.
#
# ## Exercises
#
# **1. The ideal predictor.** Write equation 3 for any number of examples. `gates.enumerated` returns masks and their
# probabilities, as in `all_masks` above. The check uses a rate other than 1/2.

# %%
def my_ideal(model, x):
    """Mean over all masks of the predicted probabilities, [N, K]."""
    ### BEGIN SOLUTION
    rows = []
    for example in x.split(1):
        logits, weights = all_masks(model, example)
        rows.append(weights @ logits.softmax(-1).double())
    return torch.stack(rows)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.ideal(my_ideal)

# %% [markdown]
# **2. How much the maximum varies.** For windows of $n$ positive units, [N, n], in any order, write the *variance* of the
# largest dropped and rescaled unit, [N], without a loop over masks. Its mean was given above; what else is needed?

# %%
def my_pooled_variance(h, p):
    """Variance of the largest unit of each window after dropout at rate p, [N]."""
    ### BEGIN SOLUTION
    largest_first = h.sort(-1, descending=True).values
    probability = (1 - p) * p ** torch.arange(h.shape[-1])  # of being the largest that is kept
    mean = (probability * largest_first / (1 - p)).sum(-1)
    return (probability * (largest_first / (1 - p)) ** 2).sum(-1) - mean**2
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.pooled_variance(my_pooled_variance)

# %% [markdown]
# **3. A Gaussian through a ReLU.** Write the mean in the last row of fast dropout's table. `torch.special.ndtr` is
# $\Phi$.

# %%
def my_rectified_mean(mean, var):
    """E[max(0, z)] for z ~ N(mean, var), elementwise."""
    ### BEGIN SOLUTION
    s = var.sqrt()
    density = torch.exp(-((mean / s) ** 2) / 2) / (2 * torch.pi) ** 0.5
    return mean * torch.special.ndtr(mean / s) + s * density
    ### END SOLUTION


# %% tags=["nbval-check-output"]
checks.rectified_mean(my_rectified_mean)

# %% [markdown]
# ## What we saw, and what the paper says

# %%
paper = json.loads((home / "data" / "paper.json").read_text("utf-8"))
published = paper["table 1 left"]
one = costs["standard"][0]
here = f"""
*Here*: on the narrow network, against all {len(weights):,} masks, standard dropout is {distance["standard"]:.2f} nats
from the ideal and fast dropout {distance["fast dropout"]:.3f}. On the 784-256-256-10 network one pass of standard
dropout took {1000 * one:.0f} µs a digit, fast dropout {costs["fast dropout"][0] / one:.1f}
times and 100 masks {costs["Monte Carlo"][-1] / one:.0f} times as long; their distances to the ideal
were {distances["standard"][0]:.3f}, {near:.3f} and {mc[-1]:.4f} nats.
"""
rows = [(name, row) for name, row in published.items() if name in ("MNIST LeNet", "MNIST LeNetAll", "CIFAR10 Quick")]
errors = "; ".join(f"{name} {row['standard']:.2f} % and {row['Monte Carlo'][0]:.2f} %" for name, row in rows)
there = f"""
*The paper* ({paper["source"]}), test error of standard dropout and of Monte Carlo with 100 masks: {errors}.
Of the price of $m$ masks it says: about $m$ times slower, on a single processor.
"""
display(Markdown(here + there))

# %% [markdown]
# The numbers are of different kinds: the paper reports the error on the labels, this page mostly the distance to the
# ensemble's mean. In the paper averaging leaves the error of LeNet as it is (dropout before the last layer only), moves
# that of LeNetAll by two digits of 10,000, and that of Quick by 1.4 points (both drop after every layer). Here it moved the
# error of the 784-256-256-10 network by less than 1,000 digits can tell, though it took it far nearer to the ensemble's
# mean: to be near the ensemble and to be right are two things.
#
# **In one sentence:** the ideal predictor is a sum over all masks; Monte Carlo approaches it as $1/\sqrt m$, the
# geometric mean approaches something else, fast dropout puts the spread of the masks into a single pass, and weight
# scaling, the cheapest, leaves it out.
