"""Pruned networks on disk: small, the same after loading, and refused where they do not belong."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import compression, networks, predictors, sparse, variational

X = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def lenet(share=0.02, seed=0):
    """A LeNet with only a share of its weights, the same in every layer."""
    torch.manual_seed(seed)
    network = networks.LeNet(p=0.0).eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, variational.PLAIN):
                layer.weight.mul_(torch.rand_like(layer.weight) < share)
    return network


def test_a_pruned_network_loads_back_to_the_same_predictions(tmp_path):
    network = lenet()
    size = sparse.save(network, tmp_path / "net.safetensors")
    assert size == (tmp_path / "net.safetensors").stat().st_size
    there = sparse.load(lenet(seed=1), tmp_path / "net.safetensors")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in there.state_dict().items())
    assert torch.equal(predictors.standard(there, X), predictors.standard(network, X))


def test_each_weight_that_remains_takes_six_bytes_and_each_row_four():
    """Four for the value, two for the column; where a row begins takes four, names and shapes less than two thousand."""
    network = lenet()
    masks = variational.kept(network).values()
    weights = sum(int(mask.sum()) for mask in masks)
    rows = sum(len(mask) + 1 for mask in masks)
    biases = sum(p.numel() for p in network.parameters() if p.ndim == 1)
    size = len(sparse.dump(network))
    assert 0 < size - (6 * weights + 4 * rows + 4 * biases) < 2000
    dense = len(sparse.dump(network, dense=True))
    assert 0 < dense - 4 * networks.parameter_count(network) < 2000
    assert dense / size > 25


@given(st.integers(1, 6), st.integers(1, 9), st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_any_pattern_of_zeros_survives(rows, columns, share, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, 2, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) > share] = 0
    parts = {f"w:{name}": value for name, value in sparse.sparse_parts(weight).items()}
    assert torch.equal(sparse.restored("w", tuple(weight.shape), parts), weight)


def test_the_place_of_a_row_is_exact_beyond_what_float32_counts():
    n = 2**24 + 1
    assert sparse.sparse_parts(torch.ones(1, n, dtype=torch.int8))["rows"].tolist() == [0, n]


@pytest.mark.parametrize("dense", [True, False])
def test_tied_weights_are_stored_and_stay_tied(dense, tmp_path):
    torch.manual_seed(0)
    network, other = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))
    for tied in (network, other):
        tied[1].weight = tied[0].weight
    (tmp_path / "net.safetensors").write_bytes(sparse.dump(network, dense))
    sparse.load(other, tmp_path / "net.safetensors")
    assert other[1].weight is other[0].weight
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in other.state_dict().items())


def test_a_network_without_zeros_is_stored_whole():
    network = nn.Linear(50, 50)
    assert len(sparse.dump(network)) == len(sparse.dump(network, dense=True))


def test_another_architecture_is_refused_by_name_and_left_alone(tmp_path):
    path = tmp_path / "net.safetensors"
    sparse.save(lenet(), path)
    other = networks.LeNetAll(widths=(20, 50, 40))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"another architecture:\n  fc1\.bias: \(500,\) there, \(40,\) here"):
        sparse.load(other, path)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    with pytest.raises(ValueError, match=r"conv1\.log_sigma2: none there"):
        sparse.load(variational.variational(lenet()), path)


@pytest.mark.parametrize("content", [b"", b"no such thing", json.dumps({}).encode()])
def test_a_damaged_file_is_refused(content, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        sparse.load(lenet(), path)
    whole = tmp_path / "whole"
    sparse.save(lenet(), whole)
    path.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is damaged"):
        sparse.load(lenet(), path)


@pytest.mark.parametrize("columns", [2**16, 2**16 + 1])
def test_the_last_column_is_kept_where_columns_need_more_bits(columns):
    weight = torch.zeros(1, columns)
    weight[0, -1] = 1.0
    parts = {f"w:{name}": part for name, part in sparse.sparse_parts(weight).items()}
    assert torch.equal(sparse.restored("w", (1, columns), parts), weight)


def test_a_file_of_a_newer_format_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    monkeypatch.setattr(sparse, "FORMAT", "2")
    sparse.save(lenet(), path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its format is 2, this version reads 1"):
        sparse.load(lenet(), path)


def test_a_file_of_safetensors_from_elsewhere_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"not what helpers\.sparse\.save writes"):
        sparse.load(lenet(), tmp_path / "net.safetensors")


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(OSError):
        sparse.load(lenet(), tmp_path / "none")


def test_multiply_adds_count_the_weights_that_remain_once_for_each_position():
    network = lenet()
    masks = {name: int(mask.sum()) for name, mask in variational.kept(network).items()}
    by_hand = 24 * 24 * masks["conv1"] + 8 * 8 * masks["conv2"] + masks["fc1"] + masks["fc2"]
    assert sparse.multiply_adds(network, X) == by_hand
    dense = lenet(share=1.1)
    assert sparse.multiply_adds(dense, X) == compression.multiply_adds(dense, X)
