"""The invented tide mill: its parts with all facts about them, and the people, places and tides around it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One part, and everything that a note may say of it."""

    name: str
    purpose: str
    material: str
    weight_kg: int
    beside: str
    limit_mm: float
    torque_nm: int
    fault: str
    symptom: str
    noise: str
    cause: str
    remedy: str


PARTS = (
    Part("brackwinder", "The brackwinder takes up the slack of the ebb rope.", "ash wood", 14, "wheel pit", 3.5, 40,
         "frayed on the seaward side", "ran backwards for a breath and caught itself", "a slow creak",
         "wet rope", "the rope is turned end for end"),
    Part("sluicehead", "The sluicehead lets the flood in and keeps weed out.", "bronze", 62, "outer gate", 2.0, 120,
         "cracked at the lip", "drank air and shook", "a hollow cough", "driftwood", "the lip is brazed and filed"),
    Part("ebbcoil", "The ebbcoil stores what the falling water gives.", "spring steel", 31, "coil loft", 1.2, 85,
         "bent out of its plane", "lost its beat in every third turn", "a thin ringing", "sudden closing of the gate",
         "the coil is pressed flat and greased with tallow"),
    Part("saltgauge", "The saltgauge tells brine from fresh water.", "glass", 2, "reading board", 0.4, 5,
         "clouded from within", "was let run in fresh water", "no sound at all", "lime",
         "the glass is soaked in vinegar"),
    Part("thrumlock", "The thrumlock keeps the shaft from singing.", "lead", 48, "main shaft", 4.0, 60,
         "loose on its keys", "sang loud enough to be heard in the village", "a deep hum", "dry keys",
         "the keys are driven home with a copper hammer"),
    Part("neapvalve", "The neapvalve holds back the weak tides.", "oak", 27, "inner gate", 5.5, 30,
         "swollen shut", "stood still at high water", "a dull knock", "rain", "the edges are planed and oiled"),
    Part("halsering", "The halsering carries the weight of the upright shaft.", "white metal", 19, "foot bearing", 0.8,
         95, "scored all round", "turned hot and smelled of tar", "a grinding whisper", "sand in the oil",
         "the ring is poured anew and scraped"),
    Part("mirefork", "The mirefork clears the channel behind the wheel.", "wrought iron", 22, "tail race", 6.0, 70,
         "short of two tines", "stood in mud to its axle", "a wet slap", "stones", "new tines are riveted in"),
    Part("quernplate", "The quernplate grinds what the mill is fed.", "basalt", 210, "hopper", 9.0, 150,
         "smooth in the middle", "gave warm and lumpy meal", "an even hiss", "damp grain",
         "the furrows are cut anew with a pick"),
    Part("loamseal", "The loamseal keeps the pit dry.", "blue clay", 35, "pit wall", 12.0, 10,
         "dry and split", "stood in its own water", "a steady drip", "long frost",
         "fresh clay is rammed in three layers"),
    Part("driftcage", "The driftcage catches what floats.", "willow", 9, "outer gate", 7.5, 15,
         "torn at the bottom", "took a bottle into the wheel", "a rattle", "ice",
         "the bars are woven again from green willow"),
    Part("wickerstop", "The wickerstop brakes the wheel when the rope parts.", "hornbeam", 16, "brake beam", 2.8, 55,
         "burnt black", "ran on for a quarter of an hour after the gate was shut", "a shriek", "grease on the rim",
         "the blocks are changed in pairs"),
)  # fmt: skip

STATIONS = ("Lower Marrow Mill", "Saint Osk's Mill", "the mill at Pellin Bar", "Gannet Stair", "the Old Third Mill")
PEOPLE = ("Ines Harrow", "Old Tamsin", "Jory Pell", "the apprentice", "Mette Lorn", "Bram Ostler")
TIDES = ("the morning ebb", "the second flood", "slack water", "the neap tide", "the spring tide", "the evening ebb")
WEATHER = ("fog", "a north wind", "hard frost", "warm rain", "still air", "a falling glass")
SURFACES = (
    "The seat of the {part} was wiped dry and left bare.",
    "The seat of the {part} was rubbed with chalk, and the mark of the {beside} came out even.",
    "There was rust under the {part}, but only a breath of it.",
    "Both faces of the {part} were found sound.",
)
