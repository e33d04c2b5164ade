"""What customers say: one list for each slot of a ticket.

The lists are words only; `generate.py` puts tickets together from them. Order matters: of every five phrases in a list
the fourth is used in test tickets alone and the fifth in dev tickets alone, so the held-out tickets also *sound* new.

    python -c "import phrases; print(len(phrases.REPAIR), 'ways to ask for a repair')"
"""

from __future__ import annotations

# --- naming the product -----------------------------------------------------------------------------------------------

OWNED = [
    "I have had the {product} {noun} since {month}.",
    "This is about my {product} {noun}, bought {past}.",
    "I got the {product} {past}.",
    "My partner gave me the {product} {noun} as a present {past}.",
    "We have used the {product} {noun} since {month}.",
    "I bought your {noun}, the {product}, {past}.",
    "My {product} {noun} is giving me grief.",
    "I fitted the {product} {noun} {past} and was happy with it at first.",
    "The {noun} on my commuter bike is the {product}.",
    "Writing to you about the {product} {noun} that I picked up in your shop {past}.",
    "I own the {product} {noun}.",
    "Trouble with the {product} {noun} here.",
    "My {noun} ({product}) dates from {month}.",
    "I put the {product} {noun} on my daughter's bike {past}.",
    "Since {month} the {product} {noun} has been part of my daily ride.",
]

ARRIVED = [
    "The {product} {noun} was delivered {recent}.",
    "My {product} {noun} came by courier {recent}.",
    "I unpacked the {product} {recent}.",
    "{Recent} I finally had the {product} {noun} in my hands.",
    "The postman brought my {product} {noun} {recent}.",
    "My order for the {product} {noun} arrived {recent}.",
    "I opened the parcel with the {product} {noun} {recent}.",
    "{Recent} your parcel with the {noun} ({product}) got here.",
    "I got my {product} {noun} {recent}.",
    "The {noun} I ordered, the {product}, reached me {recent}.",
]

ORDERED = [
    "I ordered the {product} {noun} {lately}.",
    "{Lately} I paid for the {product} {noun} in your web shop.",
    "My order is for one {product} {noun}, placed {lately}.",
    "This concerns the {product} that I ordered {lately}.",
    "I chose the {product} {noun} in your shop {lately}.",
    "I bought the {product} {noun} online {lately}.",
    "It is about order and invoice for the {product} {noun}.",
    "My husband ordered the {product} {noun} for me {lately}.",
    "{Lately} I put the {noun} called {product} in my basket and paid.",
    "We placed an order for your {product} {noun} {lately}.",
]

ASKING = [
    "I have a question about the {product} {noun}.",
    "I am thinking of buying the {product} {noun}.",
    "My sister and I both like the {product} {noun}.",
    "There is something I would like to know about the {product}.",
    "I am looking at the {noun} named {product} in your catalogue.",
    "Quick question on the {product} {noun}.",
    "I have been eyeing the {product} {noun} since {month}.",
    "Something about the {product} {noun} is not clear to me.",
    "I own the {product} {noun} and am very pleased with it.",
    "We are about to fit the {product} {noun}.",
]

# --- what happened ----------------------------------------------------------------------------------------------------

SYMPTOM_FRAMES = [
    "Now {symptom}.",
    "I noticed on {day} that {symptom}.",
    "After {use} {symptom}.",
    "The trouble is that {symptom}.",
    "Sadly, {symptom}.",
    "What happens is this: {symptom}.",
    "I saw {span} ago that {symptom}.",
    "On my way home I found that {symptom}.",
    "It was fine at first, but now {symptom}.",
    "Without any warning {symptom}.",
]

DAMAGED = [
    "The box was crushed and the {noun} inside is dented.",
    "When I cut the tape, one side of it was badly scratched.",
    "It came out of the carton already broken.",
    "The cardboard had a hole in it and so has the {noun}.",
    "The courier must have dropped it, because a corner is smashed.",
    "It was cracked before I ever touched it.",
    "Straight out of the wrapping there was a deep dent in it.",
    "The carton was soaking wet and the {noun} has come apart at one corner.",
    "A piece had snapped off on the way and was lying loose in the box.",
    "The parcel looked as if a truck had driven over it, and the contents are bent.",
    "It reached me with a split down one side.",
    "Somebody had taped the box up again, and the {noun} was chipped underneath.",
    "The first thing I saw in the box was that it is bent out of shape.",
    "There was no padding, so it got here scuffed and scraped all over.",
    "The outer box was fine, yet the {noun} in it had been broken by the journey.",
]

WRONG = [
    "You sent the black one although I asked for green.",
    "It is the small size and I had picked large.",
    "It is the left-hand version instead of the right-hand one.",
    "What I found is not what I ordered: the colour is completely different.",
    "Someone packed the old version instead of the new one.",
    "I asked for the one with reflectors and got the one without.",
    "The label says large, the thing inside is a medium.",
    "Red was what I chose, yet the one in the box is blue.",
    "You must have mixed up two orders: this is not my size.",
    "It turned out to be the version for smaller frames, which I did not choose.",
    "The one I got is another size than the one on my invoice.",
    "A grey one turned up, but my order clearly says white.",
    "This is not the version that I clicked on.",
    "Your warehouse picked the wrong size.",
    "Mine should have been the long version, and this is the short one.",
]

DELIVERY = [
    "It still has not turned up.",
    "The tracking page has said the same thing ever since.",
    "Nothing has arrived so far.",
    "The parcel has been stuck at the depot for nine days.",
    "The courier says it was handed over, but nobody here has seen it.",
    "Your email spoke of two days, and my doorstep is still empty.",
    "I never got a tracking number, let alone a parcel.",
    "It was meant to be here long ago and there is no sign of it.",
    "The tracking shows a town at the other end of the country.",
    "The postman swears he has nothing for me.",
    "Weeks later I am still waiting for it.",
    "The date of delivery has been moved four times now.",
    "My neighbours have not taken it in either, it has simply gone missing.",
    "The parcel has not moved since the day you posted it.",
    "The parcel seems to be lost.",
]

BILLING = [
    "My card was charged twice.",
    "The invoice shows a higher price than the shop did.",
    "The discount code was accepted but not taken off the bill.",
    "You have taken the money two times for one order.",
    "My bank statement lists a sum that I cannot match with anything.",
    "I was billed for express postage that I never chose.",
    "The total on the receipt is wrong.",
    "The invoice lists two of them while I bought one.",
    "Ten euros more left my account than the shop had shown.",
    "My voucher is missing from the invoice.",
    "The tax has been added twice on the bill.",
    "I cancelled within the hour and was charged all the same.",
    "It was on sale that day, but I was made to pay the full price.",
    "A second payment went out the day after.",
    "The bill carries a handling fee that nobody mentioned.",
]

QUESTION = [
    "Can it stay outside over the winter?",
    "Does it suit a frame from the nineties?",
    "Which tool do I need to take it off?",
    "Is there a version for left-handed riders?",
    "May I clean it with a garden hose?",
    "How often should it be serviced?",
    "Can I fit it on my own or does it need a workshop?",
    "Is it suitable for a tandem?",
    "Do you sell it in dark green as well?",
    "What is the best thing to clean it with?",
    "Would it work on a folding bike?",
    "Does it have to come off when the bike goes on a car rack?",
    "How tight should the bolts be?",
    "Is it normal that it smells a bit of rubber when new?",
    "Where do I find the manual for it?",
]

# --- what decides the priority ----------------------------------------------------------------------------------------

DANGER_RIDING = [
    "I came off and hurt my wrist because of it.",
    "My son nearly ended up under a van.",
    "I had a fall and needed three stitches.",
    "I went over the handlebars and bruised my ribs.",
    "My wife was almost hit by a bus because of this.",
    "It made me crash, and my knee is still bandaged.",
    "I lost control on the bridge and just missed a lorry.",
    "My daughter fell and broke a tooth.",
    "On the way downhill I almost ran into a pedestrian.",
    "It threw me into a ditch and I sprained my ankle.",
    "A lorry had to swerve so as not to run me over.",
    "My colleague ended up in hospital because of it.",
    "I missed a wall by inches, and my heart is still racing.",
    "My elbow was cut open when I hit the road because of it.",
    "We were a second away from a collision with a tram.",
]

DANGER_HANDLING = [
    "I cut my hand badly on the sharp edge.",
    "My daughter has a deep splinter from it in her finger.",
    "A broken bit flew off and hit me just below the eye.",
    "My son gashed his thumb on it.",
    "I needed a plaster and a tetanus jab after touching the edge.",
    "The jagged part sliced my palm open.",
    "It slipped apart in my hands and crushed a finger.",
    "My little boy almost got a shard of it in his eye.",
    "My arm is bleeding from a sharp corner of it.",
    "My wife had to have a cut from it stitched.",
]

DEADLINE = [
    "We set off on our tour on Friday.",
    "I need this done before the race on Saturday.",
    "My holiday starts in six days.",
    "It has to be settled by the end of this week.",
    "I start a new job on Monday and count on the bike.",
    "The triathlon is next Sunday, so time is short.",
    "I need this settled before the twelfth.",
    "The ferry leaves on Thursday and my bike should be on it.",
    "The club ride is this weekend and I want to be there.",
    "Please get it done by Wednesday at the latest.",
    "In four days we leave for the coast by bike.",
    "The school trip is on the ninth, and all must be ready by then.",
    "I have to hear from you by noon tomorrow.",
    "The charity ride is eight days away, so please act before then.",
    "There is a race the day after tomorrow and I am on the start list.",
]

NO_HURRY = [
    "There is no hurry at all.",
    "Take your time with this.",
    "It can wait until you have a quiet moment.",
    "This is nothing urgent.",
    "I can easily wait a while.",
    "Whenever it suits you is fine.",
    "This is not pressing in any way.",
    "Next month would be early enough.",
    "I am in no rush.",
    "Do not drop anything for this.",
    "It need not be this week or the next.",
    "Put me at the end of the queue if you like.",
    "Do the serious cases first.",
    "Speed does not matter to me.",
    "I am patient, so let it lie until things calm down.",
]

# --- what the customer wants ------------------------------------------------------------------------------------------

REPAIR = [
    "Please repair it.",
    "Can you mend it for me?",
    "I would like to have it fixed.",
    "Could your workshop put it right?",
    "I would rather have it repaired than thrown away.",
    "Can I send it in to be fixed?",
    "I want it mended, not swapped.",
    "I hope you can get it working again.",
    "Please book it in for a repair.",
    "A repair would be enough for me.",
    "I need no new one, just get this one going again.",
    "Please let one of your mechanics fix it.",
    "I do not want my money back, I want it repaired.",
    "Would you be so kind as to mend it?",
    "Please have it put back in working order.",
]

REPLACE = [
    "Please send me a new one.",
    "I would like a replacement.",
    "Can you swap it for another one?",
    "I want it exchanged.",
    "A fresh one would make me happy.",
    "I do not want my money back, just another one.",
    "Could I get a replacement?",
    "An exchange is all I ask for.",
    "Please put another one in the post.",
    "I expect a new one in return.",
    "Kindly replace it.",
    "Rather than the money I would like a new one.",
    "Would you replace it for me?",
    "Another one in its place would do.",
    "Ship me a new one, please.",
]

RESEND = [
    "Please send another one.",
    "Just post me a new one.",
    "Could you send out a replacement?",
    "Please ship a second one.",
    "I would like a new one sent out.",
]

REFUND = [
    "I want my money back.",
    "Please refund me.",
    "I would like a refund.",
    "Kindly return the payment to my card.",
    "Please transfer the money back to my account.",
    "Give me back what I paid.",
    "I ask to be reimbursed.",
    "Can you pay me back?",
    "A refund is what I want.",
    "The money should go back to my account, please.",
    "Please put the money back on my card.",
    "I should like to be refunded.",
    "Would you refund it, please?",
    "Let me have the money back.",
    "I expect to get my euros back.",
]

TRACE = [
    "Please find out where it is.",
    "Can you track it down?",
    "Could you chase the courier?",
    "Please trace the parcel.",
    "Please look into where it has gone.",
    "Can someone ask the carrier about it?",
    "I just want you to find my parcel.",
    "Please locate it for me.",
    "I would like you to start a search with the delivery firm.",
    "Kindly check with the depot.",
    "I want no refund yet, just find it.",
    "Please get the courier to look for it.",
    "Could you see where it got stuck?",
    "Please hunt it down.",
    "Would you ask the post what became of it?",
]

EXPLAIN_BILL = [
    "Please explain the bill to me.",
    "Can you tell me how this came about?",
    "I would like to understand the invoice.",
    "What exactly am I paying for?",
    "Could someone walk me through the figures?",
    "Please let me know what the charge is for.",
    "I should like to know why.",
    "Kindly explain this to me.",
    "I do not need the money back, only an explanation.",
    "Please tell me how you get to that amount.",
]

ALSO_EXPLAIN = [
    "Please also explain how this could happen.",
    "I would also like to know the reason.",
    "And how do I keep it from happening again?",
    "And can you tell me how such a thing comes about?",
    "Also, I would like an explanation.",
    "And please tell me why this happened.",
    "One question on top: what was the cause?",
    "Can you also tell me what went wrong?",
    "Besides, I want to understand the cause.",
    "An explanation would be welcome, too.",
]
