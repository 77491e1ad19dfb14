"""The copy task of Aicher, Foti & Fox (2019, table C.1), their test of adaptive truncation."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from bptt.contracts import at_least, refusal, true_or_false
from bptt.tasks.base import Batch, Split, Task, cross_entropy
from bptt.tasks.metrics import Perplexity
from bptt.tasks.synthetic import generator

BLANK, HASH = 0, 1  # the other symbols are 2 … 5
SECTION = 500  # timesteps between gaps


class AicherCopy(Task):
    """Repeated copying: m symbols are read, then they must be repeated while m blanks are read.

    The m symbols are '#' and m − 1 random ones of 2 … 5. While they are read, the target is blank. m is uniform over
    `min_memory` … `max_memory`, drawn again for every repetition. Each of the B streams begins at a random one of the
    first 2 · max_memory timesteps of its first repetitions. Its first targets may be symbols from before that timestep,
    which the network has not read, so the best possible perplexity is slightly above 1.

    Inputs are token ids, outputs the same 6 symbols. Cross-entropy in nats per timestep; metric perplexity. The
    training stream of `train_steps` timesteps, minus its gaps, is the same in every epoch. Each epoch begins with
    initial states, which are then carried from batch to batch. Validation and test have their own streams.

    torn_ends: draw the streams as the authors' code does. It shifts all existing streams whenever it shifts one, and
    fills the end each time with the same few timesteps. So all streams but the last end with incomplete repetitions,
    whose symbols are rarely due. In the authors' published test stream .377 of the targets are symbols, instead of
    .45: guessing the symbols has a perplexity of 1.687, not 1.866.
    gap: number of timesteps missing at the end of every 500 of the training stream, so that incomplete repetitions
    occur throughout and can be learnt. The authors' loop skips them: K − 1 timesteps in windows of 2K − 1.

    Raises ValueError if max_memory < min_memory or gap >= 500.
    """

    input_size = 6
    output_size = 6

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        seed: int,
        min_memory: int = 10,
        max_memory: int = 10,
        train_steps: int = 4000,
        validation_steps: int = 1000,
        test_steps: int = 1000,
        torn_ends: bool = False,
        gap: int = 0,
    ):
        super().__init__(length=length, batch_size=batch_size)
        at_least(1, min_memory=min_memory, max_memory=max_memory)
        at_least(1, train_steps=train_steps, validation_steps=validation_steps, test_steps=test_steps)
        at_least(0, seed=seed, gap=gap)
        if max_memory < min_memory:
            raise ValueError(refusal("max_memory", f">= min_memory = {min_memory}", max_memory))
        if gap >= SECTION:
            raise ValueError(refusal("gap", f"< {SECTION}", gap))
        true_or_false(torn_ends=torn_ends)
        self.memory = (min_memory, max_memory)
        self.torn_ends = torn_ends
        steps: dict[Split, int] = {"train": train_steps, "validation": validation_steps, "test": test_steps}
        self._streams = {split: self._draw_streams(seed, split, size) for split, size in steps.items()}
        kept = torch.arange(train_steps) % SECTION < SECTION - gap
        inputs, targets = self._streams["train"]
        self._streams["train"] = inputs[kept], targets[kept]

    def _draw_streams(self, seed: int, split: Split, num_steps: int) -> tuple[Tensor, Tensor]:
        longest = self.memory[1]
        sources = [generator(seed, split, number) for number in range(self.batch_size)]
        starts = [int(torch.randint(2 * longest, (), generator=source)) for source in sources]
        drawn = [torch.stack(self._draw(source, num_steps + 2 * longest)) for source in sources]
        streams = torch.stack(drawn, dim=-1)  # inputs and targets, (2, num_steps + 2 · longest, B)
        for number, start in enumerate(starts):
            moved = streams[:, :, 0 if self.torn_ends else number : number + 1]
            moved[:, :num_steps] = moved[:, start : start + num_steps].clone()
        inputs, targets = streams[:, :num_steps]
        return inputs, targets

    def _draw(self, source: torch.Generator, num_steps: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one stream, beginning at the first '#', (num_steps,)."""
        shortest, longest = self.memory
        repetitions = math.ceil(num_steps / (2 * shortest))
        memory = torch.randint(shortest, longest + 1, (repetitions,), generator=source)
        own_memory = memory.repeat_interleave(2 * memory)  # m of each timestep's repetition
        time = torch.arange(len(own_memory))
        index = time - (2 * memory).cumsum(0).sub(2 * memory).repeat_interleave(2 * memory)  # within the repetition
        symbols = torch.randint(2, 6, (len(own_memory),), generator=source, dtype=torch.uint8)
        symbols[index == 0] = HASH
        inputs = torch.where(index < own_memory, symbols, BLANK)
        targets = torch.where(index < own_memory, BLANK, symbols[(time - own_memory).clamp(min=0)])
        return inputs[:num_steps], targets[:num_steps]

    def num_batches(self, split: Split) -> int:
        return math.ceil(len(self._streams[split][0]) / self.length)

    def batch(self, split: Split, index: int) -> Batch:
        index %= self.num_batches(split)
        part = slice(index * self.length, (index + 1) * self.length)
        inputs, targets = self._streams[split]
        return Batch(inputs[part], targets[part], reset=torch.full((self.batch_size,), index == 0))

    errors = staticmethod(cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        return {"perplexity": Perplexity()}
