"""What a run is made of."""

from dataclasses import dataclass

from mmstream.messages import ModelInfo, Published
from mmstream.metrics import StageMetrics
from mmstream.runtime.chain import Chain
from mmstream.runtime.control import Blueprint
from mmstream.runtime.features import Keeper
from mmstream.runtime.snapshots import Snapshots
from mmstream.stages import Inlet, ScorerSpec, Sink
from mmstream.store.overrides import Override
from mmstream.worker import WorkerSettings


@dataclass(frozen=True, slots=True)
class Graph:
    """Everything that runs together: what a recipe builds."""

    node: str
    chains: tuple[Chain, ...]
    specs: tuple[ScorerSpec, ...]
    worker: WorkerSettings
    sinks: tuple[Sink, ...]
    reports: bool = True
    """Whether health, info and stats are told beside what heads say; a replay tells none."""
    captions: bool = False
    """Whether what is said, heard and seen is told as text, too."""
    inlets: tuple[Inlet, ...] = ()
    """Where requests come from."""
    blueprint: Blueprint | None = None
    """How sources are made of settings while it runs; None: none can be added or read again."""
    left_open: tuple[Published, ...] = ()
    """The last message of each event that an earlier boot has not ended; these end first."""
    overrides: tuple[Override, ...] = ()
    """What people have set in earlier boots."""
    keeper: Keeper | None = None
    """Keeps what they set in this one; None: it is gone with the process."""
    snapshots: Snapshots | None = None
    """Takes pictures of what happens; it is one of the sinks, too."""
    meters: tuple[StageMetrics, ...] = ()
    """Counters of what stands behind the sinks."""
    models: tuple[ModelInfo, ...] = ()
    """What `Info` says of the trained models among the specs."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What `Info` says can be had of the run."""
        has_pictures = self.snapshots is not None
        can = {
            "events": True,
            "captions": self.captions,
            "requests": bool(self.inlets),
            "snapshots": has_pictures,
        }
        return tuple(name for name, is_there in can.items() if is_there)
