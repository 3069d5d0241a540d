"""A discrete VAE in PyTorch, in the form of BEiT's small one: towers, losses, gradients."""

import math

import torch
from golden_store import Draw, check_close, exact, write
from torch import nn
from torch.nn import functional as F

CONFIG = dict(width=4, codes=6, image_size=16, patch_size=4)
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
TEMPERATURE, KL_WEIGHT = 0.7, 0.03


class Residual(nn.Module):
    """x + 3 x 3, 3 x 3 and 1 x 1 convolutions with ReLU between them."""

    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x):
        return x + self.net(x)


class DiscreteVAE(nn.Module):
    """Two stages."""

    def __init__(self, width, codes):
        super().__init__()
        down = lambda i, o: nn.Sequential(nn.Conv2d(i, o, 4, 2, 1), nn.ReLU(), Residual(o))
        up = lambda i, o: nn.Sequential(Residual(i), nn.ConvTranspose2d(i, o, 4, 2, 1))
        self.encoder = nn.Sequential(down(3, width), down(width, 2 * width))
        self.logits = nn.Conv2d(2 * width, codes, 1)
        self.codebook = nn.Embedding(codes, 2 * width)
        self.decoder = nn.Sequential(up(2 * width, width), nn.ReLU(), up(width, 3))

    def encode(self, pixels):
        """Logits [b, k, g, g]."""
        return self.logits(self.encoder(pixels))

    def decode(self, shares):
        """Images of shares [b, k, g, g]."""
        return self.decoder(torch.einsum('bkhw,kd->bdhw', shares, self.codebook.weight))


def write_dvae(folder):
    """Logits, an image, both losses and gradients, with given Gumbel noise."""
    draw = Draw(601)
    model = DiscreteVAE(CONFIG['width'], CONFIG['codes']).double()
    with torch.no_grad():
        for name, value in model.named_parameters():
            # A gain of about 1.5 a layer.
            fan_in = value[0].numel() if value.dim() == 4 and 'decoder' not in name else 24
            std = 0.1 if name.endswith('bias') else 1.5 / math.sqrt(fan_in)
            value.copy_(draw.normal(*value.shape, std=std))
    size = CONFIG['image_size']
    images = draw.integers(0, 256, 3, size, size, 3)
    uniform = torch.rand(3, 6, 4, 4, generator=draw.generator, dtype=torch.float64)
    noise = exact(-torch.log(-torch.log(uniform.clamp(1e-6, 1 - 1e-6))))
    scale = lambda values: torch.tensor(values, dtype=torch.float64)[:, None, None]
    pixels = (images.permute(0, 3, 1, 2) / 255.0 - scale(MEAN)) / scale(STD)

    logits = model.encode(pixels)
    shares = F.softmax((logits + noise) / TEMPERATURE, dim=1)
    output = model.decode(shares)
    reconstruction = F.mse_loss(output, pixels)
    log_q = F.log_softmax(logits, dim=1)
    kl = (log_q.exp() * (log_q - math.log(1 / CONFIG['codes']))).sum(dim=1).mean()
    even = torch.full_like(log_q, 1 / CONFIG['codes']).log()
    check_close(kl, F.kl_div(even, log_q, reduction='sum', log_target=True) / (3 * 16), 'KL')
    (reconstruction + KL_WEIGHT * kl).backward()
    params = {name: value.detach() for name, value in model.named_parameters()}
    last = lambda x: x.permute(0, 2, 3, 1)
    write(
        f'{folder}/dvae.npz',
        config=CONFIG | dict(mean=MEAN, std=STD, temperature=TEMPERATURE, kl_weight=KL_WEIGHT),
        params=params,
        inputs={'images': images.to(torch.uint8), 'noise': last(noise).reshape(3, 16, 6)},
        outputs={
            'logits': last(logits).reshape(3, 16, 6),
            'output': last(output),
            'reconstruction': reconstruction,
            'kl': kl,
            **{f'grad_{name}': value.grad for name, value in model.named_parameters()},
        },
    )


def write_all(folder):
    write_dvae(folder)
