"""SCL on videos through the loop as it is: training, evaluation with twins, use of the model."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import semmim_jax
from configs.completion import get_config
from semmim_jax.data.readers.sources import make_source
from semmim_jax.inference.folder import predict_folder
from semmim_jax.run.loop import train_and_evaluate
from semmim_jax.tasks.registry import find_task
from tests.data.video_files import write_video

pytestmark = pytest.mark.slow  # compiles a run and its evaluation


def config():
    c = get_config('tiny')
    c.data.update(train='emoji_videos:train', eval='emoji_videos:val', frames=3)
    c.data.emoji_scenes.update(canvas=32, eval_size=16)
    c.train.update(steps=2, save_every=2, async_save=False)
    return c


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    train_and_evaluate(config(), str(folder), find_task(config()))
    return folder


@pytest.fixture(scope='module')
def model(workdir):
    return semmim_jax.load(str(workdir), params='online', batch_size=4)


def test_results_have_the_figures_of_videos_and_of_twins(workdir):
    results = json.loads((workdir / 'results.json').read_text())
    retrieval, direction = (results[name]['figures'] for name in ('retrieval', 'direction'))
    for suffix in ('itc', 'itm'):
        assert {f'tr@1_{suffix}', f'ir_median_{suffix}'} <= set(retrieval)
        assert retrieval[f'ir@5_{suffix}_twin_blind'] >= retrieval[f'ir@5_{suffix}']
        assert 0 <= direction[f'direction_{suffix}_shuffled'] <= 1
        assert results['direction']['chance'][f'direction_{suffix}'] == 0.5
    assert retrieval['images'] == retrieval['texts'] == direction['videos'] == 16
    assert results['losses']['figures']['pairs'] == 16
    assert np.asarray(PIL.Image.open(workdir / 'retrieved_clips.png')).shape[2] == 3


def test_a_video_is_an_array_a_file_or_a_folder_of_frames(model, tmp_path):
    path = write_video(tmp_path / 'clip.mp4', 20)
    frames = np.stack([np.full((40, 60, 3), 12 * n, np.uint8) for n in range(9)])
    for number, frame in enumerate(frames):
        (tmp_path / 'frames').mkdir(exist_ok=True)
        PIL.Image.fromarray(frame).save(tmp_path / 'frames' / f'clip_{number:06d}.png')
    features = model.encode_video([str(path), tmp_path / 'frames', frames])
    assert features.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(features[1], features[2])
    chosen = model.encode_video(frames[[0, 4, 8]])  # of nine frames the first, middle and last
    np.testing.assert_allclose(chosen[0], features[2], atol=1e-6)
    assert np.abs(model.encode_video(frames[::-1])[0] - features[2]).max() > 1e-5
    one_frame = model.encode_video(frames[:1])  # shown three times
    assert one_frame.shape == (1, 16)
    for video, said in (
        (str(tmp_path / 'gone.mp4'), 'missing video'),
        (str(tmp_path), 'file in this folder'),
        (3, 'a video is a path to a clip, a folder of frames or an array'),
    ):
        with pytest.raises(ValueError, match=said):
            model.encode_video(video)


def test_itm_reads_every_frame_and_knows_order_by_the_table_alone(model):
    """Without places in time the order of frames changes nothing; any one frame changes it."""
    source = make_source('emoji_videos:val', config().data)
    clips = np.stack([source[i]['frames'][[0, 7, 15]] for i in range(4)])
    task = find_task(config())(model.config, model.tokenizer.special)
    fns, variables = task.predict_fns(), model._predict.variables
    still = jax.tree.map(lambda x: x, variables.params)
    still['image']['temporal'] = jnp.zeros_like(still['image']['temporal'])
    ids = np.stack([model.tokenizer.encode(source.captions(i)[0], 18) for i in range(4)])

    @jax.jit
    def logits(params, clips):
        given = type(variables)(params)
        text = fns['text'](given, ids)
        context = fns['context'](given, clips)
        return fns['match'](given, context, jnp.arange(4), text['tokens'], text['mask'])

    order = np.array([2, 0, 1])
    np.testing.assert_allclose(logits(still, clips), logits(still, clips[:, order]), atol=1e-5)
    for frame in range(3):
        changed = clips.copy()
        changed[:, frame] = 255 - changed[:, frame]
        assert np.abs(logits(still, changed) - logits(still, clips)).max() > 1e-5


def test_predict_on_a_folder_of_videos(workdir, tmp_path):
    for name in ('a.mp4', 'b.webm'):
        write_video(tmp_path / 'in' / name, 5)
    (tmp_path / 'in' / 'broken.mp4').write_bytes(b'<html>')
    options = dict(workdir=str(workdir), images=str(tmp_path / 'in'), params='online', batch_size=4)
    out = tmp_path / 'match.jsonl'
    texts = ['a cat moves right', 'a cat moves left']
    predict_folder('match', out=str(out), texts=texts, texts_file='', **options)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line['image'] for line in lines] == ['a.mp4', 'b.webm']
    assert all(set(line['match']) == set(texts) for line in lines)
    predict_folder('embed', out=str(tmp_path / 'v.npy'), texts=(), texts_file='', **options)
    assert np.load(tmp_path / 'v.npy').shape == (2, 16)
    with pytest.raises(ValueError, match='caption: of videos there are embed and match'):
        predict_folder('caption', out=str(out), texts=(), texts_file='', **options)


def test_pre_training_starts_from_a_tower_that_named_directions(tmp_path):
    """The tower and its bridge go on; the head is left behind, as the run's table says."""
    first = get_config('demo_directions')
    first.data.emoji_scenes.update(train_size=64, eval_size=16)
    first.model.update(scan=True)
    first.train.update(batch_size=8, steps=2, save_every=2, async_save=False)
    start = train_and_evaluate(first, str(tmp_path / 'directions'), find_task(first))
    figures = json.loads((tmp_path / 'directions' / 'results.json').read_text())['direction']
    assert figures['figures']['videos'] == 16
    assert 0 <= figures['figures']['direction_words'] <= 1
    second = get_config('demo_video')
    second.data.emoji_scenes.update(train_size=64)
    second.data.eval, second.init_from = '', str(tmp_path / 'directions')
    second.model.update(scan=True)
    second.train.update(batch_size=8, steps=0, save_every=2, async_save=False)
    state = train_and_evaluate(second, str(tmp_path / 'video'), find_task(second))
    for name in ('image', 'image_bridge'):
        jax.tree.map(np.testing.assert_array_equal, state.params[name], start.params[name])
    assert 'direction_head' in start.params and 'direction_head' not in state.params
    with pytest.raises(ValueError, match='directions'):
        semmim_jax.load(str(tmp_path / 'directions')).encode_video(np.zeros((2, 32, 32, 3)))
