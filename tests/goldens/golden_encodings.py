"""Losses in the encoding space, MAE's pixel targets, AdamW with gradient clipping and EMA."""

import torch
from golden_losses import soft_cross_entropy
from golden_store import Draw, check_close, exact, write
from torch.nn import functional as F

TAU_STUDENT = 0.1
TAUS_TEACHER = (0.04, 0.07)
SINKHORN_ITERATIONS = 3
CENTRE_MOMENTUM = 0.9


def sinkhorn(logits, tau):
    """SwAV's and DINOv2's order of operations. logits [r, k] -> targets [r, k], rows sum to 1."""
    q = (logits / tau).exp().T  # [k, r]
    k, r = q.shape
    q = q / q.sum()
    for _ in range(SINKHORN_ITERATIONS):
        q = q / q.sum(dim=1, keepdim=True) / k
        q = q / q.sum(dim=0, keepdim=True) / r
    return (q * r).T


def log_sinkhorn(logits, tau):
    """The same by alternating potentials in log space."""
    scores = logits / tau
    row = torch.zeros(len(scores), 1, dtype=torch.float64)
    for _ in range(SINKHORN_ITERATIONS):
        column = -(scores + row).logsumexp(0, keepdim=True)
        row = -(scores + column).logsumexp(1, keepdim=True)
    return (scores + row + column).exp()


def balances(rows, centre):
    """{case: (targets [r, k], updated centre or None)} for teacher rows [r, k]."""
    cases = {}
    for tau in TAUS_TEACHER:
        targets = sinkhorn(rows, tau)
        check_close(targets, log_sinkhorn(rows, tau), 'Sinkhorn', tolerance=1e-10)
        check_close(targets.sum(-1), torch.ones(len(rows)), 'Sinkhorn rows', tolerance=1e-10)
        cases[f'sinkhorn{tau:g}'] = targets, None
        updated = centre * CENTRE_MOMENTUM + rows.mean(0) * (1 - CENTRE_MOMENTUM)
        cases[f'centring{tau:g}'] = ((rows - centre) / tau).softmax(-1), updated
    return cases


def encoding_config():
    return dict(
        tau_student=TAU_STUDENT,
        taus_teacher=TAUS_TEACHER,
        sinkhorn_iterations=SINKHORN_ITERATIONS,
        centre_momentum=CENTRE_MOMENTUM,
    )


def cosines(draw, *shape, encodings):
    """Logits as the encoding head gives them: cosines with `encodings` random directions."""
    return exact(draw.unit(*shape, 6) @ draw.unit(encodings, 6).T)


def write_agreement(folder):
    """Cross-entropy of CLS codes: teacher on view 1, student on view 2."""
    draw = Draw(401)
    b, k = 5, 12
    teacher, values = cosines(draw, b, encodings=k), cosines(draw, b, encodings=k)
    centre = draw.normal(k, std=0.1)
    outputs = {}
    for name, (targets, updated) in balances(teacher, centre).items():
        student = values.clone().requires_grad_()
        loss = soft_cross_entropy(student / TAU_STUDENT, targets)
        loss.backward()
        by_torch = F.cross_entropy(student / TAU_STUDENT, targets)
        check_close(loss, by_torch, 'agreement', tolerance=1e-12)
        outputs |= {f'{name}/targets': targets, f'{name}/loss': loss}
        outputs[f'{name}/grad_student'] = student.grad
        if updated is not None:
            outputs['centre_updated'] = updated
    write(
        f'{folder}/agreement.npz',
        config=encoding_config(),
        inputs={'teacher': teacher, 'student': values, 'centre': centre},
        outputs=outputs,
    )


def write_mim(folder):
    """Cross-entropy of the codes of masked patches: mean over images of the mean over masked."""
    draw = Draw(402)
    b, n, masked, k = 3, 9, 4, 12
    teacher, values = cosines(draw, b, n, encodings=k), cosines(draw, b, n, encodings=k)
    centre = draw.normal(k, std=0.1)
    mask = draw.subset_masks(b, n, masked)
    rows = teacher[mask]  # [b * masked, k], image by image, patches ascending
    outputs = {}
    for name, (targets, updated) in balances(rows, centre).items():
        student = values.clone().requires_grad_()
        full = torch.zeros(b, n, k, dtype=torch.float64)
        full[mask] = targets
        by_patch = -(full * (student / TAU_STUDENT).log_softmax(-1)).sum(-1)  # [b, n]
        loss = ((by_patch * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()
        loss.backward()
        by_torch = F.cross_entropy(student[mask] / TAU_STUDENT, targets)
        check_close(loss, by_torch, 'masked patches, equal counts', tolerance=1e-12)
        outputs |= {f'{name}/targets': targets.view(b, masked, k), f'{name}/loss': loss}
        outputs[f'{name}/grad_student'] = student.grad
        if updated is not None:
            outputs['centre_updated'] = updated  # from masked patches
    outputs['centre_updated_all_patches'] = centre * CENTRE_MOMENTUM + teacher.mean((0, 1)) * (
        1 - CENTRE_MOMENTUM
    )
    write(
        f'{folder}/mim.npz',
        config=encoding_config(),
        inputs={
            'teacher': teacher,
            'student': values,
            'centre': centre,
            'mask': mask,
            'mask_index': mask.nonzero()[:, 1].view(b, masked),
        },
        outputs=outputs,
    )


def write_mim_pixel(folder):
    """MAE's normalised pixels: one constant patch and one of variance near eps are in the image."""
    draw = Draw(403)
    b, grid, p = 3, 3, 4
    images = draw.normal(b, 3, grid * p, grid * p)
    images[0, :, :p, :p] = 0.5
    images[1, :, p : 2 * p, :p] *= 0.001
    images = exact(images)
    mask = draw.subset_masks(b, grid * grid, 4)
    mask[0], mask[1] = torch.arange(9) % 2 == 0, (torch.arange(9) % 2 == 1)
    mask[0, 8] = False  # four in each image, the two special patches among them
    blocks = images.reshape(b, 3, grid, p, grid, p)
    patches = torch.einsum('nchpwq->nhwpqc', blocks).reshape(b, grid * grid, p * p * 3)
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    targets = (patches - mean) / (variance + 1e-6) ** 0.5
    predicted = draw.normal(b, grid * grid, p * p * 3)
    leaf = predicted.clone().requires_grad_()
    by_patch = (leaf - targets).square().mean(-1)  # [b, n]
    loss = (by_patch * mask).sum() / mask.sum()
    loss.backward()
    check_close(loss, F.mse_loss(leaf[mask], targets[mask]), 'pixel loss', tolerance=1e-12)
    write(
        f'{folder}/mim_pixel.npz',
        config=dict(patch_size=p, eps=1e-6, variance='unbiased'),
        inputs={'images': images.permute(0, 2, 3, 1), 'predicted': predicted, 'mask': mask},
        outputs={
            'patches': patches,
            'targets': targets,
            'loss': loss,
            'grad_predicted': leaf.grad,
        },
    )


def write_adamw(folder):
    """Five steps of clip by global norm, AdamW with three groups, EMA after each step."""
    draw = Draw(404)
    steps, ema_momentum, max_norm = 5, 0.995, 1.0
    shapes = {'vit': (3, 4), 'bert': (4, 3), 'bias': (5,), 'tiny': (6,)}
    groups = {
        'vit': dict(lr=1e-4, weight_decay=0.02),
        'bert': dict(lr=1e-3, weight_decay=0.02),
        'bias': dict(lr=1e-3, weight_decay=0.0),
        'tiny': dict(lr=1e-3, weight_decay=0.02),  # gradients of the size of eps
    }
    params = {name: draw.normal(*shape) for name, shape in shapes.items()}
    ema = {name: draw.normal(*shape) for name, shape in shapes.items()}
    scale = torch.tensor([2.0, 0.1, 1.0, 0.05, 3.0], dtype=torch.float64)  # clipped and not
    grads = {}
    for name, shape in shapes.items():
        size = scale.view(steps, *[1] * len(shape)) * (1e-8 if name == 'tiny' else 1.0)
        grads[name] = exact(size * draw.normal(steps, *shape))

    inputs = {f'grads/{name}': value for name, value in grads.items()}
    inputs |= {f'ema/{name}': value for name, value in ema.items()}
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    optimizer = torch.optim.AdamW(
        [dict(params=[leaves[name]], **groups[name]) for name in shapes],
        betas=(0.9, 0.999),
        eps=1e-8,
    )
    history = {f'{kind}/{name}': [] for kind in ('params', 'ema') for name in shapes}
    norms = []
    for step in range(steps):
        for name, leaf in leaves.items():
            leaf.grad = grads[name][step].clone()
        norms.append(torch.nn.utils.clip_grad_norm_(list(leaves.values()), max_norm))
        optimizer.step()
        for name, leaf in leaves.items():
            ema[name] = ema_momentum * ema[name] + (1 - ema_momentum) * leaf.detach()
            history[f'params/{name}'].append(leaf.detach().clone())
            history[f'ema/{name}'].append(ema[name])
    if not (min(norms) < max_norm < max(norms)):
        raise AssertionError('both clipped and unclipped steps are wanted')
    write(
        f'{folder}/adamw.npz',
        config=dict(
            groups=groups,
            betas=[0.9, 0.999],
            eps=1e-8,
            max_norm=max_norm,
            ema_momentum=ema_momentum,
            steps=steps,
        ),
        params=params,
        inputs=inputs,
        outputs={name: torch.stack(values) for name, values in history.items()}
        | {'grad_norm': torch.stack(norms)},
    )


def write_all(folder):
    write_agreement(folder)
    write_mim(folder)
    write_mim_pixel(folder)
    write_adamw(folder)
