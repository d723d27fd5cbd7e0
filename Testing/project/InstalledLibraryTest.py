"""Run inside Slicer by ctest: the extension's library is complete where it is installed."""

from __future__ import annotations

import importlib
import pkgutil
import unittest


class InstalledLibraryTest(unittest.TestCase):
    """What `import COVIDMultitaskLib` finds."""

    def test_every_module_can_be_imported(self) -> None:
        import COVIDMultitaskLib

        modules = [module.name for module in pkgutil.walk_packages(COVIDMultitaskLib.__path__, "COVIDMultitaskLib.")]
        self.assertIn("COVIDMultitaskLib.engines.contract", modules)
        for name in modules:
            if name.endswith("__main__"):
                continue
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:  # torch comes with Slicer's PyTorch extension, rich is not in Slicer
                self.assertFalse(str(error.name).startswith("COVIDMultitaskLib"), f"{name}: {error}")

    def test_resources_are_found(self) -> None:
        from COVIDMultitaskLib.resources import resources_dir

        self.assertTrue((resources_dir() / "Bundles").is_dir())
        self.assertTrue(list((resources_dir() / "Terminology").glob("*.term.json")))
