"""Finding what ``--app`` names: a built-in app, or ``module:attribute``, looked up from the working directory too."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import traceback
from typing import Any

from mtserver.app import App
from mtserver.dispatch.plan import check_call, plan
from mtserver.errors import ConfigurationError
from mtserver.settings import DEFAULTS, Settings

BUILT_IN = ("collect", "echo", "log", "chat")


def load_apps(settings: Settings) -> list[App]:
    """
    The app of each port, in the order of the settings' `listens`; one that several ports name is one app.

    :raises ConfigurationError: one line that says what is wrong, and where.
    """
    loaded: dict[str, App] = {}
    apps = []
    for listen in settings.listens:
        own = dataclasses.replace(settings, framing=listen.framing)
        if listen.app in loaded:
            check_app(loaded[listen.app], listen.app, own)
        else:
            loaded[listen.app] = load_app(listen.app, own)
        apps.append(loaded[listen.app])
    return apps


def load_app(name: str, settings: Settings = DEFAULTS) -> App:
    """
    The app called `name`, checked to be servable.

    :param name: ``collect``, or ``shop:Till``, or ``shop:tills.Small``.
    :param settings: what it is to be servable with.
    :raises ConfigurationError: one line that says what is wrong, and where.
    """
    if name in BUILT_IN:
        found = importlib.import_module(f"mtserver.apps.{name}").app
    else:
        module, colon, attribute = name.partition(":")
        if not (module and colon and attribute):
            raise ConfigurationError(f"--app {name}: neither one of {', '.join(BUILT_IN)} nor module:attribute")
        found = _attribute(_module(module, name), attribute, name)
    app = found if isinstance(found, App) else App(found)
    check_app(app, name, settings)
    return app


def check_app(app: App, name: str, settings: Settings) -> None:
    """:class:`~mtserver.errors.ConfigurationError` where this app, called `name`, cannot be served."""
    try:
        plan(app.handler, settings)
        if app.lifespan is not None:
            check_call(app.lifespan, ("app",), "lifespan(app)")
    except ConfigurationError as error:
        raise ConfigurationError(f"--app {name}: {error}") from None


def _module(module: str, name: str) -> Any:
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            raise ConfigurationError(f"--app {name}: there is no module {error.name!r}") from None
        raise ConfigurationError(f"--app {name}: importing it failed: {error}{_place(error)}") from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigurationError(
            f"--app {name}: importing it failed: {type(error).__name__}: {error}{_place(error)}"
        ) from error


def _attribute(found: Any, attribute: str, name: str) -> Any:
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            owner = getattr(found, "__name__", type(found).__name__)
            raise ConfigurationError(f"--app {name}: {owner!r} has no attribute {part!r}") from None
    return found


def _place(error: BaseException) -> str:
    """Where in the user's code it happened, since one line has no room for a traceback."""
    if isinstance(error, SyntaxError):
        return ""  # its text says where
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
