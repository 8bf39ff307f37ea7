"""The first user's database: an application for learning Japanese, 306,725 documents in five collections.

The counts are the ones on the runbook's page. Everything follows from a document's collection and number and from
the scale, so two runs make the same bytes. Every value type of Firestore occurs, in places where an application
would have it; a share of ``progress`` and ``review_items`` lives in subcollections, some of them under documents
that don't exist. Called by ``seeding.py``; nothing here talks to a server.
"""

from __future__ import annotations

import base64
import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from agent.sandbox.encoding import GeoPoint, Moment, Reference, Vector, field, fields
from agent.sandbox.vocabulary import (
    BADGES,
    CITIES,
    FAMILY_NAMES,
    GIVEN_NAMES,
    MNEMONICS,
    SENTENCES,
    STATUSES,
    TOPICS,
    WORDS,
)

# Documents of each collection at scale 1, subcollections of the same name included, in the page's order.
COUNTS = {"users": 5_234, "lessons": 8_901, "reviews": 45_678, "review_items": 234_567, "progress": 12_345}
SESSIONS = 500  # transient: neither counted nor migrated
MAINTENANCE = "_config/maintenance"

EPOCH = 1_757_487_600  # 2025-09-10 07:00 UTC, when the page's final backup starts; all times lie around it
_DAY = 86_400
_VARIETY = 499  # prepared contents per collection; prime, so that they pair differently with every other cycle

INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)


@dataclass(frozen=True, slots=True)
class Planned:
    """One document to write: its path below ``documents`` and its serialised fields."""

    collection: str
    path: str
    fields: bytes


def scaled(count: int, scale: float) -> int:
    """``count`` at ``scale``; never none."""
    return max(1, round(count * scale))


def total(scale: float) -> int:
    """How many documents :func:`documents` makes that the page counts (no sessions, no configuration)."""
    return sum(scaled(count, scale) for count in COUNTS.values())


def document_id(collection: str, number: int) -> str:
    """The id of a collection's document by its number: 20 letters and digits, as clients make them."""
    digest = hashlib.blake2b(f"{collection}/{number}".encode(), digest_size=15).digest()
    return base64.b64encode(digest, b"xy").decode()


def documents(root: str, scale: float) -> Iterator[Planned]:
    """Every document of the database at ``scale``, collection by collection.

    Args:
        root: ``projects/p/databases/d``, for reference values.
        scale: 1 for the page's counts.
    """
    makers = _Makers(root, {name: scaled(count, scale) for name, count in COUNTS.items()})
    yield Planned("_config", MAINTENANCE, fields(enabled=False, message=""))
    yield from makers.users()
    yield from makers.lessons()
    yield from makers.reviews()
    yield from makers.review_items()
    yield from makers.progress()
    yield from makers.sessions(scaled(SESSIONS, scale))


class _Makers:
    """One generator a collection. What repeats is encoded once; what varies is joined to it."""

    def __init__(self, root: str, counts: dict[str, int]) -> None:
        self._names = f"{root}/documents/"
        self._counts = counts
        # Strings of reviews and items by the user they belong to; 20 letters each, so lengths are fixed.
        self._user_ids = [document_id("users", number) for number in range(counts["users"])]
        self._user_fields = [field("userId", user) for user in self._user_ids]
        self._word_fields = [_word_fields(random.Random(f"word {n}")) for n in range(_VARIETY)]

    def _reference(self, path: str) -> Reference:
        return Reference(self._names + path)

    def users(self) -> Iterator[Planned]:
        for number, user in enumerate(self._user_ids):
            pick = random.Random(f"users {number}")
            given, family = pick.choice(GIVEN_NAMES), pick.choice(FAMILY_NAMES)
            zone, latitude, longitude = pick.choice(CITIES)
            joined = EPOCH - pick.randrange(30 * _DAY, 900 * _DAY)
            yield Planned(
                "users",
                f"users/{user}",
                fields(
                    displayName=f"{given} {family}",
                    email=f"learner{number}@example.com",
                    premium=pick.random() < 0.2,
                    xp=(INT64_MAX, INT64_MIN, 0)[number % 5] if number % 5 < 3 else pick.randrange(250_000),
                    streakDays=pick.randrange(400),
                    # Extremes where an application has them: nothing answered yet, no time taken yet, paid back.
                    accuracy=(math.nan, 1.0, round(pick.random(), 4))[min(number % 7, 2)],
                    fastestAnswer=(math.inf, -math.inf, round(pick.uniform(0.4, 9), 3))[min(number % 6, 2)],
                    balance=(-0.0, 0.0, round(pick.uniform(-20, 80), 2))[min(number % 4, 2)],
                    createdAt=Moment(joined, pick.randrange(1_000_000) * 1_000),
                    lastActiveAt=Moment(EPOCH - pick.randrange(20 * _DAY), pick.randrange(1_000) * 1_000_000),
                    deletedAt=None,
                    home=GeoPoint(latitude + pick.uniform(-0.2, 0.2), longitude + pick.uniform(-0.2, 0.2)),
                    currentLesson=self._reference(
                        f"lessons/{document_id('lessons', pick.randrange(self._counts['lessons']))}"
                    ),
                    avatar=pick.randbytes(pick.randrange(180, 420)),
                    badges=pick.sample(BADGES, pick.randrange(5)),
                    settings={
                        "timeZone": zone,
                        "dailyGoal": pick.choice((10, 20, 50, 100)),
                        "notifications": {"email": pick.random() < 0.5, "push": True, "quietFrom": None},
                        "keyboard": {"layout": pick.choice(("romaji", "kana")), "furigana": pick.random() < 0.7},
                        "new words per day": 15,
                    },
                    devices=[
                        {"model": pick.choice(("Pixel 9", "iPhone 16", "iPad", "Web")), "seen": Moment(EPOCH)}
                        for _ in range(pick.randrange(1, 3))
                    ],
                    about=_sentences(pick, 2),
                ),
            )

    def lessons(self) -> Iterator[Planned]:
        for number in range(self._counts["lessons"]):
            pick = random.Random(f"lessons {number}")
            words = pick.sample(WORDS, 6)
            level = words[0][4]
            yield Planned(
                "lessons",
                f"lessons/{document_id('lessons', number)}",
                fields(
                    title=f"{pick.choice(TOPICS)} {number % 12 + 1}",
                    level=f"N{level}",
                    position=number,
                    published=number % 9 != 0,
                    minutes=round(pick.uniform(4, 35), 1),
                    createdAt=Moment(EPOCH - pick.randrange(900 * _DAY)),
                    introduction=_sentences(pick, 3),
                    words=[
                        {"kanji": kanji, "kana": kana, "romaji": romaji, "meaning": meaning, "level": jlpt}
                        for kanji, kana, romaji, meaning, jlpt in words
                    ],
                    exercises=[
                        {
                            "kind": pick.choice(("listen", "type", "choose", "order")),
                            "question": japanese.format(kanji=word[0]),
                            "answer": english.format(meaning=word[3]),
                            "points": pick.choice((1, 2, 5)),
                            "hint": pick.choice(MNEMONICS).format(romaji=word[2], meaning=word[3]),
                        }
                        for word, (japanese, english) in zip(words, pick.sample(SENTENCES, 4), strict=False)
                    ],
                    previous=self._reference(f"lessons/{document_id('lessons', max(number - 1, 0))}"),
                    embedding=Vector(tuple(round(pick.uniform(-1, 1), 3) for _ in range(16))),
                    audio=None if number % 5 else pick.randbytes(64),
                ),
            )

    def reviews(self) -> Iterator[Planned]:
        pick = random.Random("reviews")
        due = [field("nextReviewAt", Moment(EPOCH + hour * 3_600)) for hour in range(-240, 720)]
        started = [field("startedAt", Moment(EPOCH - day * _DAY - 37 * day)) for day in range(365)]
        scores = [fields(score=score / 100, correct=score // 5, total=20) for score in range(101)]
        intervals = [fields(intervalDays=days, ease=round(1.3 + days / 60, 3)) for days in range(120)]
        contents = [self._review_content(random.Random(f"review {n}")) for n in range(_VARIETY)]
        users = self._user_fields
        for number in range(self._counts["reviews"]):
            chance = pick.getrandbits(30)
            yield Planned(
                "reviews",
                f"reviews/{document_id('reviews', number)}",
                users[number % len(users)]
                + due[chance % 960]
                + started[chance % 365]
                + scores[chance % 101]
                + intervals[chance % 120]
                + contents[number % _VARIETY],
            )

    def _review_content(self, pick: random.Random) -> bytes:
        return fields(
            status=pick.choice(("scheduled", "open", "finished")),
            kind=pick.choice(("kanji", "vocabulary", "grammar", "listening")),
            lesson=self._reference(f"lessons/{document_id('lessons', pick.randrange(self._counts['lessons']))}"),
            finishedAt=None if pick.random() < 0.3 else Moment(EPOCH - pick.randrange(200 * _DAY), 123_456_000),
            answers=[
                {
                    "word": word[0],
                    "given": word[pick.randrange(1, 4)],
                    "seconds": round(pick.uniform(0.5, 12), 2),
                    "right": pick.random() < 0.8,
                }
                for word in pick.sample(WORDS, 5)
            ],
            note=_sentences(pick, 2),
        )

    def review_items(self) -> Iterator[Planned]:
        pick = random.Random("review_items")
        statuses = [field("status", status) for status in STATUSES]
        reviewed = [field("lastReviewedAt", Moment(EPOCH - hour * 3_600 - hour)) for hour in range(2_160)]
        due = [field("nextReviewAt", Moment(EPOCH + hour * 3_600)) for hour in range(-240, 720)]
        counters = [fields(repetitions=n, lapses=n // 9, easeFactor=1.3 + n / 50) for n in range(120)]
        users = self._user_fields
        words = self._word_fields
        reviews = self._counts["reviews"]
        for number in range(self._counts["review_items"]):
            chance = pick.getrandbits(30)
            path = f"review_items/{document_id('review_items', number)}"
            if number % 100 == 42:
                # A few belong to one review alone; of those, every second review has been deleted since.
                group = number // 400
                review = group % reviews if number // 100 % 2 == 0 else reviews + group
                path = f"reviews/{document_id('reviews', review)}/{path}"
            yield Planned(
                "review_items",
                path,
                users[chance % len(users)]
                + statuses[chance % 6]
                + reviewed[chance % 2_160]
                + due[chance % 960]
                + counters[chance % 120]
                + words[number % _VARIETY],
            )

    def progress(self) -> Iterator[Planned]:
        users = len(self._user_ids)
        contents = [_progress_content(random.Random(f"progress {n}")) for n in range(_VARIETY)]
        for number in range(self._counts["progress"]):
            user = number % users
            path = f"progress/{document_id('progress', number)}"
            lesson = document_id("lessons", number % self._counts["lessons"])
            if number % 10 == 7:
                # Kept with the learner; of those, every second learner's account is gone.
                user = number // 10 % users
                owner = user if number // 10 % 2 == 0 else users + number // 10
                path = f"users/{document_id('users', owner)}/{path}"
            yield Planned(
                "progress",
                path,
                self._user_fields[user]
                + field("lesson", self._reference(f"lessons/{lesson}"))
                + contents[number % _VARIETY],
            )

    def sessions(self, count: int) -> Iterator[Planned]:
        for number in range(count):
            yield Planned(
                "sessions",
                f"sessions/{document_id('sessions', number)}",
                self._user_fields[number % len(self._user_fields)]
                + fields(
                    startedAt=Moment(EPOCH - number * 60),
                    lastSeenAt=Moment(EPOCH - number * 30),
                    address=f"2001:db8::{number % 65_536:x}",
                    pagesSeen=number % 40,
                    active=True,
                ),
            )


def _sentences(pick: random.Random, count: int) -> str:
    parts = []
    for japanese, english in pick.sample(SENTENCES, count):
        word = pick.choice(WORDS)
        parts.append(f"{japanese.format(kanji=word[0])} {english.format(meaning=word[3])}")
    return " ".join(parts)


def _word_fields(pick: random.Random) -> bytes:
    kanji, kana, romaji, meaning, level = pick.choice(WORDS)
    japanese, english = pick.choice(SENTENCES)
    return fields(
        word={"kanji": kanji, "kana": kana, "romaji": romaji, "meaning": meaning, "level": level},
        example={"japanese": japanese.format(kanji=kanji), "english": english.format(meaning=meaning)},
        mnemonic=pick.choice(MNEMONICS).format(romaji=romaji, meaning=meaning),
        tags=pick.sample(("verb", "noun", "daily life", "travel", "work", "literature", "N5 core"), 2),
        history=[
            {"at": Moment(EPOCH - day * _DAY), "grade": pick.randrange(1, 6), "seconds": pick.uniform(0.5, 9)}
            for day in sorted(pick.sample(range(200), 4), reverse=True)
        ],
        strokes=pick.randbytes(32),
        suspendedBy=None,
        leech=pick.random() < 0.04,
    )


def _progress_content(pick: random.Random) -> bytes:
    return fields(
        percent=round(pick.random() * 100, 1),
        completed=pick.random() < 0.4,
        startedAt=Moment(EPOCH - pick.randrange(300 * _DAY)),
        updatedAt=Moment(EPOCH - pick.randrange(30 * _DAY), pick.randrange(1_000_000) * 1_000),
        minutes=pick.randrange(240),
        masteredWords=[word[0] for word in pick.sample(WORDS, 8)],
        attempts=[
            {"day": day, "score": pick.random(), "mistakes": pick.randrange(9), "note": pick.choice(TOPICS)}
            for day in range(7)
        ],
        certificate=None,
    )
