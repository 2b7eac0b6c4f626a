"""The whole way on one model: diagnosis, plan, surgery, control, ceiling, verdict, pictures."""

from headsurgeon.demo.journal import Observer
from headsurgeon.demo.pipeline import demo
from headsurgeon.demo.settings import DemoSettings, settings_for

__all__ = ["DemoSettings", "Observer", "demo", "settings_for"]
