"""Everyday text that has nothing to do with the mill: errands, meals, journeys and the weather."""

from __future__ import annotations

import random

NAMES = ("Anna", "Peter", "Maria", "David", "Sarah", "Thomas", "Julia", "Michael", "Emma", "Paul", "Laura", "Simon")
PLACES = (
    "the library",
    "the market",
    "the station",
    "the park",
    "the museum",
    "the school",
    "the hospital",
    "the bank",
)
FOODS = ("bread and cheese", "a bowl of soup", "rice with vegetables", "an apple pie", "fried eggs", "a green salad")
THINGS = ("an umbrella", "a pair of shoes", "a train ticket", "a birthday card", "two books", "a winter coat")
TIMES = ("On Monday morning", "Last weekend", "In the afternoon", "Before breakfast", "Late in the evening", "At noon")
WEATHERS = ("it was raining", "the sun was shining", "it had snowed during the night", "a cold wind blew")
FEELINGS = ("tired but happy", "a little disappointed", "surprised", "hungry", "glad to be home", "ready to sleep")
RIDES = ("by bus", "on foot", "by bicycle", "by train", "in a neighbour's car")
FRIENDS = ("an old friend from school", "a cousin", "a teacher", "the new neighbour", "a colleague from the office")
TALKS = (
    "the price of houses",
    "a film that both had seen",
    "the plans for the summer",
    "a book about the history of the city",
    "the results of the election",
    "the football match",
)

SENTENCES = (
    "{time} {name} went to {place} {ride}, because {other} needed {thing}.",
    "{time}, when {weather}, {name} met {friend} near {place}.",
    "They talked about {talk} for an hour and drank a cup of coffee.",
    "{name} had forgotten the money at home, so {other} paid for everything.",
    "The shop was closed, and a sign in the window said that it would open again next week.",
    "For dinner they ate {food}, which {name} had made according to a recipe from the newspaper.",
    "The children played in the garden until it became dark.",
    "{name} said that {talk} was not worth an argument, and {other} agreed.",
    "On the way back {name} noticed that {weather} and walked a little faster.",
    "In the evening {name} was {feeling}.",
    "{other} asked whether {name} could help with the computer, which had stopped working.",
    "The doctor recommended more exercise and less sugar.",
    "{name} bought {thing} for {other} and carried it home {ride}.",
    "At {place} there was a long queue, but nobody complained.",
    "Nobody knew why the train was late, and the loudspeaker could not be understood.",
    "{other} has lived near {place} for many years and knows most of the people there.",
)


def texts(count: int, seed: int) -> list[str]:
    """Return so many different short texts."""
    chance = random.Random(f"everyday {seed}")
    return [_text(chance) for _ in range(count)]


def _text(chance: random.Random) -> str:
    name, other = chance.sample(NAMES, 2)
    told = []
    for sentence in chance.sample(SENTENCES, chance.randint(6, 9)):
        told.append(
            sentence.format(
                name=name,
                other=other,
                time=chance.choice(TIMES),
                place=chance.choice(PLACES),
                food=chance.choice(FOODS),
                thing=chance.choice(THINGS),
                weather=chance.choice(WEATHERS),
                feeling=chance.choice(FEELINGS),
                ride=chance.choice(RIDES),
                friend=chance.choice(FRIENDS),
                talk=chance.choice(TALKS),
            )
        )
    return " ".join(told)
