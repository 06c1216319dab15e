"""The user's own data on a connection: made when asked for, kept, replaceable."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gtask.net.context import ContextAttribute


class Holder:
    """What has a context, as a connection does."""

    def __init__(self) -> None:
        self._context = None
        self.made = 0

    @ContextAttribute
    def context(self) -> SimpleNamespace:
        self.made += 1
        return SimpleNamespace()


def test_it_is_made_when_it_is_asked_for_first():
    holder = Holder()
    assert holder.made == 0
    holder.context.name = "kept"
    assert holder.context.name == "kept"
    assert holder.made == 1


def test_each_connection_has_its_own():
    one, two = Holder(), Holder()
    assert one.context is not two.context


def test_it_may_be_replaced():
    holder = Holder()
    holder.context = {"any": "thing"}
    assert holder.context == {"any": "thing"}
    assert holder.made == 0


def test_it_cannot_be_deleted():
    with pytest.raises(AttributeError):
        del Holder().context


def test_the_class_gives_the_attribute_itself():
    assert isinstance(Holder.context, ContextAttribute)
