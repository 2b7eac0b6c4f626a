from .journal import Observer as Observer
from .pipeline import demo as demo
from .settings import DemoSettings as DemoSettings
from .settings import settings_for as settings_for
