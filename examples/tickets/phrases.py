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
    "I put the {product} {noun} on my old bike {past}.",
    "Since {month} the {product} {noun} has been part of my daily ride.",
]

ARRIVED = [
    "The {product} {noun} was delivered {recent}.",
    "My {product} {noun} came with the courier {recent}.",
    "I unpacked the {product} {recent}.",
    "{Recent} I finally had the {product} {noun} in my hands.",
    "The postman brought my {product} {noun} {recent}.",
    "My order for the {product} {noun} arrived {recent}.",
    "I opened the parcel with the {product} {noun} {recent}.",
    "{Recent} your parcel with the {noun} ({product}) got here.",
    "The courier brought the {product} {noun} {recent}.",
    "The {noun} I ordered, the {product}, reached me {recent}.",
]

ORDERED = [
    "I ordered the {product} {noun} {lately}.",
    "{Lately} I ordered the {product} {noun} in your web shop.",
    "My order is for one {product} {noun}, placed {lately}.",
    "This concerns the {product} that I ordered {lately}.",
    "I chose the {product} {noun} in your shop {lately}.",
    "I bought the {product} {noun} online {lately}.",
    "It is about my order for the {product} {noun}.",
    "My husband ordered the {product} {noun} for me {lately}.",
    "{Lately} I put the {noun} called {product} in my basket.",
    "We placed an order for your {product} {noun} {lately}.",
]

ASKING = [
    "I have a question about the {product} {noun}.",
    "I am thinking of buying the {product} {noun}, so a question first.",
    "I would like to know something about the {product} {noun}.",
    "There is something I would like to know about the {product}.",
    "I am thinking of buying the {noun} named {product} from your catalogue.",
    "Just a question on the {product} {noun}.",
    "I am curious about the {product} {noun}.",
    "Something about the {product} {noun} is not clear to me.",
    "One question about your {noun}, the {product}.",
    "We would like to know more about the {product} {noun}.",
]

# --- what happened ----------------------------------------------------------------------------------------------------

SYMPTOM_FRAMES = [
    "I noticed on a ride that {symptom}.",
    "After {use} {symptom}.",
    "It has a fault: {symptom}.",
    "It has developed a fault: {symptom}.",
    "It worked at first, but now {symptom}.",
    "The trouble is that {symptom}.",
    "It was fine at first, but after {use} {symptom}.",
    "It no longer works well: {symptom}.",
    "I noticed after {use} that {symptom}.",
    "I noticed on my last ride that {symptom}.",
]

DAMAGED = [
    "The box was crushed and the {noun} inside arrived dented.",
    "It arrived badly scratched on one side.",
    "It was already broken when I took it out of the carton.",
    "The carton had a hole in it and the {noun} arrived broken.",
    "The box was damaged and the {noun} inside is broken.",
    "The courier must have dropped the parcel, because a corner arrived smashed.",
    "It was cracked when it came out of the box.",
    "The {noun} had a deep dent in it when I opened the carton.",
    "The box was crushed and a piece was lying broken in it.",
    "The carton was soaking wet and the {noun} arrived cracked.",
    "A piece was broken off in the box.",
    "The carton was torn and the {noun} arrived bent.",
    "It arrived damaged, with a split down one side.",
    "The parcel was damaged and so is the {noun}: it arrived badly dented.",
    "It arrived bent, although the box looked fine.",
]

WRONG = [
    "You sent the black version although I ordered green.",
    "It is the wrong size: I ordered large.",
    "It is the left-hand version and I ordered the right-hand one.",
    "This is not what I ordered: the colour is wrong.",
    "You sent the short version although I ordered the long one.",
    "The colour is not the one I ordered.",
    "I ordered the version with reflectors and got the one without.",
    "The label says large, but the size inside is medium.",
    "I ordered red, but you sent the blue version.",
    "It is the wrong colour: I ordered white.",
    "You must have mixed up two orders, because this is the wrong size.",
    "You sent the wrong version, one for smaller frames.",
    "You sent grey, but the colour I ordered is white.",
    "This is the wrong size, not the one I ordered.",
    "You must have mixed it up: it is not the version I ordered.",
]

DELIVERY = [
    "The parcel still has not arrived.",
    "The tracking page has said the same thing ever since.",
    "I am still waiting for the delivery.",
    "The tracking says that the parcel is stuck at the depot.",
    "I never got a tracking number, and I am still waiting for the parcel.",
    "The courier says it was delivered, but I never saw a parcel.",
    "Nothing has been delivered so far, and I keep waiting.",
    "The tracking says that the parcel has not moved for a week.",
    "Weeks later I am still waiting for the parcel.",
    "The tracking has not moved, and I am still waiting.",
    "The tracking shows a depot at the other end of the country.",
    "The date of delivery has been moved four times, and I am still waiting.",
    "The parcel seems to be lost on the way.",
    "The courier has no parcel for me, and nothing has been delivered.",
    "The delivery is late, and the parcel seems to be lost.",
]

BILLING = [
    "My card was charged twice.",
    "The invoice shows a higher price than the shop did.",
    "The discount was not taken off the bill.",
    "I was charged two times for one order.",
    "The bill shows a higher price than I agreed to.",
    "I was charged for express postage that I never chose.",
    "The total on the invoice is too high.",
    "I paid ten euros more than the price in the shop.",
    "The invoice lists two of them, so I was charged too much.",
    "The discount is missing from the invoice.",
    "The tax was charged twice on the bill.",
    "I was charged although I cancelled the order.",
    "I paid the full price although there was a sale.",
    "My voucher is missing from the bill, and I paid the full price.",
    "My card was charged although I had paid the invoice already.",
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
    "Is it all right that it smells a bit of rubber when new?",
    "Is there a manual for it?",
]

# --- what decides the priority ----------------------------------------------------------------------------------------

DANGER_RIDING = [
    "I fell and got hurt because of it.",
    "My son nearly got hurt when it made him crash.",
    "I had a crash, got hurt and needed stitches.",
    "I fell off the bike and hurt my knee badly.",
    "My wife was nearly hurt in a crash because of it.",
    "My daughter was hurt when she fell because of it.",
    "A pedestrian was nearly hurt because of it.",
    "It made me crash, and I got hurt.",
    "My colleague was hurt in a crash and is in hospital because of it.",
    "My daughter fell and hurt her elbow.",
    "I was nearly run over and hurt because of it.",
    "I fell, got hurt and had to see a doctor.",
    "My husband was hurt because of it and had to go to hospital.",
    "A lorry nearly hit me, and I was hurt when I fell.",
    "I was hurt when it made me crash.",
]

DANGER_HANDLING = [
    "I got hurt on the sharp edge.",
    "My daughter was hurt when she touched it.",
    "A sharp bit of it nearly hurt my eye.",
    "My son got hurt on a sharp corner of it.",
    "A sharp bit of it nearly hurt my little boy in the face.",
    "I got hurt because of it and had to see a doctor.",
    "I was hurt because of it and needed stitches.",
    "I was hurt on the edge and my palm was bleeding.",
    "My hand was hurt and needed stitches after I touched it.",
    "My wife got hurt on a corner of it.",
]

DEADLINE = [
    "I need this settled before Friday.",
    "Please get this done by Saturday.",
    "I need this done in time for my holiday.",
    "Please get this done before the race on Sunday.",
    "I must have this done by the end of this week.",
    "My deadline is Friday, and I need this done by then.",
    "I must have this settled by noon on Friday.",
    "I need this done before we leave on our tour.",
    "I need this settled in time for the club ride.",
    "There is a race on Sunday, and I need this done by then.",
    "Please get this done before our club race.",
    "Please settle this by Wednesday at the latest.",
    "I need this done before Saturday, in time for the triathlon.",
    "My deadline is the ninth, and this must be settled before it.",
    "Please get this settled before my holiday starts.",
]

NO_HURRY = [
    "There is no hurry.",
    "Take your time, there is no rush.",
    "I am in no hurry.",
    "There is no rush on my side.",
    "No hurry at all from my side.",
    "I am not in a great hurry over this.",
    "There is no great hurry.",
    "I am in no rush with this.",
    "Please take your time over it, no rush here.",
    "It is no hurry for me.",
    "There is no rush at all.",
    "No rush, please take your time.",
    "There is no hurry about it.",
    "No hurry, whenever it suits you.",
    "I am not in a rush.",
]

# --- what the customer wants ------------------------------------------------------------------------------------------

REPAIR = [
    "Please repair it.",
    "Can you repair it in your workshop?",
    "I would like to have it repaired.",
    "Could your workshop repair it?",
    "Can I send it in for a repair?",
    "I want it repaired in your workshop.",
    "Please fix it, I would be happy with a repair.",
    "Please book it in for a repair in your workshop.",
    "I would like your workshop to fix it.",
    "A repair would be enough for me.",
    "I hope you can repair it.",
    "Can your mechanics repair and mend it?",
    "Could your workshop fix it for me?",
    "Please let one of your mechanics repair it.",
    "Would your workshop be so kind as to fix it?",
]

REPLACE = [
    "Please replace it with a new one.",
    "I would like a replacement, a new one.",
    "Can you replace it and send me a new one?",
    "Could I get a replacement, please?",
    "All I want is a new one.",
    "I want it exchanged for a new one.",
    "Please replace it with another one.",
    "Please exchange it and send me a new one.",
    "Kindly replace it with another one.",
    "Please exchange it for a new one.",
    "Please send me another one as a replacement.",
    "Could I have a new one as a replacement, please?",
    "I want you to replace it.",
    "I would like to exchange it for a new one.",
    "Would you send me a new one as a replacement?",
]

RESEND = [
    "Please send another one as a replacement.",
    "Could you send me a new one?",
    "I would like you to send a replacement, a new one.",
    "Please post me a new one.",
    "Could you send out a replacement?",
]

REFUND = [
    "I want my money back.",
    "Please refund me, I want my money back.",
    "I would like a refund.",
    "Please transfer the money back to my account.",
    "I want a refund of my money.",
    "Please refund the money to my card.",
    "Please reimburse me and send the money back.",
    "Could I have my money back as a refund?",
    "I would like to have my money back, please.",
    "Could I have a refund, please?",
    "I ask for my money back.",
    "I want a full refund of the money.",
    "Please refund me and put the money back on my card.",
    "Could you refund the money to my account?",
    "Please let me have my money back.",
]

TRACE = [
    "Please find out where it is.",
    "Please trace the parcel and find it.",
    "Can you find my parcel?",
    "Please find out where the parcel has gone.",
    "Could you find out where it is stuck?",
    "Can you find out where it is now?",
    "Please find out where my parcel is now.",
    "Please trace it and find out where it is.",
    "I just want you to find my parcel.",
    "Please find it for me.",
    "Could you ask the courier where it is?",
    "Please get the courier to find it.",
    "Please start a search and find out where it is.",
    "Can you trace it and find out where it got stuck?",
    "Please ask the courier to find out where it is.",
]

EXPLAIN_BILL = [
    "Please explain the bill to me.",
    "Can you explain it and tell me why?",
    "Please tell me why that is, and explain the bill.",
    "Could you please explain the invoice to me?",
    "Please tell me why I have to pay that.",
    "I would like you to explain why.",
    "Please explain this to me and tell me why.",
    "Could you explain how you get to that amount?",
    "I should like you to tell me why.",
    "Can you explain why that is?",
]
