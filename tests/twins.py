"""Textbook decoders, one row at a time: what the engine's rules and caches are compared with.

They share nothing with the engine but the decoder's weights: canvases are lists, open positions a
set, keys a dictionary. `Run.gaps` says how close the closest decision of each step was; where it
was a near-tie, two correct programs may part.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from dlm.model.decoder import Decoder

Guesses = Mapping[int, tuple[int, float]]  # position -> most likely id, its confidence


class Run:
    """A canvas on its way: all its states, the forwards by kind, the logits of each step."""

    def __init__(self, decoder: Decoder, prompt: Sequence[int], length: int) -> None:
        self.decoder, self.mask = decoder, int(decoder.spec.mask_id or 0)
        self.ids = [*prompt, *[self.mask] * (length - len(prompt))]
        self.open = set(range(len(prompt), length))
        self.canvases = [list(self.ids)]
        self.nfe: Counter[str] = Counter()
        self.logits: list[dict[int, Tensor]] = []
        self.gaps = [math.inf]  # of each step, the current one last

    def decided(self, by: float) -> None:
        """Note by how much a decision fell as it did."""
        self.gaps[-1] = min(self.gaps[-1], by)

    def guesses(self, kind: str, rows: Mapping[int, Tensor], among: Iterable[int]) -> Guesses:
        """Book a forward; the best id but the mask at each open position, and its probability."""
        self.nfe[kind] += 1
        self.logits.append({p: rows[p] for p in sorted(self.open.intersection(among))})
        found = {}
        for position, row in self.logits[-1].items():
            ranked = sorted((-x, i) for i, x in enumerate(row.tolist()) if i != self.mask)
            self.decided(ranked[1][0] - ranked[0][0])
            token = ranked[0][1]
            found[position] = token, float(row.double().softmax(0)[token])
        return found

    def best(self, scores: Mapping[int, float], count: int) -> list[int]:
        """The positions of the `count` highest scores."""
        order = sorted(scores, key=lambda p: (-scores[p], p))
        if 0 < count < len(order):
            self.decided(scores[order[count - 1]] - scores[order[count]])
        return order[:count]

    def above(self, guesses: Guesses, threshold: float) -> list[int]:
        """The positions whose confidence exceeds the threshold."""
        for _, c in guesses.values():
            self.decided(abs(c - threshold))
        return [p for p, (_, c) in guesses.items() if c > threshold]

    def commit(self, positions: Iterable[int], guesses: Guesses) -> None:
        for p in positions:
            self.ids[p] = guesses[p][0]
            self.open.remove(p)

    def reopen(self, positions: Iterable[int]) -> None:
        for p in positions:
            self.ids[p] = self.mask
            self.open.add(p)

    def end_step(self) -> None:
        self.canvases.append(list(self.ids))
        self.gaps.append(math.inf)


def dense(decoder: Decoder, ids: Sequence[int], block: int = 0) -> dict[int, Tensor]:
    """Logits of the whole canvas, full attention or block-causal; row i predicts position i."""
    places = range(len(ids))
    seen = [[not block or key // block <= query // block for key in places] for query in places]
    with torch.no_grad():
        rows = decoder.head(decoder.dense(torch.tensor([ids]), torch.tensor(seen)))[0]
    step = int(decoder.spec.shift)
    return {p: rows[max(p - step, 0)] for p in places}


class Keys:
    """Stored keys and values of one row: for each layer, position -> (rotated key, value)."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.layers: list[dict[int, tuple[Tensor, Tensor]]] = [{} for _ in decoder.layers]
        self.kv_ids_spec: dict[int, int] = {}

    def forward(
        self,
        ids: Sequence[int],
        write: Iterable[int],
        look: Iterable[int] = (),
        end: int | None = None,
    ) -> dict[int, Tensor]:
        """Compute the positions of `write`, whose keys replace the stored ones, and of `look`,
        whose keys do not; all attend to every stored key (before `end`).
        """
        writes, spec = sorted(write), self.decoder.spec
        queries = [*writes, *look]
        self.kv_ids_spec.update({p: ids[p] for p in writes})
        with torch.no_grad():
            x = self.decoder.embedding(torch.tensor([ids[p] for p in queries]))
            for layer, stored in zip(self.decoder.layers, self.layers, strict=True):
                part = layer.attention
                fused = part.qkv(layer.attention_norm(x))
                fused = fused.view(len(queries), -1, spec.head_dim)
                q, k, v = fused.split((spec.heads, spec.kv_heads, spec.kv_heads), dim=1)
                if part.q_norm is not None:
                    q, k = part.q_norm(q), part.k_norm(k)
                q, k = rotated(q, queries, spec.rope_theta), rotated(k, queries, spec.rope_theta)
                for i, p in enumerate(writes):
                    stored[p] = k[i], v[i]
                shared = spec.heads // spec.kv_heads
                near = [pair for p, pair in stored.items() if end is None or p < end]
                keys = torch.stack([key for key, _ in near])
                values = torch.stack([value for _, value in near])
                heads = []
                for h in range(spec.heads):
                    scores = q[:, h] @ keys[:, h // shared].T / math.sqrt(spec.head_dim)
                    heads.append(scores.softmax(1) @ values[:, h // shared])
                x = x + part.out(torch.cat(heads, dim=1))
                x = x + layer.mlp(layer.mlp_norm(x))
            rows = self.decoder.head(self.decoder.norm(x))
        return {p + int(spec.shift): rows[i] for i, p in enumerate(queries)}


def seeing(
    decoder: Decoder, ids: Sequence[int], positions: Sequence[int], sees: Sequence[Sequence[bool]]
) -> Tensor:
    """Logits of tokens that stand at any positions; `sees[q][k]`: token q may look at token k."""
    spec, hidden = decoder.spec, torch.tensor(sees)
    with torch.no_grad():
        x = decoder.embedding(torch.tensor(ids))
        for layer in decoder.layers:
            part = layer.attention
            fused = part.qkv(layer.attention_norm(x)).view(len(ids), -1, spec.head_dim)
            q, k, v = fused.split((spec.heads, spec.kv_heads, spec.kv_heads), dim=1)
            if part.q_norm is not None:
                q, k = part.q_norm(q), part.k_norm(k)
            q, k = (rotated(y, positions, spec.rope_theta) for y in (q, k))
            heads = []
            for h in range(spec.heads):
                g = h // (spec.heads // spec.kv_heads)
                scores = q[:, h] @ k[:, g].T / math.sqrt(spec.head_dim)
                heads.append(scores.masked_fill(~hidden, -math.inf).softmax(1) @ v[:, g])
            x = x + part.out(torch.cat(heads, dim=1))
            x = x + layer.mlp(layer.mlp_norm(x))
        rows: Tensor = decoder.head(decoder.norm(x))
    return rows


def rotated(x: Tensor, positions: Sequence[int], theta: float) -> Tensor:
    """RoPE: turn each pair (x_i, x_{i + d/2}) of every head by position * theta^(-2i/d)."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half].contiguous(), x[..., half:].contiguous())
    speed = theta ** -(torch.arange(half) / half)
    angle = torch.tensor(positions, dtype=torch.float32)[:, None, None] * speed
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((turned.real, turned.imag), dim=-1)


def llada(decoder: Decoder, prompt: Sequence[int], new: int, block: int, steps: int) -> Run:
    """Semi-autoregressive low-confidence remasking; a block with steps to spare ends when clean."""
    run = Run(decoder, prompt, len(prompt) + new)
    count_per_block = steps // (new // block)
    for end in range(len(prompt) + block, len(run.ids) + 1, block):
        for step in range(count_per_block):
            guesses = run.guesses("step", dense(decoder, run.ids), range(end))
            count = block // count_per_block + (step < block % count_per_block)
            run.commit(run.best({p: c for p, (_, c) in guesses.items()}, count), guesses)
            run.end_step()
            if run.open.isdisjoint(range(end)):
                break
    return run


def dream(decoder: Decoder, prompt: Sequence[int], new: int, steps: int, score: str) -> Run:
    """Dream's schedule over the whole canvas: int(open * (1 - s/t)) a step, t from 1 to 0.001."""
    run = Run(decoder, prompt, len(prompt) + new)
    times = [1 + (0.001 - 1) * i / steps for i in range(steps + 1)]
    for step in range(steps):
        guesses = run.guesses("step", dense(decoder, run.ids), range(len(run.ids)))
        scores = {p: c for p, (_, c) in guesses.items()}
        if score == "entropy":
            probs = {p: row.double().softmax(0) for p, row in run.logits[-1].items()}
            scores = {p: float((q * (q + 1e-10).log()).sum()) for p, q in probs.items()}
        last = step == steps - 1
        count = len(scores) if last else int(len(scores) * (1 - times[step + 1] / times[step]))
        run.commit(run.best(scores, count), guesses)
        run.end_step()
    return run


def frozen(
    decoder: Decoder,
    prompt: Sequence[int],
    new: int,
    threshold: float,
    close: Callable[[Run, int, Guesses], int],
    suffix: bool = False,
) -> Run:
    """Fast-dLLM: refresh all keys where a block opens, then compute the block alone (`suffix`:
    and all after it) against them. `close` reads the block's end from the refresh's guesses.
    """
    run, keys = Run(decoder, prompt, len(prompt) + new), Keys(decoder)
    start, length = len(prompt), len(prompt) + new
    while start < length:
        rows = keys.forward(run.ids, range(length))
        guesses = run.guesses("refresh step", rows, range(length))
        end = close(run, start, guesses)
        while True:
            inside = {p: guesses[p] for p in guesses if p < end}
            sure = run.above(inside, threshold)
            run.commit(sure or run.best({p: c for p, (_, c) in inside.items()}, 1), inside)
            run.end_step()
            if run.open.isdisjoint(range(end)):
                break
            # With a shift, the query before the block predicts its first position.
            look = [start - 1] if decoder.spec.shift and start else []
            rows = keys.forward(run.ids, range(start, length if suffix else end), look)
            guesses = run.guesses("step", rows, range(end))
        start = end
    return run


def every(block: int) -> Callable[[Run, int, Guesses], int]:
    """Blocks of one length."""
    return lambda run, start, guesses: min(start + block, len(run.ids))


def adablock(
    prompt: int, block: int, threshold: float, delimiters: Sequence[int]
) -> Callable[[Run, int, Guesses], int]:
    """AdaBlock: end behind the most confident delimiter of a quarter of the answer's length."""

    def close(run: Run, start: int, guesses: Guesses) -> int:
        length = len(run.ids)
        window = range(start, min(start + int(0.25 * (length - prompt)), length))
        found = {p: guesses[p][1] for p in window if guesses[p][0] in delimiters}
        if found:
            (chosen,) = run.best(found, 1)
            run.decided(abs(found[chosen] - threshold))
            if found[chosen] >= threshold:
                return chosen + 1
        return min(start + block, length)

    return close


def sdar(
    decoder: Decoder, prompt: Sequence[int], new: int, width: int, steps: int, threshold: float
) -> Run:
    """Block diffusion without a cache: all that is strictly above the threshold, if it meets the
    step's share of the block, else the best of that share. Blocks of `width` from the trained
    border before the prompt's end.
    """
    trained = int(decoder.spec.block_length or 0)
    length = math.ceil((len(prompt) + new) / trained) * trained
    run = Run(decoder, prompt, length)
    for start in range(len(prompt) // trained * trained, length, width):
        end, step = min(start + width, length), 0
        while not run.open.isdisjoint(range(end)):
            rows = dense(decoder, run.ids[:end], trained)
            guesses = run.guesses("step", rows, range(end))
            now = min(step, steps - 1)
            quota = (end - start) // steps + (now < (end - start) % steps)
            sure = run.above(guesses, threshold)
            if len(sure) < quota or not sure:
                sure = run.best({p: c for p, (_, c) in guesses.items()}, max(quota, 1))
            run.commit(sure, guesses)
            run.end_step()
            step += 1
    return run


def mdpo(
    decoder: Decoder,
    prompt: Sequence[int],
    new: int,
    block: int,
    steps: int,
    gamma: Callable[[float], float],
    rcr: bool = True,
    cached: bool = False,
) -> Run:
    """MDPO. With `rcr` every step fills all that is open and takes back the least confident of
    the whole row, by the confidence of their last filling. `cached`: keys are renewed where a
    block opens; then a step computes the block, what is open before it, and what has changed
    there since its key was made.
    """
    run, keys = Run(decoder, prompt, len(prompt) + new), Keys(decoder)
    count_per_block = steps // (new // block)
    running = [0.0] * len(run.ids)
    for start in range(len(prompt), len(run.ids), block):
        end = start + block
        left = [math.floor(block * gamma(s / count_per_block)) for s in range(count_per_block + 1)]
        for step in range(count_per_block):
            if cached:
                behind = range(len(prompt), start)
                write = {p for p in behind if p in run.open or keys.kv_ids_spec[p] != run.ids[p]}
                write |= set(range(len(run.ids)) if step == 0 else range(start, end))
                before = {p - 1 for p in run.open if p < end} - write - {-1}
                look = sorted(before) if decoder.spec.shift else []
                rows = keys.forward(run.ids, write, look)
            else:
                rows = dense(decoder, run.ids)
            kind = "refresh step" if cached and step == 0 else "step"
            guesses = run.guesses(kind, rows, range(end))
            owed = sum(left[s] - left[s + 1] for s in range(step + 1, count_per_block))
            if rcr:
                run.commit(list(guesses), guesses)
                for p, (_, c) in guesses.items():
                    running[p] = c
                certain = {p: -(1.0 if c == 0 else c) for p, c in enumerate(running)}
                run.reopen(run.best(certain, owed))
            else:
                scores = {p: c for p, (_, c) in guesses.items()}
                run.commit(run.best(scores, left[step] - left[step + 1]), guesses)
            run.end_step()
            if run.open.isdisjoint(range(end)):
                break
    return run


def wino(
    decoder: Decoder, prompt: Sequence[int], new: int, block: int, sure: float, back: float
) -> Run:
    """WINO: each forward also computes a masked shadow of every position of the block, which sees
    all but that position; what stands there and the shadow doubts is reopened.
    """
    run = Run(decoder, prompt, len(prompt) + new)
    length = len(run.ids)
    for start in range(len(prompt), length, block):
        inside, last = range(start, start + block), 30
        places = [*range(length), *inside]
        sees = [[k < length or q >= length for k in range(len(places))] for q in range(len(places))]
        for j, position in enumerate(inside):
            sees[length + j][position] = False
        while not run.open.isdisjoint(inside):
            rows = seeing(decoder, [*run.ids, *[run.mask] * block], places, sees)
            judged = [p for p in inside if p not in run.open]
            guesses = run.guesses("step", {p: rows[p] for p in places[:length]}, inside)
            cap = min(max(int(len(guesses) * 0.7), 5), 20)
            accepted = run.above(guesses, sure)
            if len(accepted) > cap or not accepted:
                accepted = run.best({p: c for p, (_, c) in guesses.items()}, cap if accepted else 1)
            doubts = {}
            for p in judged:
                belief = float(rows[length + p - start].double().softmax(0)[run.ids[p]])
                run.decided(abs(belief - back))
                if belief < back:
                    doubts[p] = -belief
            run.commit(accepted, guesses)
            if len(accepted) > 1:
                run.reopen(run.best(doubts, min(len(doubts), last - 1)))
            last = len(accepted)
            run.end_step()
    return run


def guided(
    decoder: Decoder,
    causal: Decoder,
    prompt: Sequence[int],
    new: int,
    block: int,
    share: float,
    ids: Sequence[int] | None = None,
) -> Run:
    """Guided Diffusion: the diffusion model drafts, the causal one (whose id of i is `ids[i]`)
    reads the drafts from the left; what it would have written stays, and always the first.
    """
    run = Run(decoder, prompt, len(prompt) + new)
    known = list(ids) if ids is not None else list(range(decoder.spec.vocab_size))
    for start in range(len(prompt), len(run.ids), block):
        inside = range(start, min(start + block, len(run.ids)))
        while not run.open.isdisjoint(inside):
            guesses = run.guesses("step", dense(decoder, run.ids), inside)
            canvas = [guesses[p][0] if p in guesses else run.ids[p] for p in range(inside[-1] + 1)]
            said = dense(causal, [known[i] for i in canvas], 1)
            accepted: list[int] = []
            for p in sorted(guesses):
                probs = said[p - 1].double().softmax(0)
                best = float(probs[[known[i] for i in range(len(known)) if i != run.mask]].max())
                own = float(probs[known[guesses[p][0]]])
                if own != best:
                    run.decided(abs(own - share * best))
                doubtful = own < share * best
                if doubtful and accepted:
                    break
                accepted.append(p)
                if doubtful:
                    break
            run.commit(accepted, guesses)
            run.end_step()
    return run


def dictated(
    decoder: Decoder, causal: Decoder, prompt: Sequence[int], new: int, block: int, count: int
) -> Run:
    """The diffusion model drafts; the causal one's own choices are written, `count` a step."""
    run = Run(decoder, prompt, len(prompt) + new)
    for start in range(len(prompt), len(run.ids), block):
        inside = range(start, min(start + block, len(run.ids)))
        while not run.open.isdisjoint(inside):
            guesses = run.guesses("step", dense(decoder, run.ids), inside)
            canvas = [guesses[p][0] if p in guesses else run.ids[p] for p in range(inside[-1] + 1)]
            said = dense(causal, canvas, 1)
            chosen = {}
            for p in sorted(guesses)[:count]:
                said[p - 1][run.mask] = -math.inf
                best, second = said[p - 1].topk(2).values.tolist()
                run.decided(best - second)
                chosen[p] = int(said[p - 1].argmax()), 1.0
            run.commit(list(chosen), chosen)
            run.end_step()
    return run
