"""What telling problems may cost: a document of a megabyte has a hundred thousand of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowcore.findings import MOST_SUGGESTED, Findings, Mark, Path


class Costly(Mapping[Path, Mark]):
    """Marks whose number is only known by counting them, as those of a nested workflow are."""

    def __getitem__(self, path: Path) -> Mark:
        if path == ("a",):
            return Mark("w.yaml", 7)
        raise KeyError(path)

    def __iter__(self) -> Iterator[Path]:
        raise AssertionError("the marks were walked through")

    def __len__(self) -> int:
        raise AssertionError("the marks were counted")


def test_marks_are_looked_up_and_never_counted() -> None:
    """Findings are made per node: counting the marks of the document each time is work squared."""
    findings = Findings(marks=Costly()).branch()
    findings.add(("a", "b"), "is wrong")
    assert (findings.problems[0].file, findings.problems[0].line) == ("w.yaml", 7)


def test_of_many_unknown_names_only_some_are_compared_with_many_known_ones() -> None:
    known = [f"param{number}" for number in range(1_000)]
    findings = Findings()
    for number in range(2 * MOST_SUGGESTED):
        findings.add_undeclared(("a", number), f"parm{number}", known)
    remedies = [problem.remedy for problem in findings.problems]
    assert all(f"'param{number}'" in remedies[number] for number in range(MOST_SUGGESTED))
    assert set(remedies[MOST_SUGGESTED:]) == {"declare it under params"}


def test_of_a_few_known_names_each_unknown_one_is_compared() -> None:
    findings = Findings()
    for number in range(2 * MOST_SUGGESTED):
        findings.add_unknown(("a", number), "nmae", ["name", "nodes"])
    assert {problem.remedy for problem in findings.problems} == {"did you mean 'name'?"}
