"""What a longer window brought, made up."""

from __future__ import annotations

from luthier.ground.objective_results import ContextResult, PositionLoss, RetrievalCell

SYSTEMS = ("base", "base, positions scaled", "finetuned")
LENGTHS = (64, 128, 256, 512)
DEPTHS = (0.0, 0.5, 1.0)
RIGHT = {"base": (8, 8, 1, 0), "base, positions scaled": (7, 7, 6, 4), "finetuned": (8, 8, 8, 7)}


def longer_window() -> ContextResult:
    cells = [
        RetrievalCell(system=system, test="passkey", length=length, depth=depth, right=right, n=8)
        for system in SYSTEMS
        for length, right in zip(LENGTHS, RIGHT[system], strict=True)
        for depth in DEPTHS
    ]
    edges = [0, 32, 64, 96, 128, 256, 512]
    positions = [
        PositionLoss(system=system, edges=edges, loss=[1.5, 1.2, 1.1, 1.0, late, 1.5 * late])
        for system, late in zip(SYSTEMS, (2.5, 1.2, 0.9), strict=True)
    ]
    return ContextResult(
        old_window=128,
        new_window=512,
        method="yarn",
        factor=4.0,
        positions=positions,
        cells=cells,
        short_loss=dict.fromkeys(SYSTEMS, 1.2),
        sentence="Beyond the old window 94% of the passkeys are found.",
    )
