"""Conditions as text, for the command line and wherever a person writes them by hand; each condition has one, and reads back as itself.

    Modality = CT and SliceThickness <= 1.5 and has finding (label = liver and volume_ml > 1200 and whole = true)

| text | meaning |
|---|---|
| ``a and b``, ``a or b``, ``not a``, ``( )`` | ``and`` binds closer than ``or``; ``all(a, b)`` and ``any(a, b)`` are the same by another name |
| ``Modality = CT``, ``Modality != CT``, ``Modality in (CT, MR)`` | one of these values |
| ``x < 1``, ``<=``, ``>``, ``>=``; ``x from 1 to 2``, ``x above 1 below 2`` | numbers, dates and times; ``from`` and ``to`` include the bound |
| ``every SliceThickness <= 1.5`` | of a field with several values: all of them |
| ``x is present`` | it has a value |
| ``SeriesDescription contains portal``, ``… resembles portl`` | text inside of text; ``resembles`` also with letters wrong |
| ``has finding (…)``, ``has at least 2 series (…)``, ``has study`` | what belongs to the entity, or what it belongs to |
| ``followed (…) by (…) within 30 to 180 days``; ``within 180 days``; ``after 30 days`` | of a subject: two studies |

Words need quotes (single or double; doubled inside) where they hold spaces or signs, where they are words of this language, or where text looks like a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from anamnesis.client.conditions import LEVELS, Condition, Field, all_of, any_of, field, followed, has
from anamnesis.client.errors import ConditionUnreadable

_TOKEN = re.compile(r"""\s*(?:(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<sign><=|>=|!=|[=<>(),])|(?P<word>[^\s'"=<>!(),]+))""")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_BARE = re.compile(r"[^\s'\"=<>!(),]+")
_RANGE_WORDS = {"from": "at_least", "above": "more_than", "to": "at_most", "below": "less_than"}
_RANGE_SIGNS = {">=": "at_least", ">": "more_than", "<=": "at_most", "<": "less_than"}
_WORDS = {"and", "or", "not", "all", "any", "every", "has", "followed", "in", "is", "contains", "resembles", "by", "within", "after", "days", "true", "false", *_RANGE_WORDS}
_PLURALS = {"subjects": "subject", "studies": "study", "instances": "instance", "findings": "finding", "facts": "fact", "tags": "tag"}
_DEEPEST = 100
"""Conditions within conditions; deeper ones are a mistake, or meant to exhaust somebody's stack."""


class _Token(NamedTuple):
    kind: str
    text: str
    column: int

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text.lower() in words


def parse(text: str) -> Condition:
    """Raises ConditionUnreadable."""
    return _Reader(text).whole()


def write(condition: Condition) -> str:
    """One text for one condition: ``parse`` gives the same condition back."""
    return _written(condition.to_json(), 0)


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def whole(self) -> Condition:
        read = self._condition()
        if self._next.kind != "end":
            self._unexpected("and, or, or the end")
        return read

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _condition(self) -> Condition:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ConditionUnreadable(f"conditions lie more than {_DEEPEST} deep within one another", self._next.column)
        read = self._list_of("or", lambda: self._list_of("and", self._negation, all_of), any_of)
        self._depth -= 1
        return read

    def _list_of(self, word: str, one: Callable[[], Condition], join: Callable[..., Condition]) -> Condition:
        read = [one()]
        while self._next.is_word(word):
            self._take()
            read.append(one())
        return read[0] if len(read) == 1 else join(*read)

    def _negation(self) -> Condition:
        negations = 0
        while self._next.is_word("not"):
            self._take()
            negations += 1
        read = self._primary()
        for _ in range(negations):
            read = ~read
        return read

    def _primary(self) -> Condition:
        following = self._tokens[min(self._at + 1, len(self._tokens) - 1)]
        if self._next.kind == "sign" and self._next.text == "(":
            return self._in_parentheses()
        if self._next.is_word("all", "any") and following.kind == "sign" and following.text == "(":
            join = all_of if self._take().is_word("all") else any_of
            return join(*self._listed(self._condition))
        if self._next.is_word("has"):
            return self._has()
        if self._next.is_word("followed"):
            return self._followed()
        every = self._next.is_word("every")
        if every:
            self._take()
        name = self._text("the name of a field")
        return self._comparison(Field(name, every=True) if every else field(name), every=every)

    def _in_parentheses(self) -> Condition:
        self._sign("(")
        read = self._condition()
        self._sign(")")
        return read

    def _has(self) -> Condition:
        self._take()
        at_least = 1
        if self._next.is_word("at"):
            self._take()
            self._word("least")
            at_least = self._count()
        level = self._take()
        name = _PLURALS.get(level.text.lower(), level.text.lower())
        if level.kind != "word" or name not in LEVELS:
            raise ConditionUnreadable(f"has is followed by one of {', '.join(LEVELS)}, not by {level.text!r}", level.column)
        where = self._in_parentheses() if self._next == _Token("sign", "(", self._next.column) else None
        return has(name, where, at_least=at_least)

    def _followed(self) -> Condition:
        self._take()
        baseline = self._in_parentheses()
        self._word("by")
        follow_up = self._in_parentheses()
        least, most = 1, None
        if self._next.is_word("after"):
            self._take()
            least = self._count()
            self._word("days")
        elif self._next.is_word("within"):
            self._take()
            most = self._count()
            if self._next.is_word("to"):
                self._take()
                least, most = most, self._count()
            self._word("days")
        return followed(baseline, follow_up, at_least_days=least, at_most_days=most)

    def _comparison(self, of: Field, *, every: bool) -> Condition:
        token = self._take()
        if token.kind == "sign" and token.text in _RANGE_SIGNS:
            return of.between(**{_RANGE_SIGNS[token.text]: self._bound()})
        if token.is_word(*_RANGE_WORDS):
            return self._range(of, token)
        if every:
            raise ConditionUnreadable("every is asked of a range: <, <=, >, >=, from, to, above, below", token.column)
        if token.kind == "sign" and token.text in ("=", "!="):
            equal = of.one_of([self._value()])
            return equal if token.text == "=" else ~equal
        if token.is_word("in"):
            return of.one_of(self._listed(self._value))
        if token.is_word("is"):
            self._word("present")
            return of.present()
        if token.is_word("contains", "resembles"):
            return of.contains(self._text("text"), tolerant=token.is_word("resembles"))
        self._at -= 1
        self._unexpected("=, !=, <, <=, >, >=, in, from, to, above, below, contains, resembles, or is present")

    def _range(self, of: Field, token: _Token) -> Condition:
        bounds = {_RANGE_WORDS[token.text.lower()]: self._bound()}
        while self._next.is_word(*_RANGE_WORDS):
            word = self._take()
            if (name := _RANGE_WORDS[word.text.lower()]) in bounds:
                raise ConditionUnreadable(f"{word.text} is there twice", word.column)
            bounds[name] = self._bound()
        return of.between(**bounds)

    def _listed(self, one: Callable[[], Any]) -> list[Any]:
        self._sign("(")
        read: list[Any] = []
        while not (self._next.kind == "sign" and self._next.text == ")"):
            if read:
                self._sign(",")
            read.append(one())
        self._sign(")")
        return read

    def _value(self) -> str | float | bool:
        token = self._next
        if token.is_word("true", "false"):
            return self._take().text.lower() == "true"
        if token.kind == "word" and (number := _number(token.text)) is not None:
            self._take()
            return number
        return self._text("a value")

    def _bound(self) -> str | float:
        column = self._next.column
        value = self._value()
        if isinstance(value, bool):
            raise ConditionUnreadable("a bound is a number, a date or a time", column)
        return value

    def _count(self) -> int:
        token = self._take()
        if token.kind != "word" or not re.fullmatch(r"\d{1,9}", token.text):
            raise ConditionUnreadable(f"a whole number is expected, not {_shown(token)}", token.column)
        return int(token.text)

    def _text(self, what: str) -> str:
        token = self._next
        if token.kind == "quoted":
            return self._take().text
        if token.kind != "word" or token.text.lower() in _WORDS:
            self._unexpected(what)
        return self._take().text

    def _word(self, word: str) -> None:
        if not self._next.is_word(word):
            self._unexpected(word)
        self._take()

    def _sign(self, sign: str) -> None:
        if self._next.kind != "sign" or self._next.text != sign:
            self._unexpected(sign)
        self._take()

    def _unexpected(self, expected: str) -> NoReturn:
        token = self._next
        quoted = " (words of this language are quoted where they are meant as text)" if token.is_word(*_WORDS) else ""
        raise ConditionUnreadable(f"{expected} is expected, not {_shown(token)}{quoted}", token.column)


def _tokens(text: str) -> list[_Token]:
    found, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            column = at + len(text[at:]) - len(text[at:].lstrip()) + 1
            what = "this quote is not closed" if text[column - 1] in "'\"" else f"{text[column - 1]!r} means nothing here"
            raise ConditionUnreadable(what, column)
        kind = match.lastgroup or ""
        value = match[kind]
        if kind == "quoted":
            value = value[1:-1].replace(value[0] * 2, value[0])
        found.append(_Token(kind, value, match.start(kind) + 1))
        at = match.end()
    found.append(_Token("end", "", len(text) + 1))
    return found


def _shown(token: _Token) -> str:
    return "the end" if token.kind == "end" else repr(token.text)


def _number(text: str) -> float | None:
    return json.loads(text) if _NUMBER.fullmatch(text) else None


_LOOSE, _IN_OR, _IN_AND, _IN_NOT = range(4)


def _written(node: dict[str, Any], binding: int) -> str:
    """``binding``: how closely what stands around binds; parentheses where it is closer."""
    kind = node["is"]
    if kind in ("all", "any"):
        parts = node["of"]
        if len(parts) < 2:
            return f"{kind}({', '.join(_written(part, _LOOSE) for part in parts)})"
        word, own = ("and", _IN_AND) if kind == "all" else ("or", _IN_OR)
        text = f" {word} ".join(_written(part, own) for part in parts)
        return f"({text})" if binding >= own else text
    if kind == "not":
        inner = node["of"]
        if inner["is"] == "one-of" and len(inner["values"]) == 1:
            return f"{_quoted(inner['field'], as_value=False)} != {_value_written(inner['values'][0])}"
        return f"not {_written(node['of'], _IN_NOT)}"
    if kind == "has":
        many = f"at least {node['at_least']} " if "at_least" in node else ""
        return f"has {many}{node['level']}" + (f" ({_written(node['where'], _LOOSE)})" if node.get("where") else "")
    if kind == "followed":
        text = f"followed ({_written(node['baseline'], _LOOSE)}) by ({_written(node['follow_up'], _LOOSE)})"
        return text + _days(node.get("at_least_days", 1), node.get("at_most_days"))
    return _comparison_written(node)


def _days(least: int, most: int | None) -> str:
    if most is None:
        return "" if least == 1 else f" after {least} days"
    return f" within {most} days" if least == 1 else f" within {least} to {most} days"


def _comparison_written(node: dict[str, Any]) -> str:
    name = _quoted(node["field"], as_value=False)
    match node["is"]:
        case "one-of" if len(node["values"]) == 1:
            return f"{name} = {_value_written(node['values'][0])}"
        case "one-of":
            return f"{name} in ({', '.join(_value_written(value) for value in node['values'])})"
        case "present":
            return f"{name} is present"
        case "contains":
            return f"{name} {'resembles' if node.get('tolerant') else 'contains'} {_quoted(node['text'], as_value=False)}"
        case "between":
            every = "every " if node.get("every") else ""
            bounds = [key for key in ("at_least", "more_than", "at_most", "less_than") if node.get(key) is not None]
            words = _RANGE_SIGNS if len(bounds) == 1 else _RANGE_WORDS
            by_key = {key: word for word, key in words.items()}
            return f"{every}{name} " + " ".join(f"{by_key[key]} {_value_written(node[key])}" for key in bounds)
    raise ValueError(f"{node['is']!r} is no kind of condition")


def _value_written(value: str | float | bool) -> str:
    return _quoted(value, as_value=True) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str, *, as_value: bool) -> str:
    is_plain = _BARE.fullmatch(text) and text.lower() not in _WORDS and not (as_value and _NUMBER.fullmatch(text))
    return text if is_plain else "'" + text.replace("'", "''") + "'"
