"""Names for the fields and values of `synthetic`, whose meaning tells the planted pairs, denies them, or says nothing.

Each planted pair has a theme: one of its fields is called by the theme's first side, the other by its second, such as
"wine grape" and "wine cellar"; a field of two pairs has a name of each: "wine grape and dog breed". A field without a
pair has a theme of its own. The values of a field are words of its sides, numbered.

meaningful     so: two fields have names close in meaning if and only if their pair is planted
contradicting  the same names, moved to other fields, so that no planted pair shares a theme
opaque         f1, f2, ...; values are numbers alone

A name keeps the place of its value among those of its field: what is encoded by rank of the texts gets the same ids.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from fieldctr.errors import UserError

Names = Literal["plain", "meaningful", "contradicting", "opaque"]
TRIES = 1000  # of drawn orders that should part all planted pairs


class Side(NamedTuple):
    """One half of a theme: what a field is called, and words for its values."""

    name: str
    words: tuple[str, ...]


class Named(NamedTuple):
    """The names of all fields."""

    texts: dict[str, str]  # what a language model reads, by field
    words: dict[str, tuple[str, ...]]  # its values are numbered, and get these in turn


THEMES = """
wine grape: merlot, riesling, malbec, chardonnay | wine cellar: oak barrel, corkscrew, decanter, vintage bottle
dog breed: poodle, beagle, dachshund, terrier | dog kennel: leash, dog collar, puppy crate, dog biscuit
football club: striker, goalkeeper, midfielder, football coach | football stadium: penalty area, goalpost, kick-off, corner flag
guitar string: acoustic guitar, electric guitar, guitar chord, guitar solo | guitar amplifier: guitar pedal, distortion, plectrum, fretboard
hospital ward: surgeon, nurse, stethoscope, ambulance | hospital patient: fever, fracture, pneumonia, anaesthesia
planet orbit: Jupiter, Saturn, Venus, Neptune | planet telescope: lunar eclipse, astronomer, comet, observatory
train station: locomotive, railway track, carriage, platform | train driver: steam engine, railway signal, express train, rail timetable
bread bakery: sourdough, baguette, rye loaf, brioche | bread oven: flour, yeast, dough, baker
tax return: income tax, tax deduction, fiscal year, tax refund | tax office: tax inspector, value added tax, tax audit, tax evasion
volcano eruption: lava, magma, ash cloud, crater | volcano summit: Etna, Vesuvius, Krakatoa, Mauna Loa
wedding ring: bride, groom, bridesmaid, engagement | wedding cake: wedding vows, honeymoon, wedding guest, bridal veil
beehive: honeybee, queen bee, swarm, drone bee | beekeeper: honey jar, beeswax, pollen, nectar
chess opening: rook, bishop, checkmate, pawn | chess champion: grandmaster, chess clock, chess tournament, stalemate
fishing boat: trawler, fishing net, harbour, cod catch | fishing rod: fish hook, angler, trout bait, fishing reel
prison cell: inmate, prison guard, handcuffs, jail | prison sentence: parole, convict, life imprisonment, prison escape
swimming pool: diving board, lifeguard, lap lane, chlorine | swimming stroke: butterfly, backstroke, front crawl, breaststroke
dinosaur fossil: tyrannosaurus, triceratops, stegosaurus, raptor | dinosaur extinction: Jurassic, Cretaceous, asteroid impact, palaeontologist
knitting wool: yarn, knitting needle, merino, cashmere | knitting pattern: purl stitch, crochet, scarf, jumper
theatre stage: curtain, spotlight, backstage, stage set | theatre play: Hamlet, actor, tragedy, rehearsal
coffee bean: arabica, robusta, dark roast, espresso | coffee machine: cappuccino, milk frother, latte, coffee filter
election ballot: voter, candidate, polling station, referendum | election campaign: political party, senator, debate, opinion poll
tennis racket: forehand, backhand, tennis ball, serve | tennis court: Wimbledon, tie-break, match point, umpire
spider web: tarantula, black widow, silk thread, wolf spider | spider bite: venom, fangs, arachnid, scorpion
nuclear reactor: uranium, plutonium, fuel rod, cooling tower | nuclear waste: radiation, half-life, radioactive, containment
perfume bottle: jasmine, sandalwood, rose oil, musk | perfume scent: fragrance, vanilla note, cologne, lavender
circus clown: juggler, acrobat, trapeze, big top | circus lion: ringmaster, tamer, elephant parade, fire ring
pirate ship: treasure map, buccaneer, Jolly Roger, cutlass | pirate island: buried gold, parrot, captain, doubloon
desert camel: sand dune, caravan, oasis, nomad | desert cactus: Sahara, drought, mirage, scorching sun
"""  # noqa: E501  two sides a line, each with its field's name before its words


def themes() -> list[tuple[Side, Side]]:
    """All there are."""
    lines = [line.split(" | ") for line in THEMES.strip().splitlines()]
    first, second = ([_side(line[i]) for line in lines] for i in (0, 1))
    return list(zip(first, second, strict=True))


def _side(text: str) -> Side:
    name, _, words = text.partition(": ")
    return Side(name, tuple(words.split(", ")))


def named(names: Names, fields: Sequence[str], pairs: Sequence[tuple[str, str]], *, seed: int) -> Named:
    """Names of this kind for the fields, `pairs` of which are planted. UserError where they cannot be."""
    if names == "opaque":
        return Named({name: f"f{i + 1}" for i, name in enumerate(fields)}, dict.fromkeys(fields, ("",)))
    sides = _sides(fields, pairs)
    if names == "contradicting":
        moved = _apart(fields, pairs, np.random.default_rng([seed, 2]))
        sides = {name: sides[moved[name]] for name in fields}
    return Named(
        {name: " and ".join(side.name for side in own) for name, own in sides.items()},
        {
            name: tuple(word for words in zip(*(side.words for side in own), strict=True) for word in words)
            for name, own in sides.items()
        },
    )


def value_names(plain: Sequence[str], words: Sequence[str]) -> list[str]:
    """Names of a field's values in the order of their codes, that sort as the `plain` ones do."""
    ranks = {text: rank for rank, text in enumerate(sorted(plain))}
    digits = len(str(len(plain)))
    return [f"{ranks[text]:0{digits}d} {words[ranks[text] % len(words)]}".rstrip() for text in plain]


def _sides(fields: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[str, list[Side]]:
    """The sides of each field: one for each of its pairs, or one that no other field has."""
    free = iter(themes())
    sides: dict[str, list[Side]] = {name: [] for name in fields}
    alone = [name for name in fields if not any(name in pair for pair in pairs)]
    if (needed := len(pairs) + len(alone)) > len(themes()):
        raise UserError(
            f"dataset.source.names needs a theme for each of {len(pairs)} planted pairs and {len(alone)} other fields, "
            f"and has {len(themes())}, not {needed}: take a smaller num_pairs"
        )
    for (first, second), theme in zip(pairs, free, strict=False):
        sides[first].append(theme[0])
        sides[second].append(theme[1])
    for name, theme in zip(alone, free, strict=False):
        sides[name].append(theme[0])
    return sides


def _apart(fields: Sequence[str], pairs: Sequence[tuple[str, str]], rng: np.random.Generator) -> dict[str, str]:
    """Whose names each field gets, so that no planted pair gets those of one."""
    planted = {frozenset(pair) for pair in pairs}
    for _ in range(TRIES):
        moved = dict(zip(fields, (fields[i] for i in rng.permutation(len(fields))), strict=True))
        if not planted & {frozenset(moved[name] for name in pair) for pair in pairs}:
            return moved
    raise UserError("dataset.source.names=contradicting: too many pairs are planted to name others. Lower num_pairs")
