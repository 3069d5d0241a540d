"""Sentiment of faces in emoji scenes: image and text together decide.

A scene shows two faces of different sentiment; the text says which of them is meant.
"""

import functools

from semmim_jax.data.emoji import artwork
from semmim_jax.data.emoji.scenes import EmojiScenes, Scene
from semmim_jax.data.emoji.texts import SceneTexts
from semmim_jax.data.records import Texts

# Our judgement on faces whose drawing shows it plainly, by CLDR name.
SENTIMENTS = {
    'positive': (
        'grinning face',
        'grinning face with big eyes',
        'grinning face with smiling eyes',
        'beaming face with smiling eyes',
        'grinning squinting face',
        'face with tears of joy',
        'slightly smiling face',
        'winking face',
        'smiling face with smiling eyes',
        'smiling face with halo',
        'smiling face with heart-eyes',
        'smiling face with hearts',
        'star-struck',
        'partying face',
    ),
    'neutral': (
        'neutral face',
        'expressionless face',
        'face without mouth',
        'thinking face',
        'face with raised eyebrow',
        'zipper-mouth face',
        'face with rolling eyes',
        'sleeping face',
    ),
    'negative': (
        'frowning face',
        'slightly frowning face',
        'worried face',
        'crying face',
        'loudly crying face',
        'angry face',
        'enraged face',
        'fearful face',
        'anguished face',
        'persevering face',
        'nauseated face',
        'weary face',
        'anxious face with sweat',
        'disappointed face',
    ),
}
_PLACES = {'left of': 'left', 'right of': 'right', 'above': 'upper', 'below': 'lower'}


@functools.lru_cache(maxsize=1)
def face_concepts() -> tuple[artwork.Concept, ...]:
    """The faces of SENTIMENTS, in order."""
    by_name = artwork.emoji_by_name()
    names = [name for group in SENTIMENTS.values() for name in group]
    return tuple(artwork.Concept(by_name[name], name, 'Faces') for name in names)


class FaceScenes(EmojiScenes):
    """Emoji scenes whose concept table goes on with the faces, which are shown only on demand."""

    @property
    def concept_table(self) -> tuple[artwork.Concept, ...]:
        """Concepts by their number, held-out ones last but for the faces."""
        return (*super().concept_table, *face_concepts())

    def face(self, name: str) -> int:
        """The concept of a face."""
        return self.concept_names.index(name)


class EmojiSentiment(SceneTexts):
    """Records with a prompt ('how does the left face feel') and a label: negative, neutral,
    positive, each as often."""

    name = 'emoji_sentiment'
    splits = ('train', 'val', 'test')
    scenes: FaceScenes

    def draw(self, index: int) -> tuple[tuple[Scene, ...], Texts]:
        """A scene with two faces, and the question how one of them feels."""
        rng = self.rng(index)
        meant, other = rng.permutation(list(SENTIMENTS))[:2].tolist()
        faces = [SENTIMENTS[s][rng.integers(len(SENTIMENTS[s]))] for s in (meant, other)]
        count = int(rng.integers(2, max(2, self.scenes.max_objects) + 1))
        given = tuple(self.scenes.face(name) for name in faces)
        relation = None
        while relation is None:  # neither face is clearly on a side: another layout
            scene = self.scenes.draw_scene(rng, index=index, count=count, given=given)
            by_name = {o.name: o for o in scene.objects}
            relation = scene.relation(by_name[faces[0]], by_name[faces[1]])
        return (scene,), {
            'prompt': f'how does the {_PLACES[relation]} face feel',
            'label': meant,
        }

    def names(self) -> tuple[str, ...]:
        """None: the texts call a face by its place."""
        return ()

    def label_names(self, *, min_count: int) -> tuple[str, ...]:
        """The three sentiments."""
        del min_count
        return tuple(sorted(SENTIMENTS))
