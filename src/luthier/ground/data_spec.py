"""The part `data` of a task file: where the examples are, and how much of them is taken.

>>> [source.source for source in DataSpec(train="train.jsonl").sources]
['train.jsonl']
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from luthier.ground.strict import Strict


class SampleSpec(Strict):
    """How many rows of each split to use; the first rows of a seeded shuffle, so that smaller samples are nested."""

    train: int | None = Field(None, ge=1, description="Rows of the train split to use (default: all).")
    dev: int | None = Field(None, ge=1, description="Items of the dev split to use (default: all).")
    test: int | None = Field(None, ge=1, description="Items of the test split to use (default: all).")


class SourceSpec(Strict):
    """One of several sources of training rows, and how much of it is taken."""

    source: str = Field(min_length=1, description="A file, a folder of text files, or hub:owner/name[:split].")
    weight: float | None = Field(
        None, gt=0.0, le=100.0, description="Times that its rows are taken in an epoch (default: 1; 0.5: every other)."
    )
    share: float | None = Field(
        None, gt=0.0, lt=1.0, description="Its share of an epoch's tokens, instead of weight; for replay."
    )
    cap: int | None = Field(None, ge=1, description="At most so many of its rows: the first of a seeded shuffle.")

    @model_validator(mode="after")
    def _consistent(self) -> SourceSpec:
        if self.weight is not None and self.share is not None:
            raise ValueError("a source has a weight or a share, not both")
        return self


class DataSpec(Strict):
    """Where the examples are. A value is a file (JSONL, JSON, CSV, Parquet, text) or `hub:owner/name[:split]`."""

    train: str | tuple[SourceSpec, ...] | None = Field(
        None, description="Examples to learn from: one source, or several that are mixed."
    )
    dev: str | None = Field(None, description="Examples on which prompts, retrievers and checkpoints are chosen.")
    test: str | None = Field(None, description="Examples that are read once, to compare.")
    general: str | None = Field(None, description="Held-out general text, on which forgetting is measured.")
    shuffle_window: int = Field(
        8192, ge=1, description="Rows of a corpus that are shuffled among each other while it is read in order."
    )
    id: str = Field("id", description="Field that names a row (default: `id`, otherwise file and line).")
    group: str = Field(
        "group", description="Field whose equal values belong together: never split, counted as a cluster."
    )
    on_bad: Literal["refuse", "skip"] = Field("refuse", description="What to do with rows that cannot be read.")
    sample: SampleSpec = SampleSpec()

    @property
    def sources(self) -> tuple[SourceSpec, ...]:
        """The sources of the training rows."""
        if self.train is None:
            return ()
        return (SourceSpec(source=self.train),) if isinstance(self.train, str) else self.train

    @model_validator(mode="after")
    def _consistent(self) -> DataSpec:
        if self.train == ():
            raise ValueError("train is an empty list of sources; name one, or leave the key out")
        shares = [source.share for source in self.sources if source.share is not None]
        if shares and (len(shares) == len(self.sources) or sum(shares) >= 1.0):
            raise ValueError("the shares of sources must leave something to a source without one")
        names = [source.source for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("train names a source twice; raise its weight instead")
        return self
