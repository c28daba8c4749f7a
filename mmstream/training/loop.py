"""The training loop: epochs of steps, each epoch judged on the validation split, the best one kept.

    folder/state.safetensors   where it stands; whoever is interrupted goes on from there
           history.jsonl       an EpochRecord for each epoch
           best/               the checkpoint of the best epoch so far

A training that was interrupted after any step, and however often, ends with the same weights, bit
by bit, as one that was not: on one device, with the same number of threads, and on the CPU (CUDA
adds in no fixed order).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from mmstream.clock import Clock, SystemClock
from mmstream.errors import ConfigError, ScorerError
from mmstream.media import NS_PER_SEC
from mmstream.models import checkpoint
from mmstream.models.audio import AudioEncoder
from mmstream.models.text import WordPieces
from mmstream.training import history, state
from mmstream.training.batches import (
    Batch,
    Change,
    Collator,
    Masks,
    augmented,
    frame_statistics,
    loader,
)
from mmstream.training.beginning import begun
from mmstream.training.dataset import ExampleDataset, shuffled
from mmstream.training.history import EpochRecord
from mmstream.training.interrupt import Asked, noted_ctrl_c
from mmstream.training.learner import Learner, Stepped
from mmstream.training.manifest import Split
from mmstream.training.noise import Noise
from mmstream.training.predict import VOCABULARY, answers
from mmstream.training.predictions import Predictions
from mmstream.training.reading import Words, written
from mmstream.training.schedule import Best, better, is_over, learning_rate
from mmstream.training.settings import Corpus, TrainSettings
from mmstream.training.state import Position, State, Sums

STATE: Final = "state.safetensors"
HISTORY: Final = "history.jsonl"
BEST: Final = "best"
SAVE_SECS: Final = 60.0
"""How much work an interruption may cost, at most, besides what is not yet an epoch's judgement."""

_N_MEASURED: Final = 2048
"""Examples whose frames say how sound is standardised."""
_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class StepRecord:
    """How a training goes, after a step."""

    epoch: int
    n_steps: int
    """Done in all."""
    n_steps_most: int
    """In all, unless it stops early."""
    loss: float
    """Of the step, in nats."""
    learning_rate: float
    examples_per_sec: float
    """Since it was started, or started again."""
    eta_secs: float
    """Until it is over, unless it stops early; judging counts once an epoch was judged."""


Told = Callable[[StepRecord | EpochRecord], None]


def train(
    settings: TrainSettings,
    corpus: Corpus,
    folder: Path,
    told: Told = lambda _record: None,
    clock: Clock = _CLOCK,
) -> Path:
    """Train, or go on with a training that was interrupted, until it is over.

    Ctrl-C stops it after the step it is in, with everything saved; a second one at once.

    Args:
        settings: what to do.
        corpus: what `settings.read` gave.
        folder: of this training alone.
        told: hears of every step and epoch.
        clock: says how long it takes.

    Returns:
        The folder of the best checkpoint.

    Raises:
        ConfigError: the folder holds another training, the data lacks something, or the checkpoint
            that it begins with cannot be had.
        ScorerError: the loss is not finite; the text names the examples.
        KeyboardInterrupt: Ctrl-C, after everything was saved.
    """
    if position(settings, corpus, folder).finished:
        return folder / BEST
    at = state.load(folder / STATE, begun(settings, corpus))
    run = _Run(settings, corpus, folder, at, clock)
    with noted_ctrl_c() as check:
        try:
            while not run.is_over:
                for record in run.steps(check):
                    told(record)
                told(run.judged(check))
        except Asked:
            run.save()
            raise KeyboardInterrupt from None
    return folder / BEST


def position(settings: TrainSettings, corpus: Corpus, folder: Path) -> Position:
    """How far the training in `folder` has come.

    Raises:
        ConfigError: it is another one, or its checkpoint is gone; or the data lacks something.
    """
    found = state.load(folder / STATE, begun(settings, corpus), only_position=True).position
    if found.best is not None and not (folder / BEST / checkpoint.WEIGHTS).exists():
        msg = f"{folder / BEST}: the checkpoint is gone; remove {folder} to train it anew"
        raise ConfigError(msg)
    return found


class _Run:
    """A training from where it stands."""

    def __init__(
        self, settings: TrainSettings, corpus: Corpus, folder: Path, at: State, clock: Clock
    ) -> None:
        self._settings = settings
        self._corpus = corpus
        self._folder = folder
        self._clock = clock
        self._position = at.position
        self._words = _words(settings, corpus.examples["train"])
        self._learner = Learner(settings)
        if at.tensors:
            self._learner.restore(at.tensors)
        elif self._learner.start_id is None:  # else the checkpoint knew what sound is like
            self._standardise()
        self._saved_ns = clock.monotonic_ns()
        self._n_examples = 0
        self._secs = 0.0
        self._n_judged = 0
        self._judged_secs = 0.0

    @property
    def is_over(self) -> bool:
        """Whether no epoch is left."""
        return self._position.finished

    def steps(self, check: Callable[[], None]) -> Iterator[StepRecord]:
        """Do what is left of the epoch; `check` is asked before each step whether to go on."""
        settings, at = self._settings.optimise, self._position
        examples = self._corpus.examples["train"]
        order = shuffled(len(examples), seed=self._settings.seed, epoch=at.epoch)
        left = order[at.step * settings.n_batch :]
        collate = self._collator("train", epoch=at.epoch)
        before_ns = self._clock.monotonic_ns()
        for batch in loader(examples, left, collate, n_batch=settings.n_batch):
            check()
            rate = learning_rate(settings, step=self._position.n_steps, n_steps=self._n_steps)
            stepped = self._step(batch, rate)
            now_ns = self._clock.monotonic_ns()
            secs = (now_ns - before_ns) / NS_PER_SEC
            before_ns = now_ns
            self._position = _after(self._position, stepped, secs)
            self._n_examples += len(batch.indices)
            self._secs += secs
            if now_ns - self._saved_ns >= SAVE_SECS * NS_PER_SEC:
                self.save()
            yield self._record(stepped.loss, rate)

    def judged(self, check: Callable[[], None]) -> EpochRecord:
        """Judge the epoch on the validation split, keep its weights if they are the best so far."""
        began_ns = self._clock.monotonic_ns()
        settings, at = self._settings.optimise, self._position
        said = self._validated(check)
        now = Best(
            epoch=at.epoch,
            loss=sum(one.cross_entropy for one in said),
            accuracy=sum(one.accuracy for one in said) / len(said),
        )
        best = now if better(settings, now, at.best) else at.best
        if best is now:
            self._keep(now)
        secs = at.secs + (self._clock.monotonic_ns() - began_ns) / NS_PER_SEC
        record = EpochRecord(
            epoch=at.epoch,
            n_steps=at.n_steps,
            secs=secs,
            learning_rate=learning_rate(settings, step=at.n_steps - 1, n_steps=self._n_steps),
            loss_train=at.loss / at.step,
            loss_val=now.loss,
            accuracy_val={one.task: one.accuracy for one in said},
            modalities=at.means(),
        )
        history.append(self._folder / HISTORY, record)
        self._position = Position(
            begun=at.begun,
            epoch=at.epoch + 1,
            n_steps=at.n_steps,
            best=best,
            finished=is_over(settings, best, epoch=at.epoch + 1),
        )
        self.save()
        self._n_judged += 1
        self._judged_secs += (self._clock.monotonic_ns() - began_ns) / NS_PER_SEC
        return record

    def save(self) -> None:
        """Write where it stands."""
        tensors = {} if self._position.finished else self._learner.tensors()
        state.save(self._folder / STATE, State(self._position, tensors))
        self._saved_ns = self._clock.monotonic_ns()

    @property
    def _n_steps(self) -> int:
        """In all epochs."""
        settings = self._settings.optimise
        return settings.n_epochs * -(-len(self._corpus.examples["train"]) // settings.n_batch)

    def _step(self, batch: Batch, rate: float) -> Stepped:
        at = self._position
        try:
            return self._learner.step(
                batch.to(self._learner.device), learning_rate=rate, number=at.n_steps
            )
        except ScorerError as error:
            msg = f"epoch {at.epoch + 1}, step {at.step + 1}, learning rate {rate:.2g}: {error}"
            raise ScorerError(msg) from None

    def _validated(self, check: Callable[[], None]) -> Sequence[Predictions]:
        examples = self._corpus.examples["val"]
        collate = self._collator("val", epoch=None)
        batches = loader(
            examples, range(len(examples)), collate, n_batch=self._settings.optimise.n_batch
        )
        model, device = self._learner.model, self._learner.device
        try:
            return list(answers(model, _checked(batches, check), device=device).values())
        except ScorerError as error:
            # The weights may be what is wrong: the last step made them, and nothing has told yet.
            at, settings = self._position, self._settings.optimise
            rate = learning_rate(settings, step=at.n_steps - 1, n_steps=self._n_steps)
            msg = f"validation after epoch {at.epoch + 1}, learning rate {rate:.2g}: {error}"
            raise ScorerError(msg) from None

    def _keep(self, best: Best) -> None:
        """Write the checkpoint."""
        folder, settings = self._folder / BEST, self._settings
        folder.mkdir(parents=True, exist_ok=True)
        if self._words is not None and self._words.vocabulary is not None:
            (folder / VOCABULARY).write_text(self._words.vocabulary.to_json(), "utf-8")
        identity = checkpoint.Identity(task=settings.task, rate_hz=settings.rate_hz, trained=True)
        model = self._learner.model
        card = _card(settings, best, self._learner, len(self._corpus.examples["train"]))
        checkpoint.save(folder, model, model.settings, identity, card)

    def _collator(self, split: Split, epoch: int | None) -> Collator:
        """For an epoch of training; None: for judging, always the same."""
        settings = self._settings
        augment, encoder = settings.augment, self._learner.model.audio
        changes: list[Change] = []
        if settings.noise is not None and self._corpus.noise is not None:
            noise = settings.noise
            changes.append(
                Noise(
                    self._corpus.noise[split],
                    snr_db=noise.snr_db,
                    clean=noise.clean,
                    seed=settings.seed,
                    epoch=epoch or 0,
                )
            )
        masks = None
        if epoch is not None:
            examples, seed = self._corpus.examples[split], settings.seed
            changes += augmented(augment, examples, seed=seed, epoch=epoch)
            if isinstance(encoder, AudioEncoder) and augment.n_masks:
                masks = Masks(augment, encoder.mean.cpu(), seed=seed, epoch=epoch)
        return Collator(settings.model, self._words, changes, masks)

    def _standardise(self) -> None:
        """Tell the encoder of sound what frames are like, from some of the training examples."""
        encoder = self._learner.model.audio
        if isinstance(encoder, AudioEncoder):
            examples = self._corpus.examples["train"]
            order = shuffled(len(examples), seed=self._settings.seed, epoch=0)[:_N_MEASURED]
            collate = self._collator("train", epoch=None)
            mean, std = frame_statistics(loader(examples, order, collate, n_batch=64))
            encoder.standardise(mean=mean, std=std)

    def _record(self, loss: float, rate: float) -> StepRecord:
        at, per_sec = self._position, self._n_examples / max(self._secs, 1e-9)
        n_left = (self._n_steps - at.n_steps) * self._settings.optimise.n_batch
        n_to_judge = self._settings.optimise.n_epochs - at.epoch
        judging_secs = n_to_judge * self._judged_secs / max(self._n_judged, 1)
        return StepRecord(
            epoch=at.epoch,
            n_steps=at.n_steps,
            n_steps_most=self._n_steps,
            loss=loss,
            learning_rate=rate,
            examples_per_sec=per_sec,
            eta_secs=n_left / per_sec + judging_secs,
        )


def _after(at: Position, stepped: Stepped, secs: float) -> Position:
    """One step further."""
    modalities = {}
    for name, one in stepped.modalities.items():
        sums = at.modalities.get(name, Sums())
        modalities[name] = Sums(
            loss=sums.loss + one.loss,
            gradient_share=sums.gradient_share + one.gradient_share,
            coefficient=sums.coefficient + one.coefficient,
        )
    return at.model_copy(
        update={
            "step": at.step + 1,
            "n_steps": at.n_steps + 1,
            "loss": at.loss + stepped.loss,
            "modalities": modalities,
            "secs": at.secs + secs,
        }
    )


def _words(settings: TrainSettings, examples: ExampleDataset) -> Words | None:
    """With a vocabulary made of all that the training examples say, where one is needed."""
    if not settings.reads:
        return None
    what, vocabulary = settings.words, None
    if settings.needs_vocabulary:
        kinds = [kind for kind in (what.text, what.question) if kind is not None]
        texts = [written(item.annotation, kind) for item in examples.items for kind in kinds]
        vocabulary = WordPieces.trained(texts, n_words=what.n_words)
    return Words(what, settings.model, vocabulary)


def _card(settings: TrainSettings, best: Best, learner: Learner, n_examples: int) -> str:
    """Markdown."""
    fusion = settings.model.fusion
    n_weights = sum(weight.numel() for weight in learner.model.parameters())
    start = ""
    if learner.start_id is not None:
        frozen = ", which were not trained" if settings.frozen else ""
        encoders = f"the encoders of {settings.start_from} ({learner.start_id}){frozen}"
        start = f"\n| began with | {encoders} |"
    return f"""# {settings.task}: {", ".join(fusion.modalities)}

| | |
|---|---|
| fusion | {fusion.type} |
| weights | {n_weights} |{start}
| trained on | {n_examples} examples, seed {settings.seed} |
| epoch | {best.epoch + 1} of at most {settings.optimise.n_epochs} |
| validation | accuracy {best.accuracy:.4f}, cross-entropy {best.loss:.4f} |

Trained by `mmstream train`. The validation split chose the epoch, so its figures flatter.
"""


T = TypeVar("T")


def _checked(items: Iterable[T], check: Callable[[], None]) -> Iterator[T]:
    for item in items:
        check()
        yield item
