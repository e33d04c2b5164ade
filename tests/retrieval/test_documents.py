"""Reading documents: outlines of every format, and every file that cannot be used named with its reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrieval_samples import WriteFolder

from luthier.ground.errors import BadInput
from luthier.retrieval.documents import find_documents, parse_document, read_document
from luthier.retrieval.outline import Document

ENDINGS = (".md", ".txt", ".html", ".pdf")


def outline(document: Document) -> list[tuple[tuple[str, ...], list[tuple[int, str]]]]:
    return [(section.headings, [(p.line, p.text) for p in section.paragraphs]) for section in document.sections]


def test_markdown_sections_carry_the_way_of_headings_and_physical_lines() -> None:
    text = "# Guide\n\nHello.\n\n## Brakes ##\nFirst\nsecond.\n\nThird.\n\n### KR-482\n24 months.\n"
    text += "\n## **Wheels**\nRound.\n"
    assert outline(parse_document("a.md", text.encode())) == [
        (("Guide",), [(3, "Hello.")]),
        (("Guide", "Brakes"), [(6, "First\nsecond."), (9, "Third.")]),
        (("Guide", "Brakes", "KR-482"), [(12, "24 months.")]),
        (("Guide", "Wheels"), [(15, "Round.")]),
    ]


def test_markdown_underlined_headings_and_lines_after_crlf() -> None:
    text = "Guide\r\n=====\r\n\r\nHello.\r\n\r\nBrakes\r\n---\r\nBleed.\r\n"
    assert outline(parse_document("a.md", text.encode())) == [
        (("Guide",), [(4, "Hello.")]),
        (("Guide", "Brakes"), [(8, "Bleed.")]),
    ]


def test_markdown_headings_in_a_fence_are_code() -> None:
    text = "# Guide\n\n```sh\n# not a heading\n\nls\n```\n\nafter\n"
    assert outline(parse_document("a.md", text.encode())) == [
        (("Guide",), [(3, "```sh\n# not a heading\n\nls\n```"), (9, "after")])
    ]


def test_an_open_fence_loses_nothing() -> None:
    assert outline(parse_document("a.md", b"# G\n```\n# code")) == [(("G",), [(2, "```\n# code")])]


def test_markdown_front_matter_is_kept_as_text_not_as_a_heading() -> None:
    text = "---\nproduct: KR-482\n---\n# Guide\nHello."
    assert outline(parse_document("kr.md", text.encode())) == [
        (("kr",), [(2, "product: KR-482")]),
        (("Guide",), [(5, "Hello.")]),
    ]


def test_a_heading_without_text_is_kept_unless_it_has_subheadings() -> None:
    sections = outline(parse_document("a.md", b"# Guide\n## C#\n## Wheels\nRound.\n# End"))
    assert sections == [(("Guide", "C#"), []), (("Guide", "Wheels"), [(4, "Round.")]), (("End",), [])]


def test_text_stands_under_the_name_of_its_file() -> None:
    document = parse_document("products/merlin-7.txt", b"\n\nWarranty\nis long.\n\nYes.")
    assert outline(document) == [(("merlin-7",), [(3, "Warranty\nis long."), (6, "Yes.")])]


def test_line_numbers_ignore_unicode_line_separators() -> None:
    document = parse_document("a.txt", "one\u2028still one\n\nthree".encode())
    assert [p.line for p in document.sections[0].paragraphs] == [1, 3]


def test_html_keeps_headings_paragraphs_items_and_rows() -> None:
    text = """<!doctype html><html><head><title>No</title><style>p {}</style></head>
<body><nav>Menu</nav><h1>Guide</h1>
<p>Bleed &amp; <b>check</b>
 the brakes.</p><script>var no = 1;</script>
<h2>KR&#45;482</h2><ul><li>one</li><li>two</li></ul>
<table><tr><th>Part</th><td>X1</td></tr></table>
<pre>a
  b</pre></body></html>"""
    assert outline(parse_document("a.html", text.encode())) == [
        (("Guide",), [(3, "Bleed & check the brakes.")]),
        (("Guide", "KR-482"), [(5, "- one"), (5, "- two"), (6, "Part | X1"), (7, "a\n  b")]),
    ]


def test_html_reads_the_declared_encoding() -> None:
    content = '<meta charset="iso-8859-1"><p>Kühl'.encode("latin-1")
    assert outline(parse_document("a.html", content))[0][1][0][1] == "Kühl"


def test_utf16_with_a_mark_is_read() -> None:
    assert outline(parse_document("a.txt", "Kühl".encode("utf-16")))[0][1] == [(1, "Kühl")]


def tiny_pdf(text: str) -> bytes:
    """A one-page PDF."""
    stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(stream)}>> stream\n{stream}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj {content} endobj\n"
    entries = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    table = f"xref\n0 6\n0000000000 65535 f \n{entries}trailer <</Root 1 0 R/Size 6>>\nstartxref\n{len(body)}\n%%EOF\n"
    return (body + table).encode()


def test_pdf_pages_are_sections() -> None:
    document = parse_document("kr-482.pdf", tiny_pdf("Warranty 24 months"))
    assert outline(document) == [(("kr-482", "page 1"), [(1, "Warranty 24 months")])]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.md", b"\xff\xfa broken", "not text"),
        ("a.txt", b"PK\0\x03", "binary"),
        ("a.txt", b"  \n\n", "no text"),
        ("a.md", b"", "no text"),
        ("a.pdf", b"%PDF-1.4 nothing", "not readable as PDF"),
        ("a.pdf", tiny_pdf(" "), "without text"),
        ("a.html", b"<script>only</script>", "no text"),
        ("a.html", b'<meta charset="klingon"><p>x', "not text"),
        ("a.docx", b"PK", "not a type"),
    ],
)
def test_unusable_content_is_refused_with_its_place(name: str, content: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        parse_document(name, content)
    assert str(caught.value).startswith(f"{name}: ")


@given(st.sampled_from(ENDINGS), st.binary() | st.text().map(str.encode))
def test_any_bytes_are_read_or_refused(ending: str, content: bytes) -> None:
    try:
        document = parse_document(f"a{ending}", content)
    except BadInput:
        return
    assert all(section.headings for section in document.sections)


@given(st.lists(st.sampled_from(["# A", "## B", "text", "", "```", "- item", "---", "===", "    code"])))
def test_markdown_loses_no_word(lines: list[str]) -> None:
    text = "\n".join([*lines, "last"])
    document = parse_document("a.md", text.encode())
    kept = " ".join(" ".join([*s.headings, *(p.text for p in s.paragraphs)]) for s in document.sections)
    for word in ("A", "B", "text", "item", "code", "last"):
        assert (word in kept.split()) == (word in text.split())


def test_pathological_lines_take_no_time() -> None:
    parse_document("a.md", b"# " + b" #" * 100_000 + b"x\n" + b"#" + b" " * 200_000 + b"x\n" + b"`" * 100_000)
    parse_document("a.html", b"<p>" + b"a<b>b</b>" * 20_000)


def test_passed_over_files_are_named_with_reasons(tmp_path: Path, write_folder: WriteFolder) -> None:
    folder = write_folder({"a.md": "A", "sub dir/b.txt": "B", ".hidden.md": "h", ".git/c.md": "c", "d.png": b"\x89"})
    outside = tmp_path / "secret.md"
    outside.write_text("secret")
    (folder / "out.md").symlink_to(outside)
    (folder / "in.md").symlink_to(folder / "a.md")
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "folder-link").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.md")
    store = folder / "store"
    store.mkdir()
    (store / "x.md").write_text("the index's own")
    found, skipped = find_documents(folder, besides=store)
    assert list(found) == ["a.md", "in.md", "sub dir/b.txt"]
    assert {entry.file: entry.reason for entry in skipped} == {
        ".hidden.md": "hidden",
        ".git/": "hidden",
        "d.png": "not a type that is read here (.png)",
        "out.md": "a link out of the folder",
        "loop.md": "not a regular file",
        "folder-link/": "a link to a folder",
        "pipe.md": "not a regular file",
    }


def test_a_name_that_is_not_unicode_is_passed_over(write_folder: WriteFolder) -> None:
    folder = write_folder({"a.md": "A"})
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.md")).write_text("x")
    found, skipped = find_documents(folder, besides=folder / "store")
    assert list(found) == ["a.md"]
    assert skipped[0].file == "\\udcff.md"


def test_read_document_tells_the_path_in_its_folder(write_folder: WriteFolder) -> None:
    folder = write_folder({"sub/a.md": "# A\nb"})
    assert read_document(folder / "sub" / "a.md", folder=folder).path == "sub/a.md"
    with pytest.raises(BadInput, match=r"missing\.md: cannot be read \(no such file"):
        read_document(folder / "missing.md")
