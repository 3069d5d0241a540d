"""How fast the host makes training images: per second of a core, beside Pillow with PyTorch.

    python -m benchmarks.input [--images=512] [--size=256]     # from the root; two minutes

Made-up JPEGs, in shards whose short side is `--size` and as files of 640 x 480. A row a stage: each
has what the one above has, and one thing more. Rates are by processor time, of one thread, so that
other programs on the machine hardly count; those of workers are by the clock, and need idle cores.

    decode          a record of the shards, as pixels
    + crop          random crop, resized to --size, mirrored
    + RandAugment   two operations of configs/pretrain.py
    + tokens        and the caption's ids: an example
    batches         all of it, shuffled and in batches of 32: what a run takes
    Pillow          the same work as PyTorch's users write it: Pillow, DataLoader, float tensors

The last rows compare OpenCV's crop and RandAugment with the same operations by JAX on the device,
which is the CPU here unless there is another.
"""

import argparse
import io
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.prepare import photograph
from benchmarks.shards_memory import write_shard
from configs.pretrain import get_config
from semmim_jax.data import pipeline, shard_format, transforms
from semmim_jax.data.examples import RetrievalExamples
from semmim_jax.data.images import decode_image
from semmim_jax.data.readers.sources import make_source
from semmim_jax.data.shard_format import Manifest, ShardRecord, pack_record
from semmim_jax.data.tokenizer import make_tokenizer
from semmim_jax.data.transforms import Augment
from tests.importers import fixtures

KINDS = 40  # different pictures
BATCH = 32
AIM = 500  # images per second of a core, from shards at 256 pixels
AIM_OVER_PILLOW = 2.0


def write_shards(folder: pathlib.Path, images: int, side: int) -> str:
    """A set of one shard, short sides of `side` pixels."""
    folder.mkdir()
    files = [photograph(n, width=side * 4 // 3, height=side) for n in range(KINDS)]
    records = (
        pack_record(
            ShardRecord(key=str(n), images=(files[n % KINDS],), captions=(fixtures.caption(n),))
        )
        for n in range(images)
    )
    shard = write_shard(folder / shard_format.shard_name(0, 1), records)
    Manifest(kind='images', shards=(shard,), captions=images).write(folder)
    return f'shards:{folder}'


def write_files(folder: pathlib.Path, images: int) -> str:
    """A list of files of 640 x 480."""
    files = [photograph(n, width=640, height=480) for n in range(KINDS)]
    for n, data in enumerate(files):
        fixtures.write(folder / f'{n}.jpg', data)
    entries = [{'image': f'{n % KINDS}.jpg', 'caption': fixtures.caption(n)} for n in range(images)]
    return f'captions:{fixtures.write(folder / "list.json", entries)}'


def rate(work: Callable[[int], object], images: int) -> float:
    """Images per second of processor time, the best of three rounds."""
    seconds = []
    for _ in range(3):
        began = time.process_time()
        for n in range(images):
            work(n)
        seconds.append(time.process_time() - began)
    return images / min(seconds)


def batch_rate(batches: Iterator[object], images: int, clock: Callable[[], float]) -> float:
    """Images per second, by `clock`, of batches of BATCH, after the first two."""
    next(batches), next(batches)
    count, rates = images // BATCH, []
    for _ in range(3):
        began = clock()
        for _ in range(count):
            next(batches)
        rates.append(count * BATCH / (clock() - began))
    return max(rates)


def stages(spec: str, config, images: int) -> dict[str, float]:
    """Rates of the stages of one source."""
    data = config.data
    source, rng = make_source(spec, data), np.random.default_rng(0)
    make = RetrievalExamples.of(tokenizer(), data)
    crop_alone = dict(vars(make.augment), ops=0)
    size = data.image_size

    def view(n: int, augment: Augment) -> object:
        image = source[n]['image']
        return transforms.augmented_view(
            image, None, rng, size=size, may_flip=True, augment=augment
        )

    rows = {
        'decode': rate(lambda n: source[n], images),
        '+ crop': rate(lambda n: view(n, Augment(**crop_alone)), images),
        '+ RandAugment': rate(lambda n: view(n, make.augment), images),
        '+ tokens': rate(lambda n: make(source[n], rng), images),
    }
    data.workers = 0
    with _batches(source, make, data) as made:
        rows['batches'] = batch_rate(made, images, time.process_time)
    return rows


def worker_rates(spec: str, config, images: int) -> dict[str, float]:
    """Images per second by the clock, with workers."""
    data, rows = config.data, {}
    source, make = make_source(spec, data), RetrievalExamples.of(tokenizer(), data)
    for data.workers in (1, 2):
        with _batches(source, make, data) as made:
            rows[f'batches, {data.workers} workers'] = batch_rate(made, images, time.monotonic)
    return rows


def _batches(source, make, data) -> pipeline.TrainBatches:
    options = dict(batch_size=BATCH, seed=0, start_step=0, process_index=0, process_count=1)
    return pipeline.train_batches(source, make, data, **options)


def tokenizer():
    """Of the fixtures' captions."""
    return make_tokenizer('', texts=[fixtures.caption(n) for n in range(100)], size=300)


class PillowImages:
    """A data set as one writes it for PyTorch: Pillow's transforms, then a float tensor.

    RandAugment has the operations and level of configs/pretrain.py, by Pillow.
    """

    def __init__(self, files: list[bytes], config):
        self._files, self._data = files, config.data
        self._rng, self._tokenizer = np.random.default_rng(0), tokenizer()

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, number: int):
        import torch

        rng, size, options = self._rng, self._data.image_size, self._data.augment
        image = Image.open(io.BytesIO(self._files[number % len(self._files)])).convert('RGB')
        box = transforms.random_box(
            rng, height=image.height, width=image.width, scale=tuple(options.crop_scale)
        )
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
        if rng.random() < 0.5:
            image = ImageOps.mirror(image)
        for _ in range(options.ops):
            if rng.random() < options.prob:
                image = pillow_operation(image, rng, share=options.level / 10, fill=options.fill)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)
        mean, std = torch.full((3, 1, 1), 0.45), torch.full((3, 1, 1), 0.27)
        ids = self._tokenizer.encode(fixtures.caption(number), self._data.max_tokens)
        return pixels.sub_(mean).div_(std), torch.from_numpy(ids)


def pillow_operation(
    image: Image.Image, rng: np.random.Generator, *, share: float, fill: int
) -> Image.Image:
    """One of the operations of data/randaugment.py, by Pillow."""
    sign, factor, kind = rng.choice((-1, 1)), 0.1 + 1.8 * share, rng.integers(10)
    if kind == 0:
        return image
    if kind == 1:
        return ImageOps.autocontrast(image)
    if kind == 2:
        return ImageOps.equalize(image)
    if kind == 3:
        return ImageEnhance.Brightness(image).enhance(factor)
    if kind == 4:
        return ImageEnhance.Sharpness(image).enhance(factor)
    if kind == 9:
        return image.rotate(
            30 * share * sign, Image.Resampling.BILINEAR, fillcolor=(fill, fill, fill)
        )
    affine = {
        5: (1, 0.3 * share * sign, 0, 0, 1, 0),
        6: (1, 0, 0, 0.3 * share * sign, 1, 0),
        7: (1, 0, 10 * share * sign, 0, 1, 0),
        8: (1, 0, 0, 0, 1, 10 * share * sign),
    }[int(kind)]
    return image.transform(
        image.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR, fillcolor=(fill,) * 3
    )


def pillow_rate(files: list[bytes], config, images: int) -> float:
    """Images per second of a core of Pillow with PyTorch's DataLoader in this process."""
    import torch.utils.data

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(PillowImages(files, config), batch_size=BATCH)
    return batch_rate(iter(loader), images, time.process_time)


def host_and_device(files: list[bytes], config, images: int) -> dict[str, float]:
    """Crop and RandAugment of decoded pictures: by OpenCV on a core, by JAX on the device.

    On the device every operation is computed for every image, and one is taken: under vmap a choice
    is no branch. The crop is cut from a canvas of one size, as shapes are fixed.
    """
    import jax

    from benchmarks.device_augment import augment_batch

    data = config.data
    make, rng = RetrievalExamples.of(tokenizer(), data), np.random.default_rng(0)
    pixels = [decode_image(data, decoder='opencv', max_pixels=10**8) for data in files]
    host = rate(
        lambda n: transforms.augmented_view(
            pixels[n % len(pixels)],
            None,
            rng,
            size=data.image_size,
            may_flip=True,
            augment=make.augment,
        ),
        images,
    )
    batch = np.stack([pixels[n % len(pixels)] for n in range(BATCH)])  # [b, h, w, 3]
    step = jax.jit(lambda key, images: augment_batch(key, images, size=data.image_size))
    jax.block_until_ready(step(jax.random.key(0), batch))
    clock = time.process_time if jax.default_backend() == 'cpu' else time.monotonic
    began, rounds = clock(), 3
    for n in range(rounds):
        jax.block_until_ready(step(jax.random.key(n), batch))
    device = rounds * BATCH / (clock() - began)
    kind = jax.devices()[0].device_kind
    return {'OpenCV, a core': host, f'JAX, {kind}': device}


def main() -> None:
    """Prints all rows; exits with 1 if an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=512)
    parser.add_argument('--size', type=int, default=256)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    config = get_config('base')
    config.data.image_size = args.size
    with tempfile.TemporaryDirectory() as root:
        folder = pathlib.Path(root)
        shards = write_shards(folder / 'shards', args.images, args.size)
        files = write_files(folder, args.images)
        small = [photograph(n, width=args.size * 4 // 3, height=args.size) for n in range(KINDS)]
        large = [photograph(n, width=640, height=480) for n in range(KINDS)]
        print(f'{"images/s/core at " + str(args.size) + " px":32} {"shards":>8} {"files":>8}')
        rows = [stages(spec, config, args.images) for spec in (shards, files)]
        pillow = [pillow_rate(data, config, args.images) for data in (small, large)]
        for name in rows[0]:
            print(f'{name:32} {rows[0][name]:8.0f} {rows[1][name]:8.0f}')
        print(f'{"Pillow and PyTorch":32} {pillow[0]:8.0f} {pillow[1]:8.0f}')
        whole = rows[0]['batches']
        ratios = [row['batches'] / other for row, other in zip(rows, pillow, strict=True)]
        print(f'{"times Pillow and PyTorch":32} {ratios[0]:8.2f} {ratios[1]:8.2f}')
        share = [row['batches'] / row['decode'] for row in rows]
        print(f'{"share of decode alone":32} {share[0]:8.2f} {share[1]:8.2f}')
        print('images/s by the clock, shards')
        for name, value in worker_rates(shards, config, args.images).items():
            print(f'{name:32} {value:8.0f}')
        print('crop and RandAugment alone, images/s')
        for name, value in host_and_device(small, config, args.images).items():
            print(f'{name:32} {value:8.0f}')
    missed = whole < AIM or ratios[0] < AIM_OVER_PILLOW
    said = 'missed' if missed else 'reached'
    print(f'aims: {AIM} images/s/core from shards, {AIM_OVER_PILLOW} times Pillow there: {said}')
    raise SystemExit(int(missed))


if __name__ == '__main__':
    main()
