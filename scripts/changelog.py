"""Changelog fragments: `changelog.d/<slug>.<added|changed|fixed|removed>.md`, one sentence for the user each.

Owns: the form of a fragment, and folding fragments into CHANGELOG.md at a release.
Does not own: whether a change deserves one; work a user cannot notice has none.

    python scripts/changelog.py check           every problem at once; exit 1 when there is one
    python scripts/changelog.py release 0.2.0   move all fragments under a heading of CHANGELOG.md
"""

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("added", "changed", "fixed", "removed")
_NAME = re.compile(rf"(?P<slug>[a-z0-9]+(?:-[a-z0-9]+)*)\.(?P<kind>{'|'.join(KINDS)})\.md")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_MARK = "<!-- releases -->\n"


class ChangelogError(ValueError):
    """A fragment, a version or CHANGELOG.md is not in the form this script needs."""


def problems(folder: Path) -> list[str]:
    """What is wrong with the fragments in `folder`, one line each: what, where, the value, what to do."""
    found: list[str] = []
    for path in sorted(folder.iterdir()):
        if not _NAME.fullmatch(path.name):
            found.append(
                f"{path.name}: not <slug>.<{'|'.join(KINDS)}>.md with a slug of a-z, 0-9 and '-'; rename it"
            )
            continue
        text = path.read_text(encoding="utf-8").strip()
        if not text or "\n" in text or not text.endswith("."):
            found.append(f"{path.name}: {text!r} is not one line ending in a full stop; rewrite it")
    return found


def section(folder: Path, version: str, date: str) -> str:
    """The fragments of `folder` as one CHANGELOG section, kinds in their fixed order, slugs sorted."""
    lines = [f"## {version} ({date})", ""]
    for kind in KINDS:
        paths = sorted(folder.glob(f"*.{kind}.md"))
        if paths:
            lines += [f"### {kind.capitalize()}", ""]
            lines += [f"- {path.read_text(encoding='utf-8').strip()}" for path in paths]
            lines.append("")
    return "\n".join(lines) + "\n"


def release(root: Path, version: str, date: str) -> None:
    """Write the section of `version` into CHANGELOG.md and delete the fragments it holds.

    Raises:
        ChangelogError: a bad or repeated version, a bad fragment, no fragment, or no mark in CHANGELOG.md.
            Nothing was written.
    """
    changelog, folder = root / "CHANGELOG.md", root / "changelog.d"
    old = changelog.read_text(encoding="utf-8")
    if not _VERSION.fullmatch(version):
        raise ChangelogError(f"version {version!r} is not MAJOR.MINOR.PATCH")
    if f"\n## {version} " in old:
        raise ChangelogError(f"CHANGELOG.md already has a section {version!r}; choose the next version")
    if found := problems(folder):
        raise ChangelogError("\n".join(found))
    if _MARK not in old:
        raise ChangelogError(f"CHANGELOG.md has no line {_MARK.strip()!r}; put it where releases begin")
    paths = sorted(folder.glob("*.md"))
    if not paths:
        raise ChangelogError(f"{folder.name} holds no fragment: {version!r} would be empty")
    changelog.write_text(
        old.replace(_MARK, f"{_MARK}\n{section(folder, version, date)}", 1), encoding="utf-8"
    )
    for path in paths:
        path.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check changelog fragments, or release them.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check")
    commands.add_parser("release").add_argument("version")
    options = parser.parse_args(arguments)
    if options.command == "check":
        found = problems(ROOT / "changelog.d")
        print("\n".join(found) or "changelog fragments are in form")
        return 1 if found else 0
    try:
        release(ROOT, options.version, datetime.now(UTC).date().isoformat())
    except ChangelogError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
