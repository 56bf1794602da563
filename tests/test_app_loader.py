"""Finding the app that --app names, and one line for each way in which it is not there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mtserver.app import App, Handler
from mtserver.apps import collect, echo, log
from mtserver.errors import ConfigurationError
from mtserver.process.app_loader import load_app


class Loading(SynchronousTestCase):
    def setUp(self) -> None:
        """Works in a folder of its own, and leaves no trace of it."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(folder)
        self.folder = Path.cwd()
        self.patch(sys, "path", list(sys.path))
        self.patch(sys, "dont_write_bytecode", True)  # several modules of one name and second
        before = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - before])

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def refused(self, name: str, *words: str) -> str:
        error = self.assertRaises(ConfigurationError, load_app, name)
        text = str(error)
        self.assertTrue(text.startswith(f"--app {name}: "), text)
        for word in words:
            self.assertIn(word, text)
        return text

    def test_built_in(self) -> None:
        """The built-in apps have short names."""
        for name, module in (("collect", collect), ("echo", echo), ("log", log)):
            self.assertIs(load_app(name), module.app)

    def test_function(self) -> None:
        """A function becomes an App; it is found in the working directory."""
        self.write("shop_a.py", "def sell(client, message): pass\n")
        app = load_app("shop_a:sell")
        self.assertIsInstance(app, App)
        self.assertEqual(app.handler.__name__, "sell")
        self.assertEqual(sys.path[0], str(self.folder))

    def test_path_once(self) -> None:
        """The working directory is put on sys.path once, however many apps are loaded."""
        self.write("shop_b.py", "def sell(client, message): pass\n")
        load_app("shop_b:sell")
        load_app("shop_b:sell")
        self.assertEqual(sys.path.count(str(self.folder)), 1)

    def test_class(self) -> None:
        """A Handler class becomes an App; attributes may be nested, and modules too."""
        self.write("shops/__init__.py", "")
        self.write(
            "shops/tills.py",
            "from mtserver import Handler\n"
            "class Shop:\n    class Till(Handler):\n        def received(self, message): pass\n",
        )
        app = load_app("shops.tills:Shop.Till")
        self.assertTrue(isinstance(app.handler, type) and issubclass(app.handler, Handler))

    def test_app(self) -> None:
        """An App is served as it is, with its lifespan."""
        self.write("shop_c.py", "from mtserver import App\napp = App(lambda client, message: None, lifespan=print)\n")
        app = load_app("shop_c:app")
        self.assertIs(app, sys.modules["shop_c"].app)
        self.assertIs(app.lifespan, print)

    def test_lifespan(self) -> None:
        """A lifespan that does not take the app is found before anything is opened."""
        self.write(
            "shop_l.py", "from mtserver import App\napp = App(lambda client, message: None, lifespan=lambda: None)\n"
        )
        self.refused("shop_l:app", "cannot be called as lifespan(app)")

    def test_form(self) -> None:
        """What is neither built in nor module:attribute is told what there is."""
        for name in ("", "shop", "shop:", ":sell", "colect"):
            self.assertEqual(
                self.refused(name), f"--app {name}: neither one of collect, echo, log, chat nor module:attribute"
            )

    def test_no_module(self) -> None:
        """A module that is not there is named; of a package's, the part that is missing."""
        self.write("shops_d/__init__.py", "")
        self.assertEqual(self.refused("shop_d:sell"), "--app shop_d:sell: there is no module 'shop_d'")
        self.assertTrue(self.refused("shops_d.tills:sell").endswith("there is no module 'shops_d.tills'"))
        self.assertTrue(self.refused("shop_d.tills:sell").endswith("there is no module 'shop_d'"))

    def test_no_attribute(self) -> None:
        """An attribute that is not there is named with what lacks it, be that a module, a class or an object."""
        self.write("shop_e.py", "class Shop: pass\nshop = Shop()\n")
        for attribute, owner, part in (
            ("till", "shop_e", "till"),
            ("Shop.till", "Shop", "till"),
            ("shop.till", "Shop", "till"),
            ("nothing.till", "shop_e", "nothing"),
        ):
            name = f"shop_e:{attribute}"
            self.assertEqual(self.refused(name), f"--app {name}: {owner!r} has no attribute {part!r}")

    def test_missing_import(self) -> None:
        """A module that imports what is not installed is told apart from one that is not there; with the place."""
        path = self.write("shop_f.py", "\nimport no_such_library\n")
        self.refused("shop_f:sell", "importing it failed: No module named 'no_such_library'", f"({path}, line 2)")

    def test_import_raises(self) -> None:
        """Whatever importing raises, also an exit, is one line with the place."""
        for index, statement in enumerate(("1 / 0", "raise SystemExit('bye')", "import os.nothing")):
            path = self.write(f"shop_g{index}.py", f"\n\n{statement}\n")
            text = self.refused(f"shop_g{index}:sell", "importing it failed: ", f" ({path}, line 3)")
            self.assertNotIn("\n", text)
        self.refused("shop_g0:sell", "ZeroDivisionError: division by zero")
        self.refused("shop_g1:sell", "SystemExit: bye")

    def test_syntax(self) -> None:
        """A syntax error says itself where it is, and says it once."""
        self.write("shop_h.py", "\ndef sell(:\n")
        text = self.refused("shop_h:sell", "importing it failed: SyntaxError: ", "shop_h.py, line 2")
        self.assertEqual(text.count("line 2"), 1)

    def test_relative(self) -> None:
        """A relative name, which cannot be imported, is a mistake like others."""
        self.refused(".shop:sell", "importing it failed: TypeError: ")

    def test_interrupted(self) -> None:
        """Ctrl-C while a module is imported is not the module's mistake."""
        self.write("shop_i.py", "raise KeyboardInterrupt\n")
        self.assertRaises(KeyboardInterrupt, load_app, "shop_i:sell")

    def test_unservable(self) -> None:
        """An app that cannot be served is refused here, with the option's name."""
        self.write("shop_j.py", "from mtserver import App\nnumber = 5\ndef f(): pass\napp = App(f)\n")
        self.refused("shop_j:number", "5 is neither a function, a Handler class nor an App")
        self.refused("shop_j:f", "f cannot be called as (client, message)")
        self.refused("shop_j:app", "f cannot be called as (client, message)")
