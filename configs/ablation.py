"""The study: what each part of the method is worth (docs/ablation.md).

Paper:     none of its tables: they are not known to us. The rows ask what its parts are worth, in a
           small model.
Command:   python -m semmim_jax.ablate --rows=all --seeds=0,1,2 --out=runs/ablation
           python -m semmim_jax.ablate --config=configs/ablation.py:demo --out=runs/demo_seeds
Hardware:  any number of cores or machines that share the folder; minutes a row and seed on a core.
Expect:    docs/ablation.md

A row is a config, what it changes, the row that it is compared with ('': the row above it), what
it is for, and what is trained before it ('': nothing). NAME-literal configs have the parts that the
paper names; without it words are injected, and the losses of words and of local agreement are on.
"""

import ml_collections

STUDY = 'configs/pretrain.py:study'
LITERAL = 'configs/pretrain.py:study-literal'
LEXICON = {'data.lexicon.captions': 5000}  # what the literal form lacks for words ...
NO_LOCAL = {'data.match_views': False, 'task.weights.local': 0.0}
LOCAL = {'data.match_views': True, 'task.weights.local': 1.0}  # ... and for local agreement


def _injected(student: str, teacher: str) -> dict[str, str]:
    return {'task.mim.inject_student': student, 'task.mim.inject_teacher': teacher}


# name: (config, changes, against, note)
ROWS = {
    # The literal form: what is predicted.
    'no_mim': (LITERAL, {'task.mim.target': 'none'}, '', 'the five other losses alone'),
    'pixel': (LITERAL, {'task.mim.target': 'pixel'}, 'no_mim', 'MIM of normalised pixels'),
    'dvae': (
        LITERAL,
        {'task.mim.target': 'dvae'},
        'no_mim',
        "tokens of a discrete VAE, which is trained first: BEiT's target",
    ),
    'feature': (LITERAL, {'task.mim.target': 'feature'}, 'no_mim', "the teacher's features"),
    'separate_head': (
        LITERAL,
        {'task.mim.target': 'semantic_separate_head'},
        'no_mim',
        'codes of a head of the patches alone',
    ),
    'shared_head': (LITERAL, {}, 'separate_head', "SemMIM: codes of the agreement's head"),
    # Where the caption reaches the patches, as cross-attention.
    'text_neither': (LITERAL, _injected('none', 'none'), 'shared_head', 'no side reads text'),
    'text_student': (LITERAL, _injected('cross_attention', 'none'), 'text_neither', 'one side'),
    'text_teacher': (LITERAL, _injected('none', 'cross_attention'), 'text_neither', 'one side'),
    # What is masked; shared_head masks by cross-attention.
    'masks_random': (LITERAL, {'task.mim.masking': 'random'}, 'shared_head', 'single patches'),
    'masks_block': (LITERAL, {'task.mim.masking': 'block'}, 'shared_head', "BEiT's blocks"),
    'masks_similarity': (
        LITERAL,
        {'task.mim.masking': 'similarity'},
        'shared_head',
        "patches like the caption's feature",
    ),
    'masks_words': (
        LITERAL,
        {
            'task.mim.masking': 'words',
            'task.mim.mask_temperature': 1.25,
            'task.weights.words': 1.0,
            **LEXICON,
        },
        'words_loss',
        'patches like a word of the caption',
    ),
    # How much is masked (shared_head: 0.4), how many codes there are (128), how sure they are.
    'ratio_25': (LITERAL, {'task.mim.ratio': 0.25}, 'shared_head', 'a quarter is masked'),
    'ratio_50': (LITERAL, {'task.mim.ratio': 0.5}, 'shared_head', 'half'),
    'ratio_75': (LITERAL, {'task.mim.ratio': 0.75}, 'shared_head', 'three quarters'),
    'codes_64': (LITERAL, {'model.encoding.codes': 64}, 'shared_head', '64 codes'),
    'codes_256': (LITERAL, {'model.encoding.codes': 256}, 'shared_head', '256 codes'),
    'hard': (LITERAL, {'task.mim.assign': 'hard'}, 'shared_head', 'one code a patch as target'),
    # The words form, and whose the gain is.
    'words': (STUDY, {}, 'shared_head', 'words injected; losses of words and local agreement'),
    'words_loss': (
        LITERAL,
        {'task.weights.words': 1.0, **LEXICON},
        'shared_head',
        'the words loss beside cross-attention',
    ),
    'words_loss_no_mim': (
        LITERAL,
        {'task.weights.words': 1.0, **LEXICON, 'task.mim.target': 'none'},
        'no_mim',
        'the words loss alone',
    ),
    'no_local': (STUDY, {'task.weights.local': 0.0}, 'words', 'without local agreement'),
    'no_words_loss': (STUDY, {'task.weights.words': 0.0}, 'words', 'without the words loss'),
    'words_neither': (STUDY, _injected('none', 'none'), 'words', 'no side reads words'),
    'words_student': (STUDY, _injected('words', 'none'), 'words', 'the student reads words'),
    'words_teacher': (STUDY, _injected('none', 'words'), 'words', 'the teacher reads words'),
    'words_masks_random': (STUDY, {'task.mim.masking': 'random'}, 'words', 'single patches'),
    'words_masks_hard': (STUDY, {'task.mim.mask_temperature': 0.05}, 'words', 'the most relevant'),
    'words_masks_block': (STUDY, {'task.mim.masking': 'block'}, 'words', "BEiT's blocks"),
    # Candidates for codes that are semantic without text (docs/method.md section 4.5).
    'clustered': (
        STUDY,
        {'task.mim.target': 'clustered', 'task.mim.inject_teacher': 'none'},
        'words_student',
        'prototypes of text-free teacher patches',
    ),
    'balance_all': (
        STUDY,
        {'task.mim.balance_over': 'all'},
        'words',
        'balanced over all teacher patches',
    ),
    'balance_position': (
        STUDY,
        {'task.mim.balance_over': 'position'},
        'balance_all',
        'each position by itself',
    ),
    'tempered': (STUDY, {'task.mim.marginal_power': 0.5}, 'words', 'towards their own shares'),
    'visible': (STUDY, {'task.mim.visible_weight': 1.0}, 'words', 'visible patches have a loss'),
    'local_untold': (
        LITERAL,
        {
            **_injected('none', 'none'),
            **LOCAL,
            'task.weights.mim': 0.0,
            'task.mim.masking': 'random',
        },
        'no_mim',
        'local agreement alone, no text on either side',
    ),
    'stable': (STUDY, {'task.global_features': 'stable'}, 'words', 'pooled from stable patches'),
    'gram': (STUDY, {'task.weights.gram': 1.0}, 'words', 'Gram matrix of untold patches'),
    'two_targets': (STUDY, {'task.mim.second_target': 'feature'}, 'words', 'and features'),
    'centred': (STUDY, {'task.mim.centre_injection': True}, 'words', 'injected change centred'),
    'null_word': (STUDY, {'task.mim.null_word': True}, 'words', 'a patch may read no word'),
    'late': (STUDY, {'task.mim.start_share': 0.3}, 'words', 'MIM from 30% of the steps on'),
    'half': (STUDY, {'task.mim.sample_share': 0.5}, 'words', 'MIM of half of the samples'),
    # Cheaper steps (docs/method.md section 6.4); `half` is one of them.
    'dropped': (
        STUDY,
        {'task.mim.drop_masked': True},
        'words',
        'masked patches dropped, as in MAE',
    ),
    'single_view': (
        STUDY,
        {**NO_LOCAL, 'task.views': 'single'},
        'no_local',
        'student and teacher see one view; agreement with it masked',
    ),
    'masked_view': (
        STUDY,
        {**NO_LOCAL, 'task.views': 'masked'},
        'single_view',
        'the student sees one view masked and no other',
    ),
    'shared_towers': (
        STUDY,
        {**NO_LOCAL, 'task.views': 'single', 'task.shared_towers': True},
        'single_view',
        "the teacher's towers are the student's, its heads EMA",
    ),
    'fast': ('configs/pretrain.py:study-fast', {}, 'words', 'dropped, half, shared towers'),
    'text_half': (STUDY, {'task.mim.text_share': 0.5}, 'words', 'half of the students read text'),
    'registers': (STUDY, {'model.image.registers': 4}, 'words', 'four register tokens'),
    'koleo': (STUDY, {'task.weights.koleo': 0.1}, 'words', 'KoLeo on CLS features'),
}


# The shipped demo over seeds: some half an hour of processor time a row and seed.
DEMO = {
    'demo_literal': ('configs/pretrain.py:demo-literal', {}, '', 'the parts that the paper names'),
    'demo': ('configs/pretrain.py:demo', {}, 'demo_literal', 'words and local agreement'),
    'demo_fast': ('configs/pretrain.py:demo-fast', {}, 'demo', 'the cheaper step'),
}
# Its parts, as in the study.
DEMO |= {
    f'demo_{name}': ('configs/pretrain.py:demo', ROWS[name][1], 'demo', ROWS[name][3])
    for name in ('dropped', 'half', 'single_view', 'masked_view', 'shared_towers')
}
DEMO['demo_buckets'] = (
    'configs/pretrain.py:demo',
    {'data.text_buckets': (15, 16)},
    'demo',
    'texts padded to what a batch needs: the same losses',
)

# What is trained before a row, with its seed; task.mim.dvae of the row is its workdir.
FIRST = {'dvae': 'configs/dvae.py:study'}


def get_config(variant: str = 'study') -> ml_collections.ConfigDict:
    """The study, or the demo over seeds; every field is here with its value."""
    if variant not in ('study', 'demo'):
        raise ValueError(f'configs/ablation.py:{variant}: must be study or demo')
    chosen = ROWS if variant == 'study' else DEMO
    c = ml_collections.ConfigDict()
    # What all rows change. Sizes, rates and weights were chosen on val; nothing was on test. To
    # choose anew: --set=data.eval=emoji_scenes:val, into another folder.
    kinds = 'concepts', 'combinations', 'style'
    held_out = tuple(f'emoji_scenes:held_out_{what}' for what in kinds)
    c.overrides = 'data.eval=emoji_scenes:test', f'eval.retrieval_sets={held_out}'
    second = 'study' if variant == 'study' else 'emoji'
    c.fine_tune = f'configs/vqa.py:{second}'  # the second stage, with --fine_tune
    c.fine_tune_overrides = ('data.eval=emoji_questions:test',)
    c.order = tuple(chosen)  # fields of a section have none
    c.rows = ml_collections.ConfigDict()
    for name, (config, changes, against, note) in chosen.items():
        overrides = tuple(f'{field}={value}' for field, value in changes.items())
        row = dict(config=config, overrides=overrides, against=against, note=note)
        c.rows[name] = row | {'first': FIRST.get(name, '')}
    return c
