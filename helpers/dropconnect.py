"""DropConnect: gates on the connections between units, instead of on the units (Wan et al. 2013).

Each example needs a mask as large as the weight matrix, so that a batch needs N of them: 128 examples through a layer of
1000 x 1000 weights meet 128 million gates. They are drawn some millions at a time, and the backward pass draws them once
more from the same random numbers instead of keeping them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from helpers.masks import CheapMasks

GATES = 2**21  # drawn at a time; with them come a few buffers of as many floats


class DropConnect(nn.Module):
    """A linear layer whose connections are dropped in training: y = (Σ ∘ W / (1 - p)) x + b, with Σ a matrix of gates.

    Maps [..., in_features] to [..., out_features]; each row of the input has a matrix Σ of its own. The gates are
    inverted, so that E[y] = W x + b and in eval mode this is the plain linear layer. The variance of output i is
    p / (1 - p) Σ_j W_ij² x_j², and different outputs are independent. The bias is no connection: it always stays.

    Parameters
    ----------
    in_features, out_features, bias : as for `nn.Linear`, whose parameters have the same names, shapes and first values.
        It is no subclass, since code that meets an `nn.Linear` may count on it to be linear in every mode.
    p : rate, the probability that a connection is dropped.

    Raises
    ------
    ValueError : if `p` is not between 0 and 1.

    Source: Rota Bulò et al. 2016, section 2; the distribution is the exact one, not Wan et al.'s Gaussian for it.
    """

    def __init__(self, in_features: int, out_features: int, p: float = 0.5, bias: bool = True):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"the rate p must be a probability between 0 and 1, not {p}")
        linear = nn.Linear(in_features, out_features, bias)
        self.in_features, self.out_features, self.p = in_features, out_features, p
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return F.linear(input, self.weight, self.bias)
        rows = input.reshape(-1, self.in_features).split(max(1, GATES // self.weight.numel()))
        y = torch.cat([checkpoint(self.gated, part, use_reentrant=False) for part in rows])
        return y.reshape(*input.shape[:-1], self.out_features)

    def gated(self, x: Tensor) -> Tensor:
        """Rows [n, in] to [n, out], each through gates drawn for it."""
        with CheapMasks():  # here, since the backward pass comes back to this line alone
            weight = F.dropout(self.weight.expand(len(x), -1, -1), self.p)
        return self.through(weight, x)

    def through(self, weight: Tensor, x: Tensor) -> Tensor:
        """Weights [..., out, in] of each row's own, and x [..., in], to [..., out]."""
        y = (weight @ x.unsqueeze(-1)).squeeze(-1)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, p={self.p}, bias={self.bias is not None}"
