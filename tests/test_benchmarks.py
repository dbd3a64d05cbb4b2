"""A benchmark records what it has measured, if that is all of it."""

import pytest

from helpers.experiments import records
from tests.benchmarks import averaging


@pytest.mark.parametrize("networks", [[], ["LeNet"]], ids=["all", "one"])
def test_the_benchmark_records_what_it_has_measured_if_that_is_all(networks, tmp_path, monkeypatch):
    record = tmp_path / "averaging.json"
    monkeypatch.setattr(averaging, "ROOT", tmp_path)
    monkeypatch.setattr(averaging, "RECORD", record)
    monkeypatch.setattr(averaging, "installed", lambda method: True)
    for name in ("averaging", "distillation", "enumeration"):
        monkeypatch.setattr(averaging, name, lambda *_: {"ours [s]": 1.0})
    monkeypatch.setattr(averaging, "peak", lambda *_: 1.0)
    monkeypatch.setattr("sys.argv", ["averaging", *networks, "--threads", "1"])
    averaging.main()
    assert record.exists() != bool(networks)
    if not networks:
        assert list(records.read(record)["averaging"]) == list(averaging.NETWORKS)
