"""What moves when it is touched, in JupyterLab and other notebooks with widgets."""

from kvae.widgets.exploring import explore

__all__ = ["explore"]
