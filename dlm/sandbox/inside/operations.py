"""Operations that one end may request on an object of the other."""

from __future__ import annotations

import _operator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

BINARY: Final = (
    *("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "matmul", "truediv", "floordiv"),
    *("mod", "pow", "and_", "or_", "xor", "lshift", "rshift"),
)
"""Operators of two objects of one end. Whatever is plain is kept from them: it may be the value
that the tests expect, and the program must not be asked whether it has found it.
"""


def _of_class(name: str) -> Callable[..., Any]:
    return lambda value, *args: getattr(type(value), f"__{name}__")(value, *args)


def _copied(name: str) -> Callable[..., Any]:
    return lambda value: getattr(__import__("copy"), name)(value)


OPERATIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "call": lambda value, *args, **named: value(*args, **named),
    "getattr": getattr,
    "setattr": setattr,
    "delattr": delattr,
    "isinstance": isinstance,
    "len": len,
    "iter": iter,
    "next": next,
    "reversed": reversed,
    "getitem": _operator.getitem,
    "setitem": _operator.setitem,
    "delitem": _operator.delitem,
    "bool": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "index": _operator.index,
    "str": str,
    "repr": repr,
    "format": format,
    "dir": dir,
    "abs": abs,
    "neg": _operator.neg,
    "pos": _operator.pos,
    "invert": _operator.invert,
    "round": round,
    "trunc": _of_class("trunc"),
    "floor": _of_class("floor"),
    "ceil": _of_class("ceil"),
    "enter": _of_class("enter"),
    "exit": _of_class("exit"),
    "copy": _copied("copy"),
    "deepcopy": _copied("deepcopy"),
    **{name: getattr(_operator, name) for name in BINARY},
}
