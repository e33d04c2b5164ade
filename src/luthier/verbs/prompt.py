"""`luthier prompt`: is a better prompt enough? Chooses an instruction and worked examples on the dev items.

The winner is frozen in the run directory; `compare` takes it from there as long as nothing that it depends on changes.

    result = prompt("task.yaml"); result.arms
"""

from __future__ import annotations

from pathlib import Path

from luthier.evaluation.prompting import search_prompt
from luthier.ground.events import Tell, silent
from luthier.ground.hashes import key_of
from luthier.ground.results import PromptResult
from luthier.ground.task import Task, load_task
from luthier.rows.compose import Prompt
from luthier.verbs.runs import find_run, open_run
from luthier.verbs.workbench import Workbench


def prompt(task: Task | str | Path, *, out: str | Path | None = None, tell: Tell = silent) -> PromptResult:
    """Search for the best prompt on dev; the test items are not read.

    Raises:
        BadInput: there are no dev items, or their references cannot be scored.
    """
    task = task if isinstance(task, Task) else load_task(task)
    return _search(Workbench(task, tell), out)


def chosen_prompt(bench: Workbench) -> tuple[PromptResult, Prompt]:
    """Return the best prompt: the one chosen earlier if nothing has changed, otherwise a new choice."""
    found = find_run(bench.task, "prompt", PromptResult, _key(bench))
    result = found[1] if found else _search(bench, None)
    rows = {row.id: row for row in bench.rows("train")} if result.example_ids else {}
    return result, Prompt(result.instruction, tuple(rows[name] for name in result.example_ids))


def _search(bench: Workbench, out: str | Path | None) -> PromptResult:
    spec = bench.spec
    with open_run(bench.task, "prompt", out, bench.tell, key=_key(bench)) as run:
        dev = bench.items("dev")
        train = bench.rows("train") if spec.data.train else []
        generator = bench.generator()
        run.tell({"kind": "stage", "text": f"choosing a prompt on {min(len(dev), spec.prompt.dev_items)} dev items"})
        result, _ = search_prompt(
            generator=generator,
            ask=bench.ask,
            settings=bench.settings,
            metric=bench.metric,
            context=bench.metric_context,
            train=train,
            dev=dev,
            instruction=bench.task.instruction,
            spec=spec.prompt,
            seed=spec.compare.seed,
            confidence=spec.compare.confidence,
            depends_on=bench.base_key(),
            tell=run.tell,
        )
        run.finish(result)
    return result


def _key(bench: Workbench) -> str:
    spec = bench.spec
    return key_of(
        {
            **bench.base_key(),
            "data": bench.data_key("train", "dev"),
            "prompt": spec.prompt.model_dump(mode="json"),
            "generation": spec.generation.model_dump(mode="json", exclude={"batch_size"}),
            "instruction": bench.task.instruction,
            "metric": bench.metric_key(),
            "seed": spec.compare.seed,
        }
    )
