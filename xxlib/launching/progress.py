"""A run while it trains: a bar in a terminal; bar, current values and curves, replaced in place, in a notebook."""

import io
import sys
import time
from textwrap import fill

from tqdm import tqdm

from xxlib.training import runs

REDRAW = 5  # seconds between two drawings of the curves: they cost the training's own CPU
WIDE = 100  # characters of a line, which a notebook would not wrap
NO_TERMINAL = 20  # seconds between two bars in a log file
RATES = ("samples", "seconds", "epoch", "learning_rate", "samples_per_s")


class Progress:
    """Shows what the files of a run folder say: update() often, close() at the end."""

    def __init__(self, config, folder, draw=None):
        """draw: (table of progress(), samples of the whole run, title) -> figure, for a notebook."""
        self.config, self.folder, self.draw = config, folder, draw
        self.shown = self.drawn = ""
        self.written = self.redrawn = 0.0
        self.text = self.picture = None
        if _in_notebook():
            from IPython.display import display

            self.text = display(_plain(f"{config.name} starts"), raw=True, display_id=True)

    def update(self, last=False):
        """Show what is new."""
        now, lines = time.monotonic(), by_step(runs.metrics(self.folder))
        bar = self._bar(lines)
        if self.text is None:
            pause = 0 if last or sys.stderr.isatty() else NO_TERMINAL
            if bar != self.shown and now - self.written >= pause:
                print(f"\r{bar.ljust(len(self.shown))}", end="", file=sys.stderr, flush=True)
                self.shown, self.written = bar, now
            return
        text = f"{bar}\n{_values(lines)}"
        if text != self.shown:
            self.text.update(_plain(text), raw=True)
            self.shown = text
        if self.draw and lines and lines != self.drawn and (last or now - self.redrawn >= REDRAW):
            self._draw(lines)
            self.drawn, self.redrawn = lines, time.monotonic()

    def close(self):
        """Show the last state."""
        self.update(last=True)
        if self.text is None:
            print(file=sys.stderr)

    def _bar(self, lines):
        """The training's own bar where that is newer than the last line of metrics, else one made of that line."""
        output, metrics = self.folder / "output.log", self.folder / "metrics.jsonl"
        if output.exists() and not (metrics.exists() and metrics.stat().st_mtime > output.stat().st_mtime):
            with open(output, "rb") as file:
                file.seek(max(0, output.stat().st_size - 2000))
                newest = file.read().decode(errors="replace").replace("\r", "\n").rstrip().rpartition("\n")[2]
            if "sample/s" in newest:
                return newest
        line = lines[-1] if lines else {"samples": 0, "seconds": 0}
        total = self.config.budget.samples
        return tqdm.format_meter(
            line["samples"], total, line["seconds"], rate=line.get("samples_per_s"), prefix=self.config.name,
            unit="sample", unit_scale=True,
        )  # fmt: skip

    def _draw(self, lines):
        import pandas as pd
        from IPython.display import Image, display

        file = io.BytesIO()
        total = self.config.budget.samples
        self.draw(pd.DataFrame(lines), total, self.config.name).savefig(file, dpi=110)
        image = Image(data=file.getvalue(), format="png")
        if self.picture is None:
            self.picture = display(image, display_id=True)
        else:
            self.picture.update(image)


def _in_notebook():
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def _plain(text):
    return {"text/plain": text}


def by_step(records):
    """What records say of a run while it trains: one dict a step, in order, in which only `samples` is sure to be.

    samples, seconds, epoch, learning_rate, samples_per_s; "train/loss", "val/error" and the losses behind them.
    """
    lines = {}
    for one in records:
        line, metric = lines.setdefault(one["step"], {"samples": 0, "seconds": 0}), one["metric"]
        if one["split"] == "train" and one["target"] is None and metric in RATES:
            line[metric] = one["value"]
        elif one["split"] == "train" or one["target"] is None:
            line[f"{one['split']}/{one['target'] or metric}"] = one["value"]
        elif one["effects"] is None and one["exchanged"] is None and metric in ("mae", "accuracy"):
            line[f"val/{one['target']} {metric}"] = one["value"]
    return list(lines.values())


def _values(lines):
    """The newest value of each loss, error and rate."""
    newest = {name: value for line in lines for name, value in line.items()}
    names = [name for name in newest if "/" in name or name in ("epoch", "learning_rate", "samples_per_s")]
    return fill("   ".join(f"{name} {newest[name]:.4g}" for name in names), WIDE)
