"""Losses over pairs and text, as ALBEF defines them: ITC, ITM, MLM; and the language model."""

import torch
from golden_store import Draw, check_close, exact, write
from torch.nn import functional as F


def soft_cross_entropy(logits, targets):
    """Mean over rows of - sum_k targets_k log softmax(logits)_k."""
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


def itc(online, momentum, queue, temp, *, alpha, positives):
    """ALBEF's image-text contrast. online, momentum, queue: (image, text) pairs of [., e].

    positives: [b, b + q], each row sums to 1; one-hot at the own pair in pre-training.
    The candidates of an image are [momentum texts of the batch; text queue], and the reverse.
    """
    image, text = online
    images = torch.cat([momentum[0], queue[0]])  # [b + q, e]
    texts = torch.cat([momentum[1], queue[1]])
    with torch.no_grad():
        soft_i2t = (momentum[0] @ texts.T / temp).softmax(-1)
        soft_t2i = (momentum[1] @ images.T / temp).softmax(-1)
        target_i2t = alpha * soft_i2t + (1 - alpha) * positives
        target_t2i = alpha * soft_t2i + (1 - alpha) * positives
    i2t = soft_cross_entropy(image @ texts.T / temp, target_i2t)
    t2i = soft_cross_entropy(text @ images.T / temp, target_t2i)
    return (i2t + t2i) / 2, target_i2t, target_t2i


def write_itc(folder):
    """Queue full or with its first 3 rows in use only; alpha 0 and 0.4; shared image ids."""
    draw = Draw(301)
    b, q, e = 4, 6, 8
    image, text = draw.unit(b, e), draw.unit(b, e)

    def nearby(features):
        return exact(F.normalize(features + 0.5 * draw.normal(b, e), dim=-1))

    momentum = (nearby(image), nearby(text))
    queue = (draw.unit(q, e), draw.unit(q, e))
    temp = exact(torch.tensor(0.07, dtype=torch.float64))
    image_id, queue_id = torch.tensor([7, 3, 7, 5]), torch.tensor([3, 9, 7, 5, 8, 7])
    one_hot = torch.eye(b, b + q, dtype=torch.float64)
    shared = (image_id[:, None] == torch.cat([image_id, queue_id])[None]).double()

    cases = {
        'alpha0_full': dict(alpha=0.0, fill=q, shared=False),
        'alpha0.4_full': dict(alpha=0.4, fill=q, shared=False),
        'alpha0_part': dict(alpha=0.0, fill=3, shared=False),
        'alpha0.4_part': dict(alpha=0.4, fill=3, shared=False),
        'alpha0.4_full_shared': dict(alpha=0.4, fill=q, shared=True),
    }
    outputs = {}
    for name, case in cases.items():
        columns = b + case['fill']
        positives = shared / shared.sum(1, keepdim=True) if case['shared'] else one_hot
        leaves = [x.clone().requires_grad_() for x in (image, text, temp)]
        loss, target_i2t, target_t2i = itc(
            leaves[:2],
            momentum,
            [rows[: case['fill']] for rows in queue],
            leaves[2],
            alpha=case['alpha'],
            positives=positives[:, :columns],
        )
        loss.backward()
        outputs |= {
            f'{name}/loss': loss,
            f'{name}/target_i2t': target_i2t,
            f'{name}/target_t2i': target_t2i,
            f'{name}/grad_image': leaves[0].grad,
            f'{name}/grad_text': leaves[1].grad,
            f'{name}/grad_temp': leaves[2].grad,
        }
        if name == 'alpha0_full':
            labels = torch.arange(b)
            expected = sum(
                F.cross_entropy(a @ torch.cat([m, rest]).T / temp, labels) / 2
                for a, m, rest in ((image, momentum[1], queue[1]), (text, momentum[0], queue[0]))
            )
            check_close(loss, expected, 'ITC with one-hot targets', tolerance=1e-12)
    write(
        f'{folder}/itc.npz',
        config=dict(cases=cases),
        inputs={
            'image': image,
            'text': text,
            'image_momentum': momentum[0],
            'text_momentum': momentum[1],
            'image_queue': queue[0],
            'text_queue': queue[1],
            'temp': temp,
            'image_id': image_id,
            'queue_id': queue_id,
        },
        outputs=outputs,
    )


def negative_distribution(similarity, excluded, temp):
    """Row i: softmax over the candidates j that are not excluded, in log space."""
    logits = (similarity / temp).masked_fill(excluded, float('-inf'))
    return (logits - logits.logsumexp(-1, keepdim=True)).exp()


def write_itm(folder):
    """Two-way cross-entropy over b matched and 2 b unmatched pairs; hard-negative distributions.

    The diagonal is far above the rest and some candidates lie within 1e-3 of each other: at
    temperature 1e-3 a softmax over all columns leaves nothing once the diagonal is removed.
    """
    draw = Draw(302)
    b = 5
    logits = draw.normal(3 * b, 2, std=1.5).requires_grad_()
    labels = torch.cat([torch.ones(b), torch.zeros(2 * b)]).long()
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    by_hand = logits.logsumexp(-1) - torch.where(labels == 1, logits[:, 1], logits[:, 0])
    check_close(loss, by_hand.mean(), 'ITM', tolerance=1e-12)

    def similarities():
        values = draw.normal(b, b, mean=0.2, std=0.2)
        values[:2] = draw.normal(2, b, mean=0.3, std=0.001)  # nearly tied rows
        return exact(values.clamp(-0.9, 0.8).fill_diagonal_(0.95))

    sim_i2t, sim_t2i = similarities(), similarities()
    image_id = torch.tensor([7, 3, 7, 5, 9])
    diagonal = torch.eye(b, dtype=torch.bool)
    same = image_id[:, None] == image_id[None]
    temps = exact(torch.tensor([1.0, 0.07, 0.01, 0.001], dtype=torch.float64))
    outputs = {'loss': loss, 'grad_logits': logits.grad}
    for name, excluded in {'diagonal': diagonal, 'same_id': same}.items():
        for direction, similarity in {'i2t': sim_i2t, 't2i': sim_t2i}.items():
            rows = [negative_distribution(similarity, excluded, temp) for temp in temps]
            outputs[f'{name}/{direction}'] = torch.stack(rows)  # [temps, b, b]
            check_close(rows[0].sum(-1), torch.ones(b), 'negative distribution')
            weights = (similarity / temps[1]).exp() * ~excluded
            check_close(rows[1], weights / weights.sum(-1, keepdim=True), 'hard negatives')
    write(
        f'{folder}/itm.npz',
        config=dict(temps=[1.0, 0.07, 0.01, 0.001]),
        inputs={
            'logits': logits,
            'labels': labels,
            'sim_i2t': sim_i2t,
            'sim_t2i': sim_t2i,
            'image_id': image_id,
            'temps': temps,
        },
        outputs=outputs,
    )


def write_mlm(folder):
    """(1 - alpha) CE to the label + alpha CE to the teacher, mean over the used slots."""
    draw = Draw(303)
    b, m, v = 3, 4, 11
    values, teacher = draw.normal(b, m, v, std=2.0), draw.normal(b, m, v, std=2.0)
    weights = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.float64)
    labels = draw.integers(0, v, b, m) * weights.long()
    outputs, alphas = {}, [0.0, 0.4, 1.0]
    for alpha in alphas:
        logits = values.clone().requires_grad_()
        used = weights.bool()
        hard = F.cross_entropy(logits[used], labels[used])
        soft = soft_cross_entropy(logits[used], teacher[used].softmax(-1))
        loss = (1 - alpha) * hard + alpha * soft
        loss.backward()
        mixed = alpha * teacher.softmax(-1) + (1 - alpha) * F.one_hot(labels, v).double()
        by_slot = -(mixed * logits.log_softmax(-1)).sum(-1)  # [b, m]
        check_close(loss, (by_slot * weights).sum() / weights.sum(), 'MLM', tolerance=1e-12)
        outputs[f'alpha{alpha:g}/loss'] = loss
        outputs[f'alpha{alpha:g}/grad_logits'] = logits.grad
    outputs['count'] = weights.sum()
    write(
        f'{folder}/mlm.npz',
        config=dict(alphas=alphas),
        inputs={'logits': values, 'teacher_logits': teacher, 'labels': labels, 'weights': weights},
        outputs=outputs,
    )


def write_lm(folder):
    """Token cross-entropy, already shifted; padding ignored; torch's own label smoothing."""
    draw = Draw(304)
    b, t, v = 3, 5, 11
    values = draw.normal(b, t, v, std=2.0)
    valid = torch.arange(t)[None] < torch.tensor([5, 3, 1])[:, None]
    labels = draw.integers(1, v, b, t) * valid
    outputs, smoothings = {}, [0.0, 0.1]
    for smoothing in smoothings:
        logits = values.clone().requires_grad_()
        loss = F.cross_entropy(
            logits.flatten(0, 1),
            labels.masked_fill(~valid, -100).flatten(),
            ignore_index=-100,
            label_smoothing=smoothing,
        )
        loss.backward()
        outputs[f'smoothing{smoothing:g}/loss'] = loss
        outputs[f'smoothing{smoothing:g}/grad_logits'] = logits.grad
    log_probs = values.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    outputs['token_log_prob'] = log_probs * valid  # [b, t], 0 on padding
    outputs['count'] = valid.sum()
    write(
        f'{folder}/lm.npz',
        config=dict(smoothings=smoothings),
        inputs={'logits': values, 'labels': labels, 'valid': valid},
        outputs=outputs,
    )


def write_all(folder):
    write_itc(folder)
    write_itm(folder)
    write_mlm(folder)
    write_lm(folder)
