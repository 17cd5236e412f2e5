"""The home, runtime and instance that the tests of the assets use."""

from tests.assets.conftest import home, instance, one_look_a_tick, runtime

__all__ = ["home", "instance", "one_look_a_tick", "runtime"]
