"""Figures of the chips that `preflight` plans for, from their makers' pages."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak figures of one accelerator; no program reaches all of them.

    Attributes:
      name: as in `--topology`.
      kinds: what JAX calls such a device (`device_kind`).
      flops: of bfloat16 matrix products, a second.
      hbm_bytes: memory.
      hbm_bandwidth: bytes a second.
      link: bytes a second into the chip, over one link of a torus or over the switch.
      wrap: a side of the torus closes to a ring if this divides it; 0: chips share a switch.
      host: chips under one switch, for chips with a switch.
      network: bytes a second into the chip from other hosts, for chips with a switch.
      source: where the figures are from.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    link: float
    wrap: int
    source: str
    host: int = 0
    network: float = 0.0

    def interconnect(self, sides: tuple[int, ...]) -> float:
        """Bytes a second that reach one chip when all its links are busy.

        A ring gives a chip two links to receive from; on a line, its end has one. All sides work at
        once. Behind a switch, what crosses hosts is held up by the network.

        Args:
          sides: of the slice, e.g. (16, 16); for a switch the number of chips.
        """
        if not self.wrap:
            return self.link if sides[0] <= self.host else self.network
        links = [0 if side == 1 else 2 if side % self.wrap == 0 else 1 for side in sides]
        return self.link * sum(links)


# Google gives the interconnect as the sum over all links and both directions: 4 links a chip for
# v5e and v6e, 6 for v4 and v5p; `link` is that sum over twice the links.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name='v4',
            kinds=('TPU v4',),
            flops=275e12,
            hbm_bytes=32 * 2**30,
            hbm_bandwidth=1200e9,
            link=50e9,
            wrap=4,
            source='docs.cloud.google.com/tpu/docs/v4; links: arXiv 2304.01433',
        ),
        Chip(
            name='v5e',
            kinds=('TPU v5 lite', 'TPU v5e'),
            flops=197e12,
            hbm_bytes=16 * 2**30,
            hbm_bandwidth=819e9,
            link=400e9 / 8,
            wrap=16,
            source='docs.cloud.google.com/tpu/docs/v5e',
        ),
        Chip(
            name='v5p',
            kinds=('TPU v5', 'TPU v5p'),
            flops=459e12,
            hbm_bytes=95 * 2**30,
            hbm_bandwidth=2765e9,
            link=1200e9 / 12,
            wrap=4,
            source='docs.cloud.google.com/tpu/docs/v5p',
        ),
        Chip(
            name='v6e',
            kinds=('TPU v6 lite', 'TPU v6e'),
            flops=918e12,
            hbm_bytes=32 * 2**30,
            hbm_bandwidth=1638e9,
            link=800e9 / 8,
            wrap=16,
            source='docs.cloud.google.com/tpu/docs/v6e',
        ),
        Chip(
            name='h100',
            kinds=('NVIDIA H100 80GB HBM3',),
            flops=989e12,
            hbm_bytes=80e9,
            hbm_bandwidth=3350e9,
            link=450e9,
            wrap=0,
            host=8,
            network=50e9,
            source='NVIDIA H100 SXM data sheet, without sparsity; one 400 Gb/s port a GPU (DGX)',
        ),
        Chip(
            name='h200',
            kinds=('NVIDIA H200',),
            flops=989e12,
            hbm_bytes=141e9,
            hbm_bandwidth=4800e9,
            link=450e9,
            wrap=0,
            host=8,
            network=50e9,
            source='NVIDIA H200 SXM data sheet, without sparsity; one 400 Gb/s port a GPU (DGX)',
        ),
    )
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls `device_kind`; None for one that is not in the table, as a CPU."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.kinds), None)
