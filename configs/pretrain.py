"""SemMIM pre-training (arXiv 2403.00249).

Paper:     semantics-enhanced cross-modal masked image modelling; docs/method.md says which value is
           the paper's, which is a public sibling's and which is ours.
Command:   python -m semmim_jax.main --config=configs/pretrain.py --workdir=RUN
           python -m semmim_jax.main --config=configs/pretrain.py:demo --workdir=runs/demo
           python -m semmim_jax.main --config=configs/pretrain.py:own --workdir=RUN
           --config.data.train=captions:LIST.json (docs/own_data.md)
Hardware:  base, large: a TPU slice or a GPU node, docs/scaling.md says which (ViT-B/16 or ViT-L/16
           at 256 px, BERT 6 + 6, decoder 12); demo, own, tiny: a laptop.
Expect:    demo: the table in the README. base, large: not run.

Variants (`configs/pretrain.py:NAME`): base, large (ViT-L/16), demo, own (your own pictures, small),
tiny (for tests: seconds). NAME-literal has the parts that the paper names and no further ones: no
losses of words and of local agreement. The caption reaches the patches by cross-attention, a form
of ours (D): the paper's is not known. NAME-fast has a cheaper step with other losses
(docs/method.md section 6.4); fast is base-fast.
"""

import ml_collections


def get_config(variant: str = 'base') -> ml_collections.ConfigDict:
    """The experiment; every field is here with its value."""
    name, _, form = ('base-fast' if variant == 'fast' else variant).partition('-')
    if name not in VARIANTS or form not in ('', 'literal', 'fast'):
        raise ValueError(
            f'no variant {variant!r} of configs/pretrain.py: use {", ".join(VARIANTS)}, '
            'each with -literal or -fast behind it or without; or fast'
        )
    config = VARIANTS[name](base())
    if form == 'fast':
        fast(config)
    if form == 'literal':
        small = name in ('demo', 'study', 'own')  # where masks by similarity find no objects
        literal(config, masking='cross_attention' if small else 'similarity')
    return config


def base() -> ml_collections.ConfigDict:
    """Full size: 4M images, ViT-B/16, BERT-base.

    A 0 of the fields that say so is replaced when a run starts, by what its data or the weights it
    starts from have; the run prints what, and config.json has it (semmim_jax/run/resolve.py).
    """
    c = ml_collections.ConfigDict()
    c.seed = 0

    c.data = data = ml_collections.ConfigDict()
    data.train = 'captions:data/pretrain.json'  # or 'emoji_scenes:SPLIT', ...: docs/own_data.md
    data.eval = ''  # the same form; '' evaluates nothing
    data.vocab = 'data/bert-base-uncased/vocab.txt'  # or a folder; '': that of init_from, if
    # it has one, else one made from the training texts, which the next three fields describe
    data.vocab_kind = 'wordpiece'  # words and pieces of words; 'bpe': byte-level; 'words': a list
    data.vocab_min_count = 2  # words and pieces rarer in the texts are no tokens of their own
    data.strip_accents = False  # True: é is e; of 'words' it always is
    data.extend_vocab = False  # True: adds words of the texts that the vocabulary lacks
    data.vocab_limit = 8192  # most tokens of a vocabulary made here where its size is left open
    data.image_size = 256  # pixels; 0: that of init_from
    data.patch_size = 16
    data.max_tokens = 25  # [CLS] and [SEP] included; 0: the longest text's, or more in init_from
    data.text_buckets = ()  # shorter lengths, as (8, 16): the texts of a batch are padded to the
    # shortest that holds all; a compilation each, same losses (docs/performance.md section 5)
    data.end_token = True  # False: no [SEP] after the words, as ALBEF
    data.max_words = 30
    data.clean_text = True  # lower case, no punctuation, max_words; False: captions as written
    data.match_views = True  # which patch of view 1 each patch of view 2 shows, for `local`
    data.lexicon = dict(  # the words of the captions, for grounding (semmim_jax/data/lexicon.py)
        captions=100_000,  # most that are counted; 0: there is no lexicon
        npmi=0.8,  # of neighbours that are one name, from here on
        min_count=5,  # captions with a name
        max_tokens=4,  # of a name
    )
    data.decoder = 'opencv'  # or 'pillow'
    data.max_pixels = 50_000_000  # larger images are refused before decoding
    data.max_replaced = 0.01  # share of unreadable records, or empty captions, that stops the run
    data.workers = 8  # processes; 0 reads in threads of this process
    data.prefetch = 2  # batches
    data.captions = ml_collections.ConfigDict()
    data.captions.image_root = ''  # '': relative to the list's folder
    data.tfds = dict(image='', text='')  # features to read; '': the one that fits
    data.tars = dict(
        text='caption',  # key of KEY.json, where there is no KEY.txt
        cache='',  # folder of the indices of tars; '': semmim_jax/tars in the user's cache
    )
    data.shards = dict(index='memory')  # of open shards, 17 bytes a record; 'disk': 0, but slower
    data.emoji_scenes = dict(
        concepts=150,
        held_out_concepts=15,
        held_out_pairs=0.05,  # share of all pairs of concepts
        min_objects=2,
        max_objects=4,
        styles='openmoji',  # twemoji, both
        canvas=64,  # pixels
        small=(0.32, 0.4),  # longer side of an object as a share of the canvas
        medium=(0.46, 0.54),
        large=(0.6, 0.76),
        max_overlap=0.3,
        min_cover=0.85,
        train_size=100_000,
        eval_size=500,
        seed=0,
    )
    data.augment = augment = ml_collections.ConfigDict()
    augment.crop_scale = (0.2, 1.0)  # share of the area
    augment.flip = True  # never where the caption says left or right
    augment.ops = 2  # RandAugment
    augment.level = 7  # of 10
    augment.prob = 0.5  # of each op
    augment.fill = 128

    c.model = model = ml_collections.ConfigDict()
    model.image = dict(
        variant='clip',  # or 'plain'
        image_size=data.get_ref('image_size'),
        patch_size=data.get_ref('patch_size'),
        width=768,
        depth=12,
        heads=12,
        mlp_width=3072,
        epsilon=1e-5,  # of the LayerNorms: CLIP's; plain ViT's 1e-6, or 1e-12 in Hugging Face's
        distilled=False,  # True: with DeiT's distillation token
        registers=0,  # tokens beside the patches that are dropped at the end
    )
    model.text = dict(
        vocab_size=30522,  # 0: as many as the vocabulary has
        max_positions=512,  # rows of the table
        position_offset=0,  # row of the first token; RoBERTa: 2
        types=2,  # RoBERTa: 1
        width=768,
        depth=6,
        heads=12,
        mlp_width=3072,
        epsilon=1e-12,  # RoBERTa: 1e-5
    )
    model.fusion_depth = 6
    model.decoder_depth = 12
    model.embed_dim = 256  # of the ITC features
    model.temperature = 0.07  # initial value, learned
    model.encoding = dict(hidden=2048, bottleneck=256, codes=8192)
    model.dvae = dict(width=64, codes=8192)  # of configs/dvae.py: of the first stage; tokens
    model.predictor_depth = 1  # layers that predict dropped patches (task.mim.drop_masked)
    model.pixel_mean = (0.48145466, 0.4578275, 0.40821073)
    model.pixel_std = (0.26862954, 0.26130258, 0.27577711)
    model.dtype = 'bfloat16'  # of the computation; parameters are float32
    # Forms of the same computation (semmim_jax/models/platform.py): 'auto' takes the platform's.
    model.dense = 'auto'  # or 'xla', 'cpu'
    model.attention = 'auto'  # or 'xla', 'cpu', 'cudnn', 'tpu'
    model.remat = 'dots'  # 'none', 'dots' or 'full'
    model.scan = True  # False unrolls the layers; for GPUs see docs/scaling.md, What fills HBM

    c.init_from = ''  # folder of `semmim_jax.convert`, or the workdir of a run, to start from
    c.init = dict(  # weights to start from; read when the workdir holds no checkpoint
        image='',  # Hugging Face folder: CLIP, ViT or DeiT
        text='',  # BERT or RoBERTa
        fusion=True,  # whether the layers after the text tower's fill the fusion encoder
        decoder=True,  # whether the text checkpoint fills the decoder as well
        params='ema',  # or 'online': of a workdir
        sizes='config',  # 'weights': config.model's, patch size and end_token are those of weights
    )

    c.task = task = ml_collections.ConfigDict()
    task.name = 'pretrain'
    task.weights = dict(
        itc=1.0, itm=1.0, mlm=1.0, prefix=1.0, agreement=1.0, mim=1.0, words=1.0, local=1.0
    )
    task.weights.clustering = 1.0  # of the prototypes' loss, where mim.target is clustered
    task.weights.koleo = 0.0  # of spreading the CLS features of a batch
    task.weights.gram = 0.0  # of keeping patches as alike to each other as without the caption
    task.queue_size = 65536
    task.alpha = 0.4  # weight of the momentum targets
    task.alpha_ramp_steps = 4883  # one epoch
    task.alpha_ramp_share = 0.0  # of train.steps; 0: the steps above
    task.mlm_probability = 0.15
    task.max_masked = 8  # tokens
    task.views = 'crossed'  # same, single, masked (docs/method.md section 2)
    task.shared_towers = False  # True: one pass of the towers serves student and teacher
    task.symmetric = False  # agreement in both directions
    task.tau_student = 0.1
    task.tau_teacher_start = 0.04
    task.tau_teacher_end = 0.07
    task.tau_teacher_steps = 48_830  # ten epochs
    task.tau_teacher_share = 0.0  # of train.steps; 0: the steps above
    task.balance = 'sinkhorn'  # or 'centring'
    task.sinkhorn_iterations = 3
    task.centre_momentum = 0.9
    task.itm_negatives = 'global'  # or 'local': of one's own device, whose image tokens stay there
    task.global_features = 'cls'  # of ITC; stable: of each channel its most stable patch's value
    task.stable_width = 0.1  # of the low-pass that tells, as a share of the frequencies
    task.mim = mim = ml_collections.ConfigDict()
    mim.target = 'semantic'  # semantic_separate_head, clustered, dvae, feature, pixel, none
    mim.dvae = ''  # workdir of a run of configs/dvae.py, read when a run with target dvae starts
    mim.masking = 'words'  # similarity, similarity_inverse, cross_attention, random, block
    mim.ratio = 0.4
    mim.drop_masked = False  # True: masked patches do not go through the tower, as in MAE
    mim.mask_temperature = 1.25  # of words, whose relevance is up to -log(share of captions)
    mim.block_min_patches = 16
    mim.attention_layer = 2  # of the fusion encoder, for cross_attention masking
    mim.inject_student = 'words'  # cross_attention, global, none
    mim.inject_teacher = 'words'
    mim.injection_layers = 3  # of the fusion encoder, for cross_attention
    mim.word_temperature = 0.05  # of a patch's choice among the words of its caption
    mim.word_rarity = 1.0  # weight of -log(share of captions that have a word) in that choice
    mim.word_scale = 2.0  # length of the words that are read, beside a normalised patch
    mim.word_pool = 0.1  # temperature over patches of the words loss
    mim.word_logit_scale = 20.0  # of the words loss's scores
    mim.lexicon_size = 0  # most different words of a batch; 0: as many as the lexicon has
    mim.marginal_power = 0.5  # Sinkhorn's share of a code: its mean softmax to this; 0: equal
    # Candidates for codes that are semantic without text (docs/method.md section 4.5), all off.
    mim.tau_assignment = 0.06  # of clustered targets before they are balanced
    mim.tau_prototypes = 0.12  # of the prototypes' own prediction of them
    mim.balance_over = 'masked'  # which patches: all; position: all, each position by itself
    mim.assign = 'soft'  # hard: a target is its commonest code alone
    mim.second_target = 'none'  # feature, pixel: of masked patches, beside the first
    mim.second_weight = 1.0
    mim.centre_injection = False  # True: what a caption changes has no mean over the patches
    mim.null_word = False  # True: a patch may read a learned word that means nothing
    mim.start_share = 0.0  # of train.steps, before the losses against patches' targets count
    mim.sample_share = 1.0  # of the samples that have them; the masked view of others is not run
    mim.text_share = 1.0  # of these, where the student reads the caption; the rest read none
    mim.visible_weight = 0.0  # of the loss on visible patches, beside that on masked ones

    c.optim = optim = ml_collections.ConfigDict()
    optim.lr = 1e-4  # decoder and heads
    optim.text_lr = 1e-4  # text tower and fusion encoder
    optim.image_lr = 1e-5  # image tower
    optim.temperature_lr = 1e-4  # of ITC's learned temperature
    optim.end_lr = 1e-6
    optim.warmup_steps = 1000
    optim.warmup_share = 0.0  # of train.steps; 0: the steps above
    optim.b1 = 0.9
    optim.b2 = 0.999
    optim.eps = 1e-8
    optim.mu_dtype = 'float32'  # of Adam's first moment; bfloat16 saves two bytes a parameter
    optim.weight_decay = 0.02  # kernels and embeddings; none on biases and norms
    optim.clip_norm = 1.0  # 0: none
    optim.schedule = 'cosine'  # or 'linear': how the rates fall to end_lr
    optim.ema = 0.995
    optim.ema_end = 0.995  # cosine from `ema` to this; 1.0 with ema 0.996 is DINO's schedule

    c.train = train = ml_collections.ConfigDict()
    train.batch_size = 1024  # global
    train.accumulate = 1  # slices that a batch goes through the model in; losses stay global
    train.steps = 146_490  # 30 epochs of 5M pairs
    train.epochs = 0.0  # steps = epochs * records / batch size, rounded up; 0: the steps above
    train.log_every = 50
    train.save_every = 2000
    train.keep = 2  # checkpoints
    train.images_every = 5000  # pictures in TensorBoard; 0: none
    train.async_save = True
    train.collapse_alarm = 0.5  # least share of the greatest entropy (training/alarms.py); 0: none
    train.max_skipped_in_a_row = 20  # batches with a loss or gradient that is not finite: then stop
    train.rollbacks = 0  # times that the last checkpoint is gone back to instead of that stop
    train.watchdog = dict(  # a process that is stuck ends itself
        seconds=60.0,  # least bound of a step
        factor=10.0,  # bound of a step in medians of the newest steps, if that is more
        phase_seconds=3600.0,  # bound of a compilation, a checkpoint, an evaluation
    )
    train.compilation_cache = ''  # folder for compiled programs; '': JAX_COMPILATION_CACHE_DIR's

    c.log = dict(
        trackers=('tensorboard',),  # 'wandb', 'mlflow': what figures go to beside metrics.jsonl
    )

    c.eval = evaluation = ml_collections.ConfigDict()
    evaluation.every = 0  # steps; 0: only at the end
    evaluation.params = 'ema'  # or 'online'
    evaluation.batch_size = 256
    evaluation.k_test = 256  # candidates re-ranked by ITM
    evaluation.pattern_images = 4000  # most of data.eval for the pattern table; 0: all
    evaluation.pattern_sets = ()  # further sets for it, each as data.eval names one
    evaluation.pattern_set_images = 1000  # most of each of them; 0: all
    evaluation.retrieval_sets = ()  # further sets for retrieval, whole, each as data.eval names one
    evaluation.rerank = 'log_odds'  # or 'match_logit', ALBEF's (semmim_jax/evaluators/retrieval.py)
    evaluation.probe_source = ''  # images with patch labels to fit probes of features on; '': none
    evaluation.probe_images = 500  # the first of them
    evaluation.compositions = ()  # sets with wrong captions, e.g. 'sugarcrepe:swap_att.json'

    c.mesh = dict(data=-1, fsdp=1, tensor=1)  # devices along each axis; -1: all that remain
    c.sharding = dict(  # logical axis of an array of the state -> mesh axis; others stay whole
        embed='fsdp',
        mlp='tensor',
        heads='tensor',
        vocab='tensor',
        codes='tensor',
        queue=('data', 'fsdp'),  # the axes over which the rows of a batch are always split
    )
    return c


def large(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """ViT-L/16 with a bridge to the text towers' width, as mPLUG's large model has it."""
    c.model.image.update(width=1024, depth=24, heads=16, mlp_width=4096)
    return c


def demo(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Emoji scenes of 64 px, all six losses, minutes on two cores."""
    c.data.train = 'emoji_scenes:train'
    c.data.eval = 'emoji_scenes:val'
    c.data.update(vocab='', vocab_kind='words', vocab_min_count=1)
    c.data.image_size = 64
    c.data.patch_size = 8
    c.data.workers = 0
    c.data.max_tokens = 18
    c.data.lexicon.captions = 5000
    c.data.emoji_scenes.update(min_objects=1, max_objects=3)
    c.data.augment.update(crop_scale=(0.7, 1.0), prob=0.25)
    c.model.image.update(width=96, depth=3, heads=4, mlp_width=384)
    c.model.text.update(vocab_size=320, max_positions=32, width=96, depth=2, heads=4, mlp_width=384)
    c.model.update(fusion_depth=2, decoder_depth=2, embed_dim=64, dtype='float32', remat='none')
    c.model.scan = False
    c.model.encoding.update(hidden=256, bottleneck=64, codes=128)
    c.model.dvae.update(width=16, codes=128)
    # In a short run with a large learning rate old keys give away that they are old: the loss falls
    # by telling the batch from the queue. One batch of old keys is the least that the queue holds.
    c.task.update(queue_size=64, alpha_ramp_steps=300, tau_teacher_end=0.04)
    c.task.mim.update(attention_layer=0, injection_layers=1, block_min_patches=4)
    c.optim.update(
        lr=2e-3, text_lr=2e-3, image_lr=2e-3, end_lr=1e-5, warmup_steps=50, ema=0.985, ema_end=0.985
    )
    c.train.update(batch_size=64, steps=750, log_every=10, save_every=100, images_every=300)
    c.eval.update(batch_size=50, k_test=32)
    held_out = 'concepts', 'combinations', 'style'
    c.eval.pattern_sets = tuple(f'emoji_scenes:held_out_{what}' for what in held_out)
    c.eval.probe_source = 'emoji_scenes:train'
    c.eval.compositions = ('emoji_compositions:val',)
    return c


def study(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The demo, smaller, with fewer concepts: a row of configs/ablation.py, minutes on one core."""
    c = demo(c)
    c.data.emoji_scenes.update(
        concepts=40, held_out_concepts=8, max_objects=2, canvas=48, eval_size=250
    )
    c.data.image_size = 48
    c.data.max_tokens = 14  # the longest caption has 13
    c.model.image.update(width=64, mlp_width=256)
    c.model.text.update(width=64, mlp_width=256)
    c.model.update(decoder_depth=1)
    c.model.encoding.update(hidden=128)
    c.task.update(queue_size=48, alpha_ramp_steps=200)
    c.task.mim.marginal_power = 0.0  # equal shares; the row `tempered` has 0.5
    c.train.update(batch_size=48, steps=400, save_every=100, images_every=0)
    c.eval.update(every=100, k_test=16, pattern_images=500, pattern_set_images=250, compositions=())
    return c


def own(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Your own pictures with captions, some hundred to some ten thousand: the demo's kind of model.

    A few hundred take minutes on two cores. What depends on the data is taken from it.
    """
    c = demo(c)
    c.data.train = 'captions:data/train.json'
    c.data.eval = 'captions:data/val.json'
    c.data.vocab_kind = 'wordpiece'
    c.data.vocab_min_count = 2
    c.data.extend_vocab = True  # of init_from, where a run starts from them
    c.data.image_size = 96
    c.data.patch_size = 12
    c.data.max_tokens = 0
    c.data.augment.update(crop_scale=(0.5, 1.0))
    c.model.image.update(width=128, mlp_width=512)
    c.model.text.update(vocab_size=0, max_positions=64, width=128, mlp_width=512)
    c.init.sizes = 'weights'
    c.task.update(queue_size=32, alpha_ramp_share=0.4, tau_teacher_share=0.4)
    c.optim.update(lr=1e-3, text_lr=1e-3, image_lr=1e-3, warmup_share=0.1)
    c.train.update(batch_size=32, steps=0, epochs=60.0, images_every=0)
    c.eval.update(batch_size=16, k_test=16, pattern_sets=(), probe_source='', compositions=())
    return c


def tiny(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Every part at the least size: for tests and drills, it learns nothing of note."""
    c.data.image_size = 32
    c.data.emoji_scenes.eval_size = 24
    c.model.image.update(width=32, depth=2, heads=2, mlp_width=64)
    c.model.text.update(width=32, depth=1, heads=2, mlp_width=64)
    c.model.update(embed_dim=16)
    c.model.update(dense='xla', attention='xla')  # the same on every platform
    c.model.encoding.update(hidden=32, bottleneck=16, codes=32)
    c.model.dvae.update(width=4, codes=24)
    c.task.update(queue_size=32)
    c.task.mim.update(attention_layer=1, injection_layers=2)
    c.train.update(batch_size=8, steps=20, log_every=1, save_every=10, images_every=0)
    c.eval.update(
        batch_size=8, k_test=4, pattern_images=0, pattern_sets=(), probe_source='', compositions=()
    )
    return c


def literal(c: ml_collections.ConfigDict, *, masking: str) -> ml_collections.ConfigDict:
    """Only the parts that the paper names; captions reach patches by cross-attention (D)."""
    c.data.match_views = False
    c.data.lexicon.captions = 0
    c.task.weights.update(words=0.0, local=0.0)
    kind = 'cross_attention'
    c.task.mim.update(masking=masking, mask_temperature=0.05, marginal_power=0.0)
    c.task.mim.update(inject_student=kind, inject_teacher=kind)
    return c


def fast(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Two thirds of the FLOPs of a step (docs/method.md section 6.4): other losses, not a trim."""
    c.data.match_views = False
    c.task.weights.local = 0.0  # which reads a second view
    c.task.update(views='single', shared_towers=True)
    c.task.mim.update(drop_masked=True, sample_share=0.5)
    return c


VARIANTS = {
    'base': lambda c: c,
    'large': large,
    'demo': demo,
    'own': own,
    'study': study,
    'tiny': lambda c: tiny(demo(c)),
}
