"""Texts of a table's entities: what a language model reads of a user, of an item, or of a whole row.

Source: CTRL (arXiv:2306.02841), section 4.1.1: "This is a user, gender is female, age is 18". The texts of fields are
their names; a feature that is missing, or that train does not have, is left out. A dataset's `text_template` writes
sentences of its own. KAR (arXiv:2306.10933) has a generative model write about these attributes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fieldctr.config import as_name, checked
from fieldctr.errors import UserError, nearest
from fieldctr.schema import Schema

VERSION = 1  # of the sentences; raise it when equal settings give other texts
ROW = "row"  # the entity that every table has: all fields of a sample
FEATURES = "features"  # what a template calls the list of all features that it does not name
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
UNKNOWN = "unknown"  # what a template of one's own says where a feature is missing


class Sentence(NamedTuple):
    """How some fields are told."""

    template: str
    fields: list[int]  # positions of the fields that it tells
    names: list[str]  # what each field is called: its text, by which the list of features tells it
    keys: list[str]  # what the template calls each field: its name in the YAML


def sentences(
    kind: str, entities: Mapping[str, Sequence[str]], templates: Mapping[str, object] | None, schema: Schema
) -> list[Sentence]:
    """How an entity of this kind is told; a row is told entity by entity, and then what else it has.

    UserError for a kind that the dataset has not, and for a template that names what there is not.
    """
    known = [*entities, ROW]
    given = {as_name(key, "dataset.text_template"): value for key, value in (templates or {}).items()}
    for key in given:
        if key not in known:
            raise UserError(
                f"dataset.text_template.{key}: no such entity. {nearest(key, known)}All: {', '.join(known)}"
            )
    if kind not in known:
        raise UserError(
            f"entity={kind}: dataset.entities has none of this name. {nearest(kind, known)}All: {', '.join(known)}. "
            "An entity is a list of the fields that describe it, such as entities: {user: [age, gender]}"
        )
    told = {name: [field for field in fields if _readable(schema, field)] for name, fields in entities.items()}
    if kind != ROW:
        return [_sentence(kind, told[kind], given.get(kind), schema)]
    seen = {field for fields in told.values() for field in fields}
    rest = [field.name for field in schema.fields if field.name not in seen and _readable(schema, field.name)]
    parts = [_sentence(name, fields, given.get(name), schema) for name, fields in told.items() if fields]
    return [*parts, *([_sentence(ROW, rest, given.get(ROW), schema)] if rest else [])]


def filled(template: str, words: Mapping[str, str]) -> str:
    """The template with words in the place of their {key}, in one pass: a word may look like a placeholder."""
    return PLACEHOLDER.sub(lambda found: words.get(found[1], found[0]), template)


def written(sentence: Sentence, features: Sequence[Sequence[str]]) -> list[str]:
    """The sentence for each entity; `features` has a text per entity for each field of the sentence, '' if missing."""
    named = {sentence.keys.index(key) for key in PLACEHOLDER.findall(sentence.template) if key != FEATURES}
    others = [i for i in range(len(sentence.fields)) if i not in named]
    found = []
    for row in zip(*features, strict=True):
        listed = ", ".join(f"{sentence.names[i]} is {row[i]}" for i in others if row[i])
        words = {key: text or UNKNOWN for key, text in zip(sentence.keys, row, strict=True)} | {FEATURES: listed}
        text = filled(sentence.template, words)
        found.append(text if listed else text.replace(", .", "."))
    return found


def _readable(schema: Schema, name: str) -> bool:
    """Whether a language model can read a field: one of an empty text has no meaning, one of vectors no words."""
    field = schema.fields[schema.index(name)]
    return bool(field.text) and not field.vector


def _sentence(kind: str, fields: Sequence[str], template: object, schema: Schema) -> Sentence:
    where = f"dataset.text_template.{kind}"
    if template is None:
        article = "an" if kind[:1].lower() in "aeio" else "a"  # a user
        template = (
            f"In this situation, {{{FEATURES}}}." if kind == ROW else f"This is {article} {kind}, {{{FEATURES}}}."
        )
    text = checked(template, str, where)
    for key in PLACEHOLDER.findall(text):
        if key not in (*fields, FEATURES):
            known = [*fields, FEATURES]
            raise UserError(f"{where}: no field '{key}' of this entity. {nearest(key, known)}All: {', '.join(known)}")
    places = [schema.index(name) for name in fields]
    return Sentence(text, places, [schema.fields[i].text for i in places], list(fields))
