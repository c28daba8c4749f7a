"""What a running AVP has been taught, and what it has learned is normal: files, looked at live."""

from collections.abc import Mapping
from pathlib import Path

from mmstream.media import Floats, Label
from mmstream.models import normal, taught
from mmstream.models.avp_spec import UNUSUAL


class Learned:
    """Scores by what lies in two folders just now; None: nothing does."""

    def __init__(
        self,
        *,
        taught_in: Path | None,
        normal_in: Path | None,
        model: str,
        n_dims: int,
        detector: str,
    ) -> None:
        """Look into them.

        Args:
            taught_in: the folder of what was taught.
            normal_in: the folder of what is normal.
            model: the id of the checkpoint that the embeddings come from.
            n_dims: how many numbers they have; moments have twice as many, gists four times.
            detector: what labels call it.
        """
        self._detector = detector
        self._taught = taught.taught_in(taught_in, model=model, n_dims=4 * n_dims)
        self._normal = normal.normal_in(normal_in, model=model, n_dims=2 * n_dims)
        self._normals = normal.by_source(self._normal.taken)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why files are passed over, a line each."""
        return self._taught.problems + self._normal.problems

    def refresh(self) -> bool:
        """Look again; whether anything has changed."""
        is_changed = self._taught.refresh()
        if self._normal.refresh():
            self._normals = normal.by_source(self._normal.taken)
            is_changed = True
        return is_changed

    def label(self, name: str) -> Label:
        """As what scores of it are told."""
        return Label(name, "av", self._detector)

    def scores(self, gist: Floats) -> Mapping[str, float]:
        """Of what was taught, by label, 0..1, of a gist [4d]."""
        return {one.about.label: one.score(gist) for one in self._taught.taken}

    def unusual(self, source: str, moment: Floats) -> Mapping[str, float]:
        """0..1, of a moment [2d] of that source; empty where nobody knows what is normal there."""
        usual = self._normals.get(source)
        return {} if usual is None else {UNUSUAL: usual.score(moment)}
