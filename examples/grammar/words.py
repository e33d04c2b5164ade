"""The words of the small grammar: who does what, how it is spelled in each form, and which preposition goes with it."""

# singular, plural
PEOPLE = [
    ("teacher", "teachers"), ("artist", "artists"), ("doctor", "doctors"), ("engineer", "engineers"),
    ("neighbour", "neighbours"), ("uncle", "uncles"), ("student", "students"), ("farmer", "farmers"),
    ("actor", "actors"), ("nurse", "nurses"), ("child", "children"), ("woman", "women"), ("editor", "editors"),
    ("pilot", "pilots"), ("cook", "cooks"), ("officer", "officers"),
]  # fmt: skip
THINGS = [
    ("apple", "apples"), ("letter", "letters"), ("umbrella", "umbrellas"), ("book", "books"), ("orange", "oranges"),
    ("ticket", "tickets"), ("picture", "pictures"), ("egg", "eggs"), ("window", "windows"), ("engine", "engines"),
    ("box", "boxes"), ("knife", "knives"), ("idea", "ideas"), ("key", "keys"), ("story", "stories"),
    ("instrument", "instruments"),
]  # fmt: skip
ADJECTIVES = [
    "old", "new", "small", "honest", "empty", "heavy", "young", "interesting", "broken", "open", "quiet", "ugly",
    "famous", "expensive",
]  # fmt: skip
# third person, other persons, past
ACTIONS = [
    ("buys", "buy", "bought"), ("finds", "find", "found"), ("carries", "carry", "carried"),
    ("needs", "need", "needed"), ("sells", "sell", "sold"), ("brings", "bring", "brought"),
    ("paints", "paint", "painted"), ("wants", "want", "wanted"), ("keeps", "keep", "kept"),
    ("opens", "open", "opened"), ("loses", "lose", "lost"), ("admires", "admire", "admired"),
]  # fmt: skip
# the same, and the preposition that belongs to it
RELATIONS = [
    ("listens", "listen", "listened", "to"), ("waits", "wait", "waited", "for"), ("looks", "look", "looked", "at"),
    ("depends", "depend", "depended", "on"), ("thinks", "think", "thought", "about"),
    ("asks", "ask", "asked", "for"), ("laughs", "laugh", "laughed", "at"), ("belongs", "belong", "belonged", "to"),
    ("worries", "worry", "worried", "about"), ("agrees", "agree", "agreed", "with"),
]  # fmt: skip
# preposition, rest
TIMES = [
    ("in", "the morning"), ("at", "night"), ("on", "Monday"), ("on", "Friday"), ("in", "summer"), ("at", "noon"),
    ("in", "the evening"), ("on", "Sundays"), ("in", "winter"), ("at", "the weekend"),
]  # fmt: skip
PLACES = [
    ("at", "the station"), ("in", "the garden"), ("on", "the bus"), ("at", "school"), ("in", "the kitchen"),
    ("at", "home"), ("on", "the roof"), ("in", "the city"),
]  # fmt: skip
OFTEN = ["always", "often", "sometimes", "never", "usually", "rarely"]
PREPOSITIONS = ["in", "at", "on", "to", "for", "about", "with"]
PRONOUNS = [("he", False), ("she", False), ("they", True), ("we", True), ("you", True), ("I", True)]
