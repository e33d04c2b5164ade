"""A section of the report that only tasks of one kind have: what a longer window brought, what was forgotten …

A maker takes the comparison and returns its section, or None where the task is not of that kind; `luthier.reports.page`
lists the makers. The body is safe markup, made of results alone.

    KindSection("context", "The longer window", body)
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class KindSection:
    """One section: its id in the page, its title, and what stands under it."""

    id: str
    title: str
    body: Markup
