"""What fuzz/engine.py feeds: one function for each reader of the project."""

from fuzz.engine import Target
from fuzz.files import caption_list, dataset, image, record, vocabulary
from fuzz.folders import openclipart, pictures_folder, stamps, tfds, tfds_folder
from fuzz.importers import hf_folder, huggingface, import_list, parquet, tar, tar_source
from fuzz.runs import checkpoint, command_line, experiment, metrics, saved, weights
from fuzz.shards import shards, whole
from fuzz.videos import clip_list, video
from semmim_jax.conversion.table import ConversionError
from semmim_jax.data.unreadable import TooManyUnreadable, UnreadableRecord
from semmim_jax.data.videos import UnreadableVideo
from semmim_jax.training.checkpoint import CheckpointError

# Shares: what strangers send first; building an experiment costs a thousand times a picture.
TARGETS = {
    'image': Target(image, (UnreadableRecord,), 0.1),
    'caption_list': Target(caption_list, (ValueError,), 0.1),
    'shards': Target(shards, (ValueError,), 0.05, whole),
    'dataset': Target(dataset, (ValueError, OSError), 0.1),
    'tar': Target(tar, (ValueError,), 0.1),
    'tar_source': Target(tar_source, (ValueError,), 0.05),
    'huggingface': Target(huggingface, (ValueError,), 0.05, hf_folder),
    'parquet': Target(parquet, (ValueError,), 0.1),
    'import_list': Target(import_list, (ValueError,), 0.1),
    'folder': Target(pictures_folder, (ValueError,), 0.05),
    'stamps': Target(stamps, (ValueError,), 0.05),
    'openclipart': Target(openclipart, (ValueError,), 0.05),
    'tfds': Target(tfds, (ValueError,), 0.05, tfds_folder),
    'record': Target(record, (TooManyUnreadable,), 0.07),
    'vocabulary': Target(vocabulary, (ValueError,), 0.08),
    'weights': Target(weights, (ConversionError,), 0.1),
    'video': Target(video, (UnreadableVideo,), 0.05),
    'clip_list': Target(clip_list, (ValueError,), 0.05),
    'metrics': Target(metrics, (), 0.05),
    'command_line': Target(command_line, (ValueError,), 0.055),
    'experiment': Target(experiment, (ValueError, OSError), 0.005),
    'checkpoint': Target(checkpoint, (CheckpointError,), 0.05, saved),
}
