"""Networks out of folders that the transformers library wrote, and out of its hub, safely.

What is read of a folder: JSON and safetensors. No pickle, no code that lies beside the weights. A
hub repository is first copied into the library's cache, these files of it only, and is then a
folder like any other; with HF_HUB_OFFLINE=1 only what is in the cache is found. No other
repository is asked for anything, whatever a configuration names. What a checkpoint holds of these
files is somebody else's too, and is treated alike.
"""

# Before transformers imports a torchaudio that cannot:
import mmstream.features.audio  # noqa: F401 # isort: skip

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from inspect import isclass
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Final, NoReturn, Self, TypedDict, TypeVar, cast

import safetensors.torch
import torch
from huggingface_hub import constants, snapshot_download
from pydantic import JsonValue, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as library_logging

from mmstream.errors import ScorerError, mask_credentials
from mmstream.models.checkpoint import CONFIG, WEIGHTS, refuse_pickle
from mmstream.models.pretrained import PretrainedSettings

PREPROCESSORS: Final = ("preprocessor_config.json", "processor_config.json")
TOKENIZERS: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
GENERATION: Final = "generation_config.json"
_INDEX: Final = f"{WEIGHTS}.index.json"
_JSONS: Final = [CONFIG, *PREPROCESSORS, *TOKENIZERS, GENERATION]
_WANTED: Final = [*_JSONS, WEIGHTS, _INDEX, "model-*.safetensors"]
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_LONGEST_SAID: Final = 160
_JSON: Final = TypeAdapter[JsonValue](JsonValue)
_OVERRULED: Final = {"add_adapter": False, "apply_spec_augment": False}
"""Layers for other tasks; masking in training that draws from numpy's global generator."""
_IGNORED: Final = frozenset(
    {
        "_attn_implementation",
        "attn_implementation",
        "auto_map",
        "quantization_config",
        "transformers_weights",
    }
)
"""Keys of a configuration that bring in code of the folder or the hub, or other files."""

_NUMBERS: Final = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool}
)
"""Of weights, and of counts and masks beside them; what is quantised means nothing without more."""

T = TypeVar("T")
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a network comes from."""

    name: str
    """What the user wrote; every error begins with it."""
    folder: Path | None
    """None: the weights come from a checkpoint later."""
    files: Mapping[str, JsonValue]
    """Its JSON files by name."""

    def refusal(self, what: str, error: Exception | None = None) -> ScorerError:
        """One line for the user: the name, what is wrong, and what the library says of it."""
        said = shorten(str(error), _LONGEST_SAID) if error else ""
        return ScorerError(mask_credentials(f"{self.name}: {what}{said and f': {said}'}"))

    def refuse(self, what: str, error: Exception | None = None) -> NoReturn:
        """Raise the refusal.

        Raises:
            ScorerError: always.
        """
        raise self.refusal(what, error) from error

    def read(self, from_folder: Callable[[str], T], what: str) -> T:
        """What `from_folder` makes of a folder that holds the JSON files and nothing else.

        Raises:
            ScorerError: it cannot; the text says that the source is no `what`.
        """
        with TemporaryDirectory() as written, quiet(), _offline():
            for name, content in self.files.items():
                (Path(written) / name).write_text(json.dumps(content))
            try:
                return from_folder(written)
            except Exception as error:  # the library raises no narrower one
                said = Exception(str(error).replace(written, self.name))
                what = f"no {what}"
                raise self.refusal(what, said) from error


class _Report(TypedDict):
    """What the library says of weights that it has loaded."""

    missing_keys: set[str]
    mismatched_keys: set[tuple[str, object, object]]


class PretrainedEncoder(nn.Module):
    """A network from a source, and what projects to our tokens."""

    def __init__(
        self, settings: PretrainedSettings, network: nn.Module, *, n_features: int
    ) -> None:
        """Take a network that gives `n_features` numbers; frozen unless `settings.train`."""
        super().__init__()
        self._train = settings.train
        self.network = network.requires_grad_(settings.train)
        self.projection = nn.Sequential(
            nn.LayerNorm(n_features), nn.Linear(n_features, settings.n_dims)
        )
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's
        """Training begins or ends; a frozen network evaluates always.

        So do batch norms: frames of few recordings are too much alike to take statistics from.
        """
        super().train(mode)
        self.network.train(mode and self._train)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def learning(self) -> torch.autograd.grad_mode.set_grad_enabled:
        """A context in which slopes of the network are kept only if it is trained."""
        return torch.set_grad_enabled(self._train and torch.is_grad_enabled())


@contextmanager
def quiet() -> Iterator[None]:
    """The library's warnings and progress bars are off within."""
    level, bars = library_logging.get_verbosity(), library_logging.is_progress_bar_enabled()
    library_logging.set_verbosity_error()  # type: ignore[no-untyped-call] # it has no types
    library_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # it has no types
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library_logging.set_verbosity(level)
        if bars:
            library_logging.enable_progress_bar()  # type: ignore[no-untyped-call] # it has no types


@contextmanager
def _offline() -> Iterator[None]:
    """The library asks the hub for nothing within."""
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def found(settings: PretrainedSettings, *names: str) -> Source:
    """The source that the settings name, with its config.json and those of `names` that it has.

    Raises:
        ScorerError: there is no such folder, nor such a repository in reach; or it is not whole.
    """
    if settings.files is None:
        return found_at(settings.weights, *names)
    given = settings.files
    contents = {name: given[name] for name in (CONFIG, *names) if name in given}
    return _source(settings.weights, None, contents)


def found_at(weights: str, *names: str) -> Source:
    """The folder or hub repository `weights`, with its config.json and those of `names` it has.

    Raises:
        ScorerError: there is no such folder, nor such a repository in reach; or it is not whole.
    """
    folder = _folder(weights)
    paths = {name: folder / name for name in (CONFIG, *names)}
    contents = {name: _json(path) for name, path in paths.items() if path.is_file()}
    return _source(weights, folder, contents)


def _source(weights: str, folder: Path | None, contents: Mapping[str, JsonValue]) -> Source:
    files = {name: _tame(content) for name, content in contents.items()}
    source = Source(weights, folder, files)
    if CONFIG not in files:
        source.refuse(f"has no {CONFIG}, so it is no folder of the transformers library")
    return source


def read_config(source: Source) -> PreTrainedConfig:
    """What config.json says; of a model of images and texts, its part for images.

    Raises:
        ScorerError: the library knows no such model.
    """
    whole: PreTrainedConfig = source.read(
        AutoConfig.from_pretrained, "model of the transformers library"
    )
    part = getattr(whole, "vision_config", None)
    config = part if isinstance(part, PreTrainedConfig) else whole
    for option, value in _OVERRULED.items():
        if hasattr(config, option):
            setattr(config, option, value)
    return config


def load(
    source: Source,
    config: PreTrainedConfig,
    used: Callable[[PreTrainedModel], N],
    kinds: Mapping[type[PreTrainedConfig], object] = MODEL_MAPPING,
) -> N:
    """The part of the model that is `used`, in 32 bits, with the weights of the source.

    The model is the one that `kinds`, one of the library's mappings, has for the configuration.

    Raises:
        ScorerError: weights of that part are missing, of another shape, not finite, quantised, or
            not safetensors.
    """
    kind: object = kinds.get(type(config), None)
    if not (isclass(kind) and issubclass(kind, PreTrainedModel)):
        source.refuse(f"a model of type {config.model_type} encodes nothing")
    weights = None if source.folder is None else _weights(source, source.folder)
    with quiet(), _offline():
        try:
            if weights is None:
                return used(kind(config)).eval()
            # Without a folder the library has none to find other files in, pickled ones too.
            loaded = kind.from_pretrained(
                None,
                config=config,
                state_dict=weights,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except Exception as error:  # the library raises no narrower one
            what = "weights do not fit the configuration"
            raise source.refusal(what, error) from error
    model, report = cast("tuple[PreTrainedModel, _Report]", loaded)
    network = used(model)
    lacking = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    names = {id(tensor): name for name, tensor in _tensors(model)}
    used_names = {names[id(tensor)]: tensor for _, tensor in _tensors(network)}
    needed = sorted(used_names.keys() & lacking)
    if needed:
        source.refuse(f"{WEIGHTS} lacks weights that {CONFIG} asks for: {_shown(needed)}")
    broken = sorted(name for name, tensor in used_names.items() if not tensor.isfinite().all())
    if broken:
        source.refuse(f"{WEIGHTS} has weights that are not finite: {_shown(broken)}")
    return network


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _tensors(module: nn.Module) -> Sequence[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _folder(weights: str) -> Path:
    with suppress(OSError, RuntimeError):  # too long a name; nobody's home
        folder = Path(weights).expanduser()
        if folder.is_dir():
            return folder
    source = Source(weights, None, {})
    if not _HUB_ID.fullmatch(weights):
        source.refuse(
            "no such folder; allowed: a folder as save_pretrained writes it, or the id of a "
            "repository of the hub, such as google/siglip2-base-patch16-224"
        )
    with quiet():
        try:
            return Path(snapshot_download(weights, allow_patterns=_WANTED))
        except Exception as error:  # of the network, of the hub, of the disk
            what = "no such folder, and none from the hub"
            raise source.refusal(what, error) from error


def _json(path: Path) -> JsonValue:
    try:
        return _JSON.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        msg = f"{path}: cannot be read as JSON"
        raise ScorerError(msg) from error


def _tame(content: JsonValue) -> JsonValue:
    if not isinstance(content, dict):
        return content
    return {key: _tame(value) for key, value in content.items() if key not in _IGNORED}


def _weights(source: Source, folder: Path) -> dict[str, Tensor]:
    if (folder / _INDEX).is_file() and not (folder / WEIGHTS).is_file():
        index = _json(folder / _INDEX)
        parts = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(parts, dict):
            source.refuse(f"{_INDEX} has no weight_map")
        names = sorted({Path(str(name)).name for name in parts.values()})
    else:
        refuse_pickle(folder)
        names = [WEIGHTS]
    weights: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            source.refuse(f"has no {name}, and weights are taken from safetensors only")
        try:
            weights |= safetensors.torch.load_file(folder / name)
        except (OSError, SafetensorError) as error:
            source.refuse(f"{name} is not a whole safetensors file", error)
    packed = [name for name, w in weights.items() if w.dtype not in _NUMBERS]
    if packed:
        source.refuse(f"weights must be floats of 16 to 64 bits, not packed: {_shown(packed)}")
    return weights
