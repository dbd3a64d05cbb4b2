"""Batches hold every example once, and never a label in place of an input."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from helpers import batches

X = torch.arange(20.0).reshape(10, 2)
Y = torch.arange(10) % 3


class Items(Dataset):
    """A map-style data set of whatever `item` makes of an index."""

    def __init__(self, item, n=10):
        self.item, self.n = item, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i >= self.n:
            raise IndexError
        return self.item(i)


class Stream(IterableDataset):
    """A data set without a length."""

    def __init__(self, *tensors):
        self.tensors = tensors

    def __iter__(self):
        return zip(*self.tensors, strict=True) if len(self.tensors) > 1 else iter(self.tensors[0])


class SizedStream(Stream):
    def __len__(self):
        return len(self.tensors[0])


# Shuffled


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (64, [10]), (1, [1] * 10), (3, [3, 3, 4]), (9, [10])],
)
def test_an_epoch_has_every_row_once_and_keeps_rows_of_different_tensors_together(batch_size, sizes):
    shuffled = batches.Shuffled(X, X[:, 0] * 7, batch_size=batch_size)
    epoch = list(shuffled)
    assert [len(x) for x, _ in epoch] == sizes
    assert len(shuffled) == len(sizes)
    x, y = (torch.cat(parts) for parts in zip(*epoch, strict=True))
    assert torch.equal(x[:, 0] * 7, y)
    assert torch.equal(x[x[:, 0].argsort()], X)


def test_the_order_changes_from_epoch_to_epoch_and_repeats_with_the_seed():
    """False alarm: two orders of 100 rows coincide, 1e-158."""
    shuffled = batches.Shuffled(torch.arange(100), batch_size=30)

    def order():
        return torch.cat([rows for (rows,) in shuffled]).tolist()

    torch.manual_seed(0)
    first, second = order(), order()
    torch.manual_seed(0)
    assert order() == first
    assert first != second
    assert list(range(100)) not in (first, second)


# The inputs in what people have

FORMS = {
    "tensor": X,
    "TensorDataset of x": TensorDataset(X),
    "TensorDataset of x, y": TensorDataset(X, Y),
    "Dataset of x": Items(lambda i: X[i]),
    "Dataset of x as NumPy": Items(lambda i: X[i].numpy()),
    "Dataset of x, int": Items(lambda i: (X[i], i % 3)),
    "Dataset of x, float": Items(lambda i: (X[i], i / 3)),
    "stream of x": Stream(X),
    "stream of x, y": Stream(X, Y),
    "stream of x with a length": SizedStream(X),
    "loader of x": DataLoader(Items(lambda i: X[i]), 4),
    "loader of x,": DataLoader(TensorDataset(X), 4, shuffle=True),
    "loader of x, y": DataLoader(TensorDataset(X, Y), 4, shuffle=True),
    "loader of a stream": DataLoader(Stream(X, Y), 4),
    "loader of whole batches": DataLoader(Stream(X.split(4), Y.split(4)), batch_size=None),
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_every_input_comes_once_per_epoch_without_its_label(data):
    for _ in range(2):
        epoch = list(batches.unlabelled(data, batch_size=4))
        assert [len(x) for x in epoch] == [4, 4, 2]
        x = torch.cat(epoch)
        assert torch.equal(x[x[:, 0].argsort()], X)


@pytest.mark.parametrize("name", ["tensor", "TensorDataset of x, y", "Dataset of x"])
def test_tensors_and_data_sets_are_shuffled_anew_in_each_epoch(name):
    """False alarm: two orders of ten coincide, three pairs of them: 1e-6."""
    torch.manual_seed(0)
    data = batches.unlabelled(FORMS[name], batch_size=4)
    first, second = (torch.cat(list(data)) for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first, X)
    assert not torch.equal(second, X)


@pytest.mark.parametrize("name", ["tensor", "TensorDataset of x, y", "Dataset of x"])
def test_a_network_with_batchnorm_never_meets_a_single_example(name):
    """Ten examples in batches of three; PyTorch's BatchNorm raises an error for one."""
    norm = torch.nn.BatchNorm1d(X.shape[1])
    sizes = [len(norm(x)) for x in batches.unlabelled(FORMS[name], batch_size=3)]
    assert sizes == [3, 3, 4]


@pytest.mark.parametrize("data", [DataLoader(TensorDataset(X, Y), 3), Stream(X)], ids=["loader", "stream"])
def test_loaders_and_streams_keep_their_order_and_loaders_their_batch_size(data):
    epoch = list(batches.unlabelled(data, batch_size=4))
    assert len(epoch[0]) == (3 if isinstance(data, DataLoader) else 4)
    assert torch.equal(torch.cat(epoch), X)


@pytest.mark.parametrize("name", ["tensor", "TensorDataset of x, y", "loader of x, y"])
def test_the_number_of_batches_is_known_beforehand(name):
    assert len(batches.unlabelled(FORMS[name], batch_size=4)) == 3


SEVERAL = {
    "dictionary": (Items(lambda i: {"a": X[i], "b": X[i] + 1}), dict),
    "dictionary with labels": (Items(lambda i: {"a": X[i], "b": X[i] + 1, "labels": i, "Target": X[i]}), dict),
    "dictionary and label": (Items(lambda i: ({"a": X[i], "b": X[i] + 1}, i)), dict),
    "dictionary with lengths": (Items(lambda i: {"a": X[i], "b": i}), dict),
    "pair and label": (Items(lambda i: ((X[i], X[i] + 1), i)), list),
    "pair alone in a tuple": (Items(lambda i: ((X[i], X[i] + 1),)), list),
}


@pytest.mark.parametrize(("data", "kind"), SEVERAL.values(), ids=SEVERAL)
def test_several_inputs_come_together_and_without_labels(data, kind):
    epoch = list(batches.unlabelled(DataLoader(data, batch_size=4), batch_size=4))
    assert all(isinstance(x, kind) and len(x) == 2 for x in epoch)
    a, b = (torch.cat(parts) for parts in zip(*(x.values() if kind is dict else x for x in epoch), strict=True))
    assert torch.equal(a, X)
    assert torch.equal(b, X + 1) or torch.equal(b, torch.arange(10))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_each_of_several_inputs_is_looked_at(bad):
    x = X.clone()
    x[5, 1] = bad
    data = batches.unlabelled(DataLoader(Items(lambda i: {"a": X[i], "b": x[i]}), 4), batch_size=4)
    with pytest.raises(ValueError, match="1 of the 4 inputs hold NaN or infinity"):
        list(data)


# What is refused

NOT_PLAIN = {
    "labels first": (TensorDataset(Y, X), r"\(\[4\], \[4, 2\]\)"),
    "labels alone": (TensorDataset(Y), r"\(\[4\]\)"),
    "two labels": (TensorDataset(Y, Y), r"\(\[4\], \[4\]\)"),
    "two inputs": (TensorDataset(X, X), r"\(\[4, 2\], \[4, 2\]\)"),
    "triple": (TensorDataset(X, Y, Y), r"\(\[4, 2\], \[4\], \[4\]\)"),
    "dictionary of labels": (Items(lambda i: {"label": 1}), r"{label: \[4\]}"),
    "dictionary with words": (Items(lambda i: {"image": X[i], "name": "cat"}), r"{image: \[4, 2\], name: .*str"),
    "a pair of labels, and a label": (Items(lambda i: ((i, "cat"), 1)), r".*str"),
    "words": (Items(lambda i: (X[i], "cat")), r"\(\[4, 2\], .*str"),
}


@pytest.mark.parametrize("in_a_loader", [False, True])
@pytest.mark.parametrize(("data", "shape"), NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_a_batch_whose_inputs_are_not_plain_is_refused_and_described(data, shape, in_a_loader):
    data = DataLoader(data, batch_size=4) if in_a_loader else data
    with pytest.raises(
        TypeError, match=f"cannot tell the inputs in a batch of {shape}.*Let the loader yield inputs alone"
    ):
        next(iter(batches.unlabelled(data, batch_size=4)))


@pytest.mark.parametrize("labels", [Y, Y.float(), torch.tensor(3)])
def test_a_tensor_of_labels_is_refused(labels):
    with pytest.raises(TypeError, match="looks like labels; distillation takes inputs"):
        batches.unlabelled(labels, batch_size=4)


@pytest.mark.parametrize(
    ("data", "kind"), [([X], "list"), (X.numpy(), "ndarray"), (None, "NoneType"), ((X, Y), "tuple")]
)
def test_anything_else_is_refused_by_its_type(data, kind):
    with pytest.raises(TypeError, match=f"a tensor .*, a Dataset or a DataLoader of inputs, not {kind}"):
        batches.unlabelled(data, batch_size=4)


@pytest.mark.parametrize(
    ("data", "message"), [(X[:0], "there are no examples"), (TensorDataset(X[:0], Y[:0]), "the data set is empty")]
)
def test_nothing_to_learn_from_is_refused_at_once(data, message):
    with pytest.raises(ValueError, match=message):
        batches.unlabelled(data, batch_size=4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_when_they_are_met(bad):
    x = X.clone()
    x[5:7, 1] = bad
    with pytest.raises(ValueError, match="2 of the 10 inputs hold NaN or infinity"):
        batches.unlabelled(x, batch_size=4)
    in_a_loader = iter(batches.unlabelled(DataLoader(TensorDataset(x, Y), 3), batch_size=4))
    assert torch.equal(next(in_a_loader), x[:3])
    with pytest.raises(ValueError, match="1 of the 3 inputs hold NaN or infinity"):
        next(in_a_loader)


def test_numbers_whose_sum_overflows_are_finite_all_the_same():
    x = torch.full((10, 2), 3e38)
    assert x.sum().isinf()
    assert sum(len(batch) for batch in batches.unlabelled(x, batch_size=4)) == 10
