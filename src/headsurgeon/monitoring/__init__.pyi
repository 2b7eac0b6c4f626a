from .monitor import HeadMonitor as HeadMonitor
