"""From evidence to advice: a fixed procedure of rules, asked in order; each sentence of each answer names its numbers.

The first rule that speaks gives the next step. Nothing is measured here, and no number is used that is not in the
results.

| order | rule | speaks when | says | after |
|---|---|---|---|---|
| 1 | R0 | no test set, or fewer than 50 items | make one | "evaluation first": Huyen, AI Engineering, ch. 3-4 |
| 2 | R0a | the data check says no | mend the data | |
| 3 | R0b | more test items repeat other rows than the margin allows | take them out | Finegan-Dollak 2018 |
| 4 | R0c | nothing compared yet | compare | |
| 5 | R1 | fewer than two prompts tried, not good enough yet | search prompts | Sclar 2023, arXiv 2310.11324 |
| 6 | R2 | a system without training is good enough | do not finetune | Agrawal 2025, arXiv 2507.19457 |
| 7 | R17 | a finetuned system is best, shown better, good enough | use it | Kübler 2026, arXiv 2602.10144 |
| 8 | R18 | a contrast is non-inferior | prefer the cheaper | as R17 |
| 9 | R19 | a contrast is worse | leave it out | |
| 10 | R8 | facts missing without passages, form wrong with them | both, together | RAFT, arXiv 2403.10131 |
| 11 | R4 | facts missing without passages | passages, no training for facts | Ovadia 2023, arXiv 2312.05934 |
| 12 | R6 | form wrong although the facts are there | finetune for form | Huyen, ch. 7: form, not facts |
| 13 | R5 | facts wrong although passages are there | better passages, or teach their use | Huyen, ch. 6 |
| 14 | R16 | the interval of a contrast includes zero | how many more items | Miller 2024, arXiv 2411.00640 |
| 15 | R10 | nothing reaches the target | more examples or a bigger base, by the slope | Zhang 2024, arXiv 2402.17193 |
| 16 | R3 | fewer than 50 training examples | use them in the prompt, label more | |
| 17 | R13 | a finetuned system is used | answers until training is repaid | training time / time saved an answer |
| 18 | R20 | a tenth of a system's answers failed | find out why | |
| 19 | R22 | no target is set | set one | |
| 20 | R21 | blemishes of the data that forbid nothing | mend before the next training | Lee 2021, arXiv 2107.06499 |

Raw text is asked R0 to R0c, R21 and, between them:

| rule | speaks when | says | after |
|---|---|---|---|
| R30 | general text is predicted worse than before | mix general text in | Ibrahim 2024, arXiv 2403.08763 |
| R31 | no gain on the domain's text was shown | more text, or longer | Gururangan 2020, arXiv 2004.10964 |
| R32 | the domain is learned, nothing shown to be forgotten | use it | as R31 |
| R33 | no general text was read | name some | as R30 |

    >>> advise(None, None, task_file="task.yaml").next
    'Compare the systems on the test set: 0 have been measured so far.'
"""

from __future__ import annotations

from luthier.advice import before, choice, diagnosis, limits, text
from luthier.advice.evidence import Evidence
from luthier.advice.procedure import Rule
from luthier.advice.rejected import rejected_options
from luthier.ground.results import AdviceResult, CheckResult, CompareResult

PROCEDURE: tuple[Rule, ...] = (
    *before.RULES,
    *choice.RULES,
    *diagnosis.RULES,
    *limits.RULES,
    *before.LATE_RULES,
)

TEXT_PROCEDURE: tuple[Rule, ...] = (*before.RULES, *text.RULES, *before.LATE_RULES)  # raw text has no prompts


def advise(result: CompareResult | None, check: CheckResult | None, *, task_file: str) -> AdviceResult:
    """Return what to do next, and why, from a comparison and a data check; either may be missing.

    Args:
        result: the comparison.
        check: the data check; without one, the comparison's own is used.
        task_file: the path that commands should name.
    """
    known_check = check if check is not None or result is None else result.check
    evidence = Evidence(result, known_check, task_file)
    procedure = TEXT_PROCEDURE if result is not None and result.language is not None else PROCEDURE
    said = [finding for rule in procedure for finding in rule.ask(evidence)]
    task = result.task if result else known_check.task if known_check else ""
    return AdviceResult(
        task=task,
        next=said[0].step if said else NOTHING_LEFT,
        advice=[finding.advice() for finding in said],
        rejected=[] if procedure is TEXT_PROCEDURE else rejected_options(evidence),
    )


NOTHING_LEFT = f"Nothing is left to do: none of the {len(PROCEDURE)} rules speaks."
