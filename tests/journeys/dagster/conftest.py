"""The home, runtime and instance that the tests of the assets use."""

from tests.assets.conftest import engine, home, instance, one_look_a_tick

__all__ = ["engine", "home", "instance", "one_look_a_tick"]
