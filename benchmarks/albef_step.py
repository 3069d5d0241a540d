"""ALBEF's training step (2107.07651) in PyTorch, as its public code computes it: a yardstick.

The towers are those of `conversion/torch_towers.py`; losses, momentum model, queue and optimizer
are written here. Every pass runs on all positions, as in that code: the momentum model encodes
image and text, the fusion layers run on the pair, on two negative pairs and on the masked text, for
which the momentum model gives soft targets.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semmim_jax.conversion.torch_towers import Bert, VisionTransformer


class Model(nn.Module):
    """Two towers, fusion layers and heads, of the sizes of `config.model`."""

    def __init__(self, model: Any):
        super().__init__()
        text = model.text.to_dict()
        self.depth = text['depth']
        self.visual = VisionTransformer(model.image.to_dict())
        self.text = Bert(text, self.depth + model.fusion_depth, self.depth, True)
        self.image_projection = nn.Linear(model.image.width, model.embed_dim)
        self.text_projection = nn.Linear(model.text.width, model.embed_dim)
        self.itm_head = nn.Linear(model.text.width, 2)
        self.temperature = nn.Parameter(torch.tensor(model.temperature))
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 or 'token' in name:
                nn.init.normal_(parameter, std=0.02)

    def read(self, ids: Tensor, valid: Tensor) -> Tensor:
        """Ids [b, t] -> [b, t, d] of the text tower."""
        x = self.text.bert.embeddings(ids)
        return self.text.bert.encoder(x, mask=valid, stop=self.depth)

    def fuse(self, text: Tensor, valid: Tensor, image: Tensor) -> Tensor:
        """[b, t, d] and the image's tokens [b, n + 1, d] -> [b, t, d]."""
        return self.text.bert.encoder(text, mask=valid, context=image, start=self.depth)


class Step:
    """Model, momentum model, queue and optimizer.

    Args:
      config: the experiment; `model`, `task` and `optim` are read.
    """

    def __init__(self, config: Any):
        self.config = config
        self.model = Model(config.model)
        self.momentum = copy.deepcopy(self.model).requires_grad_(False)
        shape = config.model.embed_dim, config.task.queue_size
        self.queues = [F.normalize(torch.randn(shape), dim=0) for _ in range(2)]
        self.pointer = 0
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.optim.lr,
            weight_decay=config.optim.weight_decay,
            fused=True,
        )

    def __call__(self, batch: dict[str, Tensor], dtype: str) -> float:
        """One step.

        Args:
          batch: image, momentum_image [b, 3, s, s]; ids, masked_ids [b, t]; masked [b, t] bool.
          dtype: 'float32', or 'bfloat16' for autocast.

        Returns:
          The loss.
        """
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'):
            loss, features = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            self.model.temperature.clamp_(0.001, 0.5)
            averaged, online = list(self.momentum.parameters()), list(self.model.parameters())
            torch._foreach_lerp_(averaged, online, 1 - self.config.optim.ema)
            count = len(batch['ids'])
            for queue, rows in zip(self.queues, features):
                queue[:, self.pointer : self.pointer + count] = rows.T
            self.pointer = (self.pointer + count) % self.config.task.queue_size
        return loss.item()

    def _loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        model, momentum, alpha = self.model, self.momentum, self.config.task.alpha
        ids, count = batch['ids'], len(batch['ids'])
        valid = ids != 0
        image, text = model.visual(batch['image']), model.read(ids, valid)
        feature = lambda m, image, text: (
            F.normalize(m.image_projection(image[:, 0]).float(), dim=-1),
            F.normalize(m.text_projection(text[:, 0]).float(), dim=-1),
        )
        own = feature(model, image, text)
        with torch.no_grad():
            image_m = momentum.visual(batch['momentum_image'])
            keys = feature(momentum, image_m, momentum.read(ids, valid))
        candidates = [torch.cat([key.T, queue], 1) for key, queue in zip(keys, self.queues)]
        itc, similarity = 0.0, []
        for side in range(2):
            logits = own[side] @ candidates[1 - side] / model.temperature
            with torch.no_grad():
                soft = (keys[side] @ candidates[1 - side] / model.temperature).softmax(1)
                target = alpha * soft + (1 - alpha) * torch.eye(*logits.shape)
                similarity.append(logits[:, :count].softmax(1).fill_diagonal_(0) + 1e-9)
            itc = itc - (logits.log_softmax(1) * target).sum(1).mean() / 2

        other_text = torch.multinomial(similarity[0].fill_diagonal_(0), 1)[:, 0]
        other_image = torch.multinomial(similarity[1].fill_diagonal_(0), 1)[:, 0]
        pairs = model.fuse(text, valid, image)[:, 0]
        negatives = model.fuse(
            torch.cat([text, text[other_text]]),
            torch.cat([valid, valid[other_text]]),
            torch.cat([image[other_image], image]),
        )[:, 0]
        labels = torch.tensor([1] * count + [0] * 2 * count)
        itm = F.cross_entropy(model.itm_head(torch.cat([pairs, negatives])).float(), labels)

        masked = batch['masked']
        predict = lambda m, image: m.text.predict(
            m.fuse(m.read(batch['masked_ids'], valid), valid, image)
        )
        with torch.no_grad():
            soft = predict(momentum, image_m).float().softmax(-1)
        log_words = predict(model, image).float().log_softmax(-1)
        hard = -log_words.gather(-1, ids[..., None])[..., 0]
        errors = (1 - alpha) * hard - alpha * (log_words * soft).sum(-1)
        return itc + itm + errors[masked].mean(), keys
