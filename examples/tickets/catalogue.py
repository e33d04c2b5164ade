"""The invented maker: kinds of product, names, and the words of its handbook.

Tarnwell Cycles does not exist. This file holds words only: part codes and warranty days are drawn in `generate.py`.

    python -c "import catalogue; print(len(catalogue.KINDS), 'kinds of product')"
"""

from __future__ import annotations

from dataclasses import dataclass

VARIANTS = ["City", "Trail", "Tour", "Sport", "Pro", "Lite", "Plus", "Junior", "Urban", "Alpine", "Gravel", "Turbo",
            "Classic", "Prime", "Nova", "Solo", "Nomad", "Scout", "Ranger", "Ultra"]  # fmt: skip

COLOURS = ["black", "silver", "moss green", "dark blue", "grey", "cream", "white", "rust red"]

# Four ways to say the same facts: a reader has to find the code and the days, not a fixed column.
LAYOUTS = [
    "The {product} is our {colour} {noun}. Part code: {code}. Warranty: {days} days. {blurb}",
    "Part {code} belongs to the {product} {noun}, sold in {colour}. It is under warranty for {days} days. {blurb}",
    "{blurb} The {colour} {product} {noun} is listed under part code {code}; its warranty is {days} days.",
    "The {product} {noun} comes in {colour}. It carries part code {code} and {days} days of warranty. {blurb}",
]


@dataclass(frozen=True)
class Kind:
    """One kind of product: its handbook file, what customers call it, its series (three variants each), its blurbs.

    `nouns[0]` is the official word; all are singular, so that "it" always fits.
    `risky` says whether a fault of it can plausibly hurt somebody.
    """

    file: str
    title: str
    nouns: tuple[str, ...]
    series: tuple[str, str, str, str, str]
    blurbs: tuple[str, ...]
    risky: bool = True


KINDS = {
    "brake": Kind(
        "brakes.md",
        "Brakes",
        ("brake set", "disc brake", "brake"),
        ("Heron", "Basalt", "Aspen", "Rigel", "Otter"),
        (
            "New pads bite best after a few gentle stops.",
            "The hose can be shortened with a sharp knife.",
            "It runs on mineral oil, never on brake fluid.",
            "Keep the disc free of grease and polish.",
            "The lever reach is set with a small screw.",
        ),
    ),
    "wheel": Kind(
        "wheels.md",
        "Wheels",
        ("wheelset", "set of wheels"),
        ("Falcon", "Onyx", "Cedar", "Vega", "Badger"),
        (
            "Spokes settle in, so have it trued after the first rides.",
            "The rims take tyres with or without tubes.",
            "Its hubs are sealed against rain and road salt.",
            "Spare spokes lie in the box beside the skewers.",
            "It is laced by hand in our own workshop.",
        ),
    ),
    "saddle": Kind(
        "saddles.md",
        "Saddles",
        ("saddle", "bike saddle"),
        ("Osprey", "Granite", "Maple", "Lyra", "Lynx"),
        (
            "The cover wants a little wax once a year.",
            "A soft channel down the middle takes the pressure off.",
            "The rails fit every common seat post.",
            "Set it level before you try any other angle.",
            "Its shell bends slightly with each leg.",
        ),
        risky=False,
    ),
    "light": Kind(
        "lights.md",
        "Lights",
        ("front light", "headlight", "lamp"),
        ("Raven", "Quartz", "Rowan", "Altair", "Ibex"),
        (
            "A short press dims it, a long press turns it off.",
            "The strap fits round and oval handlebars.",
            "It charges from any ordinary phone plug.",
            "Aim the beam at the road, well below the eyes of others.",
            "The lens is glass and can be wiped with a dry cloth.",
        ),
    ),
    "battery": Kind(
        "batteries.md",
        "Batteries",
        ("battery", "battery pack", "e-bike battery"),
        ("Condor", "Amber", "Hazel", "Sirius", "Marten"),
        (
            "Store it half full and away from frost.",
            "The key stays the same when the pack is changed.",
            "It talks to the motor through four gold contacts.",
            "Charge it indoors on a firm, dry floor.",
            "A button on the side shows how much is left.",
        ),
    ),
    "gear": Kind(
        "gears.md",
        "Gears",
        ("derailleur", "rear derailleur"),
        ("Plover", "Slate", "Alder", "Orion", "Fennec"),
        (
            "The long cage suits cassettes with very large sprockets.",
            "Its clutch keeps the chain quiet on rough ground.",
            "Two screws set how far it swings.",
            "A drop of oil on each pivot keeps it quick.",
            "It works with all our shifters since the first year.",
        ),
    ),
    "fork": Kind(
        "forks.md",
        "Forks",
        ("suspension fork", "fork", "front fork"),
        ("Puffin", "Cobalt", "Juniper", "Mistral", "Bison"),
        (
            "Air pressure is set by the weight of the rider.",
            "The lower legs are cast in one piece.",
            "Wipe the legs clean after every muddy ride.",
            "A lever on top makes it stiff for climbs.",
            "It leaves room for a full mudguard.",
        ),
    ),
    "pedal": Kind(
        "pedals.md",
        "Pedals",
        ("pedal set", "set of pedals"),
        ("Curlew", "Flint", "Willow", "Zephyr", "Gecko"),
        (
            "Grease the threads before you screw it in.",
            "The pins can be changed one at a time.",
            "The left side turns in against the clock.",
            "Its bearings are closed and need no care.",
            "Wide platforms give hold even to wet shoes.",
        ),
    ),
    "lock": Kind(
        "locks.md",
        "Locks",
        ("bike lock", "lock"),
        ("Magpie", "Marble", "Linden", "Sirocco", "Beaver"),
        (
            "Two keys and a bracket are in the box.",
            "A drop of graphite keeps the cylinder moving.",
            "Its links are wrapped so that paint stays whole.",
            "Write down the key number before you ride off.",
            "The bracket screws on where a bottle cage would sit.",
        ),
        risky=False,
    ),
    "seat": Kind(
        "child-seats.md",
        "Child seats",
        ("child seat", "kid seat"),
        ("Starling", "Opal", "Poplar", "Danube", "Koala"),
        (
            "The straps move up as the child grows.",
            "It swings off the rack with one button.",
            "The cushion can be washed by hand.",
            "It leans back for a nap with one lever.",
            "Feet stay clear of the spokes behind wide guards.",
        ),
    ),
    "trailer": Kind(
        "trailers.md",
        "Trailers",
        ("trailer", "bike trailer", "cargo trailer"),
        ("Egret", "Jasper", "Cypress", "Tiber", "Walrus"),
        (
            "It folds flat once both wheels are off.",
            "The hitch fits on the left of the rear axle.",
            "A bright flag belongs on it at all times.",
            "Its floor can be hosed down after a muddy trip.",
            "Load it low and a little towards the front.",
        ),
    ),
    "bag": Kind(
        "bags.md",
        "Bags",
        ("pannier", "pannier bag", "side bag"),
        ("Finch", "Garnet", "Laurel", "Volga", "Marmot"),
        (
            "Roll the top three times and it keeps out rain.",
            "The hooks suit thin and thick rack tubes.",
            "An inner pocket holds a small laptop.",
            "It turns into a shoulder bag in a moment.",
            "Reflecting patches shine on both sides.",
        ),
        risky=False,
    ),
}

# Long enough to be cut at their headings, like the product pages.
GENERAL_PAGES = {
    "service.md": """\
# Service

## How long the warranty lasts

Every product has its own warranty, counted in days from the date on the invoice. We ride test pieces until they fail
and set the days from what we see, so the numbers are odd. They stand on the page of the product.

## What the warranty covers

Faults of material and making are covered. Wear, crashes, wrong fitting and pressure washers are not. Keep the invoice:
without it we cannot tell when the warranty began.

## Sending a product back

Pack it in the first box if you still have it and put the return slip on top. Large parcels are fetched by the courier.
Batteries travel by road only and need the red sticker from our shop.

## Getting money back

A refund goes to the card or account that paid. Postage is paid back when the mistake was ours. Please allow the bank
a few working days.

## Finding a parcel

Each parcel has a tracking number in the email that we send when it leaves. If the number stands still for more than
five working days, we ask the courier to search for it.

## Parcels damaged on the way

Take a picture of the box before you open it. We replace what was broken on the way, whoever dropped it.

## Repairs in our workshop

Book a place before you send anything in. A mechanic looks at every piece, calls you with the price if the warranty does
not cover it, and sends it back clean.
""",
    "tickets.md": """\
# How tickets are sorted

## Category

Defect: it failed in use. Damaged: it was broken on arrival. Delivery: it has not come. Wrong: another size, colour or
version came. Billing: the money is not right. Question: nothing is amiss, the customer wants to know something.

## Priority

A ticket is urgent when a person was hurt or came close to it, whatever else it says. It is high when the customer gives
a date or a deadline ahead. A ticket without hurry is
normal.

## Actions

Every urgent ticket gets stop: the customer is told not to ride on. Then comes what the customer asks for: repair,
replace, refund, trace or explain.

## Part codes

Copy the part code and the warranty days from the page of the product that the ticket is about. Other products that the
customer mentions do not count. Never write a code from memory.
""",
}
