from .corpora import documents as documents
from .document import Document as Document
from .splits import SPLITS as SPLITS
from .splits import Split as Split
from .splits import split_of as split_of
from .windowing import Windows as Windows
from .windowing import as_windows as as_windows
from .windowing import windows as windows
