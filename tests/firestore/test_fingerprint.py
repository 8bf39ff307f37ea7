"""One number for a set of documents."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.firestore import Fingerprinter, RawDocument, encode_fields, fingerprint
from agent.firestore.document import with_name


def _document(path: str, value: object, project: str = "p") -> RawDocument:
    name = f"projects/{project}/databases/(default)/documents/{path}"
    return RawDocument(with_name(name, encode_fields({"v": value})))


_DOCUMENTS = st.dictionaries(
    st.sampled_from([f"{collection}/d{n}" for collection in ("users", "reviews", "users/u1/items") for n in range(4)]),
    st.integers(0, 3),
    max_size=8,
)


@given(_DOCUMENTS, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_parts_add_up(contents: dict[str, int], shuffled: object) -> None:
    """Two readers in any order see the fingerprint that one reader sees."""
    documents = [_document(path, value) for path, value in contents.items()]
    whole = fingerprint(documents)
    getattr(shuffled, "shuffle")(documents)  # noqa: B009  # Hypothesis gives its own Random
    one, two = Fingerprinter(), Fingerprinter()
    for index, document in enumerate(documents):
        (one if index % 2 else two).add(document)
    one.merge(two)
    assert one.result() == whole
    assert whole.documents == len(contents) == sum(part.documents for part in whole.collections.values())


@given(_DOCUMENTS, _DOCUMENTS)
def test_equal_exactly_if_the_documents_are(left: dict[str, int], right: dict[str, int]) -> None:
    """Equal paths and contents give equal digests; the collections that differ are named."""
    a = fingerprint(_document(path, value) for path, value in left.items())
    b = fingerprint(_document(path, value) for path, value in right.items())
    assert (a == b) is (left == right)
    assert bool(a.differences(b)) is (left != right)


def test_a_copy_in_another_project_has_the_same_fingerprint() -> None:
    """Drills and deep verification compare across databases."""
    assert fingerprint([_document("users/u1", 1)]) == fingerprint([_document("users/u1", 1, project="copy")])


def test_excluded_root_collections_do_not_count() -> None:
    """Transient documents may change without changing the fingerprint, also those beneath them."""
    documents = [_document("users/u1", 1), _document("sessions/s1", 2), _document("sessions/s1/users/u9", 3)]
    assert fingerprint(documents, exclude=["sessions"]) == fingerprint(documents[:1])


def test_a_swap_of_two_contents_is_noticed() -> None:
    """The path is part of what is summed."""
    before = fingerprint([_document("users/a", 1), _document("users/b", 2)])
    after = fingerprint([_document("users/a", 2), _document("users/b", 1)])
    assert before.differences(after) == ["users"]
