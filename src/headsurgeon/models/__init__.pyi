from .catalogue import ZOO as ZOO
from .catalogue import ZooModel as ZooModel
from .loading import load as load
