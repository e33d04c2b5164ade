"""What customers say beside the matter: greetings, weather, dogs, names, and the small words that fill slots.

Nothing here decides a label. As in `phrases.py`, the fourth of every five `DETAILS` is kept for test and the fifth for
dev tickets.

    python -c "import smalltalk; print(len(smalltalk.DETAILS), 'irrelevant details')"
"""

from __future__ import annotations

GREETINGS = ["Hello,", "Hi,", "Dear Tarnwell team,", "Good morning,", "Hey there,", "To whom it may concern,",
             "Hi all,", "Good evening,", "Dear sir or madam,", "Hello Tarnwell,", "Hi folks,",
             "Dear support,"]  # fmt: skip

CLOSINGS = ["Thanks, {name}", "Kind regards, {name}", "Cheers, {name}", "{name}", "Many thanks.", "Best wishes, {name}",
            "Yours, {name}", "Thank you!", "All the best, {name}", "Greetings from {town}, {name}"]  # fmt: skip

DETAILS = [
    "It has rained here for a week.",
    "My dog runs beside me on most rides.",
    "I ride eleven miles to work.",
    "A neighbour told me about your shop.",
    "We live at the top of a steep hill.",
    "The colour is lovely, I must say.",
    "I am writing this on the train, so forgive the typing.",
    "My old bike lasted fourteen years.",
    "The roads here are mostly cobbles.",
    "I am sixty and have cycled all my life.",
    "The bike sleeps in a dry shed.",
    "My flatmate has a bike from you as well.",
    "It was sunny and dry all day.",
    "I mostly ride along the canal.",
    "Your shop in {town} was very friendly.",
    "I am not a mechanic.",
    "Our cat likes to sleep in the bike basket.",
    "I have two kids and little sleep.",
    "I tried to ring you but only heard music.",
    "The bike is otherwise a joy.",
    "The winter in {town} is long and salty.",
    "I use it for the school run.",
    "I am new to cycling.",
    "I have photos if you want them.",
    "My brother in {town} rides the same model of bike.",
    "We are a small bike courier firm.",
    "I like your catalogue very much.",
    "The first frost came early this year.",
    "I have been a customer for nine years.",
    "My English is not so good, sorry.",
    "I shop with you because it is local.",
    "I am new to your shop.",
    "There was a strong wind off the sea.",
    "I told my cycling group about it.",
    "I work nights, so mail is better than phone.",
    "My garage is full of bike bits.",
    "The ride to {town} is flat and pretty.",
    "My father was a bike builder.",
    "Last summer I rode to {town} and back.",
    "I keep the bike very clean.",
]

OTHER_PRODUCT = "The {other} that I also have from you works well."

NAMES = ["Nora", "Ivan", "Priya", "Tom", "Aylin", "Jonas", "Mei", "Carla", "Sam", "Oluwaseun", "Greta", "Hugo",
         "Fatima", "Lars", "Ines", "Paul", "Zofia", "Dev", "Ruth", "Marek", "Bea", "Kofi", "Anna", "Luc"]  # fmt: skip
TOWNS = ["Marlow", "Brunnen", "Leiden", "Kotor", "Hexham", "Aarau", "Ghent", "Tartu"]
MONTHS = ["January", "March", "April", "May", "June", "August", "September", "November"]
PAST = ["last month", "in spring", "two months ago", "in the winter sale", "a few weeks ago", "shortly after Easter",
        "half a year ago", "early in the summer", "last autumn", "around New Year"]  # fmt: skip
RECENT = ["yesterday", "this morning", "on Tuesday", "three days ago", "two days ago", "last night", "on Monday"]
USES = [
    "a dozen rides",
    "one wet weekend",
    "two short trips",
    "a month of commuting",
    "the first long ride",
    "five rides",
]
LATELY = ["two weeks ago", "ten days ago", "at the start of the month", "three weeks ago", "early this month"]
