"""The ApCM network in PyTorch, written from the paper's formulas: 1024 to 128, six couplings of width 256."""
import torch
from torch import nn


class SwiGLU(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return nn.functional.silu(self.inner(x)) * self.outer(x)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inside = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), SwiGLU(width), nn.Linear(width, width))

    def forward(self, x):
        return x + self.inside(x)


class Coupling(nn.Module):
    """y2 = x2 * exp(s(x1)) + t(x1), then a permutation."""

    def __init__(self, width, hidden):
        super().__init__()
        half = width // 2
        self.half = half
        self.subnetwork = nn.Sequential(
            nn.Linear(half, hidden), SwiGLU(hidden), Residual(hidden), Residual(hidden), nn.Linear(hidden, 2 * half)
        )
        order = torch.randperm(width)
        self.register_buffer("order", order)
        self.register_buffer("back", torch.argsort(order))

    def forward(self, x):
        x1, x2 = x[:, : self.half], x[:, self.half :]
        s, t = self.subnetwork(x1).chunk(2, dim=1)
        return torch.cat([x1, x2 * torch.exp(s) + t], dim=1).index_select(1, self.order)

    def inverse(self, y):
        y = y.index_select(1, self.back)
        y1, y2 = y[:, : self.half], y[:, self.half :]
        s, t = self.subnetwork(y1).chunk(2, dim=1)
        return torch.cat([y1, (y2 - t) * torch.exp(-s)], dim=1)


class ApCM(nn.Module):
    def __init__(self, width=1024, kept=128, layers=6, hidden=256):
        super().__init__()
        self.kept = kept
        self.couplings = nn.ModuleList(Coupling(width, hidden) for _ in range(layers))
        self.predictor = nn.Sequential(nn.Linear(kept, hidden), SwiGLU(hidden), nn.Linear(hidden, width - kept))

    def parameters_count(self):
        return sum(one.numel() for one in self.parameters())

    def encode(self, x):
        """z, of which the first `kept` coordinates are stored."""
        for coupling in self.couplings:
            x = coupling(x)
        return x

    def decode(self, z_comp):
        z = torch.cat([z_comp, self.predictor(z_comp)], dim=1)
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)
        return z


def load(threads):
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    return ApCM().eval()
