"""Forecasts as pictures: a strip of frames beside the truth, and the same as a film."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, to_numpy
from ..files import write_atomically

INK, PAPER, MARK = "#1a1a1a", "#ffffff", "#c44e00"


def forecast_strip(past: Array, truth: Array, forecasts: dict[str, Array], clip: int = 0) -> Any:
    """Draw what was observed, what came, and what was forecast, frame by frame. Needs matplotlib.

    Args:
        past: (T, N, C, H, W) in [0, 1]; the first channel is drawn.
        truth: (horizon, N, C, H, W).
        forecasts: by name, each like truth; the mean squared error stands under each frame.
        clip: which of the N clips.
    Returns:
        The matplotlib figure.
    """
    from matplotlib.figure import Figure

    rows = [("observed", to_numpy(past)), ("what came", to_numpy(truth))]
    rows += [(name, to_numpy(frames)) for name, frames in forecasts.items()]
    check_frames(dict(rows), clip)
    columns = max(len(frames) for _, frames in rows)
    figure = Figure(figsize=(1.75 + 0.92 * columns, 0.75 + 1.08 * len(rows)), facecolor=PAPER)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    target = rows[1][1][:, clip, 0]
    for row, (name, frames) in zip(axes, rows, strict=True):
        row[0].text(
            -0.15, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=11, color=INK
        )
        for t, ax in enumerate(row):
            ax.set_axis_off()
            if t >= len(frames):
                continue
            ax.imshow(frames[t, clip, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if name == "observed":
                ax.set_title(f"{t + 1}", fontsize=9, color=INK)
            elif name == "what came":
                ax.set_title(f"{len(past) + t + 1}", fontsize=9, color=INK)
            else:
                error = float(np.mean((frames[t, clip, 0] - target[t]) ** 2))
                ax.text(
                    0.5,
                    -0.06,
                    f"{error:.3f}",
                    transform=ax.transAxes,
                    ha="center",
                    va="top",
                    fontsize=8,
                    color=INK,
                )
    left, low = 1.7 / figure.get_figwidth(), 0.5 / figure.get_figheight()
    figure.subplots_adjust(left=left, right=0.995, top=0.94, bottom=low, wspace=0.06, hspace=0.28)
    figure.text(
        0.995,
        0.012,
        "numbers over frames count them; under a forecast: its mean squared error",
        ha="right",
        fontsize=8,
    )
    return figure


def forecast_gif(
    path: Path,
    past: Array,
    truth: Array | None,
    forecasts: dict[str, Array],
    clips: tuple[int, ...] = (0, 1, 2),
    fps: int = 6,
    scale: int = 4,
) -> None:
    """Write an animation: a row a clip, truth beside every forecast; a frame turns orange when forecasting.

    Args:
        path: the GIF file, written all or nothing.
        past: (T, N, C, H, W) in [0, 1]; the first channel is drawn.
        truth: (horizon, N, C, H, W), or None where it is not known.
        forecasts: by name, each like truth.
        clips: which of the N clips.
        fps: frames per second. scale: screen pixels per pixel.
    """
    from PIL import Image, ImageDraw

    shown = {"observed, then truth": to_numpy(truth)} if truth is not None else {}
    shown |= {name: to_numpy(frames) for name, frames in forecasts.items()}
    past = to_numpy(past)
    for clip in clips:
        check_frames({"past": past, **shown}, clip)
    height, width = (n * scale for n in past.shape[3:])
    gap, head = 8, 18
    horizon = min(len(frames) for frames in shown.values())
    cell = max(width, 124)
    pages = []
    for t in range(len(past) + horizon):
        ahead = t - len(past)
        page = Image.new(
            "RGB", (gap + len(shown) * (cell + gap), head + len(clips) * (height + gap) + head), PAPER
        )
        draw = ImageDraw.Draw(page)
        for k, (name, frames) in enumerate(shown.items()):
            left = gap + k * (cell + gap)
            draw.text((left, 3), name, fill=INK)
            for j, clip in enumerate(clips):
                frame = past[t, clip, 0] if ahead < 0 else frames[ahead, clip, 0]
                grey = Image.fromarray(np.round(255 * np.clip(frame, 0, 1)).astype(np.uint8))
                top = head + j * (height + gap)
                page.paste(grey.resize((width, height), Image.Resampling.NEAREST), (left, top))
                colour = "#8a8a8a" if ahead < 0 else MARK
                draw.rectangle(
                    (left - 2, top - 2, left + width + 1, top + height + 1), outline=colour, width=2
                )
        text = f"frame {t + 1}: observed" if ahead < 0 else f"frame {t + 1}: forecast, {ahead + 1} ahead"
        draw.text((gap, page.height - head + 2), text, fill="#6a6a6a" if ahead < 0 else MARK)
        pages.append(page.quantize(64))
    buffer = io.BytesIO()
    durations = [round(1000 / fps)] * (len(pages) - 1) + [1200]
    pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], duration=durations, loop=0)
    write_atomically(path, buffer.getvalue())


def check_frames(rows: dict[str, Array], clip: int) -> None:
    """ValueError where frames are no (T, N, C, H, W) or lack the clip."""
    for name, frames in rows.items():
        if frames.ndim != 5:
            raise ValueError(f"{name} has shape {tuple(frames.shape)}, expected (T, N, C, H, W)")
        if not 0 <= clip < frames.shape[1]:
            raise ValueError(f"clip is {clip}, expected 0..{frames.shape[1] - 1}, the clips of {name}")
