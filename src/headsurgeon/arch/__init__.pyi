from .layout import Block as Block
from .layout import Layout as Layout
from .layout import Projection as Projection
from .registry import FAMILIES as FAMILIES
from .registry import layout_for as layout_for
from .registry import layout_of as layout_of
