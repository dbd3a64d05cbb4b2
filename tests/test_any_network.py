"""Networks that were not written here: they are sampled and distilled, stay as they were, and the student goes anywhere."""

import copy
import io
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.vision_transformer import VisionTransformer

from helpers import bregman, functional, gates, predictors
from helpers.distillation import distill
from tests.test_training import assert_same_to_the_bit

N, K = 6, 5


class Classifier(nn.Module):
    """A recurrent network over sequences, with dropout between its layers."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, num_layers=2, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, K)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Functional(nn.Module):
    """Dropout as in the first tutorial that everybody reads."""

    def __init__(self, p=0.5):
        super().__init__()
        self.p, self.conv, self.norm = p, nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.fc1, self.fc2 = nn.Linear(36, 16), nn.Linear(16, K)

    def forward(self, x):
        h = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2).flatten(1)
        return self.fc2(F.dropout(F.relu(self.fc1(h)), self.p, self.training))


class SelfAttention(nn.Module):
    """Attention and its dropout as small language models write it."""

    def __init__(self, p=0.5):
        super().__init__()
        self.p, self.qkv, self.head = p, nn.Linear(4, 12), nn.Linear(4, K)

    def forward(self, x):
        q, k, v = self.qkv(x).split(4, dim=-1)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0, is_causal=True)
        return self.head(y[:, -1])


class TwoTowers(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(8, 8), nn.Embedding(10, 8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, K)

    def forward(self, image, tokens):
        return self.head(self.drop(self.image(image).relu() + self.text(tokens).mean(1)))


def images(*size):
    return torch.rand(N, *size, generator=torch.Generator().manual_seed(0))


zoo = torchvision.models
VGG = partial(zoo.vgg16, num_classes=K)
BLOCKS = [
    zoo.efficientnet.MBConvConfig(4, 3, 1, 16, 16, 2, 1, 1),
    zoo.efficientnet.FusedMBConvConfig(4, 3, 2, 16, 24, 2),
]
NETWORKS = {
    "AlexNet": (partial(zoo.alexnet, num_classes=K), (3, 64, 64)),
    "MobileNetV3": (partial(zoo.mobilenet_v3_small, num_classes=K), (3, 32, 32)),
    "EfficientNet": (partial(zoo.EfficientNet, BLOCKS, 0.5, stochastic_depth_prob=0.5, num_classes=K), (3, 32, 32)),
    "ViT": (lambda: VisionTransformer(8, 4, 2, 2, 8, 16, dropout=0.1, attention_dropout=0.1, num_classes=K), (3, 8, 8)),
    "DenseNet": (partial(zoo.DenseNet, 4, (2, 2), 8, drop_rate=0.5, num_classes=K), (3, 32, 32)),
    "LSTM": (Classifier, (7, 4)),
    "functional dropout": (Functional, (1, 8, 8)),
    "functional attention": (SelfAttention, (7, 4)),
}


def made(name):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    if name == "ViT":
        nn.init.normal_(model.heads.head.weight)  # torchvision starts it at zero
    x = images(*shape)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # or an untrained MobileNet, which remembers slowly, says the same of everything
    with torch.no_grad():
        model.train()(x)  # statistics for BatchNorm to remember
    return model.eval(), x


@pytest.fixture(params=NETWORKS, scope="module")
def case(request):
    """A network, inputs, the network before anything was done to it, and its student after two steps."""
    model, x = made(request.param)
    before = copy.deepcopy(model)
    student = distill(model, x, epochs=2, lr=1e-3, batch_size=N, progress=False)
    return request.param, model, x, before, student


def test_sampling_and_distilling_leave_weights_statistics_and_modes_to_the_bit(case):
    _, model, x, before, _ = case
    predictors.monte_carlo(model, x, 3, seed=0)
    predictors.standard(model, x)
    assert_same_to_the_bit(model, before)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]


def test_monte_carlo_is_the_mean_of_plain_passes(case):
    """40 masks on either side: the difference of two means, in standard errors. False alarms: 30 comparisons of 6."""
    _, model, x, _, _ = case
    with gates.sampling(model), torch.no_grad():
        torch.manual_seed(0)
        f = torch.stack([model(x).softmax(-1) for _ in range(40)])
    found = predictors.monte_carlo(model, x, 40, seed=1)
    assert (f.var(0) > 0).any()
    assert ((found - f.mean(0)).abs() < 6 * (2 * f.var(0) / 40).sqrt() + 1e-5).all()


def test_a_pass_is_as_scattered_as_a_plain_one(case):
    """Predictions of one example under 200 masks, against those of as many plain passes, where they differ enough."""
    _, model, x, _, _ = case
    one = x[:1].repeat(200, *[1] * (x.ndim - 1))
    with gates.sampling(model), torch.no_grad():
        torch.manual_seed(0)
        plain = model(one.clone()).softmax(-1).var(0).sum()
    found = predictors.monte_carlo(model, one, 1, seed=1, batch_size=200).var(0).sum()
    assert 0.5 < found / plain < 2


def test_the_student_is_a_plain_deterministic_network_that_has_learned(case):
    _, model, x, _, student = case
    assert type(student) is type(model)
    assert not torch.equal(student(x), model(x))
    assert torch.equal(student.eval()(x), student(x))
    assert all(functional.drops_in_forward(layer) for layer in gates.stochastic_layers(student).values())
    norms = [(a, b) for a, b in zip(student.modules(), model.modules(), strict=True) if isinstance(a, nn.BatchNorm2d)]
    assert all(
        torch.equal(a.running_mean, b.running_mean) and torch.equal(a.running_var, b.running_var) for a, b in norms
    )


def test_the_student_is_saved_and_loaded(case):
    name, _, x, _, student = case
    file = io.BytesIO()
    torch.save(student.state_dict(), file)
    file.seek(0)
    loaded = NETWORKS[name][0]().eval()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(loaded(x), student(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["trace", "script", "compile"])
def test_the_student_is_traced_scripted_and_compiled(case, how):
    name, model, x, _, student = case
    if how == "compile" and name in ("MobileNetV3", "EfficientNet", "DenseNet"):
        pytest.skip("takes long, and shows nothing that the others do not")
    if how == "script":
        try:
            torch.jit.script(model)
        except (RuntimeError, torch.jit.frontend.NotSupportedError):
            pytest.skip("the teacher cannot be scripted either")
    torch.compiler.reset()
    with torch.no_grad():
        other = {
            "trace": lambda: torch.jit.trace(student, x),
            "script": lambda: torch.jit.script(student),
            "compile": lambda: torch.compile(student, backend="eager"),
        }[how]()
        torch.testing.assert_close(other(x), student(x))


@pytest.mark.filterwarnings("ignore")
def test_the_student_is_the_same_in_onnx(case, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    name, _, x, _, student = case
    path = tmp_path / "student.onnx"
    torch.onnx.export(student, (x,), path, dynamo=name in ("AlexNet", "ViT", "functional dropout"), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, student(x).detach().numpy(), atol=1e-5)


def test_vgg16():
    """Its 134 million parameters are made once, for one pass of each kind."""
    with torch.device("meta"):
        model = VGG()
    model = model.to_empty(device="cpu").eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            nn.init.zeros_(value) if name.endswith("bias") else value.uniform_(-1, 1).mul_(
                (6 / value[0].numel()) ** 0.5
            )
    state = {name: value.sum() for name, value in model.state_dict().items()}
    x, ran = images(3, 32, 32)[:2], []
    model.features[0].register_forward_hook(lambda layer, inputs, output: ran.append(len(inputs[0])))
    found = predictors.monte_carlo(model, x, 20, seed=0)
    assert sum(ran) <= 2 + 11, "the convolutions run once, and a few times to see what is called and to try the parts"
    assert found.shape == (2, K) and not torch.equal(found, predictors.standard(model, x))
    small = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, K))
    distill(model, x, student=small, epochs=1, batch_size=2, progress=False)
    assert all(torch.equal(value.sum(), state[name]) for name, value in model.state_dict().items())


def test_the_lstm_student_is_nearer_to_the_ideal_than_its_teacher_without_dropout():
    """False alarm: in ten seeds the ratio was at most 0.29."""
    torch.manual_seed(0)
    model = Classifier()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    x = torch.randn(64, 7, 4, generator=torch.Generator().manual_seed(1))
    ideal = predictors.monte_carlo(model, x, 1000, seed=0)
    student = distill(model, x, epochs=60, lr=0.05, batch_size=16, samples=4, progress=False)
    distance = [bregman.kl(ideal, predictors.standard(net, x)).mean() for net in (student, model)]
    assert distance[0] < distance[1] / 2


def test_a_regression_is_distilled_to_the_mean_of_its_ensemble():
    """False alarm: in ten seeds the ratio was at most 0.15."""
    torch.manual_seed(0)
    identity = lambda z: z
    model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    x = torch.randn(64, 3)
    ideal = predictors.monte_carlo(model, x, 5000, seed=0, output=identity)
    how = {"loss": bregman.squared_euclidean, "output": identity, "samples": 8, "progress": False}
    student = distill(model, x, epochs=200, lr=0.005, batch_size=16, **how)
    error = [(predictors.standard(net, x, output=identity) - ideal).square().mean() for net in (student, model)]
    assert error[0] < error[1] / 2


class Pairs(Dataset):
    """Images and tokens, as `arrange` hands them out."""

    def __init__(self, arrange):
        generator = torch.Generator().manual_seed(0)
        self.image, self.tokens = torch.rand(N, 8, generator=generator), torch.randint(10, (N, 3), generator=generator)
        self.arrange = arrange

    def __len__(self):
        return N

    def __getitem__(self, i):
        return self.arrange(self.image[i], self.tokens[i])


ARRANGED = {
    "dictionary": lambda image, tokens: {"image": image, "tokens": tokens},
    "dictionary with labels": lambda image, tokens: {"image": image, "tokens": tokens, "labels": 1},
    "pair and label": lambda image, tokens: ((image, tokens), 1),
}


@pytest.mark.parametrize("arrange", ARRANGED.values(), ids=ARRANGED)
def test_a_network_of_two_inputs_is_distilled_from_a_loader(arrange):
    torch.manual_seed(0)
    model, data = TwoTowers(), Pairs(arrange)
    student = distill(model, DataLoader(data, 3), epochs=2, progress=False)
    expected = distill(model, DataLoader(Pairs(ARRANGED["dictionary"]), 3), epochs=2, progress=False)
    assert_same_to_the_bit(student, expected)
    assert not torch.equal(student.head.weight, model.head.weight)


@pytest.mark.parametrize(
    "predict", [predictors.standard, predictors.monte_carlo, predictors.geometric, predictors.exact]
)
def test_predictors_take_two_inputs_in_either_form(predict):
    torch.manual_seed(0)
    model, data = TwoTowers(), Pairs(None)
    seed = {"seed": 0, "m": 7} if predict in (predictors.monte_carlo, predictors.geometric) else {}
    by_name = predict(model, {"tokens": data.tokens, "image": data.image}, batch_size=4, **seed)
    torch.testing.assert_close(predict(model, (data.image, data.tokens), batch_size=4, **seed), by_name)
    assert by_name.shape == (N, K)
    with pytest.raises(ValueError, match=r"the inputs have \[5, 6\] examples"):
        predict(model, (data.image[:5], data.tokens))
    with pytest.raises(TypeError, match="expected a tensor, or a tuple or dictionary of tensors, not str"):
        predict(model, {"image": data.image, "tokens": "words"})


# Dropout that is no layer


def dropped_by_a_function(x, training):
    return F.dropout(x, 0.5, training)


class ByAFunction(nn.Module):
    def forward(self, x):
        return dropped_by_a_function(x, self.training)


class Inherits(Functional):
    """Its forward is its parent's."""


class InALoop(nn.Module):
    def forward(self, x):
        return sum(nn.functional.dropout(part, 0.5, self.training) for part in (x, -2 * x))


class HasALayerNamedDropout(nn.Module):
    """`dropout` and `training` are names in its forward, and it calls no function that drops."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(x) if self.training else x


class PlainAttention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize("kind", [Functional, SelfAttention, ByAFunction, Inherits, InALoop])
def test_a_call_that_drops_is_found(kind):
    model = nn.Sequential(kind())
    assert gates.stochastic_layers(model) == {"0": model[0]}
    assert gates.rates(model) == {}


@pytest.mark.parametrize(
    "kind", [HasALayerNamedDropout, PlainAttention, nn.Identity, partial(zoo.GoogLeNet, init_weights=False)]
)
def test_what_only_looks_like_it_is_not(kind):
    assert not functional.drops_in_forward(kind())


def test_a_functional_network_samples_its_dropout_and_nothing_else():
    model, x = made("functional dropout")
    model.train()
    with gates.sampling(model), torch.no_grad():
        assert model.training and not model.norm.training
        assert not torch.equal(model(x), model(x))
    with gates.deterministic(model), torch.no_grad():
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("kind", [Functional, SelfAttention])
def test_its_gates_cannot_be_set(kind):
    model = nn.Sequential(kind())
    with (
        pytest.raises(TypeError, match=rf"\['0'\] \({kind.__name__}\) cannot be set.*an nn.Dropout layer"),
        gates.fixed(model, {"0": torch.ones(1)}),
    ):
        pass
    with pytest.raises(TypeError, match="cannot be set from outside"):
        predictors.exact(model, images(*NETWORKS["functional dropout"][1]))


@pytest.mark.parametrize("kind", [Functional, SelfAttention])
@pytest.mark.parametrize("do", [partial(predictors.monte_carlo, m=3), partial(distill, progress=False)])
def test_a_call_that_never_drops_leaves_nothing_to_average(kind, do):
    x = images(1, 8, 8) if kind is Functional else images(7, 4)
    with pytest.raises(ValueError, match=r"sampled passes .* return the same, so there is nothing to average"):
        do(kind(p=0.0), x)


def test_a_rate_of_zero_beside_a_layer_is_no_matter():
    torch.manual_seed(0)
    model = nn.Sequential(Functional(p=0.0), nn.Dropout(0.5), nn.Linear(K, K))
    assert predictors.monte_carlo(model, images(1, 8, 8), 3).shape == (N, K)


# Bad input


class AlwaysDrops(nn.Module):
    """A common mistake: without its third argument F.dropout drops in eval mode too."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, K)

    def forward(self, x):
        return self.linear(F.dropout(x, 0.5))


def teacher(*more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, K), *more)


X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("student", [AlwaysDrops(), nn.Sequential(Functional(), nn.Linear(K, K)).train()])
def test_a_student_that_draws_is_refused_before_a_step(student):
    state = copy.deepcopy(student.state_dict())
    x = images(1, 8, 8) if isinstance(student, nn.Sequential) else X
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, K)) if x is not X else teacher()
    with pytest.raises(ValueError, match="the student draws random numbers itself"):
        distill(model, x, student=student, progress=False)
    assert all(torch.equal(value, state[name]) for name, value in student.state_dict().items())


def test_a_student_that_would_drop_in_training_mode_may_come_in_eval_mode():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, K))
    student = distill(model, images(1, 8, 8), student=Functional().eval(), epochs=1, progress=False)
    assert not student.training


@pytest.mark.parametrize(
    "do",
    [predictors.standard, predictors.monte_carlo, predictors.geometric, partial(distill, progress=False)],
    ids=["standard", "monte_carlo", "geometric", "distill"],
)
def test_probabilities_in_place_of_logits_are_refused(do):
    with pytest.raises(ValueError, match=r"returns probabilities .* pass output=lambda p: p"):
        do(teacher(nn.Softmax(-1)), X)
    with pytest.raises(ValueError, match=r"one number per example.*output=torch.sigmoid"):
        do(teacher(nn.Linear(K, 1)), X)


class TimeFirst(nn.Module):
    """As PyTorch's recurrent layers are by default: [T, n, D]."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 8, num_layers=2, dropout=0.5), nn.Linear(8, K)

    def forward(self, x):
        return self.head(self.lstm(x)[0][-1])


class TimeFirstTagger(TimeFirst):
    def forward(self, x):
        return self.head(self.lstm(x)[0])


def batch_norm_without_statistics():
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Dropout(0.5), nn.Linear(8, K)
    )


MIXES = pytest.mark.parametrize(
    ("make", "shape"),
    [(TimeFirstTagger, (5, 4)), (batch_norm_without_statistics, (4,))],
    ids=["time first", "BatchNorm"],
)


@MIXES
@pytest.mark.parametrize(
    "do",
    [predictors.monte_carlo, predictors.geometric, partial(distill, epochs=1, lr=1e-6, progress=False)],
    ids=["monte_carlo", "geometric", "distill"],
)
def test_a_network_whose_examples_depend_on_each_other_is_warned_of(make, shape, do):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="depends on the others in its batch.*batch_first=True"):
        do(make().eval(), torch.randn(70, *shape))


@MIXES
def test_in_one_batch_examples_may_depend_on_each_other(make, shape, recwarn):
    torch.manual_seed(0)
    predictors.monte_carlo(make().eval(), torch.randn(70, *shape), batch_size=70)
    assert not list(recwarn)


@pytest.mark.filterwarnings("error:What .* makes of an example")
def test_no_other_network_is_warned_of(case):
    _, model, x, _, _ = case
    assert not predictors.mixes(model, x)
    predictors.monte_carlo(model, x, 2, batch_size=2)
    distill(model, x, epochs=1, batch_size=4, progress=False)


class WithLengths(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, K), nn.Dropout(0.5))

    def forward(self, x, lengths):
        return self.layers(x) / lengths[:, None]


def test_a_second_input_that_was_taken_for_labels_is_told():
    pairs = torch.utils.data.TensorDataset(X, torch.ones(len(X)))
    with pytest.raises(TypeError) as found:
        distill(WithLengths(), pairs, progress=False)
    assert "is taken for labels" in found.value.__notes__[0]


class Auxiliary(Functional):
    """Two outputs while it drops, as some networks have in training mode."""

    def forward(self, x):
        z = super().forward(x)
        return (z, z) if self.training else z


def test_outputs_of_two_kinds_are_told_where_one_is_expected():
    with pytest.raises(ValueError, match="they return a tuple and a Tensor, and `output` has to take both"):
        distill(Auxiliary(), images(1, 8, 8), output=lambda z: z[0].softmax(-1), progress=False)


def test_one_example_without_a_batch_is_told():
    with pytest.raises(ValueError, match=r"If `x` is one example.*x\[None\]"):
        predictors.monte_carlo(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, K)), X[0], 2)


class Squeezes(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x).squeeze()


class RunsTogether(nn.Module):
    """As some language models return [n T, K]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, K), nn.Dropout(0.5))

    def forward(self, x):
        return self.layers(x).view(-1, K)


@pytest.mark.parametrize(
    "do",
    [
        predictors.standard,
        predictors.monte_carlo,
        predictors.exact,
        predictors.geometric,
        partial(distill, progress=False),
    ],
    ids=["standard", "monte_carlo", "exact", "geometric", "distill"],
)
@pytest.mark.parametrize(
    ("model", "x", "how"),
    [
        (TimeFirst(), torch.randn(7, 3, 4), {}),
        (Squeezes(), X[:1], {"output": torch.sigmoid}),
        (RunsTogether(), torch.randn(2, 3, 4), {}),
    ],
    ids=["time first", "squeezed", "run together"],
)
def test_predictions_that_are_not_one_for_each_example_are_refused(do, model, x, how):
    if do is predictors.exact and isinstance(model, TimeFirst):
        pytest.skip("the gates between recurrent layers cannot be set")
    if do is predictors.geometric and isinstance(model, Squeezes):
        pytest.skip("it has its own words for single numbers")
    with pytest.raises(ValueError, match=r"the first dimension has to be the examples.*batch_first=True"):
        do(model, x, **how)


@pytest.mark.parametrize(
    "do", [predictors.monte_carlo, partial(distill, progress=False)], ids=["monte_carlo", "distill"]
)
def test_dropout_that_is_always_on_is_told_from_none(do):
    with pytest.raises(
        ValueError, match=r"AlwaysDrops drops without asking for its own self.training.*F.dropout\(x, p, self"
    ):
        do(nn.Sequential(AlwaysDrops()), X)


def test_one_row_of_logits_in_bfloat16_is_not_taken_for_probabilities_nor_these_for_none():
    near_one = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
    near_one[1].weight.data.zero_()
    near_one[1].bias.data = torch.tensor([0.5, 0.508])
    near_one.bfloat16()
    x = X[:1].bfloat16()
    torch.testing.assert_close(predictors.standard(near_one, x)[0, 1].item(), 0.502, atol=1e-3, rtol=0)
    ends_in_softmax = teacher(nn.Softmax(-1)).bfloat16()
    with pytest.raises(ValueError, match="returns probabilities"):
        predictors.standard(ends_in_softmax, x)
    mean = predictors.geometric(ends_in_softmax, X.bfloat16(), 20, output=lambda p: p)
    torch.testing.assert_close(mean.sum(-1), torch.ones(len(X)))


def test_classes_that_are_not_last_are_refused():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout2d(0.5), nn.Conv2d(4, 2, 3, padding=1))
    how = {"epochs": 1, "progress": False}
    with pytest.raises(ValueError, match=r"distributions over dimension 1.*movedim\(1, -1\)"):
        distill(model, images(1, 8, 8), output=lambda z: z.softmax(1), **how)
    distill(model, images(1, 8, 8), output=lambda z: predictors.softmax(z.movedim(1, -1)), **how)


def test_a_student_that_returns_probabilities_is_refused():
    with pytest.raises(ValueError, match="returns probabilities"):
        distill(teacher(), X, student=nn.Sequential(nn.Linear(4, K), nn.Softmax(-1)), progress=False)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "do",
    [predictors.standard, predictors.monte_carlo, predictors.exact, partial(distill, progress=False)],
    ids=["standard", "monte_carlo", "exact", "distill"],
)
def test_numbers_of_another_type_are_refused_in_words(do, kind):
    with pytest.raises(TypeError, match=rf"the inputs are {kind} and the network's parameters torch.float32; convert"):
        do(teacher(), X.to(kind))


def test_a_network_in_half_precision_is_averaged_in_single_precision():
    """A sum of 4,000 probabilities in bfloat16 would stop growing at a few hundred."""
    half, m = teacher().bfloat16(), 4000
    found = predictors.monte_carlo(half, X.bfloat16(), m, seed=0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, predictors.monte_carlo(half.float(), X, m, seed=1), atol=0.03, rtol=0)


@pytest.mark.parametrize("labels_first", [True, False])
def test_a_loader_that_yields_labels_first_is_refused_before_a_step(labels_first):
    data = [(i % K, X[i]) if labels_first else (X[i], i % K) for i in range(N)]
    student = nn.Linear(4, K)
    state = copy.deepcopy(student.state_dict())
    if not labels_first:
        distill(teacher(), DataLoader(data, 3), student=student, epochs=1, progress=False)
        return
    with pytest.raises(TypeError, match=r"cannot tell the inputs in a batch of \(\[3\], \[3, 4\]\)"):
        distill(teacher(), DataLoader(data, 3), student=student, progress=False)
    assert all(torch.equal(value, state[name]) for name, value in student.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_a_network_on_another_device_than_the_data_is_brought_together():
    model = teacher().cuda()
    assert predictors.monte_carlo(model, X, 3).device == X.device
    student = distill(model, X, epochs=1, progress=False)
    assert student[0].weight.is_cuda
