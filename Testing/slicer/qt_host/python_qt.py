"""The modules ``qt`` and ``ctk``: PySide6 behind PythonQt's manners.

Qt properties are attributes, signals are connected by their signature, and a listener gets as many
arguments as it takes.
"""

from __future__ import annotations

import ctypes
import inspect
import sys
import types

from PySide6 import QtCore, QtGui, QtWidgets

if sys.version_info < (3, 12):
    # PySide6 6.12 gives one reference to None too many away at each call of a method that returns nothing; where
    # None is not immortal yet, Python ends after some ten thousand calls. So give None more than can be used up.
    ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40

errors: list[BaseException] = []
"""What listeners raised; Qt would only print it."""


class Proxy:
    """A Qt object as PythonQt shows it."""

    def __init__(self, target: QtCore.QObject) -> None:
        object.__setattr__(self, "_target", target)

    def __getattr__(self, name: str):
        target = self._target
        if target.metaObject().indexOfProperty(name) >= 0:
            return wrap(target.property(name))
        value = getattr(target, name)
        return _method(value) if callable(value) else value

    def __setattr__(self, name: str, value) -> None:
        if self._target.metaObject().indexOfProperty(name) < 0:
            raise AttributeError(f"{type(self._target).__name__} has no property {name!r}")
        if not self._target.setProperty(name, unwrap(value)):
            raise TypeError(f"{type(self._target).__name__}.{name} cannot be {value!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and other._target is self._target

    def __hash__(self) -> int:
        return hash(id(self._target))

    def __bool__(self) -> bool:
        """A layout is false while all that it holds is hidden, as what has ``isEmpty`` is in newer versions."""
        return not (isinstance(self._target, QtWidgets.QLayout) and self._target.isEmpty())

    @property
    def name(self) -> str:
        return self._target.objectName()

    def connect(self, signature: str, slot) -> bool:
        connectSignal(self._target, signature, slot)
        return True


def connectSignal(target: QtCore.QObject, signature: str, slot) -> None:
    """:raises ValueError: when the object has no such signal."""
    meta = target.metaObject()
    name = signature.split("(")[0]
    methods = [meta.method(index) for index in range(meta.methodCount())]
    signals = [
        bytes(method.methodSignature()).decode()
        for method in methods
        if method.methodType() == QtCore.QMetaMethod.MethodType.Signal and bytes(method.name()).decode() == name
    ]
    own = [known for known in signals if "PyObject" in known]  # of the widgets here
    wanted = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
    if own:
        getattr(target, name).connect(_listener(slot))
    elif wanted in signals:
        QtCore.QObject.connect(target, QtCore.SIGNAL(wanted), _listener(slot))
    else:
        raise ValueError(f"{type(target).__name__} has no signal {signature}; it has {signals}")


def _listener(slot):
    """Called with as many arguments as ``slot`` takes; what it raises is kept."""
    parameters = inspect.signature(slot).parameters.values()
    takesAll = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    number = sum(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)

    def listen(*arguments) -> None:
        try:
            slot(*map(wrap, arguments if takesAll else arguments[:number]))
        except BaseException as error:
            errors.append(error)

    return listen


def _method(bound):
    def call(*arguments):
        return wrap(bound(*map(unwrap, arguments)))

    return call


def wrap(value):
    if isinstance(value, QtCore.QObject):
        return Proxy(value)
    if isinstance(value, (list, tuple)):
        return type(value)(wrap(item) for item in value)
    return value


def unwrap(value):
    if isinstance(value, Proxy):
        return value._target
    if isinstance(value, (list, tuple)):
        return type(value)(unwrap(item) for item in value)
    return value


class Class:
    """A Qt class: called, it makes a proxy; its enumerations and static functions are attributes."""

    def __init__(self, target: type) -> None:
        self._target = target

    def __call__(self, *arguments) -> Proxy:
        return Proxy(self._target(*map(unwrap, arguments)))

    def __getattr__(self, name: str):
        value = getattr(self._target, name)
        return _method(value) if callable(value) and not isinstance(value, type) else value


class QtModule(types.ModuleType):
    """``qt``: all of Qt's classes in one module; tests replace what would open a dialog."""

    def __getattr__(self, name: str):
        for module in (QtWidgets, QtGui, QtCore):
            if hasattr(module, name):
                found = getattr(module, name)
                isObject = isinstance(found, type) and issubclass(found, QtCore.QObject)
                return Class(found) if isObject else found
        raise AttributeError(f"Qt has no {name}")
