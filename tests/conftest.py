"""One thread: for networks as small as those of the tests a second one costs more than it computes."""

import torch

torch.set_num_threads(1)
