"""The curve of `captions`: wrong words over delay. `python -m ...captions_picture JSON PNG`."""

import json
import sys
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from mmstream.benchmarks.captions import STEPS_SECS, Captions

DPI: Final = 110
# Okabe and Ito's colours, which colour-blind people tell apart.
_COLOURS: Final = ("#0072b2", "#009e73", "#d55e00")


def draw(figures: Captions, path: Path) -> None:
    """Write the picture as PNG: median delay on the left, the 95th percentile on the right.

    Raises:
        OSError: the file cannot be written.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, by in zip(axes, ("p50", "p95"), strict=True):
        for step, colour in zip(STEPS_SECS, _COLOURS, strict=True):
            for policy, mark, line in (("agreement", "s", ""), ("evidence", "o", "-")):
                its = [p for p in figures.curve if p.step_secs == step and p.policy == policy]
                axis.plot(
                    [point.delay_secs("p50" if by == "p50" else "p95") for point in its],
                    [max(point.wrong_per_600, 0.1) for point in its],
                    line + mark,
                    color=colour,
                    label=f"{policy}, asked every {step:g} s",
                )
        axis.set_yscale("log")
        axis.set_xlabel(f"delay {by}, seconds from a word's end to its commit")
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[0].set_ylabel("wrong words of 600 (0.1: none)")
    axes[1].legend(fontsize=8)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    record = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    draw(Captions.model_validate(record["figures"], strict=False), Path(sys.argv[2]))
