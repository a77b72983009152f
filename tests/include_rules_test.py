"""Holds src/ to the include rules of docs/ARCHITECTURE.md.

The rules are read from that page's tables, so that the page and this test can't say different
things: "may include" (folders of src/) and "only in" (headers of libraries).
"""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
PLANNED = "not there yet"
SOURCE_SUFFIXES = {".h", ".cc"}


class Rules:
    """folders: folder → set of folders, or None for "all". libraries: header prefix → list of paths.
    """

    def __init__(self, folders, planned, libraries):
        self.folders, self.planned, self.libraries = folders, planned, libraries


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def tables(text):
    """Every Markdown table of a page: (header cells, rows of cells)."""
    rows = []
    for line in text.splitlines() + [""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            yield rows[0], rows[2:]
            rows = []


def parse_rules(text):
    folders, planned, libraries = {}, set(), {}
    for header, rows in tables(text):
        if header[-1] == "may include":
            for row in rows:
                (folder,) = names(row[0])
                folders[folder] = None if row[-1] == "all" else set(names(row[-1]))
                if PLANNED in row[1]:
                    planned.add(folder)
        elif header[-1] == "only in":
            for row in rows:
                for prefix in names(row[0]):
                    libraries[prefix] = names(row[-1])
    assert folders, "no table whose last column is 'may include'"
    assert libraries, "no table whose last column is 'only in'"
    return Rules(folders, planned, libraries)


def within(path, places):
    """Whether src-relative `path` lies in one of the folders (or is one of the files) named."""
    return any(path == place or path.startswith((place + "/", place + ".")) for place in places)


def row_of(rules, path):
    """The table's most exact row for a file: `worker/supervisor` before `worker`, or None."""
    fitting = [key for key in rules.folders if re.match(re.escape(key) + r"[/._]", path)]
    return max(fitting, key=len, default=None)


def check_include(rules, src, path, bracket, target):
    """What is wrong with one #include of the file `path` (relative to src), or None."""
    row = row_of(rules, path)
    for prefix, places in rules.libraries.items():
        if target.startswith(prefix) and not within(path, places):
            return f"<{target}> belongs only in {', '.join(places)}"
    first = target.split("/")[0]
    if first not in rules.folders or "/" not in target:
        if bracket == '"' and not any(target.startswith(prefix) for prefix in rules.libraries):
            return f'"{target}" is not a path from src/: write the whole path, or <> for a library'
        return None
    if bracket == "<":
        return f"<{target}> is ours: write it with quotes"
    generated = target.startswith("message/proto/") and target.endswith(".pb.h")
    if not generated and not (src / target).is_file():
        return f'"{target}" does not exist'
    allowed = rules.folders[row]
    if allowed is not None and row_of(rules, target) != row and not within(target, allowed | {row}):
        return f'"{target}": {row} may include {", ".join(sorted(allowed)) or "nothing of ours"}'
    return None


def violations(src, rules):
    found = []
    for file in sorted(src.rglob("*")):
        if file.suffix not in SOURCE_SUFFIXES:
            continue
        path = file.relative_to(src).as_posix()
        folder = path.split("/")[0]
        if row_of(rules, path) is None:
            found.append(f"{path}: the folder {folder} is not in the table of docs/ARCHITECTURE.md")
            continue
        is_test = file.name.endswith(("_test.cc", "testing.h", "testing.cc"))  # they read their seed
        text = file.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            match = INCLUDE.match(line)
            problem = match and check_include(rules, src, path, match[1], match[2])
            if problem:
                found.append(f"{path}:{number}: {problem}")
            if not is_test and folder != "app" and re.search(r"\bgetenv\s*\(", line):
                found.append(f"{path}:{number}: getenv belongs only in app: hand the value in")
            if re.match(r'\s*#\s*include\s*["<][^">]+\.(cc|cpp|c)[">]', line):
                found.append(f"{path}:{number}: include headers, not sources")
        if file.suffix == ".h" and not re.search(r"^#pragma once$", text, re.MULTILINE):
            found.append(f"{path}: #pragma once is missing")
    return found


def cycle(folders):
    """A circle of folders that may include each other, or None."""
    def visit(folder, trail):
        if folder in trail:
            return trail[trail.index(folder):] + [folder]
        for other in folders.get(folder.split("/")[0]) or ():
            found = visit(other.split("/")[0], trail + [folder])
            if found:
                return found
        return None

    return next(filter(None, (visit(folder, []) for folder in folders)), None)


@pytest.fixture(scope="module")
def rules():
    return parse_rules(PAGE.read_text(encoding="utf-8"))


def test_source_follows_the_include_table(rules):
    assert violations(ROOT / "src", rules) == []


def test_every_folder_of_the_table_is_there(rules):
    here = {path.name for path in (ROOT / "src").iterdir() if path.is_dir()}
    folders = {folder.split("/")[0] for folder in rules.folders}
    assert folders - rules.planned <= here, "mark it as 'not there yet' in the table"
    assert not rules.planned & here, "it is there now: take 'not there yet' out of the table"


def test_the_table_has_no_circle(rules):
    assert cycle(rules.folders) is None


# ---- the checker is itself checked: it finds what is planted ------------------------------------

TOY_PAGE = """
| folder | what | may include |
| --- | --- | --- |
| `base` | things | |
| `core` | things | `base` |
| `core/small` | things | |
| `app` | things | all |

| header | why | only in |
| --- | --- | --- |
| `boost/asio` | slow to compile | `app`, `core/edge` |
"""

GOOD = {
    "base/a.h": "#pragma once\n#include <string>\n",
    "core/b.h": '#pragma once\n#include "base/a.h"\n',
    "core/small.h": "#pragma once\n",
    "core/small_test.cc": '#include "core/small.h"\n',
    "core/edge/c.cc": "#include <boost/asio.hpp>\n",
    "app/main.cc": '#include "core/b.h"\nint x = getenv("HOME") != nullptr;\n',
}


def plant(tmp_path, files):
    for path, text in {**GOOD, **files}.items():
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return violations(tmp_path, parse_rules(TOY_PAGE))


def test_checker_accepts_what_is_allowed(tmp_path):
    assert plant(tmp_path, {}) == []


@pytest.mark.parametrize("path, text, expected", [
    ("base/x.cc", '#include "core/b.h"\n', "base/x.cc:1"),
    ("base/x.cc", '  #  include "core/b.h"\n', "base/x.cc:1"),
    ("core/x.cc", "\n#include <boost/asio/post.hpp>\n", "core/x.cc:2"),
    ("core/small.cc", '#include "base/a.h"\n', "core/small.cc:1"),
    ("core/x.cc", '#include "b.h"\n', "not a path from src/"),
    ("core/x.cc", '#include "base/nothing.h"\n', "does not exist"),
    ("core/x.cc", "#include <base/a.h>\n", "with quotes"),
    ("core/x.cc", '#include "base/a.cc"\n', "not sources"),
    ("core/x.cc", 'const char* v = std::getenv("X");\n', "getenv"),
    ("core/x.h", '#include "base/a.h"\n', "#pragma once"),
    ("new/x.cc", "", "not in the table"),
])
def test_checker_finds_what_is_planted(tmp_path, path, text, expected):
    found = plant(tmp_path, {path: text})
    assert any(expected in problem for problem in found), found


def test_checker_finds_a_circle():
    assert cycle({"a": {"b"}, "b": {"a"}}) is not None
    assert cycle({"a": {"b"}, "b": set()}) is None
