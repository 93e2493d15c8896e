"""flow plan: stages, reasons, bounds, guarantees; the picture; what an edit does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Flow = Callable[..., Any]


def test_the_text_says_what_is_fused_and_why_each_boundary_is_there(flow: Flow, workflow: Path) -> None:
    out = flow("plan", str(workflow)).out
    assert "demo, as a stream: 4 nodes in" in out
    assert "fused    keep" in out
    assert "boundary: follows 'src' without waiting" in out
    assert "2 of 2 compiled to Python" in out


def test_limits_order_and_policies_of_a_waiting_node_are_said(flow: Flow, workflow: Path) -> None:
    slow = (
        "  slow: {type: control.delay, config: {duration: 1s}, concurrency: 8, timeout: 2s,"
        " retry: {max_attempts: 5}, on_error: continue, resource: gpu}\n"
    )
    text = (
        workflow.read_text()
        .replace("  keep:", f"{slow}  keep:")
        .replace("- src -> keep", "- src -> slow\n  - slow -> keep")
    )
    workflow.write_text(
        f"{text}settings: {{limits: {{resources: {{gpu: 2}}, types: {{control.delay: 4}}}}}}\n"
    )
    out = flow("plan", str(workflow)).out
    assert "boundary: 'slow' waits" in out
    assert "at once: 8 of this node, 4 over all nodes of type control.delay, 2 over resource gpu" in out
    assert "order ordered: results leave in the order rows came" in out
    assert "on_error continue (the node); timeout 2s an attempt (the node); retry 5 attempts" in out
    assert "weaker: node 'slow': a row that fails there goes no further" in out
    assert "at work in slow" in out


def test_the_plan_says_who_says_each_policy(flow: Flow, workflow: Path) -> None:
    """The node, its type, the settings, or nobody: then it is the default."""
    call = "  call: {type: http.request, timeout: 2s, config: {url: 'http://x.test/'}}\n"
    text = (
        workflow.read_text()
        .replace("  keep:", f"{call}  keep:")
        .replace("- src -> keep", "- src -> call.body\n  - src -> keep")
    )
    workflow.write_text(
        f"{text}settings: {{on_error: continue, max_output_bytes: 1KiB, profile: low_latency}}\n"
    )
    out = flow("plan", str(workflow)).out
    assert (
        "on_error continue (settings); timeout 2s an attempt (the node); output up to 1 KiB (settings)" in out
    )
    assert "at once: 64 of this node (its type)" in out
    nodes = {
        node["id"]: node["said_by"]
        for stage in json.loads(flow("plan", str(workflow), "--format", "json").out)["stages"]
        for node in stage["nodes"]
    }
    assert nodes["call"]["concurrency"] == "its type"
    assert nodes["call"]["max_children"] == "default"


def test_an_interpreted_expression_is_named_with_the_reason(flow: Flow, workflow: Path) -> None:
    where = "timestamp(value.at) > timestamp(value.then)"
    workflow.write_text(workflow.read_text().replace("value.id > ${params.least}", where))
    out = flow("plan", str(workflow)).out
    assert f"interpreted: keep.where: {where}" in out
    assert "because" in out


def test_the_sum_of_all_bounds_counts_children_too(flow: Flow, workflow: Path) -> None:
    text = workflow.read_text().replace(
        "transform.filter, config: {where: 'value.id > ${params.least}'}", "transform.split"
    )
    workflow.write_text(f"{text}settings: {{max_in_flight: 1000}}\n")
    description = json.loads(flow("plan", str(workflow), "--format", "json").out)
    bounds = {bound["name"]: bound["amount"] for bound in description["bounds"]}
    assert bounds["records in flight"] == 1000
    assert bounds["all rows at once"] == 2000
    assert bounds["one frame"] == 1000
    assert bounds["repeated after a crash"] == 4000


def test_the_sum_of_all_bytes_counts_what_is_at_work_when_those_in_flight_are_spent(
    flow: Flow, workflow: Path
) -> None:
    def bounds() -> dict[str, int]:
        description = json.loads(flow("plan", str(workflow), "--format", "json").out)
        return {bound["name"]: bound["amount"] for bound in description["bounds"]}

    assert bounds()["all bytes at once"] == bounds()["bytes in flight"] == 64 << 20
    slow = "  slow: {type: control.delay, config: {duration: 1s}, concurrency: 8, max_output_bytes: 1MiB}\n"
    text = workflow.read_text().replace("  keep:", f"{slow}  keep:")
    workflow.write_text(text.replace("- src -> keep", "- src -> slow\n  - slow -> keep"))
    assert bounds()["all bytes at once"] == (64 + 8 + 1) << 20
    assert bounds()["one output of a node"] == 16 << 20


def test_a_workflow_without_a_source_is_planned_as_a_request(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: r\nnodes: {clean: {type: text.clean}}\nconnections: []\n")
    out = flow("plan", "r.yaml").out
    assert "r, as a request" in out
    assert "requests at once" in out


def test_what_weakens_delivery_is_said(flow: Flow, workflow: Path) -> None:
    """SRC-14."""
    text = workflow.read_text().replace("{path: odd.jsonl}", "{path: odd.jsonl, mode: atomic}")
    text = text.replace("files.source, config: {path: in.jsonl}", "memory.source, config: {values: [1]}")
    workflow.write_text(text)
    out = flow("plan", str(workflow)).out
    assert "weaker: source 'src' (memory.source) keeps no positions" in out
    assert "weaker: sink 'odd' (files.sink) is durable only when the run has ended" in out
    assert "sink 'even'" not in out


def test_the_generated_code_is_python(flow: Flow, workflow: Path) -> None:
    out = flow("plan", str(workflow), "--code").out
    compile(out, "<generated>", "exec")
    assert "# keep: transform.filter" in out


def test_the_picture_escapes_what_mermaid_reads(flow: Flow, workflow: Path) -> None:
    out = flow("plan", str(workflow), "--format", "mermaid").out
    assert out.startswith("flowchart LR\n")
    assert 'n0(["src<br/>files.source"])' in out
    assert '-->|"value.id % 2 == 0"| n2' in out
    assert '-->|"else"| n3' in out


def test_a_diff_says_what_is_kept_reset_and_orphaned(flow: Flow, workflow: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text(workflow.read_text())
    assert "nothing changes" in flow("plan", str(workflow), "--diff", str(old)).out
    workflow.write_text(
        workflow.read_text()
        .replace("src", "fresh")
        .replace("% 2 == 0", "% 3 == 0")
        .replace("value.id > ", "value.id >= ")
    )
    out = flow("plan", str(workflow), "--diff", str(old)).out
    assert "~ keep changed: config.where" in out
    assert "+ fresh added" in out
    assert "- src removed" in out
    assert "? src orphaned: no node of that id is left" in out
    assert "! fresh reset: nothing is saved for it" in out
    assert "+ connection keep.out -> even.value when value.id % 3 == 0" in out


def test_a_source_with_another_configuration_keeps_its_positions(
    flow: Flow, workflow: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.yaml"
    old.write_text(workflow.read_text())
    workflow.write_text(workflow.read_text().replace("in.jsonl", "other.jsonl"))
    found = json.loads(flow("plan", str(workflow), "--diff", str(old), "--format", "json").out)
    assert [(each["node"], each["fate"]) for each in found["positions"]] == [("src", "kept")]


def test_a_changed_type_resets_and_a_changed_name_orphans_positions(
    flow: Flow, workflow: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.yaml"
    old.write_text(workflow.read_text())
    workflow.write_text(old.read_text().replace("files.source, config: {path: in.jsonl}", "stdio.source"))
    assert "! src reset: the type was 'files.source'" in flow("plan", str(workflow), "--diff", str(old)).out
    workflow.write_text(old.read_text().replace("name: demo", "name: other"))
    assert "? src orphaned: the workflow was 'demo'" in flow("plan", str(workflow), "--diff", str(old)).out


def test_options_that_show_different_things_are_refused(flow: Flow, workflow: Path) -> None:
    assert flow("plan", str(workflow), "--code", "--diff", str(workflow)).code == 2


def test_an_invalid_workflow_has_no_plan(flow: Flow, workflow: Path) -> None:
    workflow.write_text(workflow.read_text().replace("transform.filter", "nothing.at_all"))
    ran = flow("plan", str(workflow))
    assert (ran.code, ran.out) == (2, "")
    assert f"{workflow}:5" in ran.err


def test_problems_of_both_files_of_a_comparison_are_told(flow: Flow, workflow: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text(
        workflow.read_text().replace("files.sink, config: {path: even", "files.snik, config: {path: even")
    )
    workflow.write_text(workflow.read_text().replace("files.source", "files.sorce"))
    ran = flow("plan", str(workflow), "--diff", str(old))
    assert (ran.code, ran.out) == (2, "")
    assert [line.partition(":")[0] for line in ran.err.splitlines()] == [str(workflow), str(old)]


def test_a_file_compared_with_itself_changes_nothing(flow: Flow, workflow: Path) -> None:
    assert "nothing changes" in flow("plan", str(workflow), "--diff", str(workflow)).out
