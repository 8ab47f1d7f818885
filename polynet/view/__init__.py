"""The learner's view: what was recorded, and the gradients that came back, as text and picture."""

from polynet.view.recorded import Line, Record, record

__all__ = ["Line", "Record", "record"]
