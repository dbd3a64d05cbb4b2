"""Algorithm 2: dropout distillation (Rota Bulò et al. 2016, section 4)."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from helpers import bregman, checkpoints, gates
from helpers.batches import unlabelled
from helpers.draws import require_draws
from helpers.functional import of_pytorch, runs_own_code
from helpers.inputs import Inputs, call, device_of, each, require_positive, size
from helpers.precision import mixed_precision
from helpers.predictors import (
    EXAMPLES_APART,
    Output,
    explained,
    full_precision,
    mixes,
    predictions,
    require_examples_first,
    require_logits,
    softmax,
    sums_to_one,
)
from helpers.seeding import seeded
from helpers.sgd import LearningRate, descend, length, not_finite

Loss = Callable[[Tensor, Tensor], Tensor]


def distill(
    teacher: nn.Module,
    inputs: Tensor | Dataset | DataLoader,
    *,
    student: nn.Module | None = None,
    loss: Loss = bregman.kl,
    epochs: int = 30,
    lr: LearningRate = 1e-3,
    batch_size: int = 64,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    perturb: Callable[[Tensor], Tensor] | None = None,
    samples: int = 1,
    output: Output = softmax,
    autocast: torch.dtype | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> nn.Module:
    """Turn a dropout network into one that predicts like the average of its ensemble at the price of one pass.

    In each step every example x meets one randomly gated teacher f_{Θ*,σ}, and the deterministic student q_Ω is
    moved to lower ℓ(f_{Θ*,σ}(x), q_Ω(x)). For a Bregman divergence ℓ this descends ℓ(E_σ f_{Θ*,σ}(x), q_Ω(x)), the
    distance to the ideal predictor (Theorem 1), which never has to be computed.

    The teacher samples its gates and nothing else: its BatchNorm and the like stay in eval mode, its parameters and
    buffers do not change (but for what its own code changes in eval mode), and its modes are put back at the end.

    Parameters
    ----------
    teacher : any network with dropout in it, returning logits [N, K], or [N, T, K] for T predictions of each example:
        examples are always first (``batch_first=True``), classes last. All its dropout draws; where a part was trained in
        eval mode, `gates.remove` its rates.
    inputs : the set S of unlabelled examples: a tensor [N, ...], a Dataset or a DataLoader. Labels that it yields beside
        them are ignored; a network of several inputs gets them from a dictionary or a tuple (`batches.inputs_of`).
    student : network to train, in place; it must return [N, K], hold no active dropout (`gates.remove`) and share nothing
        that is trained with the teacher. It runs in the mode in which it comes: in training mode its BatchNorm
        learns, in eval mode it is frozen. Default: a copy of the teacher with its dropout removed, in eval mode, of which
        all parameters are trained, those that are frozen in the teacher, too. Where the teacher calls `F.dropout` in its
        forward, that copy is deterministic in eval mode only: in training mode it would drop again.
    loss : ℓ(y [n, K], ŷ [n, K]) -> [n], of the teacher's and the student's predictions, as those in `bregman`. (PyTorch's
        own take them in the other order, and return the mean.)
    epochs : times that every example is seen.
    lr : learning rate of SGD: a number, used for two thirds of the epochs and then divided by ten, or {epoch: rate}. The
        paper starts from the last rate that the teacher was trained with. After Adam, whose rates are no guide, try 1e-2;
        how near the student has come is its distance to `predictors.monte_carlo` (notebook 10).
    batch_size : m in Algorithm 2; a DataLoader has its own.
    momentum, weight_decay : of SGD; `weight_decay` is λ in the penalty λ/2 ‖Ω‖².
    perturb : from a batch [n, ...] (or a dictionary or tuple) to the batch that the networks see, called in each step on
        their device (for example `datasets.drop_pixels`); it is the same for teacher and student.
    samples : gated teachers per example and step, averaged before the loss is taken.
    output : from what the networks return to the predictions [n, K] that are compared. For a regression: ``loss=
        bregman.squared_euclidean, output=lambda z: z``; for classes that do not exclude each other ``loss=
        bregman.logistic, output=torch.sigmoid``. With these two functions, softmax and sigmoid, the losses named here are
        computed from logits, however large; with one of your own a loss is infinite where a prediction is rounded to zero.
    autocast : type in which the networks compute, see `training.train`.
    device : where to compute. Default: where the teacher is.
    seed : of the order of the examples, and of those gates and perturbations that draw from PyTorch, whose global random
        state is left alone.
    progress : whether to show a progress bar with loss and learning rate.
    checkpoint : file to write after each epoch. If it exists, distillation continues from it, to the same weights; those
        with which `student` comes are then of no account. Of a Dataset or DataLoader it remembers kind and length alone,
        and nothing of a random generator of its own; with persistent workers it gives other batches to a run that continues.

    Returns
    -------
    The student, in eval mode.

    Raises
    ------
    ValueError : if the teacher has no dropout, the student draws random numbers, or training it would change the
        teacher; if their outputs differ in shape, are not one for each example, or are no logits while `output` is the
        softmax; if the loss is not one number for each prediction; if there are no examples, or one holds NaN or infinity;
        if a checkpoint is damaged or belongs to another run.
    TypeError : if it is not plain what the inputs in a batch are, if they are numbers of another type than the networks
        compute with, or if a network returns no tensor while `output` is the softmax.
    FloatingPointError : if the loss diverges.

    Warns
    -----
    UserWarning : if what the teacher makes of an example depends on the others in its batch, as where time comes first.

    Examples
    --------
    >>> student = distill(model, images)
    >>> probabilities = student(new_images).softmax(-1)
    """
    gates.require_stochastic_layers(teacher)
    if name := not_finite(teacher):
        raise ValueError(f"the teacher's {name!r} holds NaN or infinity; it has diverged in training")
    require_positive("samples", samples)
    batches = unlabelled(inputs, batch_size)
    device = device_of(teacher) if device is None else torch.empty(0, device=device).device  # "cuda" as "cuda:0"
    if student is not None:
        require_own_parameters(student, teacher, teacher_stays=device == device_of(teacher))
    if device != device_of(teacher):
        teacher = copied(teacher).to(device)
    if student is None:
        student = gates.remove(copied(teacher))
        student.eval()
        for parameter in student.parameters():
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())  # not whole numbers
    elif stochastic := [name for name, layer in gates.stochastic_layers(student).items() if gates.rate_is_known(layer)]:
        raise ValueError(f"the student drops units itself, in {stochastic}; call gates.remove(student) first")
    student.to(device)
    divergence = loss_of_logits(loss, output)
    drawing = gates.drawing(teacher)
    first = True

    def objective(x: Inputs) -> Tensor:
        nonlocal first
        x = each(lambda part: part.detach().to(device, copy=True), x)  # networks may work in place on what they get
        if perturb is not None:
            x = perturb(x)
        n = size(x)
        with mixed_precision(device, autocast), explained(teacher, x):
            if first:
                require_draws(teacher, x, partial(predictions, output))
                require_deterministic(student, x, partial(predictions, output))
                if mixes(teacher, x):
                    warnings.warn(
                        f"What {type(teacher).__name__} makes of an example depends on the others in its batch, and these are "
                        f"drawn at random. {EXAMPLES_APART}",
                        stacklevel=4,
                    )
            with drawing, torch.no_grad():
                passes = [call(teacher, each(torch.clone, x)) for _ in range(samples)]
            logits = call(student, x)
        *full, q = (full_precision(z) for z in (*passes, logits))
        if first:
            require_logits(passes[0], output)
            require_logits(logits, output)
            require_same_shape(output(full[0]), output(q), passes[0], logits)
            require_examples_first(output(q), n)
            require_classes(output(q))
            require_gradients_of_its_own(output(q), teacher)
        f = sum(output(z) for z in full) / samples
        losses = divergence(f, q)
        if first:
            require_losses(losses, f)
            first = False
        return losses.mean()

    with gates.sampling_modes(teacher), recurrent_layers_in_training_mode(student):
        descend(
            student,
            batches,
            objective,
            epochs=epochs,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            seed=seed,
            device=device,
            title="distilling",
            progress=progress,
            checkpoint=checkpoint,
            settings=lambda: {
                "batch_size": batch_size,
                "perturb": checkpoints.describe(perturb),
                "loss": checkpoints.describe(loss),
                "samples": samples,
                "output": checkpoints.describe(output),
                "autocast": str(autocast),
                "rates": gates.rates(teacher),
                "teacher": checkpoints.fingerprint(teacher.state_dict().values()),
                "student": checkpoints.layers(student),
                "student's mode": "training" if student.training else "eval",
                "data": checkpoints.fingerprint([inputs]) if isinstance(inputs, Tensor) else kind_and_length(inputs),
            },
        )
    student.eval()
    return student


@contextmanager
def recurrent_layers_in_training_mode(student: nn.Module) -> Iterator[None]:
    """Without dropout their mode makes no difference, but cuDNN has no backward pass in eval mode."""
    with gates.modes_put_back(student):
        for layer in student.modules():
            if isinstance(layer, nn.RNNBase) and of_pytorch(type(layer).forward):
                layer.training = True
        yield


def loss_of_logits(loss: Loss, output: Output) -> Loss:
    """(f [n, K], logits [n, K]) -> ℓ(f, output(logits)) [n], by way of the logits' logarithms where the loss offers that."""
    links = {bregman.KL: softmax, bregman.Logistic: torch.sigmoid}
    if links.get(type(loss)) is output:
        return loss.with_logits
    return lambda f, logits: loss(f, output(logits))


def require_same_shape(f: Tensor, q: Tensor, of_teacher: Any, of_student: Any) -> None:
    """Raise ValueError unless predictions `f` and `q`, which `output` has made of what the networks return, agree in shape."""
    kinds = [type(returned).__name__ for returned in (of_teacher, of_student)]
    if q.shape != f.shape:
        both = (
            f": they return a {kinds[0]} and a {kinds[1]}, and `output` has to take both" if len({*kinds}) == 2 else ""
        )
        raise ValueError(f"the teacher returns {list(f.shape)} and the student {list(q.shape)}; they must agree{both}")


def require_classes(q: Tensor) -> None:
    """
    Raises
    ------
    ValueError : if predictions `q` have no dimension of classes, in whose place a loss would take the examples, or it is not
        the last.
    """
    if q.ndim < 2:
        raise ValueError(
            f"the predictions compared are {list(q.shape)}, and losses take [n, K]: let the network return [n, 1] and pass "
            "output=torch.sigmoid, which large logits cannot harm, or end `output` with .unsqueeze(-1), for example "
            "output=lambda z: z.sigmoid().unsqueeze(-1), or output=lambda z: z.unsqueeze(-1) for a regression."
        )
    if q.ndim > 2 and sums_to_one(q, 1) and not sums_to_one(q, -1):
        raise ValueError(
            f"the predictions compared are {list(q.shape)}, distributions over dimension 1, and losses take classes from the "
            "last: end `output` with .movedim(1, -1), for example output=lambda z: predictors.softmax(z.movedim(1, -1))."
        )


def require_losses(losses: Tensor, f: Tensor) -> None:
    """Raise ValueError unless there is one of `losses` for each of the predictions `f`."""
    if losses.shape != f.shape[:-1]:
        raise ValueError(
            f"of predictions {list(f.shape)} the loss returns {list(losses.shape)}, not {list(f.shape[:-1])}: it takes the "
            "teacher's and the student's, in this order, and returns one number for each, as bregman.kl, bregman.logistic and "
            "bregman.squared_euclidean do. Losses of PyTorch take them in the other order, and return the mean of all."
        )


def require_own_parameters(student: nn.Module, teacher: nn.Module, teacher_stays: bool) -> None:
    """
    Raises
    ------
    ValueError : if to train `student` would change `teacher`, or take a part of it to another device.
    """
    there = {address(tensor) for tensor in (*teacher.parameters(), *teacher.buffers())}
    trained = [name for name, p in student.named_parameters() if p.requires_grad and address(p) in there]
    learning = [  # other buffers, such as positions, are as a rule constants
        f"{name}.{key}".lstrip(".")
        for name, module in student.named_modules()
        for key, buffer in module.named_buffers(recurse=False)
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.training and address(buffer) in there
    ]
    if changed := trained + learning:
        raise ValueError(
            f"the student shares {changed} with its teacher, which would change with it: give the student a copy "
            "(copy.deepcopy), or freeze what they share (requires_grad_(False), eval())."
        )
    of_teacher = {id(parameter) for parameter in teacher.parameters()}
    moved = [name for name, p in student.named_parameters() if id(p) in of_teacher]
    if moved and not teacher_stays:
        raise ValueError(
            f"the student shares {moved} with its teacher, which would be moved with it: move both to the device "
            "first, or give the student a copy (copy.deepcopy)."
        )


def address(tensor: Tensor) -> int:
    """Where the values of `tensor` begin, so that another tensor over the same memory is told, too."""
    try:
        return tensor.data_ptr() or id(tensor)  # those without values, or on "meta", are nowhere
    except RuntimeError:  # some that wrap others, as quantised weights, do not say
        return id(tensor)


def require_gradients_of_its_own(q: Tensor, teacher: nn.Module) -> None:
    """
    Raises
    ------
    ValueError : if what the student predicts, `q`, has no gradient, or one with respect to `teacher`.
    """
    if not q.requires_grad:
        raise ValueError(
            "no gradient reaches the student's parameters: its forward runs under torch.no_grad or detaches what it "
            "computes, or all of this runs in torch.inference_mode()."
        )
    reached, found = {id(leaf) for leaf in leaves(q)}, teacher.named_parameters()
    if names := [name for name, parameter in found if id(parameter) in reached]:
        raise ValueError(
            f"the student computes with {names} of the teacher: a hook, or a forward that was replaced, holds on to the "
            "teacher's layers, and a copy of the network to the same ones. Give distill a student of its own."
        )


def leaves(z: Tensor) -> Iterator[Tensor]:
    """The tensors that gradients of `z` arrive at."""
    ahead, seen = [z.grad_fn], {None}
    while ahead:
        if (node := ahead.pop()) not in seen:
            seen.add(node)
            ahead += [function for function, _ in node.next_functions]
            if hasattr(node, "variable"):
                yield node.variable


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model`.

    Raises
    ------
    ValueError : if it cannot be copied, as a network that keeps what it has computed with gradients, or an open file.
    """
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"the {type(model).__name__} cannot be copied ({error}). If it keeps what it computes (self.h = ..., pruning, "
            "old weight_norm), call it once under torch.no_grad() first, or make those plain parameters again; what is no "
            "part of the network, such as a lock, an open file or a logger, take out of it (del model.log)."
        ) from error


def kind_and_length(inputs: Dataset | DataLoader) -> str:
    """What a checkpoint remembers of examples that it cannot look at without drawing them."""
    return f"{type(inputs).__name__} of {length(inputs) or 'unknown length'}"


def require_deterministic(student: nn.Module, x: Inputs, output: Output) -> None:
    """
    Raises
    ------
    ValueError : if two passes of `x` through `student` differ, although it has no layer that is known to be random.
    """
    if not runs_own_code(student):
        return
    twin = copied(student)  # whose BatchNorm may learn from it
    with torch.no_grad(), seeded(0, device_of(student)):
        first, second = (output(call(twin, each(torch.clone, x))) for _ in range(2))
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ValueError(
            "the student draws random numbers itself: two passes over the same examples differ. A dropout in its forward "
            "must be F.dropout(x, p, self.training), and the student in eval mode, or its rate 0."
        )
