"""Kernels of tests that run side by side cannot take each other's ports, as they have none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.manager import AsyncKernelManager, KernelManager, start_new_kernel

import tests.kernels

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sockets that are files are tried on Linux and macOS only")


def addresses(manager: KernelManager) -> set[str]:
    return {manager._make_url(channel) for channel in ("shell", "iopub", "stdin", "hb", "control")}


def test_a_kernel_answers_through_files():
    manager, client = start_new_kernel()
    try:
        assert all(address.startswith("ipc://") for address in addresses(manager))
        assert client.execute_interactive("1 + 1", timeout=60)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert not list(Path(tests.kernels.sockets().name).iterdir())


@pytest.mark.parametrize("kind", [KernelManager, AsyncKernelManager])
def test_no_two_kernels_have_the_same_sockets(kind):
    one, other = kind(), kind()
    assert one.ip != other.ip
    in_another_process = subprocess.run(
        [sys.executable, "-c", "import tests.kernels; print(tests.kernels.sockets().name)"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert in_another_process.stdout.strip() not in one.ip
