"""Kernels of tests talk through files, which have names of their own, and not through ports.

Jupyter looks for free ports before it starts a kernel, which takes hold of them a second or two later. Where tests run
side by side another kernel may be promised the same port in between, and the one that comes second dies. Importing this
module gives every kernel of the process sockets in a folder of the process's own.
"""

import functools
import itertools
import os
import tempfile

from jupyter_client.manager import KernelManager

numbers = itertools.count()
initialise = KernelManager.__init__


@functools.cache
def sockets() -> tempfile.TemporaryDirectory:
    """The folder of this process, made for its first kernel, and gone when the process ends."""
    return tempfile.TemporaryDirectory(prefix="kernels-")


def initialise_with_files(self: KernelManager, *args: object, **options: object) -> None:
    own = {"transport": "ipc", "ip": f"{sockets().name}/{next(numbers)}"}
    initialise(self, *args, **own | options)


if os.name == "posix":
    KernelManager.__init__ = initialise_with_files
