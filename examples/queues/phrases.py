"""The words of the queues example: for each queue, what goes wrong, and what a customer mentions though it is settled.

Every list is cut by split (`generate.py`): no problem of the test texts is worded as in a training text.
"""

from __future__ import annotations

QUEUES = ("card", "cash", "debit", "exchange", "login", "transfer")

PROBLEMS = {
    "card": (
        "the shop's terminal refused my card twice although there is money on it",
        "a restaurant took the same bill from my card two times",
        "the waiter says that my payment with the card did not go through",
        "the chip is worn off and no till reads it any more",
        "I paid at the petrol station and the amount is wrong",
        "somebody bought shoes with my card number and it was not me",
        "the new plastic has not come by post yet",
        "tapping at the till stopped working last week",
        "the online shop was paid and now it wants to be paid again",
        "a hotel has blocked three hundred on my card and does not let it go",
        "my payment in the supermarket was turned down in front of everybody",
        "there is a purchase on the bill that I never made",
    ),
    "cash": (
        "the machine kept the notes and still booked them",
        "I asked for two hundred and the machine gave me one hundred and eighty",
        "the machine in the station swallowed what I put in",
        "no cash came out but the balance went down",
        "I was charged four euros for getting notes abroad",
        "the machine says that my daily limit is reached, and I took nothing today",
        "two of the notes that came out are torn",
        "the machine at the corner has been empty for three days",
        "paying in coins at the branch machine stopped halfway",
        "I got a receipt from the machine and no money",
        "the slot closed before I could take the notes",
        "the banknotes that I paid in are not on the account",
    ),
    "debit": (
        "the gym still collects its fee although I have cancelled",
        "the electricity company took its money twice this month",
        "please give me back what the newspaper collected",
        "a company that I do not know collects nine euros every month",
        "the rent was collected too early and the account went below zero",
        "I want to stop what the insurance collects every quarter",
        "the phone company collected more than its bill says",
        "the mandate that I signed for the kindergarten does not work",
        "the collection for the water bill came back without a reason",
        "the club collects under my old name",
        "how do I forbid a firm to collect from me",
        "the lottery takes its fee though I revoked it in writing",
    ),
    "exchange": (
        "the rate that you used for my dollars is not the one on your page",
        "I was given yen at a worse rate than was agreed",
        "why did my pounds become so few euros",
        "the fee for changing francs was never mentioned",
        "I ordered kroner for my holiday and got zlotys",
        "the conversion of my salary from dollars took a day and cost me two percent",
        "your app shows one rate and the statement another",
        "I would like to hold dollars and euros side by side",
        "the foreign notes that I ordered have not arrived",
        "how much do you add to the rate at the weekend",
        "the rupees on my statement were counted wrongly into euros",
        "I want to give back the dirhams that are left from my journey",
    ),
    "login": (
        "the app does not know my fingerprint any more",
        "I have forgotten the secret word and the link to a new one never comes",
        "the code that you send by text message arrives an hour late",
        "after three tries my access is shut",
        "my new phone is not accepted as mine",
        "the page says that my session has ended before I do anything",
        "I see a stranger's name when I open the app",
        "the button to sign in does nothing",
        "my user number is on a letter that I have lost",
        "the second factor asks for a device that I sold",
        "since the update I am thrown out of the app at once",
        "I cannot get into my account from abroad",
    ),
    "transfer": (
        "what I sent to my landlord on Monday has not reached him",
        "I sent money to the wrong number and need it back",
        "the standing order to my son was carried out twice",
        "my employer paid on the first and nothing is here",
        "the sum that I sent came back without a word",
        "I typed a zero too many and ten times the amount has left",
        "my sister in Canada waits for what I sent two weeks ago",
        "the name of the receiver is said not to fit his number",
        "please stop the order that I gave this morning to my dentist",
        "the money for the car is still on its way and the dealer waits",
        "I sent rent to the old landlord by mistake",
        "an amount that I do not expect came in from somebody unknown",
    ),
}

SETTLED = {
    "card": (
        "the card that I lost in May has been replaced, thank you",
        "paying with the card in shops works well",
        "the disputed purchase was refunded last month",
        "I know that the terminal was the shop's fault",
    ),
    "cash": (
        "the cash machine near me works again",
        "the notes that I paid in on Friday are there",
        "taking out money abroad was easy this time",
        "the limit at the machine was raised as I asked",
    ),
    "debit": (
        "the collection by my gym has been stopped, that is fine",
        "the insurance collects the right sum now",
        "my mandate for the phone company was accepted",
        "what the newspaper had collected was given back",
    ),
    "exchange": (
        "the rate for my dollars was as agreed",
        "the francs that I ordered were delivered in time",
        "changing pounds went smoothly",
        "the fee for foreign money was explained to me",
    ),
    "login": (
        "signing in works since the update",
        "my new phone was accepted at once",
        "the code by text message comes quickly now",
        "I have a new secret word",
    ),
    "transfer": (
        "what I sent to my landlord has arrived",
        "the standing order was changed as I asked",
        "my salary came in on time",
        "the money from my sister is here",
    ),
}

OPENINGS = ("", "Hello, ", "Good morning, ", "Dear team, ", "Hi, ")
LINKS = (
    "{settled}. But {problem}.",
    "{problem}. By the way, {settled}.",
    "This is not about last time: {settled}. Now {problem}.",
    "{settled}, so that is not why I write. {problem}.",
    "I write because {problem}. Otherwise {settled}.",
    "{problem}. (And {settled}.)",
)
CLOSINGS = ("", " What can I do?", " Please help.", " Thank you.", " I am waiting for your answer.")
