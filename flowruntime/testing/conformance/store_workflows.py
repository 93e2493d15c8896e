"""What every store must do with workflows, as tests.

Owns: `WorkflowStoreConformance`. Part of flowruntime.testing.conformance.store.
"""

from __future__ import annotations

from flowcore.node import node
from flowcore.settings import ParamSpec
from flowcore.store_errors import (
    AmbiguousNameError,
    NotStoredError,
    StoreInputError,
    WorkflowInUseError,
)
from flowcore.values import SecretRef
from flowcore.workflow import Workflow
from flowruntime.state.store.entries import MAX_PAGE
from flowruntime.testing.conformance.store_subject import (
    StoreSubject,
    all_pages,
    an_execution,
    outcomes,
    refused,
    run,
    workflow,
)


class WorkflowStoreConformance:
    """Inherited by `StoreConformance`."""

    def test_versions_are_numbered_and_the_same_content_again_is_none(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                first = await store.workflows.put(workflow(text="a"), at=1.0)
                again = await store.workflows.put(workflow(text="a"), at=2.0)
                second = await store.workflows.put(workflow(text="b"), at=3.0)
                back = await store.workflows.put(workflow(text="a"), at=4.0)
                assert (first.id, first.version, first.created_at) == ("triage", 1, 1.0)
                assert again == first
                assert (second.version, back.version) == (2, 3)
                assert back.hash == first.hash != second.hash
                assert (await store.workflows.get("triage")).version == 3
                assert (await store.workflows.get("triage", 2)).workflow == workflow(text="b")

        run(scenario())

    def test_a_workflow_comes_back_as_it_was(self, subject: StoreSubject) -> None:
        inner = workflow("inner", text=2**80)
        outer = Workflow(
            "outer ü $ ${NAME}",
            id="the-outer",
            version="7",
            description="a\nb",
            params={"limit": ParamSpec(default=1.0, kind="float"), "key": "k"},
            settings={"max_in_flight": 7, "on_error": "continue"},
        )
        fetch = outer.add(
            "http.request", id="fetch", config={"url": "u", "token": SecretRef("T")}, timeout="2s"
        )
        nested = outer.add(inner, id="nested")
        outer.connect(fetch["out.status"], outer.add("memory.sink", id="ok"), when="value == 200")
        outer.connect(fetch["out.status"], outer.add("memory.sink", id="rest"), otherwise=True)
        outer.connect(nested, outer.add("memory.sink", id="inner_out"))

        async def scenario() -> None:
            async with subject.opened() as store:
                head = await store.workflows.put(outer, at=1.0)
                stored = await store.workflows.get("the-outer")
                assert stored.workflow == outer
                assert (stored.id, stored.name, stored.hash) == ("the-outer", outer.name, head.hash)

        run(scenario())

    def test_a_function_is_stored_by_the_name_of_its_type(self, subject: StoreSubject) -> None:
        @node("conformance.clean")
        def clean(text: str) -> str:
            return text

        async def scenario() -> None:
            async with subject.opened() as store:
                local = Workflow("local")
                local.add(clean)
                await store.workflows.put(local)
                stored = (await store.workflows.get("local")).workflow
                assert [node.type for node in stored.nodes.values()] == ["conformance.clean"]

        run(scenario())

    def test_a_name_leads_to_the_one_workflow_that_has_it(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await store.workflows.put(workflow("shop", id="a"))
                assert (await store.workflows.get("shop")).id == "a"
                await store.workflows.put(workflow("shop", id="b"))
                with refused(AmbiguousNameError) as several:
                    await store.workflows.get("shop")
                assert set(several.error.ids) == {"a", "b"}
                await store.workflows.put(workflow("shop"))
                assert (await store.workflows.get("shop")).id == "shop"
                for id in ("a", "b"):
                    assert (await store.workflows.get(id)).id == id

        run(scenario())

    def test_what_was_never_stored_is_said_to_be_missing(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await store.workflows.put(workflow())
                for attempt in (
                    lambda: store.workflows.get("other"),
                    lambda: store.workflows.get("triage", 2),
                    lambda: store.workflows.versions("other"),
                    lambda: store.workflows.delete("other"),
                    lambda: store.workflows.delete("triage", 2),
                ):
                    with refused(NotStoredError) as missing:
                        await attempt()
                    assert (missing.error.what, missing.error.url) == ("workflow", store.url)

        run(scenario())

    def test_lists_are_in_order_and_page_by_page(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                ids = ["B", "Z", "a", "aa", "b", "é", "\U0001f600"]
                for id in reversed(ids):
                    await store.workflows.put(workflow(id, text="old"))
                    await store.workflows.put(workflow(id, text="new"))
                for limit in (1, 2, 7, MAX_PAGE):
                    heads = await all_pages(
                        lambda after, limit=limit: store.workflows.list(limit=limit, after=after)
                    )
                    assert [head.id for head in heads] == ids, "code points decide, not a language"
                    assert {head.version for head in heads} == {2}
                for text in range(5):
                    await store.workflows.put(workflow("B", text=text))
                versions = await all_pages(lambda after: store.workflows.versions("B", limit=2, after=after))
                assert [head.version for head in versions] == [7, 6, 5, 4, 3, 2, 1]

        run(scenario())

    def test_puts_at_the_same_time_get_a_version_each(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.several(3) as stores:
                heads, faults = await outcomes(
                    *(stores[text % 3].workflows.put(workflow(text=text)) for text in range(12))
                )
                assert faults == []
                assert sorted(head.version for head in heads) == list(range(1, 13))
                same, faults = await outcomes(
                    *(stores[each % 3].workflows.put(workflow(text="same")) for each in range(12))
                )
                assert faults == []
                assert {head.version for head in same} == {13}

        run(scenario())

    def test_a_deleted_workflow_is_gone_and_one_in_use_is_not_deleted(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                await an_execution(store)
                await store.workflows.put(workflow(text="newer"))
                for version in (None, 1):
                    with refused(WorkflowInUseError):
                        await store.workflows.delete("triage", version)
                assert (await store.workflows.get("triage")).version == 2
                await store.workflows.delete("triage", 2)
                assert (await store.workflows.get("triage")).version == 1
                await store.workflows.put(workflow("other"))
                await store.workflows.delete("other")
                assert [head.id for head in (await store.workflows.list()).items] == ["triage"]

        run(scenario())

    def test_names_no_store_can_keep_are_refused(self, subject: StoreSubject) -> None:
        async def scenario() -> None:
            async with subject.opened() as store:
                for name in ("a\0b", "x" * 1_001):
                    with refused(StoreInputError):
                        await store.workflows.put(workflow(name))
                    with refused(StoreInputError):
                        await store.workflows.get(name)
                for limit in (0, MAX_PAGE + 1, True, "5"):
                    with refused(StoreInputError):
                        await store.workflows.list(limit=limit)  # pyright: ignore[reportArgumentType] - that is the point
                for version in (-1, True, "1", 1.0, 2**63):
                    with refused(StoreInputError):
                        await store.workflows.get("triage", version)  # pyright: ignore[reportArgumentType] - as above
                    with refused(StoreInputError):
                        await store.workflows.delete("triage", version)  # pyright: ignore[reportArgumentType] - as above
                for after in ("", "nonsense", "ü", "gA=="):
                    with refused(StoreInputError):
                        await store.workflows.list(after=after)
                assert (await store.workflows.list()).items == ()

        run(scenario())
