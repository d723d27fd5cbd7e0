# The real file makes the package that the extension index offers; the tests install without one.
