"""What the process's log says of an error: its class and place, and nothing of what it met."""

from __future__ import annotations

import logging

from server.log_format import LINE, PlacesOnly


def written(error: BaseException) -> str:
    record = logging.LogRecord("server", logging.ERROR, __file__, 1, "GET failed", (), (type(error), error, error.__traceback__))
    return PlacesOnly(LINE).format(record)


def raised() -> BaseException:
    try:
        try:
            int("Doe^Jane")
        except ValueError as error:
            raise KeyError("MRN123") from error
    except KeyError as error:
        return error
    raise AssertionError


def test_class_and_place_are_there_and_the_text_is_not() -> None:
    text = written(raised())
    assert "builtins.KeyError" in text and "builtins.ValueError" in text
    assert "test_log_format.py" in text and "raised" in text
    assert "Doe" not in text and "MRN123" not in text


def test_members_of_a_group_are_shown() -> None:
    text = written(ExceptionGroup("MRN123", [raised()]))  # type: ignore[list-item]
    assert "KeyError" in text and "MRN123" not in text
