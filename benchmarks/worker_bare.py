"""AVP's scorer beside its model alone: what streams, windows and verdicts cost on top."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import torch
from pydantic import BaseModel, ConfigDict

from mmstream.benchmarks.worker_encoders import Senses
from mmstream.benchmarks.worker_encoders import Window as Media
from mmstream.benchmarks.worker_world import HOP_SECS, Stopwatch, cameras, model_of
from mmstream.media import Modality
from mmstream.models.avp import Avp
from mmstream.models.avp_spec import AvpSpec
from mmstream.models.recurrent import StreamState
from mmstream.models.tokens import Tokens
from mmstream.stages import Load

_WARM_UP_HOPS: Final = 9
_TURNS_PER_ROUND: Final = 4
_ALONE: Final[tuple[tuple[Modality, ...], ...]] = (("audio", "video"), ("audio",), ("video",))


class BareCosts(BaseModel):
    """On one device, all sources in one batch."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    device: str
    n_sources: int
    windows_per_sec: float
    """Of the scorer, from hops to scores, by wall time."""
    bare_windows_per_sec: float
    """Of the model: the same batch, all of it ready on the device."""
    share: float
    """The first over the second."""
    host_ms_per_hop: float
    """CPU time of the scorer; on the CPU that is the model's, too."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """All that the model takes of a hop of each source, and of the windows that they end."""

    hop: Media
    state: StreamState
    tokens: Mapping[Modality, Tokens]

    @classmethod
    @torch.inference_mode()
    def of(cls, model: Avp, n_sources: int) -> Self:
        """On the model's device."""
        device, settings = model.background.device, model.settings
        senses = Senses(model, n_sources)
        media = cameras(n_sources, settings.audio.front_end.rate_hz)
        n_window = round(settings.window_secs / HOP_SECS)
        window = [senses.take(next(media)) for _ in range(n_window)]
        hop, whole = (Media.of(part).to(device) for part in (window[-1:], window))
        pictures = model.video.stages(whole.stacks).unflatten(0, (n_sources, -1))
        there = torch.ones(pictures.shape[:2], dtype=torch.bool, device=device)
        at_secs = torch.linspace(-settings.window_secs, 0, there.shape[1], device=device)
        tokens: Mapping[Modality, Tokens] = {
            "audio": model.audio(whole.frames, whole.present).shifted(-settings.window_secs),
            "video": Tokens(pictures, there, at_secs.expand(there.shape)),
        }
        return cls(hop, model.audio.empty_state(n_sources), tokens)

    @torch.inference_mode()
    def run(self, model: Avp) -> None:
        """Encode the hop; fuse its windows three times, as leaving one out takes."""
        of, state = model.settings.audio, self.state
        n_step = of.n_stack * of.n_chunk
        parts = [torch.split(x, n_step, dim=1) for x in (self.hop.frames, self.hop.present)]
        for frames, present in zip(*parts, strict=True):
            state = model.audio.step(frames, present, state).state
        model.video.stages(self.hop.stacks)
        ends = self.hop.frames.new_zeros(len(self.hop.frames))
        for kinds in _ALONE:
            model.events(model.fuse({kind: self.tokens[kind] for kind in kinds}, ends).embedding)


def bare(spec: AvpSpec, device: str, n_sources: int, rounds: int) -> BareCosts:
    """The scorer and the model take turns.

    Raises:
        ScorerError: see `AvpSpec.build`.
    """
    model = model_of(spec).to(device)
    ready, scorer = _Ready.of(model, n_sources), spec.build(device)
    media = cameras(n_sources, spec.rate_hz)
    for _ in range(_WARM_UP_HOPS):
        scorer.score(next(media), (), Load.FULL)
        ready.run(model)
    scored, alone = Stopwatch(), Stopwatch()
    for _ in range(rounds * _TURNS_PER_ROUND):
        hops = next(media)
        with scored.turn():
            scorer.score(hops, (), Load.FULL)
        with alone.turn():
            ready.run(model)
            if device != "cpu":
                torch.cuda.synchronize()
    whole, model_only = scored.cost(n_parts=n_sources), alone.cost(n_parts=n_sources)
    return BareCosts(
        device=device,
        n_sources=n_sources,
        windows_per_sec=round(1e3 / whole.wall_ms, 1),
        bare_windows_per_sec=round(1e3 / model_only.wall_ms, 1),
        share=round(model_only.wall_ms / whole.wall_ms, 3),
        host_ms_per_hop=whole.cpu_ms,
    )
