"""The five networks of the paper, as lists of layers that can be read from top to bottom.

Every network maps images [N, C, H, W] to logits [N, K]. What the paper leaves open (dropout rates,
whether dropout comes before or after pooling) is an argument; what it takes from Caffe, where the
originals were published, follows Caffe: pooling rounds up (``ceil_mode``) and biases start at zero.

References
----------
Rota Bulò, Porzi, Kontschieder (2016), section 5.1.
LeCun, Bottou, Bengio, Haffner (1998), LeNet. Krizhevsky, cuda-convnet, Quick.
Lin, Chen, Yan (2014), NiN. Springenberg, Dosovitskiy, Brox, Riedmiller (2014), AllConv.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn.init import normal_, xavier_uniform_, zeros_

# Caffe rounds the size of a pooled map up; PyTorch rounds down unless told otherwise.
MaxPool = partial(nn.MaxPool2d, ceil_mode=True)
AvgPool = partial(nn.AvgPool2d, ceil_mode=True)


class Layers(nn.Sequential):
    """`nn.Sequential`, of which a slice is a plain `nn.Sequential` of some of its layers."""

    def __getitem__(self, index: int | slice) -> nn.Module:
        return nn.Sequential(*self)[index]


class LeNet(Layers):
    """LeNet-5 in Caffe's form, with dropout before the last layer only.

    Grey images [N, 1, 28, 28] to logits [N, 10]; 431,080 parameters.

    Parameters
    ----------
    p : rate of the only dropout layer.
    """

    def __init__(self, p: float = 0.5):
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(1, 20, 5),
                pool1=MaxPool(2),
                conv2=nn.Conv2d(20, 50, 5),
                pool2=MaxPool(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(800, 500),
                relu=nn.ReLU(),
                drop=nn.Dropout(p),
                fc2=nn.Linear(500, 10),
            )
        )
        initialise(self)


class LeNetAll(Layers):
    """LeNet with dropout after every convolution and fully connected layer but the last.

    Grey images [N, 1, 28, 28] to logits [N, 10]; 431,080 parameters.

    Parameters
    ----------
    p : rate of all three dropout layers.
    widths : units of the two convolutions and of the first fully connected layer. Smaller numbers give compressed
        students.
    drop_before_pool : where dropout sits in the first two blocks. ``True`` is right after the convolution, as the paper's
        words say; see `Quick` for why that matters.
    """

    def __init__(self, p: float = 0.5, widths: Sequence[int] = (20, 50, 500), drop_before_pool: bool = True):
        a, b, c = widths

        def block(i: int, conv: nn.Conv2d) -> dict[str, nn.Module]:
            drop, pool = {f"drop{i}": nn.Dropout(p)}, {f"pool{i}": MaxPool(2)}
            return {f"conv{i}": conv, **(drop | pool if drop_before_pool else pool | drop)}

        super().__init__(
            OrderedDict(
                **block(1, nn.Conv2d(1, a, 5)),
                **block(2, nn.Conv2d(a, b, 5)),
                flatten=nn.Flatten(),
                fc1=nn.Linear(16 * b, c),
                relu=nn.ReLU(),
                drop3=nn.Dropout(p),
                fc2=nn.Linear(c, 10),
            )
        )
        initialise(self)


class Quick(Layers):
    """cuda-convnet's Quick, with dropout after every convolution and fully connected layer but the last.

    Colour images [N, 3, 32, 32] to logits [N, K]; 145,578 parameters with K = 10.

    Parameters
    ----------
    p : rate of all four dropout layers.
    classes : K.
    widths : units of the three convolutions and of the first fully connected layer. Smaller numbers
        give the compressed students of Fig. 3.
    drop_before_pool : where dropout sits in the first three blocks. ``True`` is "after every
        convolutional layer" to the letter: the units are dropped and rescaled before they are pooled,
        and the largest of several rescaled units is larger on average than the largest of the units
        themselves, which weight scaling does not know. ``False`` drops what pooling returns.
    """

    def __init__(
        self,
        p: float = 0.5,
        classes: int = 10,
        widths: Sequence[int] = (32, 32, 64, 64),
        drop_before_pool: bool = True,
    ):
        a, b, c, d = widths

        def block(i: int, conv: nn.Conv2d, **layers: nn.Module) -> dict[str, nn.Module]:
            drop = {f"drop{i}": nn.Dropout(p)}
            rest = {f"{name}{i}": layer for name, layer in layers.items()}
            return {f"conv{i}": conv, **(drop | rest if drop_before_pool else rest | drop)}

        super().__init__(
            OrderedDict(
                **block(1, nn.Conv2d(3, a, 5, padding=2), pool=MaxPool(3, 2), relu=nn.ReLU()),
                **block(2, nn.Conv2d(a, b, 5, padding=2), relu=nn.ReLU(), pool=AvgPool(3, 2)),
                **block(3, nn.Conv2d(b, c, 5, padding=2), relu=nn.ReLU(), pool=AvgPool(3, 2)),
                flatten=nn.Flatten(),
                fc1=nn.Linear(16 * c, d),
                drop4=nn.Dropout(p),
                fc2=nn.Linear(d, classes),
            )
        )
        initialise(self, stds=(1e-4, 0.01, 0.01, 0.1, 0.1))


class NiN(Layers):
    """Network in Network: three blocks of one convolution and two 1 x 1 convolutions.

    Colour images [N, 3, 32, 32] to logits [N, K]; 966,986 parameters with K = 10.

    Parameters
    ----------
    p : rate of the two dropout layers, which follow the first two blocks.
    classes : K.
    """

    def __init__(self, p: float = 0.5, classes: int = 10):
        super().__init__(
            *conv_relu(3, 192, 5, padding=2),
            *conv_relu(192, 160, 1),
            *conv_relu(160, 96, 1),
            MaxPool(3, 2),
            nn.Dropout(p),
            *conv_relu(96, 192, 5, padding=2),
            *conv_relu(192, 192, 1),
            *conv_relu(192, 192, 1),
            AvgPool(3, 2),
            nn.Dropout(p),
            *conv_relu(192, 192, 3, padding=1),
            *conv_relu(192, 192, 1),
            *conv_relu(192, classes, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        initialise(self, stds=(0.05,) * 9)


class AllConv(Layers):
    """All-CNN-C: convolutions only, with strides in place of pooling.

    Colour images [N, 3, 32, 32] to logits [N, K]; 1,369,738 parameters with K = 10.

    Parameters
    ----------
    p : rate of the two dropout layers inside.
    p_input : rate of the dropout layer on the input.
    classes : K.
    """

    def __init__(self, p: float = 0.5, p_input: float = 0.2, classes: int = 10):
        super().__init__(
            nn.Dropout(p_input),
            *conv_relu(3, 96, 3, padding=1),
            *conv_relu(96, 96, 3, padding=1),
            *conv_relu(96, 96, 3, padding=1, stride=2),
            nn.Dropout(p),
            *conv_relu(96, 192, 3, padding=1),
            *conv_relu(192, 192, 3, padding=1),
            *conv_relu(192, 192, 3, padding=1, stride=2),
            nn.Dropout(p),
            *conv_relu(192, 192, 3),
            *conv_relu(192, 192, 1),
            *conv_relu(192, classes, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        initialise(self)


def conv_relu(*args: int, **kwargs: int) -> tuple[nn.Module, nn.Module]:
    """A convolution and its ReLU; arguments as `torch.nn.Conv2d`."""
    return nn.Conv2d(*args, **kwargs), nn.ReLU()


def initialise(network: nn.Module, stds: Sequence[float] | None = None) -> None:
    """Draw the weights from N(0, std²), one `stds` entry per layer, or by Xavier's rule; zero the biases.

    The weights are laid out channels last, in which convolutions and pooling run faster.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for i, layer in enumerate(layers):
        if stds is None:
            xavier_uniform_(layer.weight)
        else:
            normal_(layer.weight, std=stds[i])
        zeros_(layer.bias)
    network.to(memory_format=torch.channels_last)


def parameter_count(network: nn.Module) -> int:
    """Number of learnable values in `network`."""
    return sum(p.numel() for p in network.parameters())
