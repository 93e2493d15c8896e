"""flow dlq: letters are found, told in full, edited, run again; wrong calls change nothing and say why."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.files.letters import FileLetters
from connectors.sqlite.letters import SqliteLetters
from flowcore.dead_letters import DeadLetter
from flowruntime.testing.conformance.letters import sample_letter
from flowruntime.testing.contexts import StandaloneSinkContext

Flow = Callable[..., Any]

SHOP = """\
name: shop
settings: {on_error: dead_letter, dead_letter: {type: files.sink, config: {path: dead.jsonl}}}
nodes:
  orders: {type: memory.source, config: {values: ["1", "x", "[3", "4"]}}
  parse: {type: transform.json_parse}
  kept: {type: files.sink, config: {path: out.jsonl}}
connections: [orders -> parse, parse -> kept]
"""


@pytest.fixture(name="shop")
def _shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    return path


def put(path: str, letters: Iterable[DeadLetter]) -> None:
    """Write letters, into SQLite where the name says so."""

    async def write() -> None:
        store = SqliteLetters(path) if path.endswith(".sqlite") else FileLetters(path)
        await store.open(StandaloneSinkContext())
        await store.write(list(letters))
        await store.close()

    asyncio.run(write())


def listed(flow: Flow, *arguments: str) -> list[dict[str, Any]]:
    """The letters `flow dlq list` gives as JSON."""
    ran = flow("dlq", "list", *arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)["letters"]


def ids(found: Iterable[dict[str, Any]]) -> list[str]:
    return [each["letter"]["id"] for each in found]


# --- from a run to a redrive ------------------------------------------------------------------------------


def test_rows_of_a_run_become_letters_and_the_run_exits_0(flow: Flow, shop: Path) -> None:
    ran = flow("run", str(shop))
    assert ran.code == 0
    result = json.loads(ran.out)
    assert (result["state"], result["handled"], result["dead_letters"]) == ("partial", True, 2)
    assert "dead_lettered" in ran.err
    assert "every failure was handled" in ran.err
    found = listed(flow, "dead.jsonl")
    assert [each["letter"]["record"] for each in found] == ["x", "[3"]
    assert ids(listed(flow, str(shop))) == ids(found), "the workflow names the same place"


def test_a_letter_is_listed_shown_edited_and_redriven(flow: Flow, shop: Path) -> None:
    flow("run", str(shop))
    table = flow("dlq", "list", "dead.jsonl").out.splitlines()
    assert table[0].split()[0] == "id"
    assert len(table) == 3
    assert "ParseError: not valid JSON" in table[1]
    assert "orders row 1" in table[1]
    first, second = ids(listed(flow, "dead.jsonl"))

    text = flow("dlq", "show", "dead.jsonl", first).out
    for part in (
        first,
        "pending",
        "parse",
        "ParseError",
        '"line": 1',
        "attempts",
        "orders row 1",
        'record\n  "x"',
    ):
        assert part in text, part
    shown = json.loads(flow("dlq", "show", "dead.jsonl", first, "--json").out)
    assert shown["letter"]["error"]["facts"]["column"] == 1
    assert shown["state"] == "pending"

    edited = flow("dlq", "edit", "dead.jsonl", first, "--record", '"17"')
    assert (edited.code, edited.out) == (0, "")
    assert "the original is kept" in edited.err
    assert "record now, edited" in flow("dlq", "show", "dead.jsonl", first).out

    ran = flow("dlq", "redrive", "dead.jsonl", "--all", "--workflow", str(shop))
    assert ran.code == 1, "one failed again"
    assert [line.split() for line in ran.out.splitlines()[1:3]] == [
        ["went", "through", "1", "1"],
        ["failed", "again", "1", "1"],
    ]
    assert Path("out.jsonl").read_text().splitlines() == ["1", "4", "17"]
    states = {each["letter"]["id"]: each["state"] for each in listed(flow, "dead.jsonl", "--state", "all")}
    assert (states[first], states[second], sorted(states.values())) == (
        "redriven",
        "resolved",
        ["pending", "redriven", "resolved"],
    )
    (new,) = listed(flow, "dead.jsonl")
    assert [each["id"] for each in new["letter"]["lineage"]] == [second]
    assert f"earlier      {second}" in flow("dlq", "show", "dead.jsonl", new["letter"]["id"]).out
    assert flow("dlq", "edit", "dead.jsonl", new["letter"]["id"], "--record", '"[3]"').code == 0
    assert flow("dlq", "redrive", str(shop), new["letter"]["id"]).code == 0
    done = flow("dlq", "redrive", str(shop), "--all")
    assert (done.code, done.out) == (0, "")
    assert "no letters to redrive" in done.err


def test_a_changed_workflow_is_named_and_its_params_can_be_given(flow: Flow, shop: Path) -> None:
    flow("run", str(shop))
    fixed = SHOP.replace("name: shop", "name: shop\nparams: {into: none.jsonl}").replace(
        "{type: transform.json_parse}", "{type: transform.map, config: {fields: 'value + \"!\"'}}"
    )
    Path("fixed.yaml").write_text(fixed.replace("path: out.jsonl", "path: '${params.into}'"))
    ran = flow(
        "dlq", "redrive", "dead.jsonl", "--all", "--workflow", "fixed.yaml", "--param", "into=new.jsonl"
    )
    assert ran.code == 0, ran.err
    assert Path("new.jsonl").read_text().splitlines() == ['"x!"', '"[3!"']


def test_a_trial_request_writes_no_letter_and_says_so(flow: Flow, shop: Path) -> None:
    trial = flow("run", str(shop), "--input", '{"orders": "zz"}')
    assert trial.code == 0
    assert "1 dead letters were not written" in trial.err
    assert not Path("dead.jsonl").exists()
    real = flow("run", str(shop), "--input", '{"orders": "zz"}', "--write", "--full")
    assert real.code == 0
    (letter,) = listed(flow, "dead.jsonl")
    assert json.loads(real.out)["letters"] == [{"id": letter["letter"]["id"], "node": "parse"}]


# --- stores -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("d.jsonl", ["d.jsonl"]),
        ("d.sqlite", ["d.sqlite"]),
        ("odd-name", ["odd-name"]),
        ("d.sqlite", ["--store", "sqlite:d.sqlite"]),
        ("d.sqlite", ["--store", "sqlite.dead_letters:d.sqlite"]),
        ("d.sqlite", ["--store", 'sqlite.dead_letters:{"path": "d.sqlite"}']),
        ("d.jsonl", ["--store", "files:d.jsonl"]),
        ("odd-name", ["--store", 'files.sink:{"path": "odd-name", "format": "jsonl"}']),
    ],
)
def test_a_store_is_named_by_its_file_or_by_its_type(flow: Flow, written: str, place: list[str]) -> None:
    put(written, [sample_letter(1), sample_letter(2)])
    letter_id = sample_letter(1).id
    assert len(listed(flow, *place)) == 2
    arguments = [letter_id, *place] if place[0] == "--store" else [*place, letter_id]
    assert letter_id in flow("dlq", "show", *arguments).out
    assert flow("dlq", "edit", *arguments, "--state", "resolved", "--note", "by hand").code == 0
    assert ids(listed(flow, *place)) == [sample_letter(2).id]
    assert "resolved" in flow("dlq", "show", *arguments).out
    assert "by hand" in flow("dlq", "show", *arguments).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list"], "name the file of letters"),
        (["list", "nope.jsonl"], "there is no such file"),
        (["list", "."], "is a folder"),
        (["list", "--store", "files"], "write TYPE:PATH"),
        (["list", "--store", "files:"], "write TYPE:PATH"),
        (["list", "--store", "files:{"], "is no JSON object"),
        (["list", "--store", "memory.sink:{}"], "cannot hold dead letters"),
        (["list", "--store", "files.snk:d.jsonl"], "unknown node type"),
        (["list", "d.jsonl", "--limit", "0"], "at least 1"),
        (["list", "d.jsonl", "--state", "lost"], "no state of a letter"),
        (["list", "d.jsonl", "--since", "yesterday"], "neither a duration"),
        (["list", "d.jsonl", "--node"], "--node"),
        (["list", "plain.yaml"], "names no place for dead letters"),
        (["show", "d.jsonl"], "one id of a letter is taken, not 0"),
        (["show", "d.jsonl", "a", "b"], "not 2"),
        (["edit", "d.jsonl", "ID", "--record", "{"], "--record is no JSON"),
        (["edit", "d.jsonl", "ID", "--record", '{"$what": 1}'], "known forms are"),
        (["edit", "d.jsonl", "ID", "--record", "@nope.json"], "there is no such file"),
        (["edit", "d.jsonl", "ID", "--record", "1", "--state", "resolved"], "two changes"),
        (["edit", "d.jsonl", "ID", "--state", "redriven"], "--state"),
        (["redrive", "d.jsonl", "--all"], "name the workflow"),
        (["redrive", "d.jsonl", "--workflow", "plain.yaml"], "say which letters"),
        (["redrive", "d.jsonl", "ID", "--all", "--workflow", "plain.yaml"], "say which letters"),
        (["redrive", "d.jsonl", "--all", "--workflow", "nope.yaml"], "nope.yaml"),
        (["redrive", "d.jsonl", "--all", "--workflow", "plain.yaml", "--parallel", "0"], "at least 1"),
        (["redrive", "d.jsonl", "ID", "nobody", "--workflow", "plain.yaml"], "has no letter 'nobody'"),
        (["bury", "d.jsonl"], "bury"),
    ],
)
def test_a_call_that_means_nothing_changes_nothing_and_says_what_to_write(
    flow: Flow, arguments: list[str], said: str
) -> None:
    put("d.jsonl", [sample_letter(1)])
    Path("plain.yaml").write_text("name: plain\nnodes: {n: debug.pass}\n")
    before = Path("d.jsonl").read_bytes()
    ran = flow("dlq", *(sample_letter(1).id if word == "ID" else word for word in arguments))
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert ran.out == ""
    assert Path("d.jsonl").read_bytes() == before


@pytest.mark.parametrize("verb", ["show", "edit"])
def test_an_id_nobody_has_is_told_and_exits_1(flow: Flow, verb: str) -> None:
    put("d.jsonl", [sample_letter(1)])
    options = ["--record", "1"] if verb == "edit" else []
    for letter_id in ("nobody", sample_letter(2).id):
        ran = flow("dlq", verb, "d.jsonl", letter_id, *options)
        assert ran.code == 1
        assert f"no dead letter with the id {letter_id!r}" in ran.err


def test_an_empty_store_is_no_error(flow: Flow, shop: Path) -> None:
    Path("empty.jsonl").touch()
    for place in ("empty.jsonl", str(shop)):
        ran = flow("dlq", "list", place)
        assert (ran.code, ran.out) == (0, "")
        assert "no letters" in ran.err
        assert listed(flow, place) == []
        assert flow("dlq", "redrive", place, "--all", "--workflow", str(shop)).code == 0


def test_lines_that_cannot_be_read_are_named_others_are_listed_and_the_exit_code_says_so(
    flow: Flow, shop: Path
) -> None:
    flow("run", str(shop))
    with Path("dead.jsonl").open("a") as file:
        file.write("no letter at all\n")
    put("dead.jsonl", [sample_letter(1)])
    ran = flow("dlq", "list", "dead.jsonl")
    assert ran.code == 1
    assert "dead.jsonl:3: no entry of a log of dead letters" in ran.err
    assert len(ran.out.splitlines()) == 4
    as_json = flow("dlq", "list", "dead.jsonl", "--json")
    assert as_json.code == 1
    assert [entry["where"] for entry in json.loads(as_json.out)["broken"]] == ["dead.jsonl:3"]
    redriven = flow("dlq", "redrive", str(shop), "--all")
    assert redriven.code == 1
    assert "dead.jsonl:3" in redriven.err


# --- which letters ----------------------------------------------------------------------------------------


def test_letters_are_chosen_by_node_error_age_and_state(flow: Flow) -> None:
    now = time.time()
    put("d.jsonl", [sample_letter(number, at=now - 3_600 * number) for number in range(6)])
    flow("dlq", "edit", "d.jsonl", sample_letter(5).id, "--state", "resolved")

    def numbers(*arguments: str) -> list[int]:
        return [int(each[-2:]) for each in ids(listed(flow, "d.jsonl", *arguments))]

    assert numbers() == [0, 1, 2, 3, 4]
    assert numbers("--state", "all") == [0, 1, 2, 3, 4, 5]
    assert numbers("--state", "resolved") == [5]
    assert numbers("--node", "node1") == [1, 4]
    assert numbers("--node", "node1", "--node", "node2") == [1, 2, 4]
    assert numbers("--error", "ParseError") == [1, 3]
    assert numbers("--since", "90m") == [0, 1]
    assert numbers("--since", "90m", "--error", "ParseError") == [1]
    assert numbers("--since", "2020-01-01") == [0, 1, 2, 3, 4]


def test_a_long_list_is_cut_and_goes_on_where_it_ended(flow: Flow) -> None:
    put("d.jsonl", [sample_letter(number) for number in range(7)])
    ran = flow("dlq", "list", "d.jsonl", "--limit", "3")
    assert len(ran.out.splitlines()) == 4
    assert "there are more: --after " in ran.err
    after = ran.err.split("--after ")[1].strip()
    rest = json.loads(flow("dlq", "list", "d.jsonl", "--after", after, "--json").out)
    assert [each["letter"]["id"] for each in rest["letters"]] == [sample_letter(n).id for n in range(3, 7)]
    assert rest["next"] is None
    wrong = flow("dlq", "list", "d.jsonl", "--after", "5:5")
    assert (wrong.code, "is no place in" in wrong.err) == (1, True)


# --- edits ------------------------------------------------------------------------------------------------


def test_a_record_is_edited_in_an_editor(flow: Flow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put("d.jsonl", [sample_letter(1)])
    letter_id = sample_letter(1).id
    script = tmp_path / "edit.py"
    script.write_text(
        "import sys; p = sys.argv[1]; t = open(p).read(); open(p, 'w').write(t.replace('1', '2'))"
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")
    assert flow("dlq", "edit", "d.jsonl", letter_id).code == 0
    assert listed(flow, "d.jsonl")[0]["edit"] == {"order": 2}
    monkeypatch.setenv("VISUAL", f"{sys.executable} -c ''")
    assert "nothing was changed" in flow("dlq", "edit", "d.jsonl", letter_id).err
    monkeypatch.setenv("VISUAL", f"{sys.executable} -c 'raise SystemExit(3)'")
    failed = flow("dlq", "edit", "d.jsonl", letter_id)
    assert (failed.code, "ended with code 3" in failed.err) == (2, True)
    script.write_text("import sys; open(sys.argv[1], 'w').write('{')")
    monkeypatch.delenv("VISUAL")
    broken = flow("dlq", "edit", "d.jsonl", letter_id)
    assert (broken.code, "the record from the editor is no JSON" in broken.err) == (2, True)
    monkeypatch.delenv("EDITOR")
    assert "set EDITOR" in flow("dlq", "edit", "d.jsonl", letter_id).err
    assert listed(flow, "d.jsonl")[0]["edit"] == {"order": 2}


def test_a_record_is_read_from_a_file_and_kept_without_loss(flow: Flow) -> None:
    put("d.jsonl", [sample_letter(1)])
    record = {"big": {"$int": str(1 << 70)}, "nan": {"$float": "nan"}, "raw": {"$bytes": "AP8="}, "$$x": 1.0}
    Path("record.json").write_text(json.dumps(record))
    assert flow("dlq", "edit", "d.jsonl", sample_letter(1).id, "--record", "@record.json").code == 0
    (found,) = listed(flow, "d.jsonl")
    assert found["edit"] == record
    assert isinstance(found["edit"]["$$x"], float)
    assert found["letter"]["record"] == {"order": 1}


def test_an_edit_is_for_all_letters_of_the_record(flow: Flow) -> None:
    """Several of its rows had failed; edited apart, the record would run twice."""
    one = sample_letter(1)
    put("d.jsonl", [one, msgspec.structs.replace(one, id="twin"), sample_letter(2)])
    ran = flow("dlq", "edit", "d.jsonl", "twin", "--record", "7")
    assert "1 more of the same record" in ran.err
    assert [each.get("edit") for each in listed(flow, "d.jsonl")] == [7, 7, None]


def test_a_letter_that_is_done_is_not_edited_and_can_be_taken_back(flow: Flow) -> None:
    put("d.jsonl", [sample_letter(1)])
    letter_id = sample_letter(1).id
    assert flow("dlq", "edit", "d.jsonl", letter_id, "--state", "resolved").code == 0
    refused = flow("dlq", "edit", "d.jsonl", letter_id, "--record", "7")
    assert (refused.code, "make it pending again" in refused.err) == (1, True)
    assert flow("dlq", "edit", "d.jsonl", letter_id, "--state", "pending").code == 0
    assert flow("dlq", "edit", "d.jsonl", letter_id, "--record", "7").code == 0


# --- redriving --------------------------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_be_run_and_what_cannot(flow: Flow, shop: Path) -> None:
    flow("run", str(shop))
    put("dead.jsonl", [sample_letter(1, undecoded=True)])
    before = Path("dead.jsonl").read_bytes()
    ran = flow("dlq", "redrive", str(shop), "--all", "--dry-run")
    assert ran.code == 1
    assert "would be run        2        2" in ran.out
    assert f"{sample_letter(1).id}: not run: its record is the raw input" in ran.out
    assert Path("dead.jsonl").read_bytes() == before
    assert Path("out.jsonl").read_text().splitlines() == ["1", "4"]


def test_a_redrive_tells_its_summary_as_json(flow: Flow, shop: Path) -> None:
    flow("run", str(shop))
    first, second = ids(listed(flow, "dead.jsonl"))
    flow("dlq", "edit", "dead.jsonl", first, "--record", '"1"')
    ran = flow("dlq", "redrive", str(shop), "--error", "ParseError", "--json")
    assert ran.code == 1
    summary = json.loads(ran.out)
    assert summary["letters"] == {"redriven": 1, "failed": 1, "refused": 0, "left": 0}
    by_letter = {each["letters"][0]: each for each in summary["outcomes"]}
    assert by_letter[first]["fate"] == "redriven"
    assert by_letter[second]["made"] == ids(listed(flow, "dead.jsonl"))


def test_a_limit_stops_after_that_many_letters(flow: Flow) -> None:
    Path("fine.yaml").write_text(SHOP.replace('["1", "x", "[3", "4"]', "[]"))
    letters = [sample_letter(n, record=str(n), origin=ORIGIN) for n in range(5)]
    put("dead.jsonl", letters)
    assert flow("dlq", "redrive", "fine.yaml", "--all", "--limit", "2", "--parallel", "1").code == 0
    assert Path("out.jsonl").read_text().splitlines() == ["0", "1"]
    assert ids(listed(flow, "dead.jsonl")) == [letter.id for letter in letters[2:]]


ORIGIN = msgspec.structs.replace(sample_letter(1).origin, source="orders")

SLOW = """\
name: slow
settings: {on_error: dead_letter, dead_letter: {type: files.sink, config: {path: dead.jsonl}}}
nodes:
  orders: {type: memory.source, config: {values: []}}
  wait: {type: control.delay, config: {duration: 300ms}}
  kept: {type: files.sink, config: {path: out.jsonl}}
connections: [orders -> wait, wait -> kept]
"""


def test_the_first_signal_finishes_what_is_in_work_and_marks_it(tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(SLOW)
    letters = [sample_letter(n, record=n, origin=ORIGIN) for n in range(200)]
    put(str(tmp_path / "dead.jsonl"), letters)
    command = [
        sys.executable,
        "-m",
        "flowruntime.cli.main",
        "dlq",
        "redrive",
        "slow.yaml",
        "--all",
        "--parallel",
        "2",
    ]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out = tmp_path / "out.jsonl"
        deadline = time.monotonic() + 30
        while not (out.exists() and out.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    written = sorted(int(line) for line in out.read_text().splitlines())
    assert 1 <= len(written) < 200
    marks = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()[200:]]
    assert sorted(int(mark["id"][-3:]) for mark in marks) == written, "what went through is marked"
    assert f"went through  {len(written):>7}" in stdout
