"""Short paragraphs of general knowledge, written for this example: held-out text that is like neither of the others."""

from __future__ import annotations

PARAGRAPHS = """
Water evaporates from the sea, rises as vapour and cools in higher air until it forms clouds. When the drops become
too heavy they fall as rain or snow. Part of the rain runs back to the sea in rivers, part of it sinks into the
ground, and part of it is taken up by plants and given back to the air through their leaves.

Bread needs only flour, water, salt and yeast. The yeast turns sugar into carbon dioxide, and the gas is held by
strands of gluten that form when the dough is kneaded. In the oven the bubbles grow, the starch sets and the crust
turns brown because sugars and proteins react in the heat.

A bicycle stays upright because its rider steers into every fall. At higher speed this happens almost by itself: the
front wheel turns towards the side to which the frame leans. Contrary to what many people believe, the spinning of the
wheels explains only a small part of it.

The printing press with movable type spread through Europe in the second half of the fifteenth century. Books became
cheaper within a generation, and ideas travelled faster than any authority could follow. Historians still argue about
how much of the Reformation would have been possible without it.

Green plants make sugar from carbon dioxide and water with the energy of light. The oxygen that they give off comes
from the water, not from the carbon dioxide. Most of the work happens in small bodies inside the cells, which contain
the pigment that gives leaves their colour.

A prime number has exactly two divisors, one and itself. Euclid showed more than two thousand years ago that there is
no largest one: multiply all the primes on any finite list, add one, and the result has a prime factor that is not on
the list.

The heart of an adult beats about seventy times a minute at rest. Its right side pumps blood through the lungs, where
it takes up oxygen, and its left side pumps it through the rest of the body. Valves between the chambers keep the
blood from flowing back.

Glass is made by melting sand with soda and lime and cooling the melt so quickly that it cannot form crystals. It is
hard and brittle at room temperature, but it can be blown, pressed or drawn while it is hot. Window glass floats on
molten tin while it hardens, which makes it flat.

Chess came from India to Persia and from there to the Arab world and to Europe. The queen was a weak piece for
centuries. Only at the end of the fifteenth century did she get the moves that she has today, and the game became much
faster.

Earthquakes happen where plates of the Earth's crust are caught against each other and suddenly slip. The waves that
they send out travel at different speeds, so the distance of the source can be found from the time between their
arrivals. Three stations are enough to find the place.

A sorting algorithm that compares two elements at a time cannot do better than about n log n comparisons in the worst
case. Merge sort reaches this bound: it splits the list in two, sorts each half in the same way, and merges the sorted
halves in a single pass.

The potato was brought from the Andes to Europe in the sixteenth century and was grown for a long time only as a
curiosity. When it was finally accepted as food, populations grew. In Ireland a disease of the plant led to a famine
in the middle of the nineteenth century.

Sound travels through air at about three hundred and forty metres per second. Whoever sees a flash of lightning and
counts the seconds until the thunder can tell how far away it was: three seconds mean about one kilometre. In water
sound is more than four times as fast.

Many birds find their way by the sun during the day and by the stars at night. Some can also feel the direction of the
Earth's magnetic field. Young birds of some species fly to their winter quarters alone, although nobody has ever shown
them the way.

Interest that is added to a sum earns interest itself from then on. A loan of one thousand euros at five per cent
grows to more than sixteen hundred euros in ten years if nothing is paid back. That is why small debts that are left
alone become large ones.

The lens of the eye bends light so that a small picture of the world falls on the retina, upside down. When we look at
something near, a muscle makes the lens rounder. With age the lens becomes stiff, and most people need glasses for
reading.

Paper was invented in China and was made of bark, hemp and old rags. The secret reached the Arab world in the eighth
century and Spain in the eleventh. Paper from wood became common only in the nineteenth century, when newspapers
needed more than rags could supply.

An engine that turns heat into work must give part of the heat away at a lower temperature. No cleverness gets around
this. The larger the difference between the hot side and the cold side, the larger the share of the heat that can be
used.

Bees tell each other where flowers are by dancing on the comb. The direction of the dance shows the angle between the
flowers and the sun, and its length shows the distance. The observation earned Karl von Frisch a Nobel Prize.

A contract is an agreement that the law will enforce. It usually needs an offer, an acceptance and something of value
on both sides. Not every contract has to be written down, but a written one is easier to prove when there is a
dispute.

The moon always shows us the same side because it turns around its axis in the same time in which it goes around the
Earth. The tides have slowed it down to this. They slow down the Earth as well, so that our days become longer by
about two milliseconds in a century.

Vaccines show the immune system a harmless part of a germ, or a weakened germ. The body makes antibodies and keeps
cells that remember. When the real germ arrives later, the answer comes so quickly that most people do not notice that
they were infected.

In music an octave is the distance between a note and the one with twice its frequency. The two sound so similar that
they have the same name. In between, Western music uses twelve steps, which are tuned so that each has the same ratio
to the one before.

Concrete is a mixture of cement, water, sand and gravel. It does not dry but sets: cement and water form crystals that
grow into each other for weeks. Because it breaks easily when it is pulled, builders lay steel bars in it wherever
there will be tension.

A good map leaves out most of what there is. It shows roads wider than they are and small villages larger than they
are, because otherwise nobody could see them. Every flat map of the whole Earth must distort areas, angles or
distances.

Salt was once so valuable that towns grew rich from it. It keeps meat and fish from spoiling, because it draws water
out of them and out of the bacteria that would live on them. The word salary is said to come from the money that
soldiers got to buy it.

The first computers were as large as a room and were programmed by setting switches and plugging cables. Programs that
lie in the same memory as the data were an idea of the nineteen forties. Almost every computer that has been built
since then works in this way.

Mountains grow where plates press against each other and are worn down by water, ice and wind. The Himalayas are young
and still rise by some millimetres a year. Old mountains such as the Scottish Highlands were once as high and are now
only their own roots.

Coffee plants come from the highlands of Ethiopia. The beans are the seeds of a red fruit. They taste of almost
nothing until they are roasted, when hundreds of new substances form within a few minutes. Most of the flavour is lost
within weeks after roasting.

A vote between more than two options can have strange results. It may happen that a majority prefers the first to the
second, the second to the third, and the third to the first. No method of counting avoids all such paradoxes.

Ice is lighter than water, which is unusual for a solid. That is why it floats, and why lakes freeze from the top. The
layer of ice protects the water below from the cold air, so that fish can survive the winter at the bottom.

Wool keeps warm even when it is wet because its fibres are curled and hold air between them. Cotton loses its warmth
as soon as it is damp. Sailors and mountaineers have known this for a long time, and many of them still prefer wool to
newer fabrics.

A language dies when the last children who would have learned it learn another one instead. More than six thousand
languages are spoken today, and about half of them are in danger. Some have been recorded by linguists just in time,
and a few have been brought back.

The metre was first meant to be the ten-millionth part of the distance from the North Pole to the Equator. Later it
was the length of a metal bar in Paris. Today it is defined by the speed of light, which can be reproduced in any
laboratory.

Forests store carbon in their wood and in the ground. A young forest takes up more of it each year than an old one,
but the old one holds more in total. When a forest burns, most of what it has stored returns to the air within hours.

Mistakes in arithmetic are found more easily when a result is checked in another way. Casting out nines is an old
method: the remainders after division by nine must fit together. It finds most slips, but not the exchange of two
digits.

Theatre in ancient Athens was part of a festival. The plays were performed in the open air, by a few actors with masks
and a chorus that sang and danced. A jury of citizens decided which of the poets had won.

Batteries store energy in chemical form. While one is used, electrons flow from one electrode through the circuit to
the other, and ions move inside to keep the balance. Charging drives both backwards. With each cycle a little of the
material is lost for good.

Deserts are dry but not always hot. The largest one of all lies around the South Pole. In many deserts the nights are
cold, because there are no clouds that would keep the warmth of the day, and some plants live on nothing but dew.

When prices rise in general, money is worth less. A little of this does no harm and may even help, because people
would rather spend money than keep it. If prices rise quickly, savings melt away, and wages are always one step
behind.
"""


def texts() -> list[str]:
    """Return the paragraphs."""
    return [" ".join(paragraph.split()) for paragraph in PARAGRAPHS.strip().split("\n\n")]
