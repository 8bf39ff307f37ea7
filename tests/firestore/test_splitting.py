"""Cutting the database: nothing twice, nothing left out, about equal parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.firestore.names import sort_key
from agent.firestore.scopes import Collection, NameRange, Scope
from agent.firestore.splitting import plan

_SEGMENT = st.text("ab0_é", min_size=1, max_size=3)
_PATHS = st.lists(
    st.sampled_from([2, 4]).flatmap(lambda depth: st.lists(_SEGMENT, min_size=depth, max_size=depth)).map("/".join),
    unique=True,
    max_size=30,
)


def _inside(path: str, scope: Scope) -> bool:
    if isinstance(scope, Collection):
        return path.rpartition("/")[0] == scope.path
    assert isinstance(scope, NameRange)
    return (not scope.first or sort_key(path) >= sort_key(scope.first)) and (
        not scope.last or sort_key(path) < sort_key(scope.last)
    )


@given(_PATHS, st.integers(1, 6), st.booleans(), st.data())
def test_every_document_lies_in_exactly_one_scope(
    paths: list[str], parts: int, pageable: bool, data: st.DataObject
) -> None:
    """Whatever the cuts are, and whether or not flat collections are left whole."""
    scopes = plan(
        parts=parts,
        roots=sorted({path.partition("/")[0] for path in paths}),
        count=lambda scope: sum(_inside(path, scope) for path in paths),
        cuts=lambda _root, pieces: data.draw(st.lists(st.sampled_from(paths), max_size=pieces)),
        pageable=pageable,
    )
    for path in paths:
        assert sum(_inside(path, scope) for scope in scopes) == 1


def _plan(paths: list[str], parts: int, sizes: dict[str, float] | None = None) -> dict[str, int]:
    """Number of scopes by root collection; the server cuts into exactly as many pieces as it is asked for."""
    scopes = plan(
        parts=parts,
        roots=sorted({path.partition("/")[0] for path in paths}),
        count=lambda scope: sum(_inside(path, scope) for path in paths),
        cuts=lambda root, pieces: [f"{root}/d{number * 40 // pieces:03}" for number in range(1, pieces)],
        pageable=False,
        sizes=sizes,
    )
    found: dict[str, int] = {}
    for scope in scopes:
        root = next(path for path in sorted(paths, key=sort_key) if _inside(path, scope)).partition("/")[0]
        found[root] = found.get(root, 0) + 1
    return found


def test_parts_are_equal_in_bytes_where_sizes_are_known() -> None:
    """40 documents of 9 KB and 40 of 1 KB: nine tenths of the readers go to the former, half if nothing is known."""
    paths = [f"{root}/d{number:03}" for root in ("large", "small") for number in range(40)]
    assert _plan(paths, 10) == {"large": 5, "small": 5}
    assert _plan(paths, 10, {"large": 9000, "small": 1000}) == {"large": 9, "small": 1}


def test_a_collection_of_unknown_size_counts_as_the_others_do() -> None:
    """One that is new since; and no collection is cut into more pieces than it has documents."""
    paths = [f"{root}/d{number:03}" for root in ("large", "new") for number in range(40)]
    assert _plan(paths, 10, {"large": 9000, "gone": 1}) == {"large": 5, "new": 5}
    assert _plan(["few/d000", "few/d020", "small/d001"], 10, {"few": 1_000_000, "small": 1}) == {"few": 2, "small": 1}


def test_a_flat_collection_is_left_whole_for_pages_and_a_nested_one_is_cut() -> None:
    """Pages see only what lies directly in a collection."""
    paths = [f"flat/d{n}" for n in range(8)] + [f"tree/d{n}/sub/x" for n in range(8)]
    scopes = plan(
        parts=4,
        roots=["tree", "flat"],
        count=lambda scope: sum(_inside(path, scope) for path in paths),
        cuts=lambda *_: ["tree/d4/sub/x"],
        pageable=True,
    )
    assert scopes == [
        Collection(path="flat"),
        NameRange(first="tree/__id-9223372036854775808__", last="tree/d4/sub/x"),
        NameRange(first="tree/d4/sub/x"),
    ]
    assert [scope.expected for scope in scopes] == [8, 4, 4]
