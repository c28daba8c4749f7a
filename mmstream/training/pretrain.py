"""Pre-training of AVP: step by step through `Scenes`, resumable, judged on unseen pairs.

    folder/state.safetensors   where it stands; whoever is interrupted goes on from there
           history.jsonl       a PretrainRecord for each judgement
           best/               the checkpoint, once it is over

As `mmstream.training.loop`: the same weights, bit by bit, however often it was interrupted.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from mmstream.clock import Clock, SystemClock
from mmstream.config import Settings
from mmstream.errors import ConfigError, ScorerError
from mmstream.media import NS_PER_SEC
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, Avp
from mmstream.training import state
from mmstream.training.dataset import ExampleDataset
from mmstream.training.interrupt import Asked, noted_ctrl_c
from mmstream.training.loop import StepRecord
from mmstream.training.manifest import Split
from mmstream.training.matching import Matched, match, pairs_of
from mmstream.training.pretrain_settings import PretrainSettings
from mmstream.training.pretraining import Losses, Pretrainer
from mmstream.training.scenes import SceneMaker
from mmstream.training.schedule import learning_rate
from mmstream.training.shards import hashed
from mmstream.training.state import Position, State

STATE: Final = "state.safetensors"
HISTORY: Final = "history.jsonl"
BEST: Final = "best"
SAVE_SECS: Final = 60.0
"""How much work an interruption may cost, at most."""

_NAMES: Final = ("contrast", "synchrony", "reconstruct", "events")
_N_MEASURED: Final = 8
"""Steps whose frames say how sound is standardised."""
_PART_SECS: Final = 0.25
"""Windows end at multiples of it."""
_CLOCK: Final = SystemClock()


class PretrainRecord(Settings):
    """What was measured after some epochs."""

    n_steps: int
    n_steps_most: int
    losses: Mapping[str, float]
    """The mean of the steps since the record before, or since it was gone on with, by objective."""
    val: Matched | None
    """On the validation split; None: nothing was judged."""
    secs: float
    """Of training so far, as the clock has it."""


Told = Callable[[StepRecord | PretrainRecord], None]
"""Hears of each step and each judgement."""


def position(
    settings: PretrainSettings, examples: Mapping[Split, ExampleDataset], folder: Path
) -> Position:
    """How far the training in `folder` has come.

    Raises:
        ConfigError: it is another one, or its checkpoint is gone; or the data lacks something.
    """
    found = state.load(folder / STATE, _begun(settings, examples), only_position=True).position
    if found.finished and not (folder / BEST / checkpoint.WEIGHTS).exists():
        msg = f"{folder / BEST}: the checkpoint is gone; remove {folder} to train it anew"
        raise ConfigError(msg)
    return found


def pretrain(
    settings: PretrainSettings,
    examples: Mapping[Split, ExampleDataset],
    folder: Path,
    told: Told = lambda _record: None,
    clock: Clock = _CLOCK,
) -> Path:
    """Train, or go on with a training that was interrupted, until it is over.

    Ctrl-C stops it after the step it is in, with everything saved; a second one at once.

    Returns:
        The folder of the checkpoint.

    Raises:
        ConfigError: the folder holds another training, the data lacks something.
        ScorerError: the loss is not finite.
        KeyboardInterrupt: Ctrl-C, after everything was saved.
    """
    if position(settings, examples, folder).finished:
        return folder / BEST
    at = state.load(folder / STATE, _begun(settings, examples))
    run = _Run(settings, examples, folder, at, clock)
    with noted_ctrl_c() as check:
        try:
            while not run.is_over:
                check()
                told(run.step())
                if run.is_due:
                    told(run.judged())
            check()
        except Asked:
            run.save()
            raise KeyboardInterrupt from None
    return run.finish()


class _Run:
    """A pre-training from where it stands."""

    def __init__(
        self,
        settings: PretrainSettings,
        examples: Mapping[Split, ExampleDataset],
        folder: Path,
        at: State,
        clock: Clock,
    ) -> None:
        self._settings, self._folder, self._clock = settings, folder, clock
        self._device = _device(settings.device)
        has_pairs = bool(pairs_of(examples["val"], fps=settings.model.seen.fps))
        self._val = examples["val"] if has_pairs else None
        self._maker = SceneMaker(
            settings.scenes,
            settings.model,
            examples["train"],
            n_pairs=settings.optimise.n_batch,
            left_out=frozenset(settings.left_out),
            seed=settings.seed,
        )
        torch.manual_seed(settings.seed)
        self._model = Pretrainer(settings.model, settings.objectives).to(self._device)
        fit = settings.optimise
        self._optimiser = torch.optim.AdamW(
            [
                {"params": part, "weight_decay": decay}
                for part, decay in (
                    ([one for one in self._model.parameters() if one.ndim > 1], fit.weight_decay),
                    ([one for one in self._model.parameters() if one.ndim <= 1], 0.0),
                )
            ]
        )
        self._position = at.position
        self._n_steps = fit.n_epochs * self._maker.n_steps_epoch
        if at.tensors:
            self._restore(at.tensors)
        else:
            self._standardise()
        self._sums: dict[str, float] = {}
        self._n_summed = 0
        self._saved_ns = self._began_ns = clock.monotonic_ns()
        self._n_before = at.position.n_steps

    @property
    def is_over(self) -> bool:
        """Whether no step is left."""
        return self._position.n_steps >= self._n_steps

    @property
    def is_due(self) -> bool:
        """Whether a judgement is due after the last step."""
        n_between = self._settings.judge_epochs * self._maker.n_steps_epoch
        return self._position.n_steps % n_between == 0 or self.is_over

    def step(self) -> StepRecord:
        """One step."""
        began_ns = self._clock.monotonic_ns()
        number = self._position.n_steps
        losses = self._learnt(number)
        for name in _NAMES:
            self._sums[name] = self._sums.get(name, 0.0) + getattr(losses, name).item()
        self._n_summed += 1
        now_ns = self._clock.monotonic_ns()
        self._position = self._position.model_copy(
            update={
                "n_steps": number + 1,
                "secs": self._position.secs + (now_ns - began_ns) / NS_PER_SEC,
            }
        )
        # A step that is to be judged is saved once it is: else whoever is killed between loses it.
        if now_ns - self._saved_ns >= SAVE_SECS * NS_PER_SEC and not self.is_due:
            self.save()
        return self._stepped(losses, now_ns)

    def save(self) -> None:
        """Write where it stands."""
        parts = {"model": self._model.state_dict()}
        states = self._optimiser.state_dict()["state"]
        parts |= {f"optimiser.{index}": one for index, one in states.items()}
        tensors = {
            f"{part}.{name}": tensor.detach().cpu().contiguous()
            for part, named in parts.items()
            for name, tensor in named.items()
        }
        state.save(self._folder / STATE, State(self._position, tensors))
        self._saved_ns = self._clock.monotonic_ns()

    def finish(self) -> Path:
        """Write the checkpoint."""
        avp = self._model.avp.eval()
        self._remember_background(avp)
        folder = self._folder / BEST
        rate_hz = avp.settings.audio.front_end.rate_hz
        identity = checkpoint.Identity(task=TASK, rate_hz=rate_hz, trained=True)
        checkpoint.save(folder, avp, avp.settings, identity, "", half=True)
        self._position = self._position.model_copy(update={"finished": True})
        state.save(self._folder / STATE, State(self._position, {}))
        return folder

    def _stepped(self, losses: Losses, now_ns: int) -> StepRecord:
        settings, n_steps = self._settings, self._position.n_steps
        secs_per_step = (now_ns - self._began_ns) / NS_PER_SEC / (n_steps - self._n_before)
        return StepRecord(
            epoch=(n_steps - 1) // self._maker.n_steps_epoch,
            n_steps=n_steps,
            n_steps_most=self._n_steps,
            loss=losses.total(settings.objectives).item(),
            learning_rate=self._optimiser.param_groups[0]["lr"],
            examples_per_sec=settings.optimise.n_batch / max(secs_per_step, 1e-9),
            eta_secs=(self._n_steps - n_steps) * secs_per_step,
        )

    def _learnt(self, number: int) -> Losses:
        settings = self._settings
        torch.manual_seed(state.drawn(settings.seed, number))
        end_secs = self._end_secs()
        scenes = self._maker.scenes(number, end_secs=end_secs).to(self._device)
        rate = learning_rate(settings.optimise, step=number, n_steps=self._n_steps)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._model.train()
        losses: Losses = self._model(scenes, end_secs=end_secs)
        total = losses.total(settings.objectives)
        total.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), settings.optimise.clip)
        if not bool(torch.isfinite(total + norm)):
            msg = f"step {number + 1}, learning rate {rate:.2g}: the loss is not finite"
            raise ScorerError(msg)
        self._optimiser.step()
        self._optimiser.zero_grad()
        return losses

    def _end_secs(self) -> float:
        """When the windows of a step end: anywhere that leaves room for a whole one."""
        settings = self._settings
        n_places = int((settings.scenes.secs - settings.model.window_secs) / _PART_SECS) + 1
        return settings.model.window_secs + _PART_SECS * int(torch.randint(n_places, ()))

    def judged(self) -> PretrainRecord:
        """What came of the steps since the last judgement, and how it does in validation."""
        avp = self._model.avp.eval()
        record = PretrainRecord(
            n_steps=self._position.n_steps,
            n_steps_most=self._n_steps,
            losses={name: one / self._n_summed for name, one in self._sums.items()},
            val=None if self._val is None else match(avp, self._val),
            secs=self._position.secs,
        )
        self._sums, self._n_summed = {}, 0
        _append(self._folder / HISTORY, record)
        return record

    @torch.no_grad()
    def _standardise(self) -> None:
        """Tell the encoder of sound what frames are like."""
        window_secs = self._settings.model.window_secs
        steps = (self._maker.scenes(n, end_secs=window_secs) for n in range(_N_MEASURED))
        frames = torch.cat([one.frames.flatten(0, 1) for one in steps])
        self._model.avp.audio.standardise(mean=frames.mean(dim=0), std=frames.std(dim=0))

    @torch.no_grad()
    def _remember_background(self, avp: Avp) -> None:
        """Fill `Avp.background` with gists of windows of further steps, heard, seen and both."""
        found: list[Tensor] = []
        end_secs = self._settings.scenes.secs
        while sum(map(len, found)) < len(avp.background):
            number = self._n_steps + len(found)
            torch.manual_seed(state.drawn(self._settings.seed, number))
            scenes = self._maker.scenes(number, end_secs=end_secs).to(self._device)
            found.append(self._model.gists(scenes, end_secs=end_secs))
        every = torch.cat(found)
        chosen = torch.randperm(len(every))[: len(avp.background)]
        avp.background.copy_(every[chosen])

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._model.load_state_dict(state.under("model", tensors))
        written = self._optimiser.state_dict()
        n_weights = sum(len(group["params"]) for group in written["param_groups"])
        states = {index: state.under(f"optimiser.{index}", tensors) for index in range(n_weights)}
        written["state"] = {index: one for index, one in states.items() if one}
        self._optimiser.load_state_dict(written)


def _append(path: Path, record: PretrainRecord) -> None:
    """Add a judgement; those from its step on, which a crash left behind, are dropped first.

    Raises:
        ConfigError: what is there is no history of a pre-training.
    """
    try:
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        before = [PretrainRecord.model_validate_json(line) for line in lines]
    except (UnicodeDecodeError, ValidationError):
        msg = f"{path}: no history of a pre-training; remove it to begin another"
        raise ConfigError(msg) from None
    kept = [one for one in before if one.n_steps < record.n_steps]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_text("".join(one.model_dump_json() + "\n" for one in [*kept, record]), "utf-8")
    beside.replace(path)


def _device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        msg = "device: there is no CUDA device here; allowed: auto, cpu"
        raise ConfigError(msg)
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def _begun(settings: PretrainSettings, examples: Mapping[Split, ExampleDataset]) -> str:
    """A digest of what the weights follow from, wherever the files are.

    Raises:
        ConfigError: nothing is to be trained on.
    """
    items = examples["train"].items
    if not items:
        msg = "data: no examples in the split 'train'"
        raise ConfigError(msg)
    told = settings.model_dump_json(exclude={"device": True, "data": True, "unseen": True})
    return hashed(told, *(f"{item.key} {item.annotation}" for item in items))
