"""Carrying a run out: train the teacher (or find it trained), distil it, average it, and write one record.

Whatever is interrupted goes on from its last checkpoint, to the same result.
"""

import copy
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from filelock import Timeout
from torch import Tensor, nn

from helpers import compression, datasets, distillation, evaluation, files, gates, networks, predictors, training
from helpers.datasets import Data
from helpers.experiments import averaging, sparsifying, variational
from helpers.experiments.declared import MASKS, MASKS_OF_IDEAL, Run
from helpers.experiments.records import DATA, FORMAT, ROOT, checkpoint, lock, read, record, weights
from helpers.inputs import device_of
from helpers.precision import arithmetic
from helpers.seeding import seeded

PACKAGES = ("torchvision", "torchmetrics", "scikit-learn")  # whose versions a record names beside PyTorch's


def perform(run: Run, device: str = "cpu", progress: bool = True, folder: Path = DATA) -> dict:
    """The record of `run`, which is carried out first unless it has been.

    Parameters
    ----------
    device : "cpu", "cuda", "cuda:1", ...
    progress : whether to show progress bars.
    folder : where records, weights and checkpoints are.

    Raises
    ------
    BlockingIOError : if another process is carrying out this run. Runs that share a teacher wait for each other only
        while it is trained.
    ValueError : if there is no such device, if a record is damaged or has a newer format, if a checkpoint is damaged, or
        if one of them was made with other settings.
    OSError : if a file cannot be written. The next call goes on from the last checkpoint. If data cannot be had: its
        subclass ConnectionError.
    ImportError : if what the run needs is not installed.
    MemoryError : if the GPU's memory is too small. Nothing is lost either.
    """
    path = record(run, folder)
    if not path.exists():
        require_device(device)
        try:
            with enough_memory(run), lock(run.name, folder, timeout=1):  # who only lists the runs has it for a moment
                if not path.exists():
                    write(path, carried_out(run, torch.device(device), progress, folder))
        except Timeout as error:
            raise BlockingIOError(f"another process is working on {run.name}") from error
    return made_for(run, path)


def made_for(run: Run, path: Path) -> dict:
    """The record at `path`, which is that of `run` or of another run of its row.

    Raises
    ------
    ValueError : if it is damaged, has a newer format, or was made with other settings of the row, with those that differ.
    """
    content = read(path)
    if "settings" not in content:
        raise ValueError(f"{path} is not a record of a run (it has no settings); remove it, and it is run again")
    there, here = content["settings"], json.loads(json.dumps(of_row(run)))  # where tuples are lists, as in a file
    if different := [name for name in here if name in there and there[name] != here[name]]:  # older records name fewer
        lines = [f"  {name}: {there[name]!r} there, {here[name]!r} here" for name in different]
        raise ValueError(
            "\n".join([f"{path} was made with other settings:", *lines])
            + "\nUse the same settings, or give these a --folder of their own."
        )
    return content


def require_device(name: str) -> None:
    """Raise ValueError unless there is a device called `name`."""
    try:
        torch.zeros(1, device=name)
    except torch.OutOfMemoryError:
        pass  # it is there, and full
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"there is no device {name!r} here; leave --device out to run on the processor ({reason})"
        ) from error


@contextmanager
def enough_memory(run: Run) -> Iterator[None]:
    """Raise MemoryError, with what can be done, if the GPU's memory is too small for what is done inside for `run`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"the GPU's memory is too small for {run.name} with batches of {run.row.batch_size}: free some of it and run "
            f"this again, which goes on from the last checkpoint, or start afresh with `--batch-size "
            f"{run.row.batch_size // 2} --folder ANOTHER`, since the checkpoints here go on with batches of their own size"
        ) from error


def write(path: Path, content: dict) -> None:
    """A record, whole or not at all."""
    files.write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def carried_out(run: Run, device: torch.device, progress: bool, folder: Path) -> dict:
    """The run's record: what was run, what came of it, and on what."""
    start = time.perf_counter()
    measure = sparsifying.measured if isinstance(run, variational.Run) else measured
    try:
        outcome = measure(run, device, progress, folder)
    except FloatingPointError as error:
        outcome = {"diverged": str(error)}
    return {
        "format": FORMAT,
        "experiment": run.experiment,
        "row": run.row.name,
        "variant": run.variant,
        "repetition": run.repetition,
        "seed": run.repetition,
        "profile": run.profile,
        "profile in words": run.profile_in_words,
        "settings": settings(run),
        **outcome,
        "seconds": round(time.perf_counter() - start, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version(name) for name in PACKAGES},
        },
        "commit": COMMIT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """Its family, what it can do at once, and by how many threads: "x86_64, AVX512, 2 threads"."""
    threads = torch.get_num_threads()
    at_once = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()}, {at_once}, {threads} thread{'s' * (threads > 1)}"


def settings(run: Run) -> dict:
    """What makes the run what it is, for its record."""
    if isinstance(run, variational.Run):
        return sparsifying.settings(run)
    row = run.row
    return {
        **of_row(run),
        "distillation": run.schedule(row.distillation_epochs, row.distillation_lr),
        "autocast": str(row.autocast),
        "network": repr(first_teacher(run)),
        "S": run.S,
        "widths": run.widths,
        "labels": run.labels,
        "teacher's seed": run.teacher_seed,
        "masks of the ideal": MASKS_OF_IDEAL[run.profile],
    }


def of_row(run: Run) -> dict:
    """Those of the settings that the run's row decides on, and that all of its runs must share. What a network says of
    itself is not among them: its words may change with the version of PyTorch."""
    if isinstance(run, variational.Run):
        return sparsifying.of_row(run)
    row = run.row
    same = {name: getattr(row, name) for name in ("data", "batch_size", "weight_decay", "mirror")}
    return {"training": run.schedule(row.epochs, row.lr), **same}


def first_teacher(run: Run) -> nn.Module:
    """The untrained network of a run's teacher."""
    with seeded(run.teacher_seed, torch.device("cpu")):
        return run.row.network()


def measured(run: Run, device: torch.device, progress: bool, folder: Path) -> dict:
    """The scores of the predictors on the test set, {"metrics": {predictor: {measure: value}}}, and what else is found."""
    data = datasets.load(run.row.data)
    teacher = taught(run, data, device, progress, folder)
    if run.labels:
        student = small_network(run, data, device, progress, folder)
    else:
        student = distilled(run, teacher, data, device, progress, folder)
    if run.experiment == "table-1" and run.repetition == 1 and run.S == "perturbed":
        keep(run, teacher, student, folder)

    x, labels = data.inputs(data.test.images), data.test.labels
    averaged = checkpoint(run.teacher, folder)
    with lock(f"{run.teacher}.ideal", folder):  # the others wait, and read it
        ideal = averaging.ideal(teacher, x, MASKS_OF_IDEAL[run.profile], averaged, progress)
    score = partial(evaluation.scores, labels=labels, ideal=ideal)
    found = {
        "metrics": {"standard": score(predictors.standard(teacher, x)), run.way: score(predictors.standard(student, x))}
    }
    if run.average:
        own = averaging.averages(student, x, MASKS[-1:], run.repetition, checkpoint(run.name, folder), progress)
        found["metrics"][run.average] = score(own[MASKS[-1]])
    if run.widths is None and run.S == "perturbed":  # with other kinds of S the teacher is the same, and its averages
        by_masks = averaging.averages(teacher, x, MASKS, run.repetition, averaged, progress)
        curve = {m: score(q) for m, q in by_masks.items()}
        found["metrics"]["Monte Carlo"] = curve[max(curve)]
        found["Monte Carlo by masks"] = curve
    return {
        **found,
        "computed in": str(arithmetic(device, run.row.autocast) or torch.float32),
        "parameters": networks.parameter_count(student),
    }


def taught(run: Run, data: Data, device: torch.device, progress: bool, folder: Path) -> nn.Module:
    """The run's teacher: the one whose weights are stored, or else one that is trained by the first run that needs it, while
    the others wait for it.

    Stored weights count only beside the record of the run that stored them, which says how they were trained.

    Raises
    ------
    ValueError : if the stored weights are damaged, another network's, or were trained with other settings.
    """
    teacher = first_teacher(run).to(device)
    kept_by = record(Run("table-1", run.row, "perturbed", 1, run.profile), folder)
    if (path := weights(run.teacher, folder)).exists() and kept_by.exists():
        made_for(run, kept_by)
        return compiled(stored(teacher, path)).eval()
    with lock(run.teacher, folder):
        return trained(teacher, run, data, run.teacher_seed, progress, checkpoint(run.teacher, folder))


def stored(network: nn.Module, path: Path) -> nn.Module:
    """`network` with the weights that `keep` has written."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        network.load_state_dict(load(path.read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not hold the weights of a {type(network).__name__}; remove it, and another teacher is trained. "
            f"{error}"
        ) from error
    return network


def small_network(run: Run, data: Data, device: torch.device, progress: bool, folder: Path) -> nn.Module:
    """A network of the student's size, trained from labels as the teacher was: "baseline" in Fig. 3."""
    with seeded(run.repetition, torch.device("cpu")):
        network = run.row.network(widths=run.widths)
    if run.labels == "without dropout":
        gates.remove(network)
    network.to(device)
    return trained(network, run, data, run.repetition, progress, checkpoint(run.name, folder))


def trained(network: nn.Module, run: Run, data: Data, seed: int, progress: bool, path: Path) -> nn.Module:
    """`network` after Algorithm 1 with the settings of the run's row."""
    row, device = run.row, device_of(network)
    return training.train(
        compiled(network),
        data.train.images.to(device),
        data.train.labels.to(device),
        perturb=datasets.in_turn(data.inputs, *mirroring(run)),
        seed=seed,
        checkpoint=path,
        **run.schedule(row.epochs, row.lr),
        **common(run, progress),
    )


def distilled(
    run: Run, teacher: nn.Module, data: Data, device: torch.device, progress: bool, folder: Path
) -> nn.Module:
    """The run's student after Algorithm 2."""
    S = datasets.unlabelled(data, run.S)
    return distillation.distill(
        teacher,
        S.inputs.to(device),
        student=compiled(first_student(run, teacher).to(device)),
        perturb=datasets.in_turn(S.perturb, *mirroring(run)),
        seed=run.repetition,
        checkpoint=checkpoint(run.name, folder),
        **run.schedule(run.row.distillation_epochs, run.row.distillation_lr),
        **common(run, progress),
    )


def first_student(run: Run, teacher: nn.Module) -> nn.Module:
    """The student before distillation: a copy of the teacher, or what remains of it at the run's widths."""
    if run.widths is None:
        return gates.remove(copy.deepcopy(teacher)).eval()
    shrink = compression.restarted if run.experiment == "figure-3-left" else compression.thinned
    with seeded(run.repetition, torch.device("cpu")):
        return shrink(run.row.network(widths=run.widths), copy.deepcopy(teacher).cpu())


def compiled(network: nn.Module) -> nn.Module:
    """`network`, compiled on a GPU, where that pays, if there is Triton, which is not on Windows. On a processor our own
    masks are faster than compiled ones."""
    if device_of(network).type == "cuda" and find_spec("triton"):
        compile_whole(network)
    return network


def compile_whole(network: nn.Module, **how) -> None:
    """Have `network` compiled when it first runs, as `torch.compile` is told; the names of its parameters stay.

    As `nn.Module.compile`, but through a function of our own: some releases of PyTorch, 2.6 and 2.11 among them, pass over an
    `nn.Sequential` of which only PyTorch's own code is called, and say nothing.
    """
    # So often may that function be compiled, for all networks together; after 8 times, as it is, the second row would run as
    # it was written.
    torch._dynamo.config.cache_size_limit = 64

    def call(*args, **kwargs):
        return network._call_impl(*args, **kwargs)

    network._compiled_call_impl = torch.compile(call, **how)


def mirroring(run: Run) -> list[datasets.Perturbation]:
    return [datasets.mirror] if run.row.mirror else []


def common(run: Run, progress: bool) -> dict:
    """What training and distillation have in common."""
    row = run.row
    return {
        "batch_size": row.batch_size,
        "weight_decay": row.weight_decay,
        "autocast": row.autocast,
        "progress": progress,
    }


def keep(run: Run, teacher: nn.Module, student: nn.Module, folder: Path) -> None:
    """Write the weights of the teacher and of the student to ``weights`` in `folder`, for the notebooks to open.

    The student's are rounded to float16, half as long: no other run starts from them.
    """
    from safetensors.torch import save

    def content(network: nn.Module) -> dict[str, Tensor]:
        return {key: value.cpu().contiguous() for key, value in network.state_dict().items()}

    rounded = {key: value.half() if value.is_floating_point() else value for key, value in content(student).items()}
    files.write(weights(run.teacher, folder), save(content(teacher)))
    files.write(weights(run.name, folder), save(rounded))


def commit() -> str:
    """The git commit of the code, with "+" if it has been changed since; "unknown" outside a repository or without git."""
    this_alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(ROOT.parent)}  # no repository around this one
    git = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, env=this_alone)
    try:
        head = git(["git", "rev-parse", "HEAD"])
        changed = git(["git", "status", "--porcelain", "--", "helpers"]).stdout.strip()
    except OSError:  # git is not installed, or may not be run
        return "unknown"
    return head.stdout.strip() + "+" * bool(changed) if head.returncode == 0 else "unknown"


COMMIT = commit()  # now that the code is loaded; its files may change before a run begins
