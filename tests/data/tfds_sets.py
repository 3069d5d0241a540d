"""Writes data sets with tensorflow-datasets, without TensorFlow."""

import io

import numpy as np
import tensorflow_datasets as tfds

from tests.data.shard_sets import jpeg

COUNT = 7


class Written(tfds.core.GeneratorBasedBuilder):
    """Pictures with captions as COCO's builder has them, and further features."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = tfds.features
        return tfds.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    'image': features.Image(encoding_format='jpeg'),
                    'image/filename': features.Text(),
                    'captions': features.Sequence({'text': features.Text(), 'id': np.int64}),
                    'objects': features.Sequence(features.BBoxFeature()),
                    'pair': features.Sequence(features.Image(encoding_format='jpeg')),
                    'words': features.Sequence(features.Text()),
                    'title': features.Text(),
                    'animal': features.ClassLabel(names=['cat', 'dog']),
                    'score': features.Tensor(shape=(2,), dtype=np.float32),
                }
            ),
        )

    def _split_generators(self, manager):
        del manager
        splits = {'train': range(COUNT), 'test': [9]}
        return {name: self._generate_examples(numbers) for name, numbers in splits.items()}

    def _generate_examples(self, numbers):
        for i in numbers:
            yield (
                i,
                {
                    'image': io.BytesIO(jpeg(i) if i != 5 else jpeg(i)[:300]),
                    'image/filename': f'{i}.jpg',
                    'captions': [{'text': f'picture {i}', 'id': 0}, {'text': ' .', 'id': 1}],
                    'objects': [tfds.features.BBox(0.0, 0.0, 0.5, 1.0)] * (i % 2),
                    'pair': [io.BytesIO(jpeg(i)), io.BytesIO(jpeg(i + 1))],
                    'words': ['one', 'two'] if i != 6 else [b'\xff'],
                    'title': f'Ein Käse {i}',
                    'animal': i % 2,
                    'score': [0.5, i],
                },
            )


def write(folder) -> str:
    """Writes the data set; returns DIR of tfds:DIR:SPLIT."""
    builder = Written(data_dir=str(folder), file_format='array_record')
    builder.download_and_prepare()
    return str(builder.data_dir)
