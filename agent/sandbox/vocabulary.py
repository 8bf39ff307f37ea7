# ruff: noqa: RUF001 - names and words are written as their languages write them
"""What the sample application teaches: words, sentences and names for the dataset.

Plain data, called by ``dataset.py``.
"""

from __future__ import annotations

# kanji, kana, romaji, meaning, JLPT level
WORDS = (
    ("水", "みず", "mizu", "water", 5),
    ("火", "ひ", "hi", "fire", 5),
    ("山", "やま", "yama", "mountain", 5),
    ("川", "かわ", "kawa", "river", 5),
    ("雨", "あめ", "ame", "rain", 5),
    ("本", "ほん", "hon", "book", 5),
    ("車", "くるま", "kuruma", "car", 5),
    ("駅", "えき", "eki", "station", 5),
    ("友達", "ともだち", "tomodachi", "friend", 5),
    ("学校", "がっこう", "gakkō", "school", 5),
    ("先生", "せんせい", "sensei", "teacher", 5),
    ("時間", "じかん", "jikan", "time", 5),
    ("天気", "てんき", "tenki", "weather", 5),
    ("電話", "でんわ", "denwa", "telephone", 5),
    ("食べる", "たべる", "taberu", "to eat", 5),
    ("飲む", "のむ", "nomu", "to drink", 5),
    ("読む", "よむ", "yomu", "to read", 5),
    ("書く", "かく", "kaku", "to write", 5),
    ("新しい", "あたらしい", "atarashii", "new", 5),
    ("古い", "ふるい", "furui", "old", 5),
    ("経験", "けいけん", "keiken", "experience", 4),
    ("準備", "じゅんび", "junbi", "preparation", 4),
    ("約束", "やくそく", "yakusoku", "promise", 4),
    ("特別", "とくべつ", "tokubetsu", "special", 4),
    ("安全", "あんぜん", "anzen", "safety", 4),
    ("運転", "うんてん", "unten", "driving", 4),
    ("昼間", "ひるま", "hiruma", "daytime", 4),
    ("景色", "けしき", "keshiki", "scenery", 4),
    ("続ける", "つづける", "tsuzukeru", "to continue", 4),
    ("調べる", "しらべる", "shiraberu", "to look up", 4),
    ("比べる", "くらべる", "kuraberu", "to compare", 4),
    ("届ける", "とどける", "todokeru", "to deliver", 4),
    ("影響", "えいきょう", "eikyō", "influence", 3),
    ("習慣", "しゅうかん", "shūkan", "habit", 3),
    ("努力", "どりょく", "doryoku", "effort", 3),
    ("環境", "かんきょう", "kankyō", "environment", 3),
    ("記憶", "きおく", "kioku", "memory", 3),
    ("想像", "そうぞう", "sōzō", "imagination", 3),
    ("温度", "おんど", "ondo", "temperature", 3),
    ("確認", "かくにん", "kakunin", "confirmation", 3),
    ("増える", "ふえる", "fueru", "to increase", 3),
    ("避ける", "さける", "sakeru", "to avoid", 3),
    ("抽象", "ちゅうしょう", "chūshō", "abstraction", 2),
    ("矛盾", "むじゅん", "mujun", "contradiction", 2),
    ("維持", "いじ", "iji", "maintenance", 2),
    ("柔軟", "じゅうなん", "jūnan", "flexible", 2),
    ("克服", "こくふく", "kokufuku", "overcoming", 1),
    ("曖昧", "あいまい", "aimai", "vague", 1),
)

# with {kanji} where the word goes, and a translation with {meaning}
SENTENCES = (
    ("毎朝、{kanji}のことを考えます。", "Every morning I think about {meaning}."),
    ("この{kanji}は何ですか。", "What is this {meaning}?"),
    ("先生は{kanji}という言葉を三回言いました。", "The teacher said the word for {meaning} three times."),
    ("{kanji}について友達と話しました。", "I talked with a friend about {meaning}."),
    ("昨日の授業で{kanji}を習いました。", "We learned {meaning} in yesterday's class."),
    ("{kanji}と書いてください。", "Please write down {meaning}."),
    ("その本には{kanji}が何度も出てきます。", "The word for {meaning} comes up again and again in that book."),
    ("テストに{kanji}が出るかもしれません。", "The test may well ask for {meaning}."),
)

MNEMONICS = (
    "Say {romaji} aloud while you picture {meaning} in the room where you grew up.",
    "The reading {romaji} is easiest with a rhythm: clap once for every mora.",
    "Draw the strokes slowly from left to right; the last one is what makes it {meaning}.",
    "You met one half of this character in an earlier lesson; the other half carries the sound {romaji}.",
)

GIVEN_NAMES = (
    "Haruka", "Yuki", "Ren", "Sora", "Aoi", "Mei", "Léa", "Jürgen", "Zoë", "Óscar", "Priya", "Amara", "Noah",
    "Olivia", "Mateo", "Ines", "Kofi", "Anaïs", "Łukasz", "Søren", "さくら", "大輔", "美咲", "健太", "Иван", "Nâzım",
)  # fmt: skip

FAMILY_NAMES = (
    "Tanaka", "Suzuki", "Okafor", "García", "Müller", "Dubois", "Rossi", "Novák", "Ström", "Patel", "Kim", "Silva",
    "O'Brien", "渡辺", "高橋", "Петров", "Yılmaz", "Nguyễn", "Smith", "Haddad",
)  # fmt: skip

CITIES = (
    ("Asia/Tokyo", 35.6762, 139.6503), ("Europe/Berlin", 52.52, 13.405), ("America/New_York", 40.7128, -74.006),
    ("America/Sao_Paulo", -23.5505, -46.6333), ("Australia/Sydney", -33.8688, 151.2093),
    ("Africa/Lagos", 6.5244, 3.3792), ("Pacific/Auckland", -36.8485, 174.7633), ("Asia/Kolkata", 19.076, 72.8777),
)  # fmt: skip

BADGES = ("first-steps", "week-streak", "month-streak", "hundred-kanji", "night-owl", "early-bird", "perfect-ten", "🎌")

TOPICS = (
    "Ordering at a restaurant", "Asking the way", "At the station", "Talking about the weather", "Family and friends",
    "Keigo for beginners", "Counting things", "Describing people", "On the telephone", "Making plans",
    "Verbs of giving and receiving", "The te-form", "Conditionals", "Passive and causative", "Reading the news",
)  # fmt: skip

STATUSES = ("new", "learning", "review", "relearning", "mastered", "suspended")
