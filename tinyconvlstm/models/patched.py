"""Sequences of frames as sequences of patches, and back: what forecasters read and write."""

from __future__ import annotations

from typing import Any

from ..backend import Array
from ..layers.base import Shape
from ..ops.lowering import frames_of
from ..ops.patches import (
    depth_to_space_backward,
    depth_to_space_forward,
    space_to_depth_backward,
    space_to_depth_forward,
)


class Patched:
    """The two linear maps between frames (T, N, C, *S) and patches (T, N, D, *G), and their adjoints."""

    patch: int  # side p of a patch
    depth: int  # D, channels of what the cells read
    grid: Shape  # G, spatial sizes of the states; () for dense cells, whose D is a whole frame
    patch_depth: int  # C p^len(S), channels of a frame cut into patches
    patch_grid: Shape  # S / p

    def to_patches(self, x: Array) -> tuple[Array, Any]:
        """Frames (T, N, C, *S) as patches (T, N, D, *G)."""
        flat, saved = space_to_depth_forward(frames_of(x), patch=self.patch)
        return flat.reshape(*x.shape[:2], self.depth, *self.grid), saved

    def to_patches_backward(self, dpatches: Array, saved: Any) -> Array:
        """The gradient of the frames."""
        T, N = dpatches.shape[:2]
        dflat = dpatches.reshape(T * N, self.patch_depth, *self.patch_grid)
        dx = space_to_depth_backward(dflat, saved)
        return dx.reshape(T, N, *dx.shape[1:])

    def to_frames(self, z: Array) -> tuple[Array, Any]:
        """Patches (T, N, D, *G) as frames (T, N, C, *S)."""
        T, N = z.shape[:2]
        y, saved = depth_to_space_forward(
            z.reshape(T * N, self.patch_depth, *self.patch_grid), patch=self.patch
        )
        return y.reshape(T, N, *y.shape[1:]), saved

    def to_frames_backward(self, dy: Array, saved: Any) -> Array:
        """The gradient of the patches."""
        dz = depth_to_space_backward(frames_of(dy), saved)
        return dz.reshape(*dy.shape[:2], self.depth, *self.grid)
