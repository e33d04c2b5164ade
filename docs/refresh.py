"""Put the output of the newest quickstart into README.md and docs/quickstart.svg, as the commands made it.

python docs/refresh.py
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

import luthier as lu
from luthier.ground.results import CompareResult
from luthier.ground.words import seconds
from luthier.reports.figures import scores_svg
from luthier.reports.terminal import advice_view, compare_view

ROOT = Path(__file__).resolve().parents[1]
TASK = ROOT / "examples" / "tickets" / "task.yaml"
BLOCK = re.compile(r"(<!-- quickstart -->\n).*?(<!-- /quickstart -->)", re.DOTALL)


def main() -> None:
    """Refresh README.md and the picture from the newest compare run of the tickets task."""
    run = max((TASK.parent / "runs").glob("compare-*/report.json"), key=lambda path: path.stat().st_mtime)
    result = CompareResult.model_validate_json(run.read_text(encoding="utf-8"))
    (ROOT / "docs" / "quickstart.svg").write_text(scores_svg(result), encoding="utf-8")
    page = ROOT / "README.md"
    page.write_text(
        BLOCK.sub(lambda found: found[1] + _block(result) + found[2], page.read_text(encoding="utf-8")),
        encoding="utf-8",
    )


def _block(result: CompareResult) -> str:
    where = result.environment
    versions = ", ".join(f"{name} {where.versions[name]}" for name in ("luthier", "python", "torch", "transformers"))
    made = f"`make quickstart`, {where.date[:10]}, {where.machine}; {versions}."
    made += f" The comparison, both trainings included, took {seconds(result.seconds)}."
    advice = lu.advise(TASK, run=result.run)
    advice = advice.model_validate_json(advice.model_dump_json().replace(f"{ROOT}/", ""))
    return (
        f"![Scores of the five systems with their intervals](docs/quickstart.svg)\n\n"
        f"```text\n{_plain(compare_view(result))}\n```\n\n```text\n{_plain(advice_view(advice))}\n```\n\n{made}\n"
    )


def _plain(view: object) -> str:
    console = Console(file=io.StringIO(), width=100, no_color=True, highlight=False)
    console.print(view)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


if __name__ == "__main__":
    main()
